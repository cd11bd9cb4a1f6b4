"""Broadcasting made explicit: `broadcast_to`, its adjoint `sum_to`, and the run-time `element_count`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import case
from chainrule.graph.dims import Shape, Size, format_shape, size_of
from chainrule.graph.lowering import Attrs, Indexed, Reduction
from chainrule.graph.op import Array, Op, Spec, Trait, no_flops, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor
from chainrule.ops._rules import broadcast_shapes, normalise_axes, require_float

__all__ = ["broadcast_to", "element_count", "sum_to", "unbroadcast"]


def broadcast_to(x: Any, shape: Sequence[Size]) -> Tensor:
    """Repeat `x` along new axes and axes of size 1: ``y[i] = x[i restricted to x's axes]``.

    Gradient: ``dx = sum_to(dy, x.shape)``, since each element was used once for every copy.

    Raises:
        ShapeError: `x` does not broadcast to `shape`.

    >>> import chainrule as cr
    >>> cr.ops.broadcast_to(cr.tensor([1.0, 2.0]), (2, 2)).numpy().tolist()
    [[1.0, 2.0], [1.0, 2.0]]
    """
    x = as_tensor(x)
    return x if x.shape == tuple(shape) else apply(BROADCAST_TO, x, shape=tuple(shape))


def sum_to(x: Any, shape: Sequence[Size]) -> Tensor:
    """Sum over the axes along which `shape` would broadcast to ``x.shape``: the adjoint of `broadcast_to`.

    Gradient: ``dx = broadcast_to(dy, x.shape)``.

    >>> import chainrule as cr
    >>> cr.ops.sum_to(cr.tensor([[1.0, 2.0], [3.0, 4.0]]), (2,)).numpy().tolist()
    [4.0, 6.0]
    """
    x = as_tensor(x)
    return x if x.shape == tuple(shape) else apply(SUM_TO, x, shape=tuple(shape))


def unbroadcast(cotangent: Tensor, operand: Tensor) -> Tensor:
    """The cotangent of an operand that took part in broadcasting."""
    return sum_to(cotangent, operand.shape)


def element_count(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """How many elements of `x` lie along `axis`, as a scalar of x's dtype, known at run time.

    This is what a mean divides by: with a symbolic batch size it is not a Python number.  Gradient: zero.

    >>> import chainrule as cr
    >>> cr.ops.element_count(cr.tensor([[1.0, 2.0, 3.0]])).item()
    3.0
    """
    x = as_tensor(x)
    return apply(ELEMENT_COUNT, x, axes=normalise_axes(axis, x.ndim))


def _broadcast_spec(x: Spec, *, shape: Shape) -> Spec:
    if broadcast_shapes(x.shape, shape) != shape:
        raise ShapeError(f"shape {format_shape(x.shape)} cannot be broadcast to {format_shape(shape)}")
    return x.with_shape(shape)


def _broadcast_reference(x: Array, *, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(x, shape)


def _broadcast_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (sum_to(g, node.inputs[0].shape),)


def _sum_to_spec(x: Spec, *, shape: Shape) -> Spec:
    require_float(x)
    if broadcast_shapes(x.shape, shape) != x.shape:
        raise ShapeError(f"shape {format_shape(x.shape)} cannot be summed to {format_shape(shape)}")
    return x.with_shape(shape)


def _sum_to_reference(x: Array, *, shape: tuple[int, ...]) -> Array:
    extra = x.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, size in enumerate(shape) if size == 1 and x.shape[extra + i] != 1
    )
    total: Array = x.sum(axis=axes, dtype=np.float64)
    return total.astype(x.dtype).reshape(shape)


def _sum_to_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (broadcast_to(g, node.inputs[0].shape),)


def _count_spec(x: Spec, *, axes: tuple[int, ...]) -> Spec:
    require_float(x)
    return x.with_shape(())


def _count_reference(x: Array, *, axes: tuple[int, ...]) -> Array:
    return np.asarray(np.prod([x.shape[axis] for axis in axes]), dtype=x.dtype)


def _broadcast_element(k: Any, point: Any, x: Any, *, shape: Shape) -> Any:
    extra = len(shape) - len(x.shape)
    return x[tuple(0 if size == 1 else point[extra + axis] for axis, size in enumerate(x.shape))]


def _sum_to_axes(inputs: Sequence[Spec], attrs: Attrs) -> tuple[int, ...]:
    given, wanted = inputs[0].shape, attrs["shape"]
    extra = len(given) - len(wanted)
    narrowed = (extra + axis for axis, size in enumerate(wanted) if size == 1 and given[extra + axis] != 1)
    return (*range(extra), *narrowed)


def _count_element(k: Any, point: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    return k.cast(k.size(size_of(tuple(x.shape[axis] for axis in axes))), x.dtype)


BROADCAST_TO = register(
    Op(
        "broadcast_to",
        broadcast_to,
        _broadcast_spec,
        _broadcast_reference,
        _broadcast_vjp,
        no_flops,
        traits=frozenset({Trait.DATA_MOVEMENT, Trait.LINEAR}),
        cases=(case((3,), shape=(2, 3)), case((2, 1, 3), shape=(2, 4, 3)), case((), shape=(2, 2))),
        lowering=(Indexed(_broadcast_element),),
    )
)

SUM_TO = register(
    Op(
        "sum_to",
        sum_to,
        _sum_to_spec,
        _sum_to_reference,
        _sum_to_vjp,
        lambda inputs, outputs, attrs: inputs[0].size,
        traits=frozenset({Trait.REDUCTION, Trait.LINEAR, Trait.BATCH_REDUCING}),
        cases=(case((2, 3), shape=(3,)), case((2, 4, 3), shape=(2, 1, 3)), case((2, 2), shape=())),
        lowering=(Reduction("sum", _sum_to_axes),),
    )
)

ELEMENT_COUNT = register(
    Op(
        "element_count",
        element_count,
        _count_spec,
        _count_reference,
        "zero",
        no_flops,
        traits=frozenset({Trait.BATCH_REDUCING}),
        cases=(case((2, 3), axes=(0,)), case((2, 3), axes=(0, 1)), case((4,), axes=())),
        lowering=(Indexed(_count_element),),
    )
)
