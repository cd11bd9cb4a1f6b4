"""Dimensions: plain integers, and the one symbolic batch size ``N`` of a graph.

A traced shape such as ``(N, 28, 28, 1)`` holds a [`Dim`][] where the batch size stands.  A `Dim` is the
linear form ``scale * N + offset``, which is closed under everything that ops do to a batch axis: merging it
with other axes (``N * 12``), splitting it again (exact ``//``), slicing and padding (``N - 1``).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from chainrule.errors import ShapeError, TraceError

__all__ = ["BATCH", "Dim", "Shape", "Size", "bind", "bind_shape", "bind_size", "format_shape", "is_static", "size_of"]


@dataclass(frozen=True, slots=True)
class Dim:
    """The linear form ``scale * N + offset`` in the symbolic batch size N.

    >>> (BATCH * 12) // 4
    3*N
    >>> BATCH - 1 + 1 == BATCH
    True
    """

    scale: int
    offset: int = 0

    def _make(self, scale: int, offset: int) -> Size:
        return Dim(scale, offset) if scale else offset

    def __add__(self, other: Size) -> Size:
        if isinstance(other, Dim):
            return self._make(self.scale + other.scale, self.offset + other.offset)
        return Dim(self.scale, self.offset + other)

    def __radd__(self, other: int) -> Size:
        return self + other

    def __neg__(self) -> Dim:
        return Dim(-self.scale, -self.offset)

    def __sub__(self, other: Size) -> Size:
        return self + (-other)

    def __rsub__(self, other: int) -> Size:
        return -self + other

    def __mul__(self, other: Size) -> Size:
        if isinstance(other, Dim):
            raise ShapeError(
                f"the product {self} * {other} is not linear in the batch size N; a shape may hold the batch size once"
            )
        return self._make(self.scale * other, self.offset * other)

    def __rmul__(self, other: int) -> Size:
        return self * other

    def __floordiv__(self, other: Size) -> Size:
        if isinstance(other, Dim):
            return self._divide_by_dim(other)
        if other and self.scale % other == 0 and self.offset % other == 0:
            return Dim(self.scale // other, self.offset // other)
        raise ShapeError(f"{self} cannot be divided evenly by {other} for every batch size N")

    def __rfloordiv__(self, other: int) -> int:
        if other == 0:
            return 0
        raise ShapeError(f"{other} is not a whole multiple of {self} for every batch size N")

    def _divide_by_dim(self, other: Dim) -> int:
        quotient = self.scale // other.scale
        if other * quotient == self:
            return quotient
        raise ShapeError(f"{self} is not a whole multiple of {other} for every batch size N")

    def __mod__(self, other: int) -> int:
        if self.scale % other == 0:
            return self.offset % other
        raise ShapeError(f"{self} % {other} depends on the batch size N")

    def _no_value(self, *_: object) -> bool:
        raise TraceError(
            f"the batch size is symbolic here ({self}), so its value cannot be compared or converted; "
            "use it in shapes, and divide by it at run time with cr.ops.mean or cr.ops.element_count"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _no_value

    def __index__(self) -> int:
        self._no_value()
        raise AssertionError

    __int__ = __index__

    def bind(self, batch: int) -> int:
        """The value of this dimension for a batch size."""
        return self.scale * batch + self.offset

    def __repr__(self) -> str:
        text = "N" if self.scale == 1 else f"{self.scale}*N"
        return f"{text}{self.offset:+d}" if self.offset else text


Size: TypeAlias = int | Dim
Shape: TypeAlias = tuple[Size, ...]

BATCH = Dim(1)
"""The symbolic batch size N."""


def is_static(shape: Shape) -> bool:
    """Whether every dimension is a plain integer."""
    return not any(isinstance(size, Dim) for size in shape)


def size_of(shape: Shape) -> Size:
    """The number of elements of a shape: an integer, or a multiple of N.

    >>> size_of((BATCH, 3, 4))
    12*N
    """
    result: Size = prod(size for size in shape if isinstance(size, int))
    for size in shape:
        if isinstance(size, Dim):
            result = size * result
    return result


def bind_size(size: Size, batch: int) -> int:
    """A size with N replaced by a batch size."""
    return size.bind(batch) if isinstance(size, Dim) else size


def bind(value: object, batch: int) -> object:
    """`value` with every `Dim` inside it (also in nested tuples) replaced by its size for a batch."""
    if isinstance(value, Dim):
        return value.bind(batch)
    if isinstance(value, tuple):
        return tuple(bind(item, batch) for item in value)
    return value


def bind_shape(shape: Shape, batch: int) -> tuple[int, ...]:
    """`shape` with N replaced by a batch size."""
    return tuple(bind_size(size, batch) for size in shape)


def format_shape(shape: Shape) -> str:
    """A shape as the messages print it.

    >>> format_shape((BATCH, 28, 28, 1))
    '(N, 28, 28, 1)'
    """
    inner = ", ".join(str(size) for size in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"
