"""Max pooling and its gradients.

It has no parameters.  `max_pool2d` also gives the position of each maximum, so its gradient, `max_unpool2d`, only has
to put each cotangent there; reading back from there, `max_pool2d_gather`, is the gradient of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, case, convention
from chainrule.graph.dims import Shape, Size, format_shape
from chainrule.graph.lowering import Attrs, Indexed, Placement
from chainrule.graph.op import Array, Op, Spec, Trait, register
from chainrule.graph.tensor import Node, Tensor, apply, apply_all, as_tensor, lift
from chainrule.ops._window import Padding, Pads, Pair, tap, window_count
from chainrule.ops.pool import windows

__all__ = ["max_pool2d", "max_pool2d_gather", "max_unpool2d"]


def max_pool2d(
    x: Any,
    size: int | Sequence[int] = 2,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "valid",
    *,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of each channel.

    ``y[n, i, j, c] = max over 0 <= u, v < size of x[n, i*s + u - p, j*s + v - p, c]``; padding never wins.

    Args:
        x: ``(batch, height, width, channels)``.
        size: the window, one integer or (height, width).
        stride: step of the window; the window's size by default.
        padding: as in `conv2d`; every window must touch the image.
        return_indices: also give the position of each maximum in its window, ``u * width + v`` (int32).

    Returns:
        ``(batch, out_height, out_width, channels)``, or that and the positions.

    Gradient: dy goes to the maximum's position (`max_unpool2d`); at a tie to the first in row-major order.
    A NaN in the window is the maximum, and gets the gradient.

    Raises:
        ShapeError: wrong rank, an empty output, or a window that sees padding only.

    >>> import chainrule as cr
    >>> x = cr.tensor([[[[1.0], [5.0]], [[2.0], [3.0]]]])
    >>> cr.ops.max_pool2d(x, 2).item()
    5.0
    """
    x = as_tensor(x)
    outputs = apply_all(MAX_POOL2D, x, **windows.attributes(x, size, stride, padding))
    return outputs if return_indices else outputs[0]


def max_unpool2d(g: Any, indices: Any, input_shape: Shape, **window: Any) -> Tensor:
    """Put each value of g at the position of its window's maximum, and add: the gradient of `max_pool2d`.

    Gradient: ``dg = max_pool2d_gather(ddx, indices)``.

    Args:
        g: ``(batch, out_height, out_width, channels)``.
        indices: positions from ``max_pool2d(..., return_indices=True)``.
        input_shape: shape of the pooled tensor.
        window: ``size``, ``stride`` and ``pads`` as explicit pairs.

    >>> import chainrule as cr
    >>> x = cr.tensor([[[[1.0], [5.0]], [[2.0], [3.0]]]])
    >>> y, where = cr.ops.max_pool2d(x, 2, return_indices=True)
    >>> cr.ops.max_unpool2d(y, where, x.shape, size=(2, 2), stride=(2, 2)).numpy().ravel().tolist()
    [0.0, 5.0, 0.0, 0.0]
    """
    return apply(MAX_UNPOOL2D, *lift(g, indices), input_shape=tuple(input_shape), **windows.explicit(window))


def max_pool2d_gather(x: Any, indices: Any, **window: Any) -> Tensor:
    """Read x at the positions of other maxima: the gradient of `max_unpool2d`, and linear in x.

    Gradient: ``dx = max_unpool2d(dy, indices)``.

    >>> import chainrule as cr
    >>> x = cr.tensor([[[[1.0], [5.0]], [[2.0], [3.0]]]])
    >>> _, where = cr.ops.max_pool2d(x, 2, return_indices=True)
    >>> cr.ops.max_pool2d_gather(x * 10, where, size=(2, 2), stride=(2, 2)).item()
    50.0
    """
    return apply(MAX_POOL2D_GATHER, *lift(x, indices), **windows.explicit(window))


def _max_pool_spec(x: Spec, **window: Any) -> tuple[Spec, Spec]:
    y = windows.pool_spec(x, **window)
    return y, y.with_dtype("int32")


