"""Indexing by integers: gather, its adjoint scatter_add, and one-hot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import DTypeError, ShapeError
from chainrule.graph.cases import Arg, case
from chainrule.graph.dims import Size, format_shape
from chainrule.graph.lowering import Indexed
from chainrule.graph.op import Array, Op, Spec, Trait, no_flops, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor
from chainrule.ops._rules import normalise_axis, require_float

__all__ = ["arange", "gather", "one_hot", "scatter_add"]


def gather(x: Any, indices: Any, axis: int = 0) -> Tensor:
    """Rows by number: ``y[..., i..., ...] = x[..., indices[i...], ...]`` along `axis`.

    Args:
        x: shape ``(a..., n, b...)`` with n on `axis`.
        indices: integers in 0..n-1 of any shape ``(i...)``.
        axis: the axis that is looked up.

    Returns:
        Shape ``(a..., i..., b...)``.

    Gradient: ``dx = scatter_add(dy, indices)``: rows that were read twice get both cotangents.

    Raises:
        DTypeError: the indices are not integers.
        ShapeError: an index is out of range (the NumPy rule checks it; native code gives NaN there, or 0 for
            integers and False for bools).

    >>> import chainrule as cr
    >>> cr.ops.gather(cr.tensor([1.0, 2.0, 3.0]), [2, 0]).numpy().tolist()
    [3.0, 1.0]
    """
    x = as_tensor(x)
    return apply(GATHER, x, as_tensor(indices), axis=normalise_axis(axis, x.ndim))


def arange(size: Size) -> Tensor:
    """The numbers ``y[i] = i`` below a size, as int32; the size may be the batch's.

    Gradient: none, since there is no input.

    >>> import chainrule as cr
    >>> cr.ops.arange(3).numpy().tolist()
    [0, 1, 2]
    """
    return apply(ARANGE, size=size)


def scatter_add(updates: Any, indices: Any, size: Size, axis: int = 0) -> Tensor:
    """Add rows into zeros: ``y[..., indices[i...], ...] += updates[..., i..., ...]``; the adjoint of `gather`.

    Rows are added in the row-major order of the indices.  Gradient: ``dupdates = gather(dy, indices)``.

    Raises:
        DTypeError: the indices are not integers.
        ShapeError: the updates do not hold the indices' shape, or an index is out of range (the NumPy rule checks
            it; native code leaves such a row out).

    >>> import chainrule as cr
    >>> cr.ops.scatter_add(cr.tensor([1.0, 2.0, 4.0]), [0, 2, 0], size=3).numpy().tolist()
    [5.0, 0.0, 2.0]
    """
    indices = as_tensor(indices)
    updates = as_tensor(updates)
    rank = updates.ndim - indices.ndim + 1
    return apply(SCATTER_ADD, updates, indices, size=size, axis=normalise_axis(axis, rank))


def one_hot(indices: Any, classes: int, dtype: str = "float32") -> Tensor:
    """A new last axis of `classes` zeros with a 1 at the index; all zeros for an index out of range.

    Gradient: zero, since the indices are integers.

    >>> import chainrule as cr
    >>> cr.ops.one_hot([1, 0], 3).numpy().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    return apply(ONE_HOT, as_tensor(indices), classes=int(classes), dtype=np.dtype(dtype).name)


def _arange_spec(*, size: Size) -> Spec:
    if isinstance(size, int) and not 0 <= size < 2**31:
        raise ShapeError(f"arange counts to a size below 2**31, got {size}")
    return Spec((size,), np.dtype("int32"))


def _arange_reference(*, size: int) -> Array:
    return np.arange(size, dtype=np.int32)


def _arange_element(k: Any, point: Any, *, size: Size) -> Any:
    return k.cast(point[0], "int32")


def _require_indices(spec: Spec) -> None:
    if spec.dtype.kind not in "iu":
        raise DTypeError(f"indices must be integers, got {spec}")


def _gather_spec(x: Spec, indices: Spec, *, axis: int) -> Spec:
    _require_indices(indices)
    return x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_reference(x: Array, indices: Array, *, axis: int) -> Array:
    _check_range(indices, x.shape[axis], "gather")
    result: Array = np.take(x, indices, axis=axis)
    return result


def _check_range(indices: Array, size: int, what: str) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        bad = indices[(indices < 0) | (indices >= size)].flat[0]
        raise ShapeError(f"{what}: index {bad} is outside 0..{size - 1}")


def _gather_vjp(node: Node, g: Tensor) -> tuple[Tensor, None]:
    x, indices = node.inputs
    axis = node.attrs["axis"]
    return scatter_add(g, indices, x.shape[axis], axis), None


def _scatter_spec(updates: Spec, indices: Spec, *, size: Size, axis: int) -> Spec:
    _require_indices(indices)
    require_float(updates)
    if updates.shape[axis : axis + indices.rank] != indices.shape:
        raise ShapeError(
            f"updates {format_shape(updates.shape)} do not hold the indices' shape "
            f"{format_shape(indices.shape)} at axis {axis}"
        )
    return updates.with_shape((*updates.shape[:axis], size, *updates.shape[axis + indices.rank :]))


