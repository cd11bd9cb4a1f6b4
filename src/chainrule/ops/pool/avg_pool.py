"""Average pooling and its gradient: `avg_unpool2d` spreads a cotangent over its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import case
from chainrule.graph.dims import Shape, format_shape
from chainrule.graph.lowering import Indexed
from chainrule.graph.op import Array, Op, Spec, Trait, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor
from chainrule.ops._window import Padding, Pads, Pair, tap, window_count
from chainrule.ops.pool import windows

__all__ = ["avg_pool2d", "avg_unpool2d"]


def avg_pool2d(
    x: Any,
    size: int | Sequence[int] = 2,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    count_padding: bool = False,
) -> Tensor:
    """Mean over windows of each channel.

    Args:
        x: ``(batch, height, width, channels)``.
        size, stride, padding: as in `max_pool2d`.
        count_padding: divide by the whole window (PyTorch's default) rather than by the part of it that
            lies in the image (Keras's).

    Gradient: each element of a window gets ``dy / count`` (`avg_unpool2d`).

    Raises:
        ShapeError: wrong rank, an empty output, or a window that sees padding only.

    >>> import chainrule as cr
    >>> cr.ops.avg_pool2d(cr.tensor([[[[1.0], [5.0]], [[2.0], [4.0]]]]), 2).item()
    3.0
    """
    x = as_tensor(x)
    return apply(AVG_POOL2D, x, count_padding=bool(count_padding), **windows.attributes(x, size, stride, padding))


def avg_unpool2d(g: Any, input_shape: Shape, count_padding: bool = False, **window: Any) -> Tensor:
    """Spread each value of g evenly over its window, and add: the gradient of `avg_pool2d`.

    Gradient: ``dg = avg_pool2d(ddx)``.

    >>> import chainrule as cr
    >>> g = cr.tensor([[[[8.0]]]])
    >>> cr.ops.avg_unpool2d(g, (1, 2, 2, 1), size=(2, 2), stride=(2, 2)).numpy().ravel().tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    return apply(
        AVG_UNPOOL2D,
        as_tensor(g),
        input_shape=tuple(input_shape),
        count_padding=bool(count_padding),
        **windows.explicit(window),
    )


def _avg_pool_spec(x: Spec, *, count_padding: bool, **window: Any) -> Spec:
    return windows.pool_spec(x, **window)


def _avg_unpool_spec(g: Spec, *, input_shape: Shape, count_padding: bool, **window: Any) -> Spec:
    x = Spec(input_shape, g.dtype)
    if windows.pool_spec(x, **window) != g:
        raise ShapeError(f"{g} is not what pooling {format_shape(input_shape)} gives")
    return x


def _divisor(shape: Sequence[int], size: Pair, stride: Pair, pads: Pads, count_padding: bool, dtype: Any) -> Array:
    """What each window divides by: ``(1, out_height, out_width, 1)``."""
    count = window_count(shape[1:3], size, stride, pads, windows.ONE)
    if count_padding:
        return np.full((1, *count, 1), size[0] * size[1], dtype)
    inside = windows.image_mask(shape, pads).astype(dtype)
    total = np.zeros((1, *count, 1), dtype)
    for u, v in np.ndindex(size):
        total += tap(inside, (u, v), count, stride, windows.ONE)
    return total


def _avg_pool_reference(x: Array, *, size: Pair, stride: Pair, pads: Pads, count_padding: bool) -> Array:
    count = window_count(x.shape[1:3], size, stride, pads, windows.ONE)
    padded = windows.pad_image(x, pads)
    total = np.zeros((x.shape[0], *count, x.shape[3]), x.dtype)
    for u, v in np.ndindex(size):
        total += tap(padded, (u, v), count, stride, windows.ONE)
    return total / _divisor(x.shape, size, stride, pads, count_padding, x.dtype)


def _avg_unpool_reference(
    g: Array, *, input_shape: tuple[int, ...], size: Pair, stride: Pair, pads: Pads, count_padding: bool
) -> Array:
    (top, bottom), (left, right) = pads
    batch, height, width, channels = input_shape
    share = g / _divisor(input_shape, size, stride, pads, count_padding, g.dtype)
    result = np.zeros((batch, height + top + bottom, width + left + right, channels), g.dtype)
    for u, v in np.ndindex(size):
        target = tap(result, (u, v), (g.shape[1], g.shape[2]), stride, windows.ONE)
        target += share
    return result[:, top : top + height, left : left + width]


def _avg_pool_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (apply(AVG_UNPOOL2D, g, input_shape=node.inputs[0].shape, **node.attrs),)


def _avg_unpool_vjp(node: Node, dx: Tensor) -> tuple[Tensor]:
    return (apply(AVG_POOL2D, dx, count_padding=node.attrs["count_padding"], **windows.attributes_of(node)),)


def _window_elements(
    k: Any, i: Any, j: Any, shape: Shape, size: Pair, stride: Pair, pads: Pads, count_padding: bool, dtype: Any
) -> Any:
    """What the window (i, j) divides by."""
    if count_padding:
        return k.constant(size[0] * size[1], dtype)
    total = k.constant(1, "int64")
    for axis, window in enumerate((i, j)):
        start = window * stride[axis] - pads[axis][0]
        end = start + size[axis]
        missing = k.maximum(-start, 0) + k.maximum(end - k.size(shape[axis + 1]), 0) if any(pads[axis]) else 0
        total = total * (size[axis] - missing)
    return k.cast(total, dtype)


def _avg_pool_element(k: Any, point: Any, x: Any, *, size: Pair, stride: Pair, pads: Pads, count_padding: bool) -> Any:
    def step(offset: Any, held: Any) -> Any:
        return (held[0] + windows.element(k, x, point, offset, stride, pads, 0)[1],)

    _, i, j, _ = point
    (total,) = k.fold(size, (k.constant(0, x.dtype),), step)
    return total / _window_elements(k, i, j, x.shape, size, stride, pads, count_padding, x.dtype)


def _avg_unpool_element(
    k: Any, point: Any, g: Any, *, input_shape: Shape, size: Pair, stride: Pair, pads: Pads, count_padding: bool
) -> Any:
    total = k.constant(0, g.dtype)
    for there, window, _ in windows.covering(k, point, g.shape[1:3], size, stride, pads):
        _, i, j, _ = window
        elements = _window_elements(k, i, j, input_shape, size, stride, pads, count_padding, g.dtype)
        total = k.guard(there, total + g[window] / elements, total)
    return total


_COUNTED = [(window, counted) for window in windows.CASES for counted in (False, True)]

AVG_POOL2D = register(
    Op(
        "avg_pool2d",
        avg_pool2d,
        _avg_pool_spec,
        _avg_pool_reference,
        _avg_pool_vjp,
        windows.flops,
        traits=windows.LINEAR | {Trait.REDUCTION},
        cases=tuple(case(x, name=name, count_padding=counted, **window) for (name, x, window), counted in _COUNTED),
        lowering=(Indexed(_avg_pool_element, cheap=False),),
    )
)
AVG_UNPOOL2D = register(
    Op(
        "avg_unpool2d",
        avg_unpool2d,
        _avg_unpool_spec,
        _avg_unpool_reference,
        _avg_unpool_vjp,
        windows.flops,
        traits=windows.LINEAR,
        cases=tuple(
            case(windows.pooled_shape(x, window), name=name, input_shape=x, count_padding=counted, **window)
            for (name, x, window), counted in _COUNTED
        ),
        lowering=(Indexed(_avg_unpool_element),),
    )
)
