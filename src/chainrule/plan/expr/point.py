"""Places in tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chainrule.graph.dims import Shape
from chainrule.plan.expr.expression import INDEX, Expr
from chainrule.plan.expr.rules import Rules

__all__ = ["Point"]


class Point:
    """A place in a tensor: its multi-index and its row-major number, whichever a rule asks for.

    A place that came through a reshape knows its number only; the multi-index is then found by division.
    """

    def __init__(
        self, rules: Rules, shape: Shape, coordinates: Sequence[Expr] | None = None, linear: Expr | None = None
    ) -> None:
        self.rules, self.shape = rules, shape
        self._coordinates = tuple(coordinates) if coordinates is not None else None
        self._linear = linear

    @property
    def coordinates(self) -> tuple[Expr, ...]:
        """One index for each axis."""
        if self._coordinates is None:
            assert self._linear is not None
            rest, found = self._known_place(self._linear), list[Expr]()
            for axis in range(len(self.shape) - 1, 0, -1):
                size = self.rules.size(self.shape[axis])
                found.append(self.rules.modulo(rest, size))
                rest = self.rules.floor_divide(rest, size)
            self._coordinates = (rest, *reversed(found)) if self.shape else ()
        return self._coordinates

    def _known_place(self, number: Expr) -> Expr:
        """The number, or that of the first element for a place before it: only a guard that fails ever meets one.

        Sizes that are known divide negative numbers just as well.
        """
        known = all(isinstance(size, int) for size in self.shape[1:])
        return number if known or (number.low is not None and number.low >= 0) else self.rules.maximum(number, 0)

    @property
    def linear(self) -> Expr:
        """The number of the element in row-major order."""
        if self._linear is None:
            assert self._coordinates is not None
            total = self.rules.constant(0, INDEX)
            for index, size in zip(self._coordinates, self.shape, strict=True):
                total = total * self.rules.size(size) + index
            self._linear = total
        return self._linear

    def __getitem__(self, axis: int) -> Expr:
        return self.coordinates[axis]

    def __iter__(self) -> Iterator[Expr]:
        return iter(self.coordinates)

    def __len__(self) -> int:
        return len(self.shape)
