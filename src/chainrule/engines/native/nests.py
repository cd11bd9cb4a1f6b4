"""Loop nests as machine code: hoisted by loop level, vectorised along the last axis, with a scalar tail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import numpy as np

from chainrule.engines.native import math
from chainrule.engines.native.ir import Buffer, Function, Index, Value
from chainrule.engines.native.types import I64, Type, type_of
from chainrule.errors import EngineError
from chainrule.graph.dims import Dim, Size
from chainrule.plan.expr import Expr, Storage, Variable, free_variables, walk
from chainrule.plan.nest import Nest, axis_size

__all__ = ["emit_nest", "size_value"]

_LEAVES = frozenset({"constant", "variable", "batch", "held"})
_ARITHMETIC = {"add": "add", "subtract": "sub", "multiply": "mul"}
_FLOAT_RELATION = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_INT_RELATION = {"lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}


def size_value(f: Function, size: Size, batch: Value) -> Index:
    """A size as an index: a number, or computed from the run-time batch size."""
    return f.add(f.mul(batch, size.scale), size.offset) if isinstance(size, Dim) else size


def emit_nest(
    f: Function,
    nest: Nest,
    buffers: Mapping[Storage, Buffer],
    batch: Value,
    low: Index,
    high: Index,
    lanes: int,
    bound: Sequence[Value] = (),
) -> None:
    """Emit the part ``[low, high)`` of the nest's first axis.

    Args:
        f: the function under construction.
        nest: what to compute.
        buffers: where each storage lies.
        batch: the run-time batch size.
        low, high: the range of the first axis (ignored by a nest without axes, or whose first axes are bound).
        lanes: how many elements a vector register holds.
        bound: values of the first axes, which are then not looped over.
    """
    _Emitter(f, nest, buffers, batch, lanes).run(low, high, bound)


FOLDED_REGISTERS = 4
"""Registers that one fold accumulates in, if the axis is long enough."""

_Key: TypeAlias = "tuple[Expr, int, Expr | None]"
"""An expression, in how many lanes, and under which guard."""
_Fold: TypeAlias = "tuple[int, int, Expr | None]"
"""The number of a fold, in how many lanes, and under which guard."""


class _Emitter:
    def __init__(self, f: Function, nest: Nest, buffers: Mapping[Storage, Buffer], batch: Value, lanes: int) -> None:
        self.f, self.nest, self.buffers, self.batch = f, nest, buffers, batch
        self.roots = nest.roots()
        self._free: dict[Expr, frozenset[Any]] = {}
        for root in self.roots:
            free_variables(root, self._free)
        self._loads: dict[Expr, bool] = {}
        self._guarded = self._find_guarded()
        self._depth: dict[Any, int] = {}
        self._scopes: list[dict[_Key, Value]] = [{}]
        self._folded: list[dict[_Fold, list[Value]]] = [{}]
        self._varying_held: set[Any] = set()
        self._weaker: dict[Expr, Expr | None] = {}
        self.vector: Variable | None = None
        self.lanes = 1
        self._wanted = lanes

    # -- the loops ------------------------------------------------------------------------------------------

    def run(self, low: Index, high: Index, bound: Sequence[Value]) -> None:
        with ExitStack() as outer:
            for axis, value in zip(self.nest.axes, bound, strict=False):
                outer.enter_context(self._bound(axis, value))
            self._prepare(self.roots)
            position = len(bound)
            if position == len(self.nest.axes):
                self._stores()
            elif position:
                self._axis(position, 0, size_value(self.f, axis_size(self.nest.axes[position]), self.batch))
            else:
                self._axis(0, low, high)

    def _axis(self, position: int, low: Index, high: Index) -> None:
        axis = self.nest.axes[position]
        if position < len(self.nest.axes) - 1:

            def turn(i: Value, _: list[Value]) -> None:
                with self._bound(axis, i):
                    self._prepare(self.roots)
                    self._axis(position + 1, 0, size_value(self.f, axis_size(self.nest.axes[position + 1]), self.batch))

            self.f.loop(low, high, turn)
            return
        lanes = self._usable_lanes(axis, low, high)
        middle: Index = low
        if lanes > 1:
            count = self.f.sub(high, low)
            whole = count // lanes * lanes if isinstance(count, int) else self._down(count, lanes)
            middle = self.f.add(low, whole)
            self._last(axis, low, middle, lanes)
        if not self._fits(axis, position, lanes) and not (
            isinstance(middle, int) and isinstance(high, int) and middle >= high
        ):
            self._last(axis, middle, high, 1)

    def _fits(self, axis: Variable, position: int, lanes: int) -> bool:
        """Whether every range of the axis is a whole number of vectors."""
        if lanes == 1:
            return False
        extent = axis_size(axis)
        sizes = [extent.scale, extent.offset] if isinstance(extent, Dim) else [extent]
        return all(size % lanes == 0 for size in sizes) and (position > 0 or self.nest.chunk % lanes == 0)

    def _down(self, count: Value, lanes: int) -> Value:
        return self.f.let(I64, f"and i64 {self.f.index(count).text}, {-lanes}")

    def _usable_lanes(self, axis: Variable, low: Index, high: Index) -> int:
        if self._mostly_scattered(axis) or self._folds_differ(axis):
            return 1
        lanes = self._wanted
        if any(node.op == "fold" for node in walk(*self.roots)):
            # Several registers at once: a fold waits for its own last turn, several go on side by side.
            lanes *= FOLDED_REGISTERS
            extent = axis_size(axis)
            while lanes > self._wanted and (not isinstance(extent, int) or extent % lanes):
                lanes //= 2
        if isinstance(low, int) and isinstance(high, int):
            while lanes > 1 and high - low < lanes:
                lanes //= 2
        return lanes

    def _folds_differ(self, axis: Variable) -> bool:
        """Whether the length of some fold depends on the axis, so that lanes would leave it at different times."""
        return any(
            axis in self._free[length]
            for node in walk(*self.roots)
            if node.op == "fold"
            for length in node.args[2 * node.attr[3] :]
        )

    def _mostly_scattered(self, axis: Variable) -> bool:
        """Whether lanes would mostly be loaded and stored one by one, so that vectors gain nothing."""
        self.vector, self.lanes = axis, self._wanted
        places = [node.args[0] for node in walk(*self.roots) if node.op == "load"]
        steps = [self._step(place) for place in (*places, *(store.index for store in self.nest.stores))]
        self.vector, self.lanes = None, 1
        return 2 * sum(step not in (0, 1) for step in steps) > sum(step != 0 for step in steps)

    def _last(self, axis: Variable, low: Index, high: Index, lanes: int) -> None:
        def turn(i: Value, _: list[Value]) -> None:
            with self._bound(axis, i):
                self._stores()

        self.vector, self.lanes = (axis, lanes) if lanes > 1 else (None, 1)
        self.f.loop(low, high, turn, step=lanes)
        self.vector, self.lanes = None, 1

    def _stores(self) -> None:
        lanes = self.lanes
        values = [self.value(store.value, lanes, None) for store in self.nest.stores]
        for store, value in zip(self.nest.stores, values, strict=True):
            buffer = self.buffers[store.storage]
            step = self._step(store.index) if lanes > 1 else 1
            base = self.value(store.index, 1, None)
            if step == 1 or lanes == 1:
                self.f.store(value, buffer, base)
            elif step is not None:
                for lane in range(lanes):
                    self.f.store(self.f.extract(value, lane), buffer, self.f.add(base, lane * step))
            else:
                places = self.value(store.index, lanes, None)
                for lane in range(lanes):
                    self.f.store(self.f.extract(value, lane), buffer, self.f.extract(places, lane))

    @contextmanager
    def _bound(self, variable: Variable, value: Value) -> Iterator[None]:
        """A loop variable and a scope of values that live inside its loop."""
        self._depth[variable] = len(self._depth) + 1
        atom = self.nest.stores[0].value.rules.make("variable", (), np.dtype("int64"), variable)
        self._scopes.append({(atom, 1, None): value})
        self._folded.append({})
        yield
        self._scopes.pop()
        self._folded.pop()
        del self._depth[variable]

    def _prepare(self, roots: Sequence[Expr]) -> None:
        """Compute everything that is fixed from here on inwards, so that inner loops do not repeat it."""
        for node in walk(*roots):
            if node.op == "affine":
                prefix = self._prefix(node, lambda atom: self._is_bound(atom))
                if prefix.args and prefix not in self._guarded:
                    self.value(prefix, 1, None)
            elif node.op not in _LEAVES and node not in self._guarded and self._is_bound(node):
                self.value(node, self.lanes if self._varies(node) else 1, None)

    def _is_bound(self, node: Expr) -> bool:
        return all(v in self._depth for v in self._free[node])

    def _prefix(self, node: Expr, keep: Callable[[Expr], bool]) -> Expr:
        """The terms of an index whose atoms pass a test, without the constant."""
        terms = {atom: c for atom, c in zip(node.args, node.attr[1:], strict=True) if keep(atom)}
        made = node.rules._affine(terms, 0)
        free_variables(made, self._free)
        return made

    # -- values ---------------------------------------------------------------------------------------------

    def value(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        """The value of an expression: in every lane, or (lanes = 1) in the first one."""
        if guard is not None and not self._has_load(e):
            guard = None
        key = (e, lanes, guard)
        known = self._known(e, lanes, guard)
        if known is not None:
            return known
        # Under a guard that differs from lane to lane, the first lane may be one that must not load.
        if lanes > 1 and not self._varies(e) and (guard is None or not self._varies(guard)):
            made = self.f.splat(self._plain(self.value(e, 1, guard)), lanes)
        else:
            made = self._emit(e, lanes, guard)
        self._scopes[-1][key] = made
        return made

    def _known(self, e: Expr, lanes: int, guard: Expr | None) -> Value | None:
        """The value, if it was computed under this guard or under a weaker one."""
        while True:
            for scope in reversed(self._scopes):
                known = scope.get((e, lanes, guard))
                if known is not None:
                    return known
            if guard is None:
                return None
            guard = self._weaker.get(guard)

    def _plain(self, value: Value) -> Value:
        return self.f.index(value) if value.plus else value

    def _register(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        return self._plain(self.value(e, lanes, guard))

    def _emit(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        f, type = self.f, type_of(e.dtype).of(lanes)
        if e.op == "constant":
            return f.constant(e.attr, type)
        if e.op == "batch":
            return self.batch
        if e.op == "variable":
            return self._ramp(e)
        if e.op == "affine":
            return self._affine(e, lanes, guard)
        if e.op in ("index_divide", "index_modulo", "index_product", "index_minimum"):
            return self._index_operation(e, lanes, guard)
        if e.op == "load":
            return self._load(e, lanes, guard)
        if e.op == "fold":
            return self._fold(e, lanes, guard)
        if e.op == "guard":
            return self._guard(e, lanes, guard)
        args = [self._register(a, lanes, guard) for a in e.args]
        if e.op == "call":
            made: Value = math.FUNCTIONS[e.attr](f, *args)
            return made
        if e.op == "cast":
            return self._cast(args[0], type)
        return self._operation(e, type, args)

    def _operation(self, e: Expr, type: Type, args: list[Value]) -> Value:
        f, operand = self.f, args[0].type
        if e.op in _ARITHMETIC:
            return f.binary(("f" if type.is_float else "") + _ARITHMETIC[e.op], *args)
        if e.op == "divide":
            return f.binary("fdiv", *args)
        if e.op == "negative":
            return f.let(type, f"fneg {args[0]}") if type.is_float else f.binary("sub", f.constant(0, type), args[0])
        if e.op in _FLOAT_RELATION:
            return f.compare(_relation(e.op, operand), *args)
        if e.op in ("and", "or", "xor"):
            return f.binary(e.op, *args)
        if e.op == "not":
            return f.binary("xor", args[0], f.constant(1 if type.kind == "b" else -1, type))
        if e.op == "shift_left":
            return f.binary("shl", *args)
        if e.op == "shift_right":
            return f.binary("ashr" if type.kind == "i" else "lshr", *args)
        if e.op == "select":
            return f.select(*args)
        if e.op == "fma":
            if f.module.has_fma:
                return f.fma(*args)
            return f.binary("fadd", f.binary("fmul", args[0], args[1]), args[2])
        if e.op == "sqrt":
            return f.intrinsic("sqrt", type, args[0])
        if e.op == "abs":
            return self._absolute(type, args[0])
        if e.op == "bits":
            return f.let(type, f"bitcast {args[0]} to {type.llvm}")
        raise EngineError(f"the native engine knows no operation {e.op!r}")

    def _absolute(self, type: Type, x: Value) -> Value:
        if type.is_float:
            return self.f.intrinsic("fabs", type, x)
        if type.kind != "i":
            return x
        symbol = f"llvm.abs.{type.suffix}"
        self.f.module.declare(symbol, f"{type.llvm} ({type.llvm}, i1)")
        return self.f.let(type, f"call {type.llvm} @{symbol}({x}, i1 false)")

    def _cast(self, x: Value, to: Type) -> Value:
        f, of = self.f, x.type
        if to.kind == "b":
            return f.compare("une" if of.is_float else "ne", x, f.constant(0, of))
        if of.kind == "b":
            return f.let(to, f"{'uitofp' if to.is_float else 'zext'} {x} to {to.llvm}")
        if of.is_float and to.is_float:
            word = "fpext" if to.bits > of.bits else "fptrunc"
        elif of.is_float:
            return self._to_integer(x, to)
        elif to.is_float:
            word = "uitofp" if of.kind == "u" else "sitofp"
        elif to.bits == of.bits:
            return Value(x.text, to)
        else:
            word = "trunc" if to.bits < of.bits else "zext" if of.kind == "u" else "sext"
        return f.let(to, f"{word} {x} to {to.llvm}")

    def _to_integer(self, x: Value, to: Type) -> Value:
        """Towards zero; values that do not fit saturate, NaN gives 0 (NumPy leaves both undefined)."""
        word = "fptosi" if to.kind == "i" else "fptoui"
        symbol = f"llvm.{word}.sat.{to.suffix}.{x.type.suffix}"
        self.f.module.declare(symbol, f"{to.llvm} ({x.type.llvm})")
        return self.f.let(to, f"call {to.llvm} @{symbol}({x})")

    # -- indices --------------------------------------------------------------------------------------------

    def _ramp(self, e: Expr) -> Value:
        """The vectorised loop variable in every lane."""
        base = self.value(e, 1, None)
        type = I64.of(self.lanes)
        return self.f.binary("add", self.f.splat(base, self.lanes), self.f.lane_numbers(type))

    def _affine(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        constant = e.attr[0]
        if not e.args:
            return self.f.constant(constant, I64.of(lanes))
        if lanes > 1:
            step = self._step(e)
            if step is not None:
                base = self.f.splat(self._register(e, 1, guard), lanes)
                numbers = Value("<" + ", ".join(f"i64 {lane * step}" for lane in range(lanes)) + ">", I64.of(lanes))
                return self.f.binary("add", base, numbers)
            return self._affine_vector(e, lanes, guard)
        deepest = max(self._level(atom) for atom in e.args)
        inner = [(a, c) for a, c in zip(e.args, e.attr[1:], strict=True) if self._level(a) == deepest]
        outer = self._prefix(e, lambda atom: self._level(atom) < deepest)
        total: Index = self.value(outer, 1, guard) if outer.args else 0
        for atom, coefficient in inner:
            total = self.f.add(total, self.f.mul(self.value(atom, 1, guard), coefficient))
        total = self.f.add(total, constant)
        assert isinstance(total, Value)
        return total

    def _affine_vector(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        f, type = self.f, I64.of(lanes)
        total = f.constant(e.attr[0], type)
        for atom, coefficient in zip(e.args, e.attr[1:], strict=True):
            scaled = f.binary("mul", self._register(atom, lanes, guard), f.constant(coefficient, type))
            total = f.binary("add", total, scaled)
        return total

    def _level(self, atom: Expr) -> int:
        return max((self._depth.get(v, 0) for v in self._free[atom]), default=0)

    def _index_operation(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        a, b = (self._register(arg, lanes, guard) for arg in e.args)
        word = {"index_divide": "udiv", "index_modulo": "urem", "index_product": "mul"}.get(e.op)
        return self.f.intrinsic("smin", a.type, a, b) if word is None else self.f.binary(word, a, b)

    def _step(self, e: Expr) -> int | None:
        """How much an index grows from lane to lane, if by the same number everywhere."""
        if not self._varies(e):
            return 0
        if e.op == "variable":
            return 1
        if e.op == "affine":
            total = 0
            for atom, coefficient in zip(e.args, e.attr[1:], strict=True):
                step = self._step(atom)
                if step is None:
                    return None
                total += coefficient * step
            return total
        if e.op in ("index_divide", "index_modulo") and e.args[1].constant is not None:
            divisor = e.args[1].constant
            if divisor % self.lanes == 0 and self._step(e.args[0]) == 1 and self._starts_whole(e.args[0]):
                return 0 if e.op == "index_divide" else 1
        return None

    def _starts_whole(self, e: Expr) -> bool:
        """Whether an index is a multiple of the lane count in the first lane."""
        if e.op == "affine":
            parts = zip(e.args, e.attr[1:], strict=True)
            return e.attr[0] % self.lanes == 0 and all(
                c % self.lanes == 0 or self._starts_whole(atom) for atom, c in parts
            )
        return e.op == "variable" and e.attr == self.vector

    # -- memory ---------------------------------------------------------------------------------------------

    def _load(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        buffer, place = self.buffers[e.attr], e.args[0]
        if lanes == 1:
            return self.f.load(buffer, self._safe(self.value(place, 1, guard), guard))
        step = self._step(place)
        free_of_lanes = guard is None or not self._varies(guard)
        if step == 0 and free_of_lanes:
            return self.f.splat(self.f.load(buffer, self._safe(self.value(place, 1, guard), guard)), lanes)
        if step == 1 and free_of_lanes and (guard is None or _holds(buffer, lanes)):
            return self.f.load(buffer, self._safe(self.value(place, 1, guard), guard), lanes)
        return self._gather(buffer, place, step, lanes, guard)

    def _safe(self, index: Index, guard: Expr | None) -> Index:
        """The index, or 0 where the guard does not hold."""
        if guard is None:
            return index
        holds = self.value(guard, 1, None)
        return self.f.select(holds, self.f.index(index), Value("0", I64))

    def _gather(self, buffer: Buffer, place: Expr, step: int | None, lanes: int, guard: Expr | None) -> Value:
        f = self.f
        if guard is not None:
            vector = self._register(place, lanes, guard)
            vector = f.select(self._register(guard, lanes, None), vector, f.constant(0, vector.type))
            indices: list[Index] = [f.extract(vector, lane) for lane in range(lanes)]
        elif step is not None:
            base = self.value(place, 1, None)
            indices = [f.add(base, lane * step) for lane in range(lanes)]
        else:
            vector = self._register(place, lanes, None)
            indices = [f.extract(vector, lane) for lane in range(lanes)]
        result = f.undefined(buffer.type.of(lanes))
        for lane, index in enumerate(indices):
            result = f.insert(result, f.load(buffer, index), lane)
        return result

    def _guard(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        condition, inside, otherwise = e.args
        both = condition if guard is None else condition.rules.operation("and", guard, condition)
        free_variables(both, self._free)
        if both is not guard:
            self._weaker[both] = guard
        holds = self._register(condition, lanes, guard)
        # First the other side: what both sides hold is then computed once, where a chain would double it at each link.
        outside = self._register(otherwise, lanes, guard)
        return self.f.select(holds, self._register(inside, lanes, both), outside)

    def _has_load(self, e: Expr) -> bool:
        for node in walk(e):
            if node not in self._loads:
                self._loads[node] = node.op == "load" or any(self._loads[child] for child in node.args)
        return self._loads[e]

    def _find_guarded(self) -> set[Expr]:
        """Expressions with loads that stand under a guard somewhere: they must not be computed early."""
        found: set[Expr] = set()
        for node in walk(*self.roots):
            if node.op == "guard":
                found.update(child for child in walk(node.args[1]) if self._has_load(child))
        return found

    # -- folds ----------------------------------------------------------------------------------------------

    def _varies(self, e: Expr) -> bool:
        if self.vector is None:
            return False
        if e not in self._free:
            free_variables(e, self._free)
        free = self._free[e]
        return self.vector in free or any(item in self._varying_held for item in free)

    def _fold(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        number: int = e.attr[0]
        slot: int = e.attr[1]
        key: _Fold = (number, lanes, guard)
        for scope in reversed(self._folded):
            known = scope.get(key)
            if known is not None:
                return known[slot]
        results = self._folded[-1][key] = self._run_fold(e, lanes, guard)
        return results[slot]

    def _run_fold(self, e: Expr, lanes: int, guard: Expr | None) -> list[Value]:
        number, _, variables, count = e.attr
        initial, after, lengths = e.args[:count], e.args[count : 2 * count], iter(e.args[2 * count :])
        extents = [
            self.value(next(lengths), 1, None)
            if isinstance(v.extent, Expr)
            else size_value(self.f, v.extent, self.batch)
            for v in variables
        ]
        if lanes > 1:
            self._varying_held.update((number, slot) for slot in range(count))
        start = [self._register(value, lanes, guard) for value in initial]
        helds = [e.rules.make("held", (), value.dtype, (number, slot)) for slot, value in enumerate(initial)]

        def level(position: int, carried: list[Value]) -> list[Value]:
            if position == len(variables):
                scope: dict[_Key, Value] = {
                    (held, lanes, None): value for held, value in zip(helds, carried, strict=True)
                }
                self._scopes.append(scope)
                self._folded.append({})
                for slot in range(count):
                    self._depth[number, slot] = 0
                result = [self._register(value, lanes, guard) for value in after]
                for slot in range(count):
                    del self._depth[number, slot]
                self._scopes.pop()
                self._folded.pop()
                return result

            def turn(i: Value, inner: list[Value]) -> list[Value]:
                with self._bound(variables[position], i):
                    self._prepare_fold(after, guard)
                    return level(position + 1, inner)

            return self.f.loop(0, extents[position], turn, carried)

        self._prepare_fold(after, guard)
        results = level(0, start)
        self._varying_held.difference_update((number, slot) for slot in range(count))
        return results

    def _prepare_fold(self, roots: Sequence[Expr], guard: Expr | None) -> None:
        """As `_prepare`; under a guard, only what touches no memory."""
        if guard is None:
            self._prepare(roots)
        else:
            self._prepare([node for node in walk(*roots) if not self._has_load(node)])


def _relation(op: str, operand: Type) -> str:
    if operand.is_float:
        return _FLOAT_RELATION[op]
    if op in ("eq", "ne"):
        return op
    return ("s" if operand.kind == "i" else "u") + _INT_RELATION[op]


def _holds(buffer: Buffer, lanes: int) -> bool:
    return isinstance(buffer.size, int) and buffer.size >= lanes
