"""Arithmetic of integers that index memory.

They are kept in the canonical form ``constant + sum of coefficient * atom``; so sums cancel, strides can be read off,
and divisions that a reshape brings in vanish where they can.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.errors import EngineError
from chainrule.graph.dims import Dim, Size
from chainrule.plan.expr.expression import INDEX, Expr

__all__ = ["Indices", "decided"]


class Indices(ABC):
    """Makes indices."""

    @abstractmethod
    def make(self, op: str, args: tuple[Expr, ...], dtype: np.dtype[Any], attr: Any = None) -> Expr:
        """The expression of that kind; the same object if it exists already."""

    def size(self, size: Size) -> Expr:
        """A dimension as an index: a number, or ``scale * N + offset`` with the run-time batch size N."""
        if not isinstance(size, Dim):
            return self.affine({}, size)
        batch = self.make("batch", (), INDEX)
        batch.low = 0
        return self.affine({batch: size.scale}, size.offset)

    def affine(self, terms: Mapping[Expr, int], constant: int) -> Expr:
        """``constant + sum of coefficient * atom``."""
        kept = sorted(((atom, c) for atom, c in terms.items() if c), key=lambda item: item[0].id)
        atoms = tuple(atom for atom, _ in kept)
        made = self.make("affine", atoms, INDEX, (constant, *(c for _, c in kept)))
        if made.low is None:
            made.low, made.high = _bounds(kept, constant)
        return made

    @staticmethod
    def terms(index: Expr) -> tuple[dict[Expr, int], int]:
        """The coefficients of an index by atom, and its constant."""
        if index.op != "affine":
            return {index: 1}, 0
        return dict(zip(index.args, index.attr[1:], strict=True)), index.attr[0]

    def _combine(self, a: Expr, b: Expr, sign: int) -> Expr:
        """``a + sign * b``."""
        terms, constant = self.terms(a)
        more, extra = self.terms(b)
        for atom, coefficient in more.items():
            terms[atom] = terms.get(atom, 0) + sign * coefficient
        return self.affine(terms, constant + sign * extra)

    def _product(self, a: Expr, b: Expr) -> Expr:
        """``a * b``."""
        for factor, other in ((a, b), (b, a)):
            if factor.constant is not None:
                terms, constant = self.terms(other)
                c = factor.constant
                return self.affine({atom: k * c for atom, k in terms.items()}, constant * c)
        made = self.make("index_product", (a, b) if a.id <= b.id else (b, a), INDEX)
        if a.low is not None and b.low is not None and a.low >= 0 and b.low >= 0:
            made.low = a.low * b.low
            made.high = None if a.high is None or b.high is None else a.high * b.high
        return self.affine({made: 1}, 0)

    def floor_divide(self, a: Expr, b: int | Expr) -> Expr:
        """``a // b`` of indices, b positive."""
        if isinstance(b, Expr) and b.constant is None:
            return self._index_atom("index_divide", a, b)
        divisor: int = b.constant if isinstance(b, Expr) else b
        outside, inside = self._split(a, divisor)
        if inside.low is not None and inside.high is not None and inside.low // divisor == inside.high // divisor:
            return self._combine(outside, self.affine({}, inside.low // divisor), 1)
        return self._combine(outside, self._index_atom("index_divide", inside, self.affine({}, divisor)), 1)

    def modulo(self, a: Expr, b: int | Expr) -> Expr:
        """``a % b`` of indices, b positive."""
        if isinstance(b, Expr) and b.constant is None:
            return self._index_atom("index_modulo", a, b)
        divisor: int = b.constant if isinstance(b, Expr) else b
        _, inside = self._split(a, divisor)
        if inside.low is not None and inside.high is not None and inside.low // divisor == inside.high // divisor:
            return self._combine(inside, self.affine({}, inside.low // divisor * divisor), -1)
        return self._index_atom("index_modulo", inside, self.affine({}, divisor))

    def _split(self, a: Expr, b: int) -> tuple[Expr, Expr]:
        """``a = b * outside + inside`` with as little inside as the coefficients allow."""
        terms, constant = self.terms(a)
        outside = {atom: c // b for atom, c in terms.items() if c % b == 0}
        inside = {atom: c for atom, c in terms.items() if c % b}
        return self.affine(outside, constant // b), self.affine(inside, constant % b)

    def _index_atom(self, op: str, a: Expr, b: Expr) -> Expr:
        divisor = b.constant
        shift = 0
        if a.low is None or (a.low < 0 and divisor is None):
            raise EngineError(f"{op} by {b} of an index that may be negative: {a}")
        if a.low < 0:
            shift = -(a.low // divisor)
            a = self._combine(a, self.affine({}, shift * divisor), 1)
        made = self.make(op, (a, b), INDEX)
        made.low = 0
        if op == "index_modulo":
            made.high = None if divisor is None else divisor - 1
        else:
            made.high = None if a.high is None or divisor is None else a.high // divisor
        return self.affine({made: 1}, -shift if op == "index_divide" else 0)

    def smaller(self, a: Expr, b: Expr) -> Expr:
        """The smaller of two indices."""
        if a.constant is not None and b.constant is not None:
            return a if a.constant <= b.constant else b
        made = self.make("index_minimum", (a, b), INDEX)
        made.low = None if a.low is None or b.low is None else min(a.low, b.low)
        made.high = b.high if a.high is None else a.high if b.high is None else min(a.high, b.high)
        return self.affine({made: 1}, 0)


def _bounds(terms: Sequence[tuple[Expr, int]], constant: int) -> tuple[int | None, int | None]:
    low: int | None = constant
    high: int | None = constant
    for atom, c in terms:
        below, above = (atom.low, atom.high) if c > 0 else (atom.high, atom.low)
        low = None if low is None or below is None else low + c * below
        high = None if high is None or above is None else high + c * above
    return low, high


def decided(relation: str, low: int | None, high: int | None) -> bool | None:
    """Whether ``difference relation 0`` is known from the difference's bounds."""
    above = low is not None and low > 0
    not_below = low is not None and low >= 0
    below = high is not None and high < 0
    not_above = high is not None and high <= 0
    truth = {
        "lt": (below, not_below),
        "le": (not_above, above),
        "gt": (above, not_above),
        "ge": (not_below, below),
        "eq": (low == high == 0, above or below),
        "ne": (above or below, low == high == 0),
    }
    yes, no = truth[relation]
    return True if yes else False if no else None
