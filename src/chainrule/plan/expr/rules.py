"""The language that ops say their elements in: whatever makes expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from chainrule.errors import EngineError
from chainrule.graph.dims import Size
from chainrule.plan.expr.expression import BOOL, INDEX, Expr, Scalar, Storage, Variable
from chainrule.plan.expr.indices import Indices, decided

__all__ = ["Rules"]

SHORT = 32
"""Sums of at most so many float32 are done in float32 before they join a sum in float64."""
UNROLLED = 9
"""Folds over at most so many fixed elements are written out."""


class Rules(Indices):
    """Makes expressions; lowering rules call it ``k``."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Expr] = {}
        self._names = 0

    # -- making ---------------------------------------------------------------------------------------------

    def make(self, op: str, args: tuple[Expr, ...], dtype: np.dtype[Any], attr: Any = None) -> Expr:
        """The expression of that kind; the same object if it exists already."""
        key = (op, *(a.id for a in args), dtype.str, attr if op != "constant" else _bits(attr, dtype))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Expr(self, op, args, dtype, attr, len(self._known))
        return found

    def constant(self, value: Any, dtype: Any) -> Expr:
        """A literal of a dtype."""
        kind = np.dtype(dtype)
        if kind == INDEX:
            return self.affine({}, int(value))
        with np.errstate(all="ignore"):
            number = kind.type(value)
        return self.make("constant", (), kind, number.item())

    def like(self, value: Scalar, other: Expr) -> Expr:
        """An operand: an expression as it is, a Python number as a constant of the other operand's dtype."""
        if isinstance(value, Expr):
            if value.dtype != other.dtype:
                raise EngineError(f"a lowering rule mixes {value.dtype} and {other.dtype}; use k.cast")
            return value
        return self.constant(value, other.dtype)

    def variable(self, name: str, extent: Size | Expr) -> Expr:
        """A new loop variable."""
        self._names += 1
        variable = Variable(f"{name}{self._names}", extent)
        made = self.make("variable", (), INDEX, variable)
        last = extent if isinstance(extent, int) else extent.high if isinstance(extent, Expr) else None
        made.low, made.high = 0, None if last is None else last - 1
        return self.affine({made: 1}, 0)

    def operation(self, op: str, *args: Expr, dtype: Any = None, attr: Any = None) -> Expr:
        """An operation without special rules; the result has the first operand's dtype unless told otherwise."""
        return self.make(op, args, args[0].dtype if dtype is None else np.dtype(dtype), attr)

    # -- arithmetic -----------------------------------------------------------------------------------------

    def add(self, a: Scalar, b: Scalar) -> Expr:
        """``a + b``."""
        return self._arithmetic("add", a, b)

    def subtract(self, a: Scalar, b: Scalar) -> Expr:
        """``a - b``."""
        return self._arithmetic("subtract", a, b)

    def multiply(self, a: Scalar, b: Scalar) -> Expr:
        """``a * b``."""
        return self._arithmetic("multiply", a, b)

    def divide(self, a: Scalar, b: Scalar) -> Expr:
        """``a / b`` of floats."""
        return self._arithmetic("divide", a, b)

    def _arithmetic(self, op: str, a: Scalar, b: Scalar) -> Expr:
        if not isinstance(a, Expr):
            assert isinstance(b, Expr)
            a = self.like(a, b)
        b = self.like(b, a)
        if a.dtype == INDEX:
            if op == "multiply":
                return self._product(a, b)
            return self._combine(a, b, 1 if op == "add" else -1)
        return self.make(op, (a, b), a.dtype)

    def negative(self, a: Expr) -> Expr:
        """``-a``."""
        return self._product(a, self.affine({}, -1)) if a.dtype == INDEX else self.operation("negative", a)

    def compare(self, relation: str, a: Expr, b: Scalar) -> Expr:
        """A truth value; every relation but ``ne`` is false for NaN."""
        other = self.like(b, a)
        if a.dtype == INDEX:
            difference = self._combine(a, other, -1)
            known = decided(relation, difference.low, difference.high)
            if known is not None:
                return self.constant(known, BOOL)
        return self.make(relation, (a, other), BOOL)

    def logical(self, op: str, a: Expr, b: Expr) -> Expr:
        """``a & b`` (op ``and``) or ``a | b`` (``or``), without a truth value that is known."""
        if a.dtype == BOOL:
            for known, other in ((a, b), (b, a)):
                if known.constant is not None:
                    return other if known.constant == (op == "and") else known
        return self.operation(op, a, b)

    def select(self, condition: Expr, a: Scalar, b: Scalar) -> Expr:
        """``condition ? a : b``; both sides are computed."""
        return self._choose("select", condition, a, b)

    def guard(self, condition: Expr, a: Scalar, b: Scalar) -> Expr:
        """``condition ? a : b``, where loads in `a` may only be made if the condition holds."""
        return self._choose("guard", condition, a, b)

    def _choose(self, op: str, condition: Expr, a: Scalar, b: Scalar) -> Expr:
        if not isinstance(a, Expr):
            if not isinstance(b, Expr):
                raise EngineError("select needs at least one expression to take the dtype from")
            a = self.like(a, b)
        b = self.like(b, a)
        if condition.constant is not None:
            return a if condition.constant else b
        if a is b:
            return a
        made = self.make(op, (condition, a, b), a.dtype)
        if a.dtype == INDEX and condition.op == "gt" and condition.args == (a, b):  # the larger of two indices
            lows = [index.low for index in (a, b) if index.low is not None]
            made.low = max(lows, default=None)
            made.high = None if a.high is None or b.high is None else max(a.high, b.high)
        return made

    def cast(self, a: Expr, dtype: Any) -> Expr:
        """NumPy's ``astype``."""
        kind = np.dtype(dtype)
        if kind == a.dtype:
            return a
        if a.constant is not None:
            return self.constant(np.asarray(a.constant, a.dtype).astype(kind).item(), kind)
        return self.make("cast", (a,), kind)

    def fma(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """``a * b + c`` rounded once where the machine can, twice elsewhere."""
        return self.operation("fma", a, b, c)

    def maximum(self, a: Expr, b: Scalar) -> Expr:
        """The larger one; NaN if there is one; the first at a tie."""
        return self._extreme("gt", a, b)

    def minimum(self, a: Expr, b: Scalar) -> Expr:
        """The smaller one; NaN if there is one; the first at a tie."""
        return self._extreme("lt", a, b)

    def _extreme(self, relation: str, a: Expr, b: Scalar) -> Expr:
        other = self.like(b, a)
        better = self.compare(relation, other, a)
        if a.dtype.kind == "f":
            better = better | other.differs(other)
        return self.select(better, other, a)

    def call(self, name: str, *args: Expr) -> Expr:
        """A function of the engine's own mathematics: exp, log, tanh, erf, power, sin, cos, ..."""
        return self.operation("call", *args, attr=name)

    def exp(self, a: Expr) -> Expr:
        return self.call("exp", a)

    def log(self, a: Expr) -> Expr:
        return self.call("log", a)

    def tanh(self, a: Expr) -> Expr:
        return self.call("tanh", a)

    def erf(self, a: Expr) -> Expr:
        return self.call("erf", a)

    def sqrt(self, a: Expr) -> Expr:
        return self.operation("sqrt", a)

    def abs(self, a: Expr) -> Expr:
        return self.operation("abs", a)

    def bits(self, a: Expr, dtype: Any) -> Expr:
        """The same bits as another dtype of the same width."""
        return self.operation("bits", a, dtype=dtype)

    # -- memory and folds -----------------------------------------------------------------------------------

    def load(self, storage: Storage, index: Expr) -> Expr:
        """Element `index` of a storage."""
        return self.make("load", (index,), storage.dtype, storage)

    def fold(
        self,
        extents: Sequence[Size | Expr],
        initial: Sequence[Expr],
        step: Callable[[tuple[Expr, ...], tuple[Expr, ...]], Sequence[Expr]],
    ) -> tuple[Expr, ...]:
        """Accumulate over a box of indices in row-major order.

        Args:
            extents: size of each axis.
            initial: accumulators before the first index.
            step: ``step(indices, accumulators)`` gives the accumulators after.

        Returns:
            The accumulators after the last index.
        """
        fixed = [size for size in extents if isinstance(size, int)]
        if len(fixed) == len(extents) and prod(fixed) <= UNROLLED:
            values = tuple(initial)
            for place in np.ndindex(*fixed):
                values = tuple(step(tuple(self.affine({}, int(i)) for i in place), values))
            return values
        indices = tuple(self.variable("r", size) for size in extents)
        self._names += 1
        number = self._names
        held = tuple(self.make("held", (), value.dtype, (number, slot)) for slot, value in enumerate(initial))
        after = tuple(step(indices, held))
        variables = tuple(index.args[0].attr for index in indices)
        lengths = tuple(size for size in extents if isinstance(size, Expr))
        return tuple(
            self.make("fold", (*initial, *after, *lengths), value.dtype, (number, slot, variables, len(after)))
            for slot, value in enumerate(after)
        )

    def sum(self, extents: Sequence[Size | Expr], element: Callable[[tuple[Expr, ...]], Expr], dtype: Any) -> Expr:
        """The sum over a box, accumulated in float64 for floats and rounded once to `dtype`.

        A short last axis of float32 is summed in float32 first, which saves most of the conversions.
        """
        kind = np.dtype(dtype)
        wide = np.dtype("float64") if kind.kind == "f" else kind
        last = extents[-1] if len(extents) > 1 else 0
        if isinstance(last, int) and 1 < last <= SHORT:

            def row(place: tuple[Expr, ...]) -> Expr:
                first = element((*place, self.affine({}, 0)))
                zero = (self.constant(0, first.dtype),)
                return self.fold([last], zero, lambda i, held: (held[0] + element((*place, *i)),))[0]

            return self._sum(extents[:-1], row, wide, kind)
        return self._sum(extents, element, wide, kind)

    def _sum(
        self,
        extents: Sequence[Size | Expr],
        element: Callable[[tuple[Expr, ...]], Expr],
        wide: np.dtype[Any],
        kind: np.dtype[Any],
    ) -> Expr:
        def step(place: tuple[Expr, ...], held: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return (held[0] + self.cast(element(place), wide),)

        return self.cast(self.fold(extents, (self.constant(0, wide),), step)[0], kind)

    def max(self, extents: Sequence[Size | Expr], element: Callable[[tuple[Expr, ...]], Expr], dtype: Any) -> Expr:
        """The maximum over a box; NaN if there is one."""
        kind = np.dtype(dtype)
        lowest = -np.inf if kind.kind == "f" else np.iinfo(kind).min

        def step(place: tuple[Expr, ...], held: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return (self.maximum(held[0], element(place)),)

        return self.fold(extents, (self.constant(lowest, kind),), step)[0]


def _bits(value: Any, dtype: np.dtype[Any]) -> bytes:
    return np.asarray(value, dtype).tobytes()
