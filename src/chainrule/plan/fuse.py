"""Fusion: which values are stored, and which stored values are computed in one loop nest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from chainrule.graph.dims import Size, bind_size, size_of
from chainrule.graph.graph import CONSTANT, INPUT, Graph
from chainrule.graph.lowering import Contraction, Elementwise, Indexed, Lowering, Reduction, Sorting, View
from chainrule.graph.tensor import Node, Tensor
from chainrule.plan.expand import Chosen
from chainrule.plan.placed import operands
from chainrule.plan.rebuild import work

__all__ = ["Fusion", "Group", "fused", "origin"]

LARGEST = 40
"""No stored value is made of more inlined results than about so many: code and compile time stay in proportion."""


_Piece: TypeAlias = "tuple[int, tuple[tuple[int, int], ...]]"
"""A node, and the way to it: operands, by reader and position, that are read at another place than the reader's own."""


@dataclass(eq=False)
class Group:
    """Nodes whose stored outputs one kernel computes.

    Attributes:
        nodes: in order of execution.
        far: ids of stored nodes that are read at other elements than the one being computed.
        ancestors: groups that must be done before.
    """

    nodes: list[Node]
    far: set[int]
    ancestors: set[Group] = field(default_factory=set)


@dataclass
class Fusion:
    """The result: every stored node's group, in order of execution.

    Attributes:
        graph: what was fused.
        lowering: the lowering of each node by id.
        stored: ids of nodes whose outputs are kept in memory.
        groups: groups, each after those it reads from.
    """

    graph: Graph
    lowering: dict[int, Lowering]
    stored: set[int]
    groups: list[Group]


def origin(item: Tensor, lowering: dict[int, Lowering]) -> Tensor:
    """The tensor that a view shows."""
    while item.node is not None and isinstance(lowering.get(item.node.id), View):
        item = item.node.inputs[0]
    return item


def fused(graph: Graph, choose: Chosen, batch: int, *, fuse: bool = True) -> Fusion:
    """Choose stored values and groups.

    Args:
        graph: an expanded graph.
        choose: the lowering of each node.
        batch: planned batch size.
        fuse: False stores every value and gives each its own kernel, which tests compare with.
    """
    lowering = {node.id: choose(node) for node in work(graph)}
    stored = _stored(graph, lowering, batch, fuse)
    groups = _groups(graph, lowering, stored, fuse)
    return Fusion(graph, lowering, stored, groups)


# -- what is stored -----------------------------------------------------------------------------------------


def _stored(graph: Graph, lowering: dict[int, Lowering], batch: int, fuse: bool) -> set[int]:
    users: dict[int, list[Node]] = {}
    for node in work(graph):
        if not isinstance(lowering[node.id], View):
            for item in operands(node, lowering[node.id]):
                source = origin(item, lowering).node
                assert source is not None
                users.setdefault(source.id, []).append(node)
    results = {source.id for item in graph.results() if (source := origin(item, lowering).node) is not None}
    stored: set[int] = set()
    costly: dict[int, bool] = {}
    pieces: dict[int, frozenset[_Piece]] = {}
    for node in work(graph):
        how = lowering[node.id]
        if isinstance(how, View):
            continue
        inner = [source.id for item in operands(node, how) if (source := origin(item, lowering).node) is not None]
        pieces[node.id] = _pieces(node, lowering, pieces, stored)
        costly[node.id] = not getattr(how, "cheap", False) or any(
            costly.get(i, False) for i in inner if i not in stored
        )
        if (
            not fuse
            or not isinstance(how, Elementwise | Indexed)
            or node.id in results
            or len(pieces[node.id]) >= LARGEST
            or _needed_in_memory(node, users.get(node.id, []), lowering, costly[node.id], batch)
        ):
            stored.add(node.id)
    return stored


def _pieces(
    node: Node, lowering: dict[int, Lowering], pieces: dict[int, frozenset[_Piece]], stored: set[int]
) -> frozenset[_Piece]:
    """What must be computed for one element of a node: it, and what it inlines, once for each place where it is read.

    An elementwise op reads its operands at its own place.  Any other reads each operand at a place of its own, so what
    two of them read is computed twice, and a chain that reads a value at two places doubles at every link.
    """
    found: set[_Piece] = {(node.id, ())}
    elementwise = isinstance(lowering[node.id], Elementwise)
    for position, item in enumerate(operands(node, lowering[node.id])):
        source = origin(item, lowering).node
        assert source is not None
        if source.id in pieces and source.id not in stored:
            place = () if elementwise and item.shape == node.specs[0].shape else ((node.id, position),)
            found.update((inner, (*route, *place)) for inner, route in pieces[source.id])
    return frozenset(found)


