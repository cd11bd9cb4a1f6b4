"""Gradients behind a max-pool: compute with the few elements that carry one, place them in the map of zeros last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chainrule.graph.graph import CONSTANT, Graph
from chainrule.graph.lowering import Contraction, Elementwise, Lowering, Reduction
from chainrule.graph.tensor import Node, Tensor, apply, scope
from chainrule.plan.expr import Rules, Storage
from chainrule.plan.rebuild import rebuilt

__all__ = ["PlacedContraction", "operands", "placed_last", "placing_node"]


def placed_last(graph: Graph, choose: Callable[[Node], Lowering]) -> Graph:
    """The graph with ops moved before placements (see `graph.lowering.Placement`) where that changes no value.

    - An elementwise op that keeps the placed operand's zeros works on the elements, if the values of its other operands
      at the places are at hand.
    - A sum over all axes within which elements are moved is the sum of the elements.
    """

    def replace(node: Node, inputs: Sequence[Tensor], into: Graph) -> Sequence[Tensor] | None:
        how = choose(node)
        with scope(layer=node.provenance.layer, phase=node.provenance.phase):
            if isinstance(how, Elementwise) and len(node.specs) == 1:
                return _elementwise(node, how, inputs)
            if isinstance(how, Reduction) and how.fold == "sum" and how.element is None:
                return _sum(node, how, inputs)
        return None

    return rebuilt(graph, replace)


def placing_of(item: Tensor) -> Node | None:
    """The node that placed a tensor's elements, each at a place of its own."""
    node = item.node
    if node is None or node.op.placement is None or not node.op.placement.disjoint(node.attrs):
        return None
    return node


def _elementwise(node: Node, how: Elementwise, inputs: Sequence[Tensor]) -> Sequence[Tensor] | None:
    for position, item in enumerate(inputs):
        placing = placing_of(item)
        if placing is None or item.shape != node.specs[0].shape or not _keeps_zeros(node, how, position):
            continue
        elements = [placing.inputs[0] if other is item else _at_places(placing, other, node) for other in inputs]
        if all(element is not None for element in elements):
            result = apply(node.op, *(e for e in elements if e is not None), **node.attrs)
            return (apply(placing.op, result, *placing.inputs[1:], **placing.attrs),)
    return None


def _keeps_zeros(node: Node, how: Elementwise, position: int) -> bool:
    """Whether the op gives zero wherever the operand is zero, whatever the others are."""
    k = Rules()
    zero = k.constant(0, "int64")
    values = [
        k.constant(0, item.dtype) if place == position else k.load(Storage(f"operand{place}", item.dtype, 1), zero)
        for place, item in enumerate(node.inputs)
    ]
    for place, item in enumerate(node.inputs):
        if item.node is not None and item.node.op is CONSTANT and item.node.attrs["value"].array.size == 1:
            values[place] = k.constant(item.node.attrs["value"].array.item(), item.dtype)
    result = how.rule(k, *values, **node.attrs)
    return result.constant == 0 if result.constant is not None else False


def _at_places(placing: Node, item: Tensor, node: Node) -> Tensor | None:
    """An operand's values at the places, or None if they would have to be read from the map."""
    if all(size == 1 for size in item.shape):
        return item
    assert placing.op.placement is not None
    known: Tensor | None = placing.op.placement.read(placing, item)
    if known is not None or item.node is None or item.shape != node.specs[0].shape:
        return known
    inner = item.node
    if not any(isinstance(how, Elementwise) for how in inner.op.lowering) or len(inner.specs) != 1:
        return None
    parts = [_at_places(placing, operand, node) for operand in inner.inputs]
    if any(part is None for part in parts):
        return None
    return apply(inner.op, *(part for part in parts if part is not None), **inner.attrs)


def _sum(node: Node, how: Reduction, inputs: Sequence[Tensor]) -> Sequence[Tensor] | None:
    placing = placing_of(inputs[0]) if len(inputs) == 1 else None
    if placing is None:
        return None
    assert placing.op.placement is not None
    axes = set(how.axes([inputs[0].spec], node.attrs))
    if not axes.issuperset(placing.op.placement.axes):
        return None
    return (apply(node.op, placing.inputs[0], **node.attrs),)


@dataclass(frozen=True, eq=False, repr=False)
class PlacedContraction(Contraction):
    """A contraction that reads one operand as a placement's elements and positions instead of as a map.

    Attributes:
        position: which operand.
    """

    position: int = 0


def placing_node(item: Tensor) -> Node | None:
    """The node that placed a tensor's elements in windows that tile the map, each at a place of its own."""
    node = placing_of(item)
    if node is None or node.op.placement is None or node.op.placement.window(node.attrs) is None:
        return None
    return node


def operands(node: Node, how: Lowering) -> tuple[Tensor, ...]:
    """What a node reads: its inputs, a placed one as elements and positions."""
    if not isinstance(how, PlacedContraction):
        return node.inputs
    placing = placing_node(node.inputs[how.position])
    assert placing is not None
    return (*node.inputs[: how.position], *placing.inputs[:2], *node.inputs[how.position + 1 :])