def _unpool_spec(g: Spec, indices: Spec, *, input_shape: Shape, **window: Any) -> Spec:
    x = Spec(input_shape, g.dtype)
    if _max_pool_spec(x, **window) != (g, indices):
        raise ShapeError(f"{g} and {indices} are not what pooling {format_shape(input_shape)} gives")
    return x


def _gather_spec(x: Spec, indices: Spec, **window: Any) -> Spec:
    y, positions = _max_pool_spec(x, **window)
    if positions != indices:
        raise ShapeError(f"positions {indices} are not what pooling {x} gives")
    return y


def _max_pool_reference(x: Array, *, size: Pair, stride: Pair, pads: Pads) -> tuple[Array, Array]:
    count = window_count(x.shape[1:3], size, stride, pads, windows.ONE)
    padded, inside = windows.pad_image(x, pads), windows.image_mask(x.shape, pads)
    best = np.full((x.shape[0], *count, x.shape[3]), -np.inf, x.dtype)
    position = np.full(best.shape, -1, np.int32)
    for number, (u, v) in enumerate(np.ndindex(size)):
        seen = tap(padded, (u, v), count, stride, windows.ONE)
        better = ~(seen <= best)  # greater, or one of the two is NaN
        better &= best == best  # the first NaN stays
        better |= position < 0
        better &= tap(inside, (u, v), count, stride, windows.ONE)
        np.copyto(best, seen, where=better)
        np.copyto(position, np.int32(number), where=better)
    return best, position


def _unpool_reference(
    g: Array, indices: Array, *, input_shape: tuple[int, ...], size: Pair, stride: Pair, pads: Pads
) -> Array:
    (top, bottom), (left, right) = pads
    batch, height, width, channels = input_shape
    result = np.zeros((batch, height + top + bottom, width + left + right, channels), g.dtype)
    for number, (u, v) in enumerate(np.ndindex(size)):
        target = tap(result, (u, v), (g.shape[1], g.shape[2]), stride, windows.ONE)
        np.add(target, g, out=target, where=indices == number)
    return result[:, top : top + height, left : left + width]


def _gather_reference(x: Array, indices: Array, *, size: Pair, stride: Pair, pads: Pads) -> Array:
    padded = windows.pad_image(x, pads)
    result = np.zeros(indices.shape, x.dtype)
    for number, (u, v) in enumerate(np.ndindex(size)):
        seen = tap(padded, (u, v), (indices.shape[1], indices.shape[2]), stride, windows.ONE)
        np.copyto(result, seen, where=indices == number)
    return result


def _max_pool_vjp(node: Node, g: Tensor | None, _: Tensor | None) -> tuple[Tensor | None]:
    if g is None:
        return (None,)
    return (apply(MAX_UNPOOL2D, g, node.outputs[1], input_shape=node.inputs[0].shape, **node.attrs),)


def _unpool_vjp(node: Node, dx: Tensor) -> tuple[Tensor, None]:
    return apply(MAX_POOL2D_GATHER, dx, node.inputs[1], **windows.attributes_of(node)), None


def _gather_vjp(node: Node, g: Tensor) -> tuple[Tensor, None]:
    x, indices = node.inputs
    return apply(MAX_UNPOOL2D, g, indices, input_shape=x.shape, **node.attrs), None


def _unpool_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Any) -> Size:
    return inputs[0].size


def _max_pool_element(k: Any, point: Any, x: Any, *, size: Pair, stride: Pair, pads: Pads) -> tuple[Any, Any]:
    """The maximum and its position; the first at a tie, and the first NaN if there is one."""
    padded = any(map(any, pads))

    def step(offset: Any, held: Any) -> Any:
        best, position = held
        number = k.cast(offset[0] * size[1] + offset[1], "int32")
        if not padded and number.constant == 0:
            return held  # the fold starts from it
        inside, seen = windows.element(k, x, point, offset, stride, pads, -math.inf)
        better = ~(seen <= best) & best.equals(best)
        if padded:
            better = inside & (better | (position < 0))
        return k.select(better, seen, best), k.select(better, number, position)

    if padded:
        first = k.constant(-math.inf, x.dtype), k.constant(-1, "int32")
    else:
        first = windows.element(k, x, point, (0, 0), stride, pads, 0)[1], k.constant(0, "int32")
    best, position = k.fold(size, first, step)
    return best, position