def _needed_in_memory(node: Node, users: list[Node], lowering: dict[int, Lowering], costly: bool, batch: int) -> bool:
    """Whether a value's users are better served from memory than by computing it again."""
    size = _count(node.specs[0].size, batch)
    for user in users:
        how = lowering[user.id]
        if isinstance(how, Contraction | Sorting):
            return True
        if isinstance(how, Indexed) and (costly or how.reads > 1) and size > 1:
            return True
        if costly and _count(user.specs[0].size, batch) > size and not isinstance(how, Reduction):
            return True
    return costly and len({user.id for user in users}) > 1


def _count(size: Size, batch: int) -> int:
    return bind_size(size, batch)


# -- what is computed together ------------------------------------------------------------------------------


def _groups(graph: Graph, lowering: dict[int, Lowering], stored: set[int], fuse: bool) -> list[Group]:
    order: list[Group] = []
    home: dict[int, Group] = {}
    for node in work(graph):
        if node.id not in stored:
            continue
        near, far = _sources(node, lowering, stored)
        group = home[node.id] = Group([node], far, _closure(near | far, home))
        order.append(group)
        if not fuse or not isinstance(lowering[node.id], Elementwise):
            continue
        for source in sorted(near):
            group, other = home[node.id], home[source]
            if other is not group and _may_join(group, other, lowering, home):
                _join(group, other, home, order)
    return _sorted(order)


def _sources(node: Node, lowering: dict[int, Lowering], stored: set[int]) -> tuple[set[int], set[int]]:
    """Stored nodes that a node reads: at the same element only, and elsewhere too."""
    near: set[int] = set()
    far: set[int] = set()
    seen: set[tuple[int, bool]] = set()
    stack = [(node, True)]
    while stack:
        here, aligned = stack.pop()
        for item, same in _reads(here, lowering):
            source = origin(item, lowering).node
            assert source is not None
            if source.op in (INPUT, CONSTANT):
                continue
            together = aligned and same
            if source.id in stored:
                (near if together else far).add(source.id)
            elif (source.id, together) not in seen:
                seen.add((source.id, together))
                stack.append((source, together))
    return near - far, far


def _reads(node: Node, lowering: dict[int, Lowering]) -> Iterator[tuple[Tensor, bool]]:
    """Inputs, each with whether it is read at the output's own element only."""
    own = size_of(node.specs[0].shape)
    elementwise = isinstance(lowering[node.id], Elementwise)
    for item in operands(node, lowering[node.id]):
        yield item, elementwise and size_of(item.shape) == own


def _closure(sources: set[int], home: dict[int, Group]) -> set[Group]:
    direct = {home[source] for source in sources}
    return direct.union(*(group.ancestors for group in direct))


def _may_join(group: Group, other: Group, lowering: dict[int, Lowering], home: dict[int, Group]) -> bool:
    """Whether two groups can be one kernel: same box, elements met at the same place, no path through a third."""
    return (
        all(isinstance(lowering[member.id], Elementwise | Indexed) for member in other.nodes)
        and size_of(other.nodes[0].specs[0].shape) == size_of(group.nodes[0].specs[0].shape)
        and not any(home[source] is other for source in group.far)
        and not any(home[source] is group for source in other.far)
        and group not in other.ancestors
        and not any(other in between.ancestors for between in group.ancestors if between is not other)
    )


def _join(group: Group, other: Group, home: dict[int, Group], order: list[Group]) -> None:
    """Move everything of `other` into `group`; whoever came after either comes after both."""
    group.nodes = sorted([*other.nodes, *group.nodes], key=lambda member: member.id)
    group.far |= other.far
    group.ancestors = (group.ancestors | other.ancestors) - {other, group}
    for member in other.nodes:
        home[member.id] = group
    order.remove(other)
    for later in order:
        if other in later.ancestors or group in later.ancestors:
            later.ancestors = (later.ancestors - {other}) | {group} | group.ancestors


def _sorted(groups: list[Group]) -> list[Group]:
    """Groups in an order in which each comes after its ancestors."""
    done: list[Group] = []
    placed: set[Group] = set()
    pending = list(groups)
    while pending:
        ready = [group for group in pending if group.ancestors <= placed]
        assert ready, "fusion made a cycle"
        done += ready
        placed.update(ready)
        pending = [group for group in pending if group not in placed]
    return done
