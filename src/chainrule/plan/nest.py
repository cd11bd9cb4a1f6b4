"""Loop nests: stores of expressions over a box of indices, and how the box is simplified and split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chainrule.graph.dims import Dim, Size, bind_size
from chainrule.plan.expr import Expr, Storage, Variable, substitute, walk

__all__ = ["Nest", "Store", "axis_size", "merged", "replaced", "split", "work_of"]

WORK_PER_UNIT = 1 << 15
"""About how many scalar operations make one unit of work: some ten microseconds."""


@dataclass(frozen=True)
class Store:
    """``storage[index] = value`` for every index of the box."""

    storage: Storage
    index: Expr
    value: Expr

    def __repr__(self) -> str:
        return f"{self.storage.name}[{self.index}] = {self.value}"


@dataclass(frozen=True)
class Nest:
    """A box of indices and the stores made at each of them.

    Attributes:
        name: what it computes, as dumps and profiles call it.
        axes: loop variables, outermost first; the last one is vectorised.
        stores: what happens at each index.
        chunk: how many values of the first axis make one unit of work.
    """

    name: str
    axes: tuple[Variable, ...]
    stores: tuple[Store, ...]
    chunk: int = 1

    @property
    def extent(self) -> Size:
        """Size of the first axis, along which units are cut."""
        return axis_size(self.axes[0]) if self.axes else 1

    def roots(self) -> list[Expr]:
        """Every expression that the nest evaluates."""
        return [e for store in self.stores for e in (store.index, store.value)]

    def __str__(self) -> str:
        box = ", ".join(f"{axis.name} < {axis.extent}" for axis in self.axes)
        lines = [f"nest {self.name}: for {box or 'once'}  (units of {self.chunk})"]
        return "\n".join([*lines, *(f"    {store}" for store in self.stores)])


def axis_size(axis: Variable) -> Size:
    """The extent of a nest's axis, which is never computed."""
    assert not isinstance(axis.extent, Expr)
    return axis.extent


def merged(nest: Nest, fixed: int = 0) -> Nest:
    """The nest with neighbouring axes joined wherever every index runs through both without a jump.

    Args:
        nest: the nest.
        fixed: how many of the first axes stay as they are.
    """
    position = len(nest.axes) - 2
    while position >= fixed:
        joined = _joined(nest, position)
        if joined is not None:
            nest = joined
        position -= 1
    return nest


def _joined(nest: Nest, position: int) -> Nest | None:
    outer, inner = nest.axes[position], nest.axes[position + 1]
    if not isinstance(inner.extent, int):
        return None
    for node in walk(*nest.roots()):
        if node.op == "affine":
            terms = {a.attr: c for a, c in zip(node.args, node.attr[1:], strict=True) if a.op == "variable"}
            if terms.get(outer, 0) != terms.get(inner, 0) * inner.extent:
                return None
    rules = nest.stores[0].value.rules
    variable = rules.variable("i", axis_size(outer) * inner.extent)
    axes = (*nest.axes[:position], variable.args[0].attr, *nest.axes[position + 2 :])
    zero = rules.constant(0, "int64")
    return replace(nest, axes=axes, stores=replaced(nest.stores, {outer: zero, inner: variable}))


def replaced(stores: Sequence[Store], variables: dict[Variable, Expr]) -> tuple[Store, ...]:
    """The stores with loop variables replaced by other indices."""
    known: dict[Expr, Expr] = {}
    atoms = {
        node: variables[node.attr]
        for node in walk(*(e for store in stores for e in (store.index, store.value)))
        if node.op == "variable" and node.attr in variables
    }
    return tuple(Store(s.storage, substitute(s.index, atoms, known), substitute(s.value, atoms, known)) for s in stores)


def split(nest: Nest, batch: int, lanes: int) -> Nest:
    """The nest with its unit of work chosen for a planned batch size.

    The choice depends on sizes only, never on the number of threads.
    """
    if not nest.axes:
        return nest
    work = work_of(replace(nest, axes=nest.axes[1:]), batch)
    chunk = max(1, WORK_PER_UNIT // work)
    if len(nest.axes) == 1:
        chunk = -(-chunk // (4 * lanes)) * 4 * lanes
    elif isinstance(nest.extent, Dim):
        chunk = min(chunk, max(1, batch // 8))
    return replace(nest, chunk=chunk)


def work_of(nest: Nest, batch: int) -> int:
    """Scalar operations of a whole nest, about."""
    total = _operations(nest)
    for axis in nest.axes:
        total *= max(1, bind_size(axis_size(axis), batch))
    return total


def _operations(nest: Nest) -> int:
    """Scalar operations for one index, about: what every expression node costs, folds by their length."""
    total = 0
    for node in walk(*nest.roots()):
        cost = {"call": 24, "divide": 4, "sqrt": 4, "load": 1, "cast": 1}.get(node.op, 1)
        if node.op == "fold":
            cost = 4
            for variable in node.attr[2]:
                cost *= 32 if isinstance(variable.extent, Expr) else bind_size(variable.extent, 32)
        total += cost
    return max(1, total // 4)