def _scatter_reference(updates: Array, indices: Array, *, size: int, axis: int) -> Array:
    _check_range(indices, size, "scatter_add")
    head, tail = updates.shape[:axis], updates.shape[axis + indices.ndim :]
    result = np.zeros((*head, size, *tail), updates.dtype)
    rows = np.moveaxis(result, axis, 0)
    flat = updates.reshape(*head, indices.size, *tail)
    np.add.at(rows, indices.reshape(-1), np.moveaxis(flat, axis, 0))
    return result


def _scatter_vjp(node: Node, g: Tensor) -> tuple[Tensor, None]:
    return gather(g, node.inputs[1], node.attrs["axis"]), None


def _one_hot_spec(indices: Spec, *, classes: Size, dtype: str) -> Spec:
    _require_indices(indices)
    if isinstance(classes, int) and classes < 1:
        raise ShapeError(f"one_hot needs at least one class, got {classes}")
    return Spec((*indices.shape, classes), np.dtype(dtype))


def _one_hot_reference(indices: Array, *, classes: int, dtype: str) -> Array:
    hits: Array = indices[..., None] == np.arange(classes)
    return hits.astype(dtype)


def _gather_element(k: Any, point: Any, x: Any, indices: Any, *, axis: int) -> Any:
    rank = len(indices.shape)
    before, place, after = (
        point.coordinates[:axis],
        point.coordinates[axis : axis + rank],
        point.coordinates[axis + rank :],
    )
    row, size = k.cast(indices[place], "int64"), k.size(x.shape[axis])
    missing = math.nan if x.dtype.kind == "f" else 0
    bounded = k.maximum(k.smaller(row, size - 1), 0)  # changes nothing inside, where it gives the index its bounds
    return k.guard((row >= 0) & (row < size), x[(*before, bounded, *after)], missing)


def _scatter_element(k: Any, point: Any, updates: Any, indices: Any, *, size: Size, axis: int) -> Any:
    """One output element looks at every index: work of ``size * indices``, in an order that nothing changes."""
    before, row, after = point.coordinates[:axis], point[axis], point.coordinates[axis + 1 :]

    def step(place: Any, held: Any) -> Any:
        hit = k.cast(indices[place], "int64").equals(row)
        return (k.select(hit, held[0] + updates[(*before, *place, *after)], held[0]),)

    return k.fold(indices.shape, (k.constant(0, updates.dtype),), step)[0]


def _one_hot_element(k: Any, point: Any, indices: Any, *, classes: Size, dtype: str) -> Any:
    *place, number = point
    return k.cast(k.cast(indices[tuple(place)], "int64").equals(number), dtype)


def _update_size(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return inputs[0].size


GATHER = register(
    Op(
        "gather",
        gather,
        _gather_spec,
        _gather_reference,
        _gather_vjp,
        no_flops,
        traits=frozenset({Trait.DATA_MOVEMENT, Trait.LINEAR, Trait.BATCH_REDUCING}),
        cases=(
            case((4, 3), Arg((2,), 0, 3, "int32"), axis=0),
            case((2, 4, 3), Arg((2, 2), 0, 3, "int32"), axis=1),
            case((3,), np.array([0, 2, 2, 0], np.int32), axis=0, name="repeated"),
        ),
        lowering=(Indexed(_gather_element),),
    )
)
SCATTER_ADD = register(
    Op(
        "scatter_add",
        scatter_add,
        _scatter_spec,
        _scatter_reference,
        _scatter_vjp,
        _update_size,
        traits=frozenset({Trait.REDUCTION, Trait.LINEAR, Trait.BATCH_REDUCING}),
        cases=(
            case((2, 3), Arg((2,), 0, 3, "int32"), size=4, axis=0),
            case((2, 2, 2, 3), Arg((2, 2), 0, 3, "int32"), size=4, axis=1),
            case((4,), np.array([0, 2, 2, 0], np.int32), size=3, axis=0, name="repeated"),
        ),
        lowering=(Indexed(_scatter_element, cheap=False, reads=8),),
    )
)
ARANGE = register(
    Op(
        "arange",
        arange,
        _arange_spec,
        _arange_reference,
        "zero",
        no_flops,
        cases=(case(size=5), case(size=1)),
        lowering=(Indexed(_arange_element),),
    )
)
ONE_HOT = register(
    Op(
        "one_hot",
        one_hot,
        _one_hot_spec,
        _one_hot_reference,
        "zero",
        no_flops,
        traits=frozenset({Trait.PER_SAMPLE}),
        cases=(
            case(Arg((3,), 0, 4, "int32"), classes=5, dtype="float64"),
            case(np.array([-1, 0, 3], np.int64), classes=3, dtype="float32", name="out of range"),
        ),
        lowering=(Indexed(_one_hot_element),),
    )
)
