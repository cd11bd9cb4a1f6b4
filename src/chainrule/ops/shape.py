"""Moving data: reshape, transpose, concat, slice, pad, and indexing with ``[]``.

`pad` may also insert gaps between elements (interior padding) and `slice` may step, which makes the two each
other's adjoint for every stride.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, case
from chainrule.graph.dims import Dim, Shape, Size, format_shape, size_of
from chainrule.graph.lowering import Indexed, View
from chainrule.graph.op import Array, Op, Spec, Trait, no_flops, register
from chainrule.graph.operators import Operators
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor, lift
from chainrule.ops._rules import normalise_axis, one_dtype

__all__ = ["concat", "expand_dims", "pad", "reshape", "slice", "squeeze", "transpose"]

Bounds = tuple[tuple[int, Size, int], ...]


def reshape(x: Any, shape: Sequence[Size | None] | Size) -> Tensor:
    """The same elements in row-major order under another shape; one size may be -1.

    Gradient: ``dx = reshape(dy, x.shape)``.

    Raises:
        ShapeError: the number of elements differs.

    >>> import chainrule as cr
    >>> cr.ops.reshape(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), (-1,)).shape
    (4,)
    """
    x = as_tensor(x)
    wanted = (shape,) if isinstance(shape, int | Dim) else tuple(shape)
    target = _complete(x.shape, wanted)
    return x if target == x.shape else apply(RESHAPE, x, shape=target)


def expand_dims(x: Any, axis: int) -> Tensor:
    """`x` with a new axis of size 1.

    >>> import chainrule as cr
    >>> cr.ops.expand_dims(cr.tensor([1.0, 2.0]), -1).shape
    (2, 1)
    """
    x = as_tensor(x)
    place = normalise_axis(axis, x.ndim + 1)
    return reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


def squeeze(x: Any, axis: int) -> Tensor:
    """`x` without an axis of size 1.

    Raises:
        ShapeError: the axis has another size.

    >>> import chainrule as cr
    >>> cr.ops.squeeze(cr.tensor([[1.0], [2.0]]), 1).shape
    (2,)
    """
    x = as_tensor(x)
    place = normalise_axis(axis, x.ndim)
    if x.shape[place] != 1:
        raise ShapeError(f"squeeze: axis {axis} of shape {format_shape(x.shape)} has size {x.shape[place]}, not 1")
    return reshape(x, (*x.shape[:place], *x.shape[place + 1 :]))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """Permute axes: ``y.shape[i] = x.shape[axes[i]]``; without `axes`, reverse them.

    Gradient: ``dx = transpose(dy, inverse permutation)``.

    >>> import chainrule as cr
    >>> cr.ops.transpose(cr.tensor([[1.0, 2.0, 3.0]])).shape
    (3, 1)
    """
    x = as_tensor(x)
    order = tuple(reversed(range(x.ndim))) if axes is None else tuple(axes)
    return apply(TRANSPOSE, x, axes=order)


def concat(tensors: Sequence[Any], axis: int = -1) -> Tensor:
    """Join tensors along an axis; all other sizes agree.

    Gradient: each tensor gets its part of dy.

    Raises:
        ShapeError: no tensors, or sizes differ elsewhere.

    >>> import chainrule as cr
    >>> cr.ops.concat([cr.tensor([1.0]), cr.tensor([2.0, 3.0])], axis=0).numpy().tolist()
    [1.0, 2.0, 3.0]
    """
    if not tensors:
        raise ShapeError("concat needs at least one tensor")
    parts = lift(*tensors)
    return apply(CONCAT, *parts, axis=normalise_axis(axis, parts[0].ndim))


def slice(x: Any, start: Sequence[int], stop: Sequence[Size], step: Sequence[int] | None = None) -> Tensor:
    """``y[i] = x[start + i * step]`` for ``start <= index < stop`` on every axis; ``x[a:b:c]`` calls it.

    Gradient: ``dx = pad(dy)`` with zeros where x was not read.

    Raises:
        ShapeError: a bound lies outside the tensor, or the batch axis is cut in a way that depends on N.

    >>> import chainrule as cr
    >>> cr.tensor([1.0, 2.0, 3.0, 4.0])[1:4:2].numpy().tolist()
    [2.0, 4.0]
    """
    steps = (1,) * len(tuple(start)) if step is None else tuple(step)
    bounds = tuple(zip(tuple(start), tuple(stop), steps, strict=True))
    return apply(SLICE, as_tensor(x), bounds=bounds)


def pad(x: Any, widths: Sequence[Sequence[int]]) -> Tensor:
    """Zeros around `x`, and between its elements.

    Args:
        x: the tensor.
        widths: for each axis ``(before, after)`` or ``(before, after, interior)``, the last being the number
            of zeros between neighbours.

    Gradient: ``dx = dy`` read where x was put: a `slice`.

    >>> import chainrule as cr
    >>> cr.ops.pad(cr.tensor([1.0, 2.0]), [(1, 0, 1)]).numpy().tolist()
    [0.0, 1.0, 0.0, 2.0]
    """
    full = tuple((w[0], w[1], w[2] if len(w) > 2 else 0) for w in widths)
    return apply(PAD, as_tensor(x), widths=full)


def _complete(shape: Shape, wanted: tuple[Size | None, ...]) -> Shape:
    """`wanted` with -1 (or None) replaced by what the number of elements leaves."""
    total = size_of(shape)
    holes = [i for i, size in enumerate(wanted) if size is None or size == -1]
    known: Shape = tuple(size for size in wanted if size is not None and size != -1)
    if len(holes) > 1:
        raise ShapeError(f"reshape: only one size may be -1, got {wanted}")
    if not holes:
        return known
    rest = size_of(known)
    try:
        missing = total // rest if rest != 0 else 0
    except ShapeError:
        missing = -1
    if missing * rest != total:
        raise ShapeError(
            f"reshape: {format_shape(shape)} with {total} elements does not fit "
            f"{format_shape(tuple(-1 if s is None else s for s in wanted))}"
        )
    return (*known[: holes[0]], missing, *known[holes[0] :])


def _reshape_spec(x: Spec, *, shape: Shape) -> Spec:
    if size_of(shape) != x.size:
        raise ShapeError(f"{format_shape(x.shape)} has {x.size} elements, {format_shape(shape)} has {size_of(shape)}")
    return x.with_shape(shape)


def _reshape_reference(x: Array, *, shape: tuple[int, ...]) -> Array:
    return x.reshape(shape)


def _reshape_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (reshape(g, node.inputs[0].shape),)


def _transpose_spec(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    if sorted(axes) != list(range(x.rank)):
        raise ShapeError(f"axes {axes} are no permutation of the axes of {format_shape(x.shape)}")
    return x.with_shape([x.shape[axis] for axis in axes])


def _transpose_reference(x: Array, *, axes: tuple[int, ...]) -> Array:
    return x.transpose(axes)


def _transpose_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    axes = node.attrs["axes"]
    return (transpose(g, [axes.index(i) for i in range(len(axes))]),)


def _concat_spec(*specs: Spec, axis: int) -> Spec:
    dtype = one_dtype(*specs)
    first = specs[0].shape
    total: Size = 0
    for spec in specs:
        if spec.shape[:axis] + spec.shape[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            names = ", ".join(format_shape(spec.shape) for spec in specs)
            raise ShapeError(f"shapes {names} differ in more than axis {axis} along which they are joined")
        total = total + spec.shape[axis]
    return Spec((*first[:axis], total, *first[axis + 1 :]), dtype)


def _concat_reference(*arrays: Array, axis: int) -> Array:
    return np.concatenate(arrays, axis=axis)


def _concat_vjp(node: Node, g: Tensor) -> tuple[Tensor, ...]:
    axis, place, parts = node.attrs["axis"], 0, []
    for item in node.inputs:
        size = item.shape[axis]
        parts.append(_narrow(g, axis, place, size))
        place = place + size
    return tuple(parts)


def _narrow(x: Tensor, axis: int, start: int, size: Size) -> Tensor:
    starts = [0] * x.ndim
    stops = list(x.shape)
    starts[axis], stops[axis] = start, start + size
    return slice(x, starts, stops)


def _slice_length(size: Size, start: int, stop: Size, step: int) -> Size:
    if step == 1:
        return stop - start
    if isinstance(stop, Dim):
        raise ShapeError("the batch axis can be sliced with step 1 only, since N is symbolic")
    return -(-(stop - start) // step)


def _slice_spec(x: Spec, *, bounds: Bounds) -> Spec:
    if len(bounds) != x.rank:
        raise ShapeError(f"{len(bounds)} slices for a tensor of rank {x.rank}")
    sizes: list[Size] = []
    for axis, (size, (start, stop, step)) in enumerate(zip(x.shape, bounds, strict=True)):
        inside = stop == size or (isinstance(size, int) and isinstance(stop, int) and 0 <= start <= stop <= size)
        negative_end = isinstance(size, Dim) and isinstance(stop, Dim) and stop.scale == size.scale
        if not (inside or negative_end) or step < 1 or start < 0:
            raise ShapeError(f"slice {start}:{stop}:{step} does not fit axis {axis} of {format_shape(x.shape)}")
        sizes.append(_slice_length(size, start, stop, step))
    return x.with_shape(sizes)


def _slice_reference(x: Array, *, bounds: tuple[tuple[int, int, int], ...]) -> Array:
    return x[tuple(builtins.slice(start, stop, step) for start, stop, step in bounds)]


def _slice_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    widths = []
    for size, out, (start, _, step) in zip(
        node.inputs[0].shape, node.specs[0].shape, node.attrs["bounds"], strict=True
    ):
        spread = (out - 1) * step + 1 if out != 0 else 0
        after = size - spread - start
        assert isinstance(after, int), "a slice leaves a fixed number of elements of the batch axis"
        widths.append((start, after, step - 1))
    return (pad(g, widths),)


def _pad_spec(x: Spec, *, widths: tuple[tuple[int, int, int], ...]) -> Spec:
    if len(widths) != x.rank:
        raise ShapeError(f"{len(widths)} padding widths for a tensor of rank {x.rank}")
    if any(value < 0 for width in widths for value in width):
        raise ShapeError(f"padding widths must not be negative, got {widths}")
    sizes = []
    for size, (before, after, interior) in zip(x.shape, widths, strict=True):
        inner = size + (size - 1) * interior if interior and size != 0 else size
        sizes.append(inner + before + after)
    return x.with_shape(sizes)


def _pad_reference(x: Array, *, widths: tuple[tuple[int, int, int], ...]) -> Array:
    shape = [
        n + max(n - 1, 0) * interior + before + after
        for n, (before, after, interior) in zip(x.shape, widths, strict=True)
    ]
    result = np.zeros(shape, x.dtype)
    place = tuple(
        builtins.slice(before, size - after, interior + 1)
        for size, (before, after, interior) in zip(shape, widths, strict=True)
    )
    result[place] = x
    return result


def _pad_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    bounds = [
        (before, size - after, interior + 1)
        for size, (before, after, interior) in zip(g.shape, node.attrs["widths"], strict=True)
    ]
    return (slice(g, [b[0] for b in bounds], [b[1] for b in bounds], [b[2] for b in bounds]),)


def getitem(x: Any, index: Any) -> Tensor:
    """``x[index]``: integers, slices with positive steps, ``...`` and None; or one integer tensor (a gather)."""
    x = as_tensor(x)
    if isinstance(index, Tensor | np.ndarray | list):
        from chainrule.ops.indexing import gather

        return gather(x, index, axis=0)
    entries = list(index) if isinstance(index, tuple) else [index]
    starts: list[int] = []
    stops: list[Size] = []
    steps: list[int] = []
    shape: list[Size] = []
    axis = 0
    for entry in _without_ellipsis(entries, x):
        if entry is None:
            shape.append(1)
            continue
        start, stop, step = _bounds(entry, x.shape[axis], axis, x)
        starts.append(start)
        stops.append(stop)
        steps.append(step)
        if isinstance(entry, builtins.slice):
            shape.append(_slice_length(x.shape[axis], start, stop, step))
        axis += 1
    whole = all(s == 0 and e == n and k == 1 for s, e, k, n in zip(starts, stops, steps, x.shape, strict=True))
    return reshape(x if whole else slice(x, starts, stops, steps), tuple(shape))


def _without_ellipsis(entries: list[Any], x: Tensor) -> list[Any]:
    consumed = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if consumed > x.ndim:
        raise ShapeError(f"{consumed} indices for a tensor of shape {format_shape(x.shape)}")
    missing = [builtins.slice(None)] * (x.ndim - consumed)
    places = [i for i, entry in enumerate(entries) if entry is Ellipsis]
    if len(places) > 1:
        raise ShapeError("an index may hold '...' once")
    if not places:
        return entries + missing
    return entries[: places[0]] + missing + entries[places[0] + 1 :]


def _bounds(entry: Any, size: Size, axis: int, x: Tensor) -> tuple[int, Size, int]:
    if isinstance(entry, bool) or not isinstance(entry, int | np.integer | builtins.slice):
        raise ShapeError(
            f"index {entry!r} on axis {axis} of {format_shape(x.shape)} is not supported; use integers, slices, "
            "'...' or None, or cr.ops.gather and cr.ops.where"
        )
    if isinstance(size, Dim):
        return _symbolic_bounds(entry, size)
    if isinstance(entry, builtins.slice):
        start, stop, step = entry.indices(size)
        if step < 1:
            raise ShapeError(f"slices need a positive step, got {entry.step}")
        return start, max(start, stop), step
    place = int(entry)
    if not -size <= place < size:
        raise ShapeError(f"index {place} is outside axis {axis} of {format_shape(x.shape)}")
    return place % size, place % size + 1, 1


def _symbolic_bounds(entry: Any, size: Dim) -> tuple[int, Size, int]:
    if isinstance(entry, builtins.slice) and entry.step in (None, 1):
        start, stop = entry.start or 0, entry.stop
        if start >= 0 and (stop is None or stop < 0 or isinstance(stop, Dim)):
            end = size if stop is None else stop if isinstance(stop, Dim) else size + stop
            return start, end, 1
    raise ShapeError(
        f"index {entry!r} on the batch axis is not possible while the batch size N is symbolic; "
        "only [a:], [:-b] and [a:-b] are"
    )


Operators.__getitem__ = getitem  # type: ignore[method-assign]


def _transpose_element(k: Any, point: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    return x[tuple(point[axes.index(axis)] for axis in range(len(axes)))]


def _concat_element(k: Any, point: Any, *parts: Any, axis: int) -> Any:
    starts: list[Size] = [0]
    for part in parts[:-1]:
        starts.append(starts[-1] + part.shape[axis])

    def read(part: Any, start: Size) -> Any:
        place = list(point)
        place[axis] = point[axis] - k.size(start)
        return part[tuple(place)]

    def among(low: int, high: int) -> Any:
        """The element, in a part from `low` to before `high`; the boundary in the middle says in which half."""
        if high - low == 1:
            return read(parts[low], starts[low])
        middle = (low + high) // 2
        before = point[axis] < k.size(starts[middle])
        return k.guard(before, among(low, middle), k.guard(~before, among(middle, high), 0))

    return among(0, len(parts))


def _slice_element(k: Any, point: Any, x: Any, *, bounds: Bounds) -> Any:
    return x[tuple(start + place * step for place, (start, _, step) in zip(point, bounds, strict=True))]


def _pad_element(k: Any, point: Any, x: Any, *, widths: Bounds) -> Any:
    inside, source = k.constant(True, "bool"), []
    for place, size, (before, _, interior) in zip(point, x.shape, widths, strict=True):
        shifted = place - before
        source.append(k.floor_divide(shifted, interior + 1))
        inside = inside & (shifted >= 0) & (source[-1] < k.size(size))
        inside = inside & k.modulo(shifted, interior + 1).equals(0)
    return k.guard(inside, x[tuple(source)], 0)


_MOVES = frozenset({Trait.DATA_MOVEMENT, Trait.LINEAR})

RESHAPE = register(
    Op(
        "reshape",
        reshape,
        _reshape_spec,
        _reshape_reference,
        _reshape_vjp,
        no_flops,
        traits=_MOVES,
        cases=(case((2, 6), shape=(3, 4)), case((2, 3, 2), shape=(2, 6)), case((1,), shape=())),
        lowering=(View(),),
    )
)
TRANSPOSE = register(
    Op(
        "transpose",
        transpose,
        _transpose_spec,
        _transpose_reference,
        _transpose_vjp,
        no_flops,
        traits=_MOVES,
        cases=(case((2, 3), axes=(1, 0)), case((2, 3, 4), axes=(2, 0, 1))),
        lowering=(Indexed(_transpose_element),),
    )
)
CONCAT = register(
    Op(
        "concat",
        concat,
        _concat_spec,
        _concat_reference,
        _concat_vjp,
        no_flops,
        traits=_MOVES,
        cases=(case((2, 3), (2, 1), (2, 2), axis=1), case((1, 2), (2, 2), axis=0), case((3,), axis=0)),
        lowering=(Indexed(_concat_element),),
    )
)
SLICE = register(
    Op(
        "slice",
        slice,
        _slice_spec,
        _slice_reference,
        _slice_vjp,
        no_flops,
        traits=_MOVES,
        cases=(
            case((3, 5), bounds=((1, 3, 1), (0, 5, 2))),
            case((4, 7), bounds=((0, 4, 1), (1, 6, 3))),
            case((3,), bounds=((1, 1, 1),), name="empty"),
        ),
        lowering=(Indexed(_slice_element),),
    )
)
PAD = register(
    Op(
        "pad",
        pad,
        _pad_spec,
        _pad_reference,
        _pad_vjp,
        no_flops,
        traits=_MOVES,
        cases=(
            case((2, 3), widths=((1, 0, 0), (0, 2, 1))),
            case((2, 2), widths=((0, 0, 2), (1, 1, 0))),
            case(Arg((3,), 0, 5, "int32"), widths=((1, 1, 0),), name="integers"),
        ),
        lowering=(Indexed(_pad_element),),
    )
)
