"""Pieces of a nest: where a guard's truth changes along an axis, the axis is cut, and each piece needs no guard.

A concatenation then reads one tensor in each piece instead of choosing among all of them at every element, and
neighbouring elements are loaded together again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from chainrule.plan.expr import Expr, Variable, walk
from chainrule.plan.nest import Nest, replaced

__all__ = ["Piece", "pieces"]

MOST_GROWTH = 4
"""All pieces together have no more expressions than so many times those of the whole nest."""

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")
}


@dataclass(frozen=True)
class Piece:
    """A part of a nest's box.

    Attributes:
        nest: the nest of this part; its indices count from the part's first one.
        start: the first index of the nest's first axis.
        size: how many indices of that axis belong to the part; None if all do.
    """

    nest: Nest
    start: int = 0
    size: int | None = None


def pieces(nest: Nest, fixed: int = 0) -> list[Piece]:
    """The parts of a nest, in order.

    Args:
        nest: the nest.
        fixed: how many of the first axes stay whole.
    """
    found, limit = [Piece(nest)], MOST_GROWTH * _size(nest)
    for position in reversed(range(fixed, len(nest.axes))):
        cut = [part for piece in found for part in _cut(piece, position)]
        if len(cut) > len(found) and sum(_size(part.nest) for part in cut) <= limit:
            found = cut
    return found


def _size(nest: Nest) -> int:
    return sum(1 for _ in walk(*nest.roots()))


def _cut(piece: Piece, position: int) -> Iterator[Piece]:
    """The piece cut along one axis, by halves: what a cut decides is gone before the next one is looked for."""
    nest = piece.nest
    axis = nest.axes[position]
    places = sorted(_changes(nest, axis))
    if not places:
        yield piece
        return
    assert isinstance(axis.extent, int)
    rules, middle = nest.stores[0].value.rules, places[len(places) // 2]
    for low, high in ((0, middle), (middle, axis.extent)):
        index = rules.variable("i", high - low)
        axes = (*nest.axes[:position], index.args[0].attr, *nest.axes[position + 1 :])
        part = replace(nest, axes=axes, stores=replaced(nest.stores, {axis: index + low}))
        if position:
            yield from _cut(replace(piece, nest=part), position)
        else:
            # Units begin where they did, counted from the part's first index.
            chunk = math.gcd(nest.chunk, piece.start + low)
            yield from _cut(Piece(replace(part, chunk=chunk), piece.start + low, high - low), position)


def _changes(nest: Nest, axis: Variable) -> set[int]:
    """Where along an axis the truth of some guard's condition changes, if the axis alone decides."""
    if not isinstance(axis.extent, int):
        return set()
    conditions = [node.args[0] for node in walk(*nest.roots()) if node.op == "guard"]
    found: set[int] = set()
    for node in walk(*conditions):
        if node.op in _RELATIONS:
            found |= _crossings(node, axis)
    return {place for place in found if 0 < place < axis.extent}


def _crossings(relation: Expr, axis: Variable) -> set[int]:
    """The indices whose truth differs from that of the index before: near the root of ``c * index + constant``."""
    a, b = relation.args
    if a.dtype != "int64":
        return set()
    terms, constant = relation.rules.terms(a - b)
    if len(terms) != 1:
        return set()
    ((atom, c),) = terms.items()
    if atom.op != "variable" or atom.attr != axis:
        return set()
    holds = _RELATIONS[relation.op]
    root = -constant // c
    return {i for i in (root, root + 1) if holds(c * i + constant, 0) != holds(c * (i - 1) + constant, 0)}