def _unpool_element(
    k: Any, point: Any, g: Any, indices: Any, *, input_shape: Shape, size: Pair, stride: Pair, pads: Pads
) -> Any:
    total = k.constant(0, g.dtype)
    for there, window, position in windows.covering(k, point, g.shape[1:3], size, stride, pads):
        hit = k.cast(indices[window], "int64").equals(position)
        total = k.guard(there, k.select(hit, total + g[window], total), total)
    return total


def _gather_element(k: Any, point: Any, x: Any, indices: Any, *, size: Pair, stride: Pair, pads: Pads) -> Any:
    """Reads every position of the window and keeps one: neighbours in memory, where one look-up each is scattered."""
    chosen = indices.at(point)

    def step(offset: Any, held: Any) -> Any:
        number = k.cast(offset[0] * size[1] + offset[1], "int32")
        return (k.select(chosen.equals(number), windows.element(k, x, point, offset, stride, pads, 0)[1], held[0]),)

    return k.fold(size, (k.constant(0, x.dtype),), step)[0]


def _positions(shape: tuple[int, ...], window: dict[str, Any]) -> Arg:
    """Any position in each window."""
    height, width = window["size"]
    return Arg(windows.pooled_shape(shape, window), 0, height * width - 1, "int32")


_TRAITS = frozenset({Trait.PER_SAMPLE, Trait.REDUCTION})
_TIES = [[[[2.0], [2.0]], [[1.0], [2.0]]]]

MAX_POOL2D = register(
    Op(
        "max_pool2d",
        max_pool2d,
        _max_pool_spec,
        _max_pool_reference,
        _max_pool_vjp,
        windows.flops,
        traits=_TRAITS,
        cases=tuple(case(Arg(x, distinct=True), name=name, **window) for name, x, window in windows.CASES),
        conventions=(
            convention(
                "max_pool2d: a tie goes to the first element in row-major order",
                [_TIES],
                [[[[3.0]]]],
                [[[[[3.0], [0.0]], [[0.0], [0.0]]]]],
                size=(2, 2),
                stride=(2, 2),
                pads=windows.NO_PADS,
            ),
        ),
        lowering=(Indexed(_max_pool_element, cheap=False),),
    )
)


def _windows_apart(attrs: Attrs) -> bool:
    """Whether no two windows overlap."""
    return all(step >= size for step, size in zip(attrs["stride"], attrs["size"], strict=True))


def _tiling(attrs: Attrs) -> Pair | None:
    """The window where windows tile the map from its corner on."""
    size: Pair = attrs["size"]
    return size if attrs["stride"] == size and not any(map(any, attrs["pads"])) else None


def _maxima(node: Node, x: Tensor) -> Tensor | None:
    """The values of x at the positions of its own maxima: the maxima."""
    found = node.inputs[1].node
    if found is None or found.op is not MAX_POOL2D or found.inputs[0].key != x.key:
        return None
    return found.outputs[0] if windows.attributes_of(found) == windows.attributes_of(node) else None


MAX_UNPOOL2D = register(
    Op(
        "max_unpool2d",
        max_unpool2d,
        _unpool_spec,
        _unpool_reference,
        _unpool_vjp,
        _unpool_flops,
        traits=windows.LINEAR,
        cases=tuple(
            case(windows.pooled_shape(x, window), _positions(x, window), name=name, input_shape=x, **window)
            for name, x, window in windows.CASES
        ),
        lowering=(Indexed(_unpool_element),),
        placement=Placement(_windows_apart, (1, 2), _maxima, _tiling),
    )
)
MAX_POOL2D_GATHER = register(
    Op(
        "max_pool2d_gather",
        max_pool2d_gather,
        _gather_spec,
        _gather_reference,
        _gather_vjp,
        _unpool_flops,
        traits=windows.LINEAR,
        cases=tuple(case(x, _positions(x, window), name=name, **window) for name, x, window in windows.CASES),
        lowering=(Indexed(_gather_element),),
    )
)
