"""Shape rules that several rooms share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import DTypeError, ShapeError
from chainrule.graph.dims import Shape, Size, format_shape
from chainrule.graph.op import Spec

__all__ = [
    "broadcast",
    "broadcast_shapes",
    "normalise_axes",
    "normalise_axis",
    "one_dtype",
    "require_float",
    "same_shape",
]


def require_float(*specs: Spec) -> None:
    """All specs are float32 or float64."""
    for spec in specs:
        if not spec.is_float:
            raise DTypeError(f"expected a float32 or float64 tensor, got {spec}; convert it with .astype('float32')")


def one_dtype(*specs: Spec) -> np.dtype[Any]:
    """The common dtype; mixing is an error, so that nothing silently becomes slow or inexact."""
    first = specs[0].dtype
    for spec in specs[1:]:
        if spec.dtype != first:
            raise DTypeError(f"operands have different dtypes, {first} and {spec.dtype}; convert one with .astype(...)")
    return first


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting, where the symbolic size N goes with N and 1 only."""
    if shapes and all(shape == shapes[0] for shape in shapes):
        return tuple(shapes[0])
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    result: list[Size] = []
    for sizes in zip(*padded, strict=True):
        wide = [size for size in sizes if size != 1]
        if any(size != wide[0] for size in wide):
            names = " and ".join(format_shape(shape) for shape in shapes)
            raise ShapeError(f"shapes {names} do not broadcast; every axis, counted from the last, must be equal or 1")
        result.append(wide[0] if wide else 1)
    return tuple(result)


def broadcast(*specs: Spec, **_: object) -> Spec:
    """Elementwise ops of one dtype."""
    return Spec(broadcast_shapes(*(spec.shape for spec in specs)), one_dtype(*specs))


def same_shape(x: Spec, **_: object) -> Spec:
    """Elementwise ops on one float tensor."""
    require_float(x)
    return x


def normalise_axis(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        ShapeError: the tensor has no such axis.
    """
    if not -rank <= axis < rank:
        raise ShapeError(f"axis {axis} does not exist in a tensor of rank {rank}")
    return axis % rank


def normalise_axes(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Sorted axes from an integer, a sequence, or None for all of them."""
    if axes is None:
        return tuple(range(rank))
    listed = (axes,) if isinstance(axes, int) else tuple(axes)
    result = tuple(sorted(normalise_axis(axis, rank) for axis in listed))
    if len(set(result)) != len(result):
        raise ShapeError(f"axes {listed} name one axis twice")
    return result
