"""Max and average pooling, and the unpoolings that are their gradients.

Pooling has no parameters.  `max_pool2d` also gives the position of each maximum, so its gradient,
`max_unpool2d`, only has to put each cotangent there; reading back from there, `max_pool2d_gather`, is the
gradient of that.  `avg_unpool2d` spreads a cotangent over its window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, case, convention
from chainrule.graph.dims import Shape, Size, bind_shape, format_shape
from chainrule.graph.lowering import Attrs, Indexed, Placement
from chainrule.graph.op import Array, Op, Spec, Trait, register
from chainrule.graph.tensor import Node, Tensor, apply, apply_all, as_tensor, lift
from chainrule.ops._rules import require_float
from chainrule.ops._window import (
    Padding,
    Pads,
    Pair,
    explicit_padding,
    pair,
    require_image,
    tap,
    window_count,
)

__all__ = ["avg_pool2d", "avg_unpool2d", "max_pool2d", "max_pool2d_gather", "max_unpool2d"]

_ONE = (1, 1)


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
    outputs = apply_all(MAX_POOL2D, x, **_attrs(x, size, stride, padding))
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
    return apply(MAX_UNPOOL2D, *lift(g, indices), input_shape=tuple(input_shape), **_explicit(window))


def max_pool2d_gather(x: Any, indices: Any, **window: Any) -> Tensor:
    """Read x at the positions of other maxima: the gradient of `max_unpool2d`, and linear in x.

    Gradient: ``dx = max_unpool2d(dy, indices)``.

    >>> import chainrule as cr
    >>> x = cr.tensor([[[[1.0], [5.0]], [[2.0], [3.0]]]])
    >>> _, where = cr.ops.max_pool2d(x, 2, return_indices=True)
    >>> cr.ops.max_pool2d_gather(x * 10, where, size=(2, 2), stride=(2, 2)).item()
    50.0
    """
    return apply(MAX_POOL2D_GATHER, *lift(x, indices), **_explicit(window))


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
    return apply(AVG_POOL2D, x, count_padding=bool(count_padding), **_attrs(x, size, stride, padding))


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
        **_explicit(window),
    )


def _attrs(x: Tensor, size: Any, stride: Any, padding: Padding) -> dict[str, Any]:
    sizes = pair(size, "the pooling size")
    strides = sizes if stride is None else pair(stride, "stride")
    spatial = x.shape[1:3] if x.ndim == 4 else (1, 1)  # the shape rule names the wrong rank
    return {
        "size": sizes,
        "stride": strides,
        "pads": explicit_padding(padding, spatial, sizes, strides, _ONE),
    }


def _explicit(window: dict[str, Any]) -> dict[str, Any]:
    return {"pads": ((0, 0), (0, 0)), **window}


def _pool_spec(x: Spec, *, size: Pair, stride: Pair, pads: Pads) -> Spec:
    require_image(x)
    require_float(x)
    count = window_count(x.shape[1:3], size, stride, pads, _ONE)
    for axis, extent in enumerate(x.shape[1:3]):
        last = (count[axis] - 1) * stride[axis]
        if pads[axis][0] >= size[axis] or last >= pads[axis][0] + int(extent):
            raise ShapeError(
                f"padding {pads[axis]} lets a window of size {size[axis]} see no element of the image "
                f"{format_shape(x.shape)}; use padding smaller than the window"
            )
    return Spec((x.shape[0], *count, x.shape[3]), x.dtype)


def _max_pool_spec(x: Spec, **window: Any) -> tuple[Spec, Spec]:
    y = _pool_spec(x, **window)
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


def _avg_pool_spec(x: Spec, *, count_padding: bool, **window: Any) -> Spec:
    return _pool_spec(x, **window)


def _avg_unpool_spec(g: Spec, *, input_shape: Shape, count_padding: bool, **window: Any) -> Spec:
    x = Spec(input_shape, g.dtype)
    if _pool_spec(x, **window) != g:
        raise ShapeError(f"{g} is not what pooling {format_shape(input_shape)} gives")
    return x


def _padded(x: Array, pads: Pads) -> Array:
    return np.pad(x, ((0, 0), *pads, (0, 0))) if any(map(any, pads)) else x


def _inside(shape: Sequence[int], pads: Pads) -> Array:
    """1 for the image and 0 for its padding: ``(1, height, width, 1)``."""
    return _padded(np.ones((1, shape[1], shape[2], 1), bool), pads)


def _max_pool_reference(x: Array, *, size: Pair, stride: Pair, pads: Pads) -> tuple[Array, Array]:
    count = window_count(x.shape[1:3], size, stride, pads, _ONE)
    padded, inside = _padded(x, pads), _inside(x.shape, pads)
    best = np.full((x.shape[0], *count, x.shape[3]), -np.inf, x.dtype)
    position = np.full(best.shape, -1, np.int32)
    for number, (u, v) in enumerate(np.ndindex(size)):
        seen = tap(padded, (u, v), count, stride, _ONE)
        better = ~(seen <= best)  # greater, or one of the two is NaN
        better &= best == best  # the first NaN stays
        better |= position < 0
        better &= tap(inside, (u, v), count, stride, _ONE)
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
        target = tap(result, (u, v), (g.shape[1], g.shape[2]), stride, _ONE)
        np.add(target, g, out=target, where=indices == number)
    return result[:, top : top + height, left : left + width]


def _gather_reference(x: Array, indices: Array, *, size: Pair, stride: Pair, pads: Pads) -> Array:
    padded = _padded(x, pads)
    result = np.zeros(indices.shape, x.dtype)
    for number, (u, v) in enumerate(np.ndindex(size)):
        seen = tap(padded, (u, v), (indices.shape[1], indices.shape[2]), stride, _ONE)
        np.copyto(result, seen, where=indices == number)
    return result


def _divisor(shape: Sequence[int], size: Pair, stride: Pair, pads: Pads, count_padding: bool, dtype: Any) -> Array:
    """What each window divides by: ``(1, out_height, out_width, 1)``."""
    count = window_count(shape[1:3], size, stride, pads, _ONE)
    if count_padding:
        return np.full((1, *count, 1), size[0] * size[1], dtype)
    inside = _inside(shape, pads).astype(dtype)
    total = np.zeros((1, *count, 1), dtype)
    for u, v in np.ndindex(size):
        total += tap(inside, (u, v), count, stride, _ONE)
    return total


def _avg_pool_reference(x: Array, *, size: Pair, stride: Pair, pads: Pads, count_padding: bool) -> Array:
    count = window_count(x.shape[1:3], size, stride, pads, _ONE)
    padded = _padded(x, pads)
    total = np.zeros((x.shape[0], *count, x.shape[3]), x.dtype)
    for u, v in np.ndindex(size):
        total += tap(padded, (u, v), count, stride, _ONE)
    return total / _divisor(x.shape, size, stride, pads, count_padding, x.dtype)


def _avg_unpool_reference(
    g: Array, *, input_shape: tuple[int, ...], size: Pair, stride: Pair, pads: Pads, count_padding: bool
) -> Array:
    (top, bottom), (left, right) = pads
    batch, height, width, channels = input_shape
    share = g / _divisor(input_shape, size, stride, pads, count_padding, g.dtype)
    result = np.zeros((batch, height + top + bottom, width + left + right, channels), g.dtype)
    for u, v in np.ndindex(size):
        target = tap(result, (u, v), (g.shape[1], g.shape[2]), stride, _ONE)
        target += share
    return result[:, top : top + height, left : left + width]


def _window(node: Node) -> dict[str, Any]:
    return {name: node.attrs[name] for name in ("size", "stride", "pads")}


def _max_pool_vjp(node: Node, g: Tensor | None, _: Tensor | None) -> tuple[Tensor | None]:
    if g is None:
        return (None,)
    return (apply(MAX_UNPOOL2D, g, node.outputs[1], input_shape=node.inputs[0].shape, **node.attrs),)


def _unpool_vjp(node: Node, dx: Tensor) -> tuple[Tensor, None]:
    return apply(MAX_POOL2D_GATHER, dx, node.inputs[1], **_window(node)), None


def _gather_vjp(node: Node, g: Tensor) -> tuple[Tensor, None]:
    x, indices = node.inputs
    return apply(MAX_UNPOOL2D, g, indices, input_shape=x.shape, **node.attrs), None


def _avg_pool_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (apply(AVG_UNPOOL2D, g, input_shape=node.inputs[0].shape, **node.attrs),)


def _avg_unpool_vjp(node: Node, dx: Tensor) -> tuple[Tensor]:
    return (apply(AVG_POOL2D, dx, count_padding=node.attrs["count_padding"], **_window(node)),)


def _pool_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Any) -> Size:
    height, width = attrs["size"]
    return outputs[0].size * int(height * width)


def _unpool_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Any) -> Size:
    return inputs[0].size


def _seen(k: Any, x: Any, point: Any, offset: Any, stride: Pair, pads: Pads, padding: float) -> tuple[Any, Any]:
    """Whether position `offset` of the window at `point` lies in the image, and the element there, else `padding`."""
    n, i, j, c = point
    inside, place = k.constant(True, "bool"), []
    for axis, window in enumerate((i, j)):
        place.append(window * stride[axis] + offset[axis] - pads[axis][0])
        inside = inside & (place[axis] >= 0) & (place[axis] < k.size(x.shape[axis + 1]))
    return inside, k.guard(inside, x[n, place[0], place[1], c], padding)


def _covering(k: Any, point: Any, count: Shape, size: Pair, stride: Pair, pads: Pads) -> Iterator[tuple[Any, Any, Any]]:
    """The windows that cover a pixel, by increasing position in them.

    Yields:
        Whether there is such a window, its place ``(n, i, j, c)``, and the pixel's position ``u * width + v`` in it.
    """
    n, h, w, c = point
    for back in np.ndindex(*(-(-extent // step) for extent, step in zip(size, stride, strict=True))):
        there, window, position = k.constant(True, "bool"), [], []
        for axis, pixel in enumerate((h, w)):
            start = pixel + pads[axis][0]
            window.append(k.floor_divide(start, stride[axis]) - int(back[axis]))
            position.append(k.modulo(start, stride[axis]) + int(back[axis]) * stride[axis])
            there = there & (window[axis] >= 0) & (window[axis] < k.size(count[axis])) & (position[axis] < size[axis])
        yield there, (n, window[0], window[1], c), position[0] * size[1] + position[1]


def _max_pool_element(k: Any, point: Any, x: Any, *, size: Pair, stride: Pair, pads: Pads) -> tuple[Any, Any]:
    """The maximum and its position; the first at a tie, and the first NaN if there is one."""
    padded = any(map(any, pads))

    def step(offset: Any, held: Any) -> Any:
        best, position = held
        number = k.cast(offset[0] * size[1] + offset[1], "int32")
        if not padded and number.constant == 0:
            return held  # the fold starts from it
        inside, seen = _seen(k, x, point, offset, stride, pads, -math.inf)
        better = ~(seen <= best) & best.equals(best)
        if padded:
            better = inside & (better | (position < 0))
        return k.select(better, seen, best), k.select(better, number, position)

    if padded:
        first = k.constant(-math.inf, x.dtype), k.constant(-1, "int32")
    else:
        first = _seen(k, x, point, (0, 0), stride, pads, 0)[1], k.constant(0, "int32")
    best, position = k.fold(size, first, step)
    return best, position


def _unpool_element(
    k: Any, point: Any, g: Any, indices: Any, *, input_shape: Shape, size: Pair, stride: Pair, pads: Pads
) -> Any:
    total = k.constant(0, g.dtype)
    for there, window, position in _covering(k, point, g.shape[1:3], size, stride, pads):
        hit = k.cast(indices[window], "int64").equals(position)
        total = k.guard(there, k.select(hit, total + g[window], total), total)
    return total


def _gather_element(k: Any, point: Any, x: Any, indices: Any, *, size: Pair, stride: Pair, pads: Pads) -> Any:
    """Reads every position of the window and keeps one: neighbours in memory, where one look-up each is scattered."""
    chosen = indices.at(point)

    def step(offset: Any, held: Any) -> Any:
        number = k.cast(offset[0] * size[1] + offset[1], "int32")
        return (k.select(chosen.equals(number), _seen(k, x, point, offset, stride, pads, 0)[1], held[0]),)

    return k.fold(size, (k.constant(0, x.dtype),), step)[0]


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
        return (held[0] + _seen(k, x, point, offset, stride, pads, 0)[1],)

    _, i, j, _ = point
    (total,) = k.fold(size, (k.constant(0, x.dtype),), step)
    return total / _window_elements(k, i, j, x.shape, size, stride, pads, count_padding, x.dtype)


def _avg_unpool_element(
    k: Any, point: Any, g: Any, *, input_shape: Shape, size: Pair, stride: Pair, pads: Pads, count_padding: bool
) -> Any:
    total = k.constant(0, g.dtype)
    for there, window, _ in _covering(k, point, g.shape[1:3], size, stride, pads):
        _, i, j, _ = window
        elements = _window_elements(k, i, j, input_shape, size, stride, pads, count_padding, g.dtype)
        total = k.guard(there, total + g[window] / elements, total)
    return total


_NONE = ((0, 0), (0, 0))
_WINDOWS: tuple[tuple[str, tuple[int, ...], dict[str, Any]], ...] = (
    ("plain", (2, 4, 6, 2), {"size": (2, 2), "stride": (2, 2), "pads": _NONE}),
    ("left over", (1, 5, 5, 2), {"size": (2, 2), "stride": (2, 2), "pads": _NONE}),
    ("overlapping", (1, 5, 6, 2), {"size": (3, 3), "stride": (2, 2), "pads": _NONE}),
    ("overlapping, stride 1", (1, 4, 4, 1), {"size": (2, 3), "stride": (1, 1), "pads": _NONE}),
    ("padded", (1, 4, 5, 2), {"size": (3, 3), "stride": (2, 2), "pads": ((1, 1), (1, 0))}),
    ("gaps", (1, 7, 7, 1), {"size": (2, 2), "stride": (3, 3), "pads": _NONE}),
    ("one pixel", (2, 1, 1, 3), {"size": (1, 1), "stride": (1, 1), "pads": _NONE}),
)


def _pooled(shape: tuple[int, ...], window: dict[str, Any]) -> tuple[int, ...]:
    return bind_shape(_pool_spec(Spec(shape, np.dtype("float64")), **window).shape, 0)


def _positions(shape: tuple[int, ...], window: dict[str, Any]) -> Arg:
    """Any position in each window."""
    height, width = window["size"]
    return Arg(_pooled(shape, window), 0, height * width - 1, "int32")


_COUNTED = [(window, counted) for window in _WINDOWS for counted in (False, True)]

_TRAITS = frozenset({Trait.PER_SAMPLE, Trait.REDUCTION})
_LINEAR = frozenset({Trait.PER_SAMPLE, Trait.LINEAR})
_TIES = [[[[2.0], [2.0]], [[1.0], [2.0]]]]

MAX_POOL2D = register(
    Op(
        "max_pool2d",
        max_pool2d,
        _max_pool_spec,
        _max_pool_reference,
        _max_pool_vjp,
        _pool_flops,
        traits=_TRAITS,
        cases=tuple(case(Arg(x, distinct=True), name=name, **window) for name, x, window in _WINDOWS),
        conventions=(
            convention(
                "max_pool2d: a tie goes to the first element in row-major order",
                [_TIES],
                [[[[3.0]]]],
                [[[[[3.0], [0.0]], [[0.0], [0.0]]]]],
                size=(2, 2),
                stride=(2, 2),
                pads=_NONE,
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
    window = ("size", "stride", "pads")
    if found is None or found.op is not MAX_POOL2D or found.inputs[0].key != x.key:
        return None
    if any(found.attrs[name] != node.attrs[name] for name in window):
        return None
    return found.outputs[0]


MAX_UNPOOL2D = register(
    Op(
        "max_unpool2d",
        max_unpool2d,
        _unpool_spec,
        _unpool_reference,
        _unpool_vjp,
        _unpool_flops,
        traits=_LINEAR,
        cases=tuple(
            case(_pooled(x, window), _positions(x, window), name=name, input_shape=x, **window)
            for name, x, window in _WINDOWS
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
        traits=_LINEAR,
        cases=tuple(case(x, _positions(x, window), name=name, **window) for name, x, window in _WINDOWS),
        lowering=(Indexed(_gather_element),),
    )
)
AVG_POOL2D = register(
    Op(
        "avg_pool2d",
        avg_pool2d,
        _avg_pool_spec,
        _avg_pool_reference,
        _avg_pool_vjp,
        _pool_flops,
        traits=_LINEAR | {Trait.REDUCTION},
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
        _pool_flops,
        traits=_LINEAR,
        cases=tuple(
            case(_pooled(x, window), name=name, input_shape=x, count_padding=counted, **window)
            for (name, x, window), counted in _COUNTED
        ),
        lowering=(Indexed(_avg_unpool_element),),
    )
)
