"""Scalar expressions: what one element of a tensor is, as a graph without repetition.

Lowering rules of ops are written in this language (see `graph.lowering`); the planner joins the expressions of
neighbouring ops, so fusion is substitution.  Equal expressions are one object, which is common-subexpression
elimination by construction.

Integers that index memory are kept in the canonical form ``constant + sum of coefficient * atom``; so sums cancel,
strides can be read off, and divisions that a reshape brings in vanish where they can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from chainrule.errors import EngineError
from chainrule.graph.dims import Dim, Shape, Size

__all__ = ["Expr", "Point", "Rules", "Storage", "Variable", "free_variables", "substitute", "walk"]

INDEX = np.dtype("int64")
_BOOL = np.dtype(bool)
Scalar: TypeAlias = "Expr | float | int | bool"
SHORT = 32
"""Sums of at most so many float32 are done in float32 before they join a sum in float64."""
UNROLLED = 9
"""Folds over at most so many fixed elements are written out."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory that expressions load from and kernels store to.

    Attributes:
        name: unique in a plan.
        dtype: of an element.
        size: number of elements.
    """

    name: str
    dtype: np.dtype[Any]
    size: Size

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """A loop variable that runs from 0 to its extent."""

    name: str
    extent: Size | Expr

    def __repr__(self) -> str:
        return self.name


class Expr:
    """One scalar value.  Arithmetic operators make new expressions.

    Attributes:
        op: what it is: ``constant``, ``variable``, ``batch``, ``affine``, ``load``, ``fold``, or an operation.
        args: operands.
        dtype: NumPy dtype.
        attr: what the operation needs besides, such as a constant's value.
        low, high: bounds of an index, both included; high is None where the batch size decides.
    """

    __slots__ = ("args", "attr", "dtype", "high", "id", "low", "op", "rules")

    def __init__(self, rules: Rules, op: str, args: tuple[Expr, ...], dtype: np.dtype[Any], attr: Any, id: int) -> None:
        self.rules, self.op, self.args, self.dtype, self.attr, self.id = rules, op, args, dtype, attr, id
        self.low: int | None = None
        self.high: int | None = None

    def __hash__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return self is other

    def __bool__(self) -> bool:
        raise EngineError("a lowering rule asked for the truth of an expression; use k.select")

    @property
    def constant(self) -> Any:
        """The value of a constant, else None."""
        if self.op == "constant":
            return self.attr
        if self.op == "affine" and not self.args:
            return self.attr[0]
        return None

    def __add__(self, other: Scalar) -> Expr:
        return self.rules.add(self, other)

    def __radd__(self, other: Scalar) -> Expr:
        return self.rules.add(other, self)

    def __sub__(self, other: Scalar) -> Expr:
        return self.rules.subtract(self, other)

    def __rsub__(self, other: Scalar) -> Expr:
        return self.rules.subtract(other, self)

    def __mul__(self, other: Scalar) -> Expr:
        return self.rules.multiply(self, other)

    def __rmul__(self, other: Scalar) -> Expr:
        return self.rules.multiply(other, self)

    def __truediv__(self, other: Scalar) -> Expr:
        return self.rules.divide(self, other)

    def __rtruediv__(self, other: Scalar) -> Expr:
        return self.rules.divide(other, self)

    def __floordiv__(self, other: int) -> Expr:
        return self.rules.floor_divide(self, other)

    def __mod__(self, other: int) -> Expr:
        return self.rules.modulo(self, other)

    def __neg__(self) -> Expr:
        return self.rules.negative(self)

    def __lt__(self, other: Scalar) -> Expr:
        return self.rules.compare("lt", self, other)

    def __le__(self, other: Scalar) -> Expr:
        return self.rules.compare("le", self, other)

    def __gt__(self, other: Scalar) -> Expr:
        return self.rules.compare("gt", self, other)

    def __ge__(self, other: Scalar) -> Expr:
        return self.rules.compare("ge", self, other)

    def equals(self, other: Scalar) -> Expr:
        """``self == other`` as an expression."""
        return self.rules.compare("eq", self, other)

    def differs(self, other: Scalar) -> Expr:
        """``self != other`` as an expression (true for NaN)."""
        return self.rules.compare("ne", self, other)

    def __and__(self, other: Scalar) -> Expr:
        return self.rules.logical("and", self, self.rules.like(other, self))

    def __or__(self, other: Scalar) -> Expr:
        return self.rules.logical("or", self, self.rules.like(other, self))

    def __xor__(self, other: Scalar) -> Expr:
        return self.rules.operation("xor", self, self.rules.like(other, self))

    def __rshift__(self, other: Scalar) -> Expr:
        return self.rules.operation("shift_right", self, self.rules.like(other, self))

    def __lshift__(self, other: Scalar) -> Expr:
        return self.rules.operation("shift_left", self, self.rules.like(other, self))

    def __invert__(self) -> Expr:
        if self.dtype == _BOOL and self.constant is not None:
            return self.rules.constant(not self.constant, _BOOL)
        return self.rules.operation("not", self)

    def __repr__(self) -> str:
        return _text(self)


class Rules:
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
            return self._affine({}, int(value))
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

    def size(self, size: Size) -> Expr:
        """A dimension as an index: a number, or ``scale * N + offset`` with the run-time batch size N."""
        if not isinstance(size, Dim):
            return self._affine({}, size)
        batch = self.make("batch", (), INDEX)
        batch.low = 0
        return self._affine({batch: size.scale}, size.offset)

    def variable(self, name: str, extent: Size | Expr) -> Expr:
        """A new loop variable."""
        self._names += 1
        variable = Variable(f"{name}{self._names}", extent)
        made = self.make("variable", (), INDEX, variable)
        last = extent if isinstance(extent, int) else extent.high if isinstance(extent, Expr) else None
        made.low, made.high = 0, None if last is None else last - 1
        return self._affine({made: 1}, 0)

    def operation(self, op: str, *args: Expr, dtype: Any = None, attr: Any = None) -> Expr:
        """An operation without special rules; the result has the first operand's dtype unless told otherwise."""
        return self.make(op, args, args[0].dtype if dtype is None else np.dtype(dtype), attr)

    # -- indices --------------------------------------------------------------------------------------------

    def _affine(self, terms: Mapping[Expr, int], constant: int) -> Expr:
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
        terms, constant = self.terms(a)
        more, extra = self.terms(b)
        for atom, coefficient in more.items():
            terms[atom] = terms.get(atom, 0) + sign * coefficient
        return self._affine(terms, constant + sign * extra)

    def _product(self, a: Expr, b: Expr) -> Expr:
        for factor, other in ((a, b), (b, a)):
            if factor.constant is not None:
                terms, constant = self.terms(other)
                c = factor.constant
                return self._affine({atom: k * c for atom, k in terms.items()}, constant * c)
        made = self.make("index_product", (a, b) if a.id <= b.id else (b, a), INDEX)
        if a.low is not None and b.low is not None and a.low >= 0 and b.low >= 0:
            made.low = a.low * b.low
            made.high = None if a.high is None or b.high is None else a.high * b.high
        return self._affine({made: 1}, 0)

    def floor_divide(self, a: Expr, b: int | Expr) -> Expr:
        """``a // b`` of indices, b positive."""
        if isinstance(b, Expr) and b.constant is None:
            return self._index_atom("index_divide", a, b)
        divisor: int = b.constant if isinstance(b, Expr) else b
        outside, inside = self._split(a, divisor)
        if inside.low is not None and inside.high is not None and inside.low // divisor == inside.high // divisor:
            return self._combine(outside, self._affine({}, inside.low // divisor), 1)
        return self._combine(outside, self._index_atom("index_divide", inside, self._affine({}, divisor)), 1)

    def modulo(self, a: Expr, b: int | Expr) -> Expr:
        """``a % b`` of indices, b positive."""
        if isinstance(b, Expr) and b.constant is None:
            return self._index_atom("index_modulo", a, b)
        divisor: int = b.constant if isinstance(b, Expr) else b
        _, inside = self._split(a, divisor)
        if inside.low is not None and inside.high is not None and inside.low // divisor == inside.high // divisor:
            return self._combine(inside, self._affine({}, inside.low // divisor * divisor), -1)
        return self._index_atom("index_modulo", inside, self._affine({}, divisor))

    def _split(self, a: Expr, b: int) -> tuple[Expr, Expr]:
        """``a = b * outside + inside`` with as little inside as the coefficients allow."""
        terms, constant = self.terms(a)
        outside = {atom: c // b for atom, c in terms.items() if c % b == 0}
        inside = {atom: c for atom, c in terms.items() if c % b}
        return self._affine(outside, constant // b), self._affine(inside, constant % b)

    def _index_atom(self, op: str, a: Expr, b: Expr) -> Expr:
        divisor = b.constant
        shift = 0
        if a.low is None:
            raise EngineError(f"{op} of an index without a lower bound: {a}")
        if a.low < 0:
            assert divisor is not None, "only fixed sizes divide indices that may be negative"
            shift = -(a.low // divisor)
            a = self._combine(a, self._affine({}, shift * divisor), 1)
        made = self.make(op, (a, b), INDEX)
        made.low = 0
        if op == "index_modulo":
            made.high = None if divisor is None else divisor - 1
        else:
            made.high = None if a.high is None or divisor is None else a.high // divisor
        return self._affine({made: 1}, -shift if op == "index_divide" else 0)

    def smaller(self, a: Expr, b: Expr) -> Expr:
        """The smaller of two indices."""
        if a.constant is not None and b.constant is not None:
            return a if a.constant <= b.constant else b
        made = self.make("index_minimum", (a, b), INDEX)
        made.low = None if a.low is None or b.low is None else min(a.low, b.low)
        made.high = b.high if a.high is None else a.high if b.high is None else min(a.high, b.high)
        return self._affine({made: 1}, 0)

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
        return self._product(a, self._affine({}, -1)) if a.dtype == INDEX else self.operation("negative", a)

    def compare(self, relation: str, a: Expr, b: Scalar) -> Expr:
        """A truth value; every relation but ``ne`` is false for NaN."""
        other = self.like(b, a)
        if a.dtype == INDEX:
            difference = self._combine(a, other, -1)
            known = _decided(relation, difference.low, difference.high)
            if known is not None:
                return self.constant(known, _BOOL)
        return self.make(relation, (a, other), _BOOL)

    def logical(self, op: str, a: Expr, b: Expr) -> Expr:
        """``a & b`` (op ``and``) or ``a | b`` (``or``), without a truth value that is known."""
        if a.dtype == _BOOL:
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
        other = self.like(b, a)
        return (
            self.select((other > a) | other.differs(other), other, a)
            if _is_float(a)
            else self.select(other > a, other, a)
        )

    def minimum(self, a: Expr, b: Scalar) -> Expr:
        """The smaller one; NaN if there is one; the first at a tie."""
        other = self.like(b, a)
        return (
            self.select((other < a) | other.differs(other), other, a)
            if _is_float(a)
            else self.select(other < a, other, a)
        )

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
                values = tuple(step(tuple(self._affine({}, int(i)) for i in place), values))
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
                first = element((*place, self._affine({}, 0)))
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
            rest, found = self._linear, list[Expr]()
            for axis in range(len(self.shape) - 1, 0, -1):
                size = self.rules.size(self.shape[axis])
                found.append(self.rules.modulo(rest, size))
                rest = self.rules.floor_divide(rest, size)
            self._coordinates = (rest, *reversed(found)) if self.shape else ()
        return self._coordinates

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


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every expression below the roots, operands first, each once."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.args) if child not in seen)


def free_variables(root: Expr, known: dict[Expr, frozenset[Any]]) -> frozenset[Any]:
    """The loop variables (and accumulators) that an expression depends on, those of its own folds left out."""
    for node in walk(root):
        if node in known:
            continue
        if node.op == "variable" or node.op == "held":
            known[node] = frozenset((node.attr,))
        else:
            found = frozenset().union(*(known[child] for child in node.args))
            if node.op == "fold":
                number, _, variables, count = node.attr
                found = found - set(variables) - {(number, slot) for slot in range(count)}
            known[node] = found
    return known[root]


def substitute(root: Expr, replaced: Mapping[Expr, Expr], known: dict[Expr, Expr]) -> Expr:
    """The expression with atoms (variables, mostly) replaced by others."""
    rules = root.rules
    for node in walk(root):
        if node in known:
            continue
        if node in replaced:
            known[node] = replaced[node]
        elif node.op == "affine":
            total = rules.constant(node.attr[0], INDEX)
            for atom, coefficient in zip(node.args, node.attr[1:], strict=True):
                total = total + known[atom] * coefficient
            known[node] = total
        elif not node.args:
            known[node] = node
        else:
            known[node] = _again(rules, node, tuple(known[child] for child in node.args))
    return known[root]


def _again(rules: Rules, node: Expr, args: tuple[Expr, ...]) -> Expr:
    if args == node.args:
        return node
    if node.op == "index_divide":
        return rules.floor_divide(*args)
    if node.op == "index_modulo":
        return rules.modulo(*args)
    if node.op == "index_product":
        return rules.multiply(*args)
    if node.op == "index_minimum":
        return rules.smaller(*args)
    if node.op in ("lt", "le", "gt", "ge", "eq", "ne"):
        return rules.compare(node.op, *args)
    if node.op in ("and", "or"):
        return rules.logical(node.op, *args)
    if node.op in ("select", "guard"):
        return rules._choose(node.op, *args)
    return rules.make(node.op, args, node.dtype, node.attr)


def _is_float(a: Expr) -> bool:
    return a.dtype.kind == "f"


def _bits(value: Any, dtype: np.dtype[Any]) -> bytes:
    return np.asarray(value, dtype).tobytes()


def _bounds(terms: Sequence[tuple[Expr, int]], constant: int) -> tuple[int | None, int | None]:
    low: int | None = constant
    high: int | None = constant
    for atom, c in terms:
        below, above = (atom.low, atom.high) if c > 0 else (atom.high, atom.low)
        low = None if low is None or below is None else low + c * below
        high = None if high is None or above is None else high + c * above
    return low, high


def _decided(relation: str, low: int | None, high: int | None) -> bool | None:
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


_SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shift_left": "<<",
    "shift_right": ">>",
    "index_divide": "//",
    "index_modulo": "%",
    "index_product": "*",
}


def _text(e: Expr, depth: int = 0) -> str:
    if depth > 12:
        return "..."
    inner = [_text(a, depth + 1) for a in e.args]
    if e.op == "constant":
        return repr(e.attr)
    if e.op == "variable":
        return str(e.attr.name)
    if e.op == "batch":
        return "N"
    if e.op == "held":
        return f"acc{e.attr[0]}.{e.attr[1]}"
    if e.op == "affine":
        parts = [f"{c}*{t}" if c != 1 else t for t, c in zip(inner, e.attr[1:], strict=True)]
        if e.attr[0] or not parts:
            parts.append(str(e.attr[0]))
        return " + ".join(parts) if len(parts) == 1 else "(" + " + ".join(parts) + ")"
    if e.op == "load":
        return f"{e.attr.name}[{inner[0].strip('()') if e.args[0].op == 'affine' else inner[0]}]"
    if e.op == "fold":
        number, slot, variables, count = e.attr
        box = ", ".join(f"{v.name}<{v.extent}" for v in variables)
        return f"fold[{box}](acc{number}.{slot}: {inner[slot]} -> {inner[count + slot]})"
    if e.op in _SIGNS:
        return f"({inner[0]} {_SIGNS[e.op]} {inner[1]})"
    name = e.attr if e.op == "call" else f"cast.{e.dtype}" if e.op == "cast" else e.op
    return f"{name}({', '.join(inner)})"
