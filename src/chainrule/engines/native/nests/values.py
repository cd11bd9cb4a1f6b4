"""Expressions as values in registers: each is computed once, as far out as it is fixed and its guards allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from chainrule.engines.native.ir import Buffer, Function, Index, Value
from chainrule.engines.native.nests.scalars import emit_operation
from chainrule.engines.native.nests.sizes import size_value
from chainrule.engines.native.types import I64, type_of
from chainrule.plan.expr import Expr, Storage, Variable, free_variables, walk
from chainrule.plan.nest import Nest

__all__ = ["Values"]

_LEAVES = frozenset({"constant", "variable", "batch", "held"})

_Key: TypeAlias = "tuple[Expr, int, Expr | None]"
"""An expression, in how many lanes, and under which guard."""
_Fold: TypeAlias = "tuple[int, int, Expr | None]"
"""The number of a fold, in how many lanes, and under which guard."""


class Values:
    """Emits the expressions of a nest and remembers what has been computed, loop by loop.

    Args:
        f: the function under construction.
        nest: whose expressions they are.
        buffers: where each storage lies.
        batch: the run-time batch size.

    Attributes:
        free: the loop variables that each expression depends on.
        vector: the loop variable of which a vector holds several turns, if there is one.
        lanes: how many turns that are.
    """

    def __init__(self, f: Function, nest: Nest, buffers: Mapping[Storage, Buffer], batch: Value) -> None:
        self.f, self.buffers, self.batch = f, buffers, batch
        self.roots = tuple(nest.roots())
        self._below: dict[tuple[Expr, ...], tuple[Expr, ...]] = {}
        self._rules = nest.stores[0].value.rules
        self.free: dict[Expr, frozenset[Any]] = {}
        for root in self.roots:
            free_variables(root, self.free)
        self._loads: dict[Expr, bool] = {}
        self._guarded = self._find_guarded()
        self._depth: dict[Any, int] = {}
        self._scopes: list[dict[_Key, Value]] = [{}]
        self._folded: list[dict[_Fold, list[Value]]] = [{}]
        self._varying_held: set[Any] = set()
        self._weaker: dict[Expr, Expr | None] = {}
        self._first_axis, self._chunk = nest.axes[0] if nest.axes else None, nest.chunk
        self._begins_whole = False
        self.vector: Variable | None = None
        self.lanes = 1

    # -- loops around them ----------------------------------------------------------------------------------

    @contextmanager
    def vectorised(self, axis: Variable, lanes: int) -> Iterator[None]:
        """A loop over an axis, so many turns at once."""
        self.vector, self.lanes = axis, lanes
        self._begins_whole = axis != self._first_axis or self._chunk % lanes == 0
        yield
        self.vector, self.lanes = None, 1

    @contextmanager
    def bound(self, variable: Variable, value: Value) -> Iterator[None]:
        """A loop variable and a scope of values that live inside its loop."""
        self._depth[variable] = len(self._depth) + 1
        atom = self._rules.make("variable", (), np.dtype("int64"), variable)
        self._scopes.append({(atom, 1, None): value})
        self._folded.append({})
        yield
        self._scopes.pop()
        self._folded.pop()
        del self._depth[variable]

    @property
    def nodes(self) -> tuple[Expr, ...]:
        """Every expression of the nest, operands first."""
        return self.below(self.roots)

    def below(self, roots: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Every expression below some roots, operands first."""
        if roots not in self._below:
            self._below[roots] = tuple(walk(*roots))
        return self._below[roots]

    def prepare(self, nodes: Sequence[Expr]) -> None:
        """Compute what of some expressions is fixed from here on inwards, so that inner loops do not repeat it."""
        for node in nodes:
            if node.op == "affine":
                prefix = self._prefix(node, lambda atom: self._is_bound(atom))
                if prefix.args and prefix not in self._guarded:
                    self.value(prefix, 1, None)
            elif node.op not in _LEAVES and node not in self._guarded and self._is_bound(node):
                self.value(node, self.lanes if self._varies(node) else 1, None)

    def _is_bound(self, node: Expr) -> bool:
        return all(v in self._depth for v in self.free[node])

    def _prefix(self, node: Expr, keep: Callable[[Expr], bool]) -> Expr:
        """The terms of an index whose atoms pass a test, without the constant."""
        terms = {atom: c for atom, c in zip(node.args, node.attr[1:], strict=True) if keep(atom)}
        made = node.rules.affine(terms, 0)
        free_variables(made, self.free)
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
        return emit_operation(f, e, type, args)

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
            step = self.step(e)
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
        return max((self._depth.get(v, 0) for v in self.free[atom]), default=0)

    def _index_operation(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        a, b = (self._register(arg, lanes, guard) for arg in e.args)
        word = {"index_divide": "udiv", "index_modulo": "urem", "index_product": "mul"}.get(e.op)
        return self.f.intrinsic("smin", a.type, a, b) if word is None else self.f.binary(word, a, b)

    def step(self, e: Expr) -> int | None:
        """How much an index grows from lane to lane, if by the same number everywhere."""
        if not self._varies(e):
            return 0
        if e.op == "variable":
            return 1
        if e.op == "affine":
            total = 0
            for atom, coefficient in zip(e.args, e.attr[1:], strict=True):
                step = self.step(atom)
                if step is None:
                    return None
                total += coefficient * step
            return total
        if e.op in ("index_divide", "index_modulo") and e.args[1].constant is not None:
            divisor = e.args[1].constant
            if divisor % self.lanes == 0 and self.step(e.args[0]) == 1 and self._starts_whole(e.args[0]):
                return 0 if e.op == "index_divide" else 1
        return None

    def _starts_whole(self, e: Expr) -> bool:
        """Whether an index is a multiple of the lane count in the first lane."""
        if e.op == "affine":
            parts = zip(e.args, e.attr[1:], strict=True)
            return e.attr[0] % self.lanes == 0 and all(
                c % self.lanes == 0 or self._starts_whole(atom) for atom, c in parts
            )
        return e.op == "variable" and e.attr == self.vector and self._begins_whole

    # -- memory ---------------------------------------------------------------------------------------------

    def _load(self, e: Expr, lanes: int, guard: Expr | None) -> Value:
        buffer, place = self.buffers[e.attr], e.args[0]
        if lanes == 1:
            return self.f.load(buffer, self._safe(self.value(place, 1, guard), guard))
        step = self.step(place)
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
        free_variables(both, self.free)
        if both is not guard:
            self._weaker[both] = guard
        holds = self._register(condition, lanes, guard)
        # First the other side: what both sides hold is then computed once, where a chain would double it at each link.
        outside = self._register(otherwise, lanes, guard)
        return self.f.select(holds, self._register(inside, lanes, both), outside)

    def _has_load(self, e: Expr) -> bool:
        if e not in self._loads:
            for node in walk(e):
                if node not in self._loads:
                    self._loads[node] = node.op == "load" or any(self._loads[child] for child in node.args)
        return self._loads[e]

    def _find_guarded(self) -> set[Expr]:
        """Expressions with loads that stand under a guard somewhere: they must not be computed early."""
        found: set[Expr] = set()
        for node in self.nodes:
            if node.op == "guard":
                found.update(child for child in walk(node.args[1]) if self._has_load(child))
        return found

    # -- folds ----------------------------------------------------------------------------------------------

    def _varies(self, e: Expr) -> bool:
        if self.vector is None:
            return False
        if e not in self.free:
            free_variables(e, self.free)
        free = self.free[e]
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
                with self.bound(variables[position], i):
                    self._prepare_fold(after, guard)
                    return level(position + 1, inner)

            return self.f.loop(0, extents[position], turn, carried)

        self._prepare_fold(after, guard)
        results = level(0, start)
        self._varying_held.difference_update((number, slot) for slot in range(count))
        return results

    def _prepare_fold(self, roots: tuple[Expr, ...], guard: Expr | None) -> None:
        """As `prepare`; under a guard, only what touches no memory."""
        nodes = self.below(roots)
        self.prepare(nodes if guard is None else [node for node in nodes if not self._has_load(node)])


def _holds(buffer: Buffer, lanes: int) -> bool:
    return isinstance(buffer.size, int) and buffer.size >= lanes
