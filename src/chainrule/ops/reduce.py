"""Reductions: sum, mean, max, var, argmax.

Means and variances divide by the number of elements at run time, so a short last batch is right.  The NumPy
rules accumulate in float64 and round once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, case, convention
from chainrule.graph.dims import Dim, Size, format_shape, size_of
from chainrule.graph.lowering import Attrs, Composed, Indexed, Reduction
from chainrule.graph.op import Array, Op, Spec, Trait, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor
from chainrule.ops._rules import normalise_axes, normalise_axis, require_float
from chainrule.ops.broadcast import broadcast_to, element_count
from chainrule.ops.comparison import where
from chainrule.ops.indexing import ONE_HOT
from chainrule.ops.shape import reshape, transpose
from chainrule.ops.structure import cast

__all__ = ["argmax", "first_max_mask", "max", "mean", "sum", "var"]

Axes = int | Sequence[int] | None


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over axes, all of them by default.

    Gradient: ``dx = dy``, repeated along the summed axes.

    >>> import chainrule as cr
    >>> cr.ops.sum(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), axis=0).numpy().tolist()
    [4.0, 6.0]
    """
    return _reduce(SUM, x, axis, keepdims)


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over axes: the sum divided by the number of elements at run time.

    Gradient: ``dx = dy / count``, repeated along the axes.

    >>> import chainrule as cr
    >>> cr.ops.mean(cr.tensor([1.0, 2.0, 6.0])).item()
    3.0
    """
    return _reduce(MEAN, x, axis, keepdims)


def var(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Biased variance over axes: ``mean((x - mean(x))**2)``.

    Gradient: ``dx = dy * 2 * (x - mean(x)) / count``.

    >>> import chainrule as cr
    >>> cr.ops.var(cr.tensor([1.0, 3.0])).item()
    1.0
    """
    return _reduce(VAR, x, axis, keepdims)


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Largest element over axes; NaN if there is one.

    Gradient: all of dy to the largest element; at a tie to the first in row-major order.

    Raises:
        ShapeError: an axis is empty.

    >>> import chainrule as cr
    >>> cr.ops.max(cr.tensor([1.0, 5.0, 2.0])).item()
    5.0
    """
    return _reduce(MAX, x, axis, keepdims)


def argmax(x: Any, axis: int = -1) -> Tensor:
    """Index (int32) of the largest element along an axis; of the first one at a tie.  Gradient: zero.

    >>> import chainrule as cr
    >>> cr.ops.argmax(cr.tensor([1.0, 5.0, 5.0])).item()
    1
    """
    x = as_tensor(x)
    return apply(ARGMAX, x, axis=normalise_axis(axis, x.ndim))


def first_max_mask(x: Any, axis: Axes = None) -> Tensor:
    """True at the element that `max` takes: the first largest in row-major order.  Gradient: zero.

    >>> import chainrule as cr
    >>> cr.ops.first_max_mask(cr.tensor([1.0, 5.0, 5.0])).numpy().tolist()
    [False, True, False]
    """
    x = as_tensor(x)
    return apply(FIRST_MAX_MASK, x, axes=normalise_axes(axis, x.ndim))


def _reduce(op: Op, x: Any, axis: Axes, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    return apply(op, x, axes=normalise_axes(axis, x.ndim), keepdims=bool(keepdims))


def _reduced_spec(x: Spec, *, axes: tuple[int, ...], keepdims: bool) -> Spec:
    require_float(x)
    if keepdims:
        return x.with_shape([1 if i in axes else size for i, size in enumerate(x.shape)])
    return x.with_shape([size for i, size in enumerate(x.shape) if i not in axes])


def _nonempty_spec(x: Spec, *, axes: tuple[int, ...], keepdims: bool) -> Spec:
    if any(x.shape[axis] == 0 for axis in axes):
        raise ShapeError(f"nothing to take the maximum of: shape {format_shape(x.shape)}, axes {axes}")
    return _reduced_spec(x, axes=axes, keepdims=keepdims)


def _sum_reference(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    return np.asarray(np.sum(x, axis=axes, keepdims=keepdims, dtype=np.float64)).astype(x.dtype)


def _mean_reference(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    return np.asarray(np.mean(x, axis=axes, keepdims=keepdims, dtype=np.float64)).astype(x.dtype)


def _var_reference(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    centred = x - np.mean(x, axis=axes, keepdims=True, dtype=np.float64)
    return np.asarray(np.mean(centred * centred, axis=axes, keepdims=keepdims)).astype(x.dtype)


def _max_reference(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
    return np.asarray(np.max(x, axis=axes, keepdims=keepdims))


def _restored(node: Node, value: Tensor) -> Tensor:
    """A reduced value with the reduced axes back as size 1."""
    axes = node.attrs["axes"]
    return reshape(value, [1 if i in axes else n for i, n in enumerate(node.inputs[0].shape)])


def count_of(x: Tensor, axes: Sequence[int]) -> Tensor | float:
    """Elements along axes: a number where the shape is known, else counted at run time."""
    sizes: tuple[Size, ...] = tuple(x.shape[axis] for axis in axes)
    total = size_of(sizes)
    return element_count(x, axes) if isinstance(total, Dim) else float(total)


def _sum_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (broadcast_to(_restored(node, g), node.inputs[0].shape),)


def _mean_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    (x,) = node.inputs
    return (broadcast_to(_restored(node, g / count_of(x, node.attrs["axes"])), x.shape),)


def _var_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    (x,) = node.inputs
    axes = node.attrs["axes"]
    return (_restored(node, g * 2 / count_of(x, axes)) * (x - mean(x, axes, keepdims=True)),)


def _max_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    (x,) = node.inputs
    return (where(first_max_mask(x, node.attrs["axes"]), _restored(node, g), 0),)


def _argmax_spec(x: Spec, *, axis: int) -> Spec:
    return _nonempty_spec(x, axes=(axis,), keepdims=False).with_dtype("int32")


def _argmax_reference(x: Array, *, axis: int) -> Array:
    return np.asarray(np.argmax(x, axis=axis)).astype(np.int32)


def _mask_spec(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    _nonempty_spec(x, axes=axes, keepdims=True)
    return x.with_dtype("bool")


def _mask_reference(x: Array, *, axes: tuple[int, ...]) -> Array:
    kept = [i for i in range(x.ndim) if i not in axes]
    order = kept + list(axes)
    rows = x.transpose(order).reshape([x.shape[i] for i in kept] + [-1])
    mask = np.zeros(rows.shape, bool)
    np.put_along_axis(mask, np.argmax(rows, axis=-1)[..., None], True, axis=-1)
    return mask.reshape([x.shape[i] for i in order]).transpose(np.argsort(order))


def _reduced_axes(inputs: Sequence[Spec], attrs: Attrs) -> tuple[int, ...]:
    axes: tuple[int, ...] = attrs["axes"]
    return axes


def _mean_composed(x: Tensor, *, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return sum(x, axes, keepdims) / count_of(x, axes)


def _var_composed(x: Tensor, *, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    """Two passes in float64, rounded once, as the NumPy rule has it."""
    wide = cast(x, "float64")
    centred = wide - mean(wide, axes, keepdims=True)
    return cast(mean(centred * centred, axes, keepdims), x.dtype)


def _argmax_element(k: Any, point: Any, x: Any, *, axis: int) -> Any:
    def element(place: Any) -> Any:
        return x[(*point.coordinates[:axis], place, *point.coordinates[axis:])]

    def step(place: Any, held: Any) -> Any:
        (number,), (best, position) = place, held
        seen = element(number)
        better = ~(seen <= best) & best.equals(best)  # greater, or the first NaN
        return k.select(better, seen, best), k.select(better, k.cast(number, "int32"), position)

    return k.fold((x.shape[axis],), (element(0), k.constant(0, "int32")), step)[1]


def _mask_composed(x: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    """The rows over `axes` as the last axis, each with a 1 at its argmax, moved back."""
    order = [*(i for i in range(x.ndim) if i not in axes), *axes]
    moved = transpose(x, order)
    kept = moved.shape[: x.ndim - len(axes)]
    length = size_of(moved.shape[len(kept) :])
    place = argmax(reshape(moved, (*kept, length)), axis=-1)
    mask = apply(ONE_HOT, place, classes=length, dtype="bool")
    return transpose(reshape(mask, moved.shape), [order.index(i) for i in range(x.ndim)])


def _input_size(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return inputs[0].size


def _three_passes(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return inputs[0].size * 4


_TRAITS = frozenset({Trait.REDUCTION, Trait.BATCH_REDUCING})
_LINEAR = _TRAITS | {Trait.LINEAR}
_REDUCTIONS = (
    case((2, 3), axes=(0, 1), keepdims=False),
    case((2, 3, 4), axes=(1,), keepdims=True),
    case((2, 3, 4), axes=(0, 2), keepdims=False),
    case((3,), axes=(), keepdims=False, name="no axis"),
)
_DISTINCT = Arg((2, 3, 4), distinct=True)

SUM = register(
    Op(
        "sum",
        sum,
        _reduced_spec,
        _sum_reference,
        _sum_vjp,
        _input_size,
        traits=_LINEAR,
        cases=_REDUCTIONS,
        lowering=(Reduction("sum", _reduced_axes),),
    )
)
MEAN = register(
    Op(
        "mean",
        mean,
        _reduced_spec,
        _mean_reference,
        _mean_vjp,
        _input_size,
        traits=_LINEAR,
        cases=_REDUCTIONS,
        lowering=(Composed(_mean_composed),),
    )
)
VAR = register(
    Op(
        "var",
        var,
        _reduced_spec,
        _var_reference,
        _var_vjp,
        _three_passes,
        traits=_TRAITS,
        cases=_REDUCTIONS,
        lowering=(Composed(_var_composed),),
    )
)
MAX = register(
    Op(
        "max",
        max,
        _nonempty_spec,
        _max_reference,
        _max_vjp,
        _input_size,
        traits=_TRAITS,
        cases=(
            case(_DISTINCT, axes=(0, 1, 2), keepdims=False),
            case(_DISTINCT, axes=(1,), keepdims=True),
            case(_DISTINCT, axes=(0, 2), keepdims=False),
        ),
        conventions=(
            convention(
                "max: a tie goes to the first element in row-major order",
                [[[1.0, 2.0], [2.0, 2.0]]],
                3.0,
                [[[0.0, 3.0], [0.0, 0.0]]],
                axes=(0, 1),
                keepdims=False,
            ),
        ),
        lowering=(Reduction("max", _reduced_axes),),
    )
)
ARGMAX = register(
    Op(
        "argmax",
        argmax,
        _argmax_spec,
        _argmax_reference,
        "zero",
        _input_size,
        traits=_TRAITS,
        cases=(case(_DISTINCT, axis=1), case(_DISTINCT, axis=2)),
        lowering=(Indexed(_argmax_element, cheap=False),),
    )
)
FIRST_MAX_MASK = register(
    Op(
        "first_max_mask",
        first_max_mask,
        _mask_spec,
        _mask_reference,
        "zero",
        _input_size,
        traits=_TRAITS,
        cases=(case(_DISTINCT, axes=(0, 2)), case(_DISTINCT, axes=(1,))),
        lowering=(Composed(_mask_composed),),
    )
)
