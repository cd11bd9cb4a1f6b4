"""Graph passes before planning: composed ops are written out, equal nodes become one, dead ones go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from chainrule.errors import EngineError
from chainrule.graph.graph import Graph
from chainrule.graph.lowering import Composed, Contraction, Lowering
from chainrule.graph.passes import remove_dead_nodes, run_passes
from chainrule.graph.tensor import Node, Tensor, scope
from chainrule.plan.placed import PlacedContraction, placing_node
from chainrule.plan.rebuild import copied, rebuilt, work

__all__ = ["Chosen", "chooser", "expanded", "shared"]

Chosen: TypeAlias = Callable[[Node], Lowering]
"""Which lowering a node gets."""


def chooser(
    supports: Callable[[Node, Contraction], bool], takes_placed: Callable[[Node, Contraction, Node, int], bool]
) -> Chosen:
    """The first candidate of each op that can be used.

    Args:
        supports: whether the engine's generator takes a contraction.
        takes_placed: whether it does with one operand as the elements and positions of a placement; given the node,
            the contraction, the placing node and which operand.
    """

    def choose(node: Node) -> Lowering:
        for candidate in node.op.lowering:
            if not isinstance(candidate, Contraction):
                return candidate
            for position, item in enumerate(node.inputs):
                placing = placing_node(item)
                if placing is not None and takes_placed(node, candidate, placing, position):
                    return PlacedContraction(candidate.generator, candidate.form, position)
            if supports(node, candidate):
                return candidate
        raise EngineError(
            f"{node.where}: the op {node.op.name!r} has a NumPy rule only, so it cannot be compiled; give it a "
            "lowering (see CONTRIBUTING.md), write it with ops that have one, or compile the model with "
            "engine='reference'"
        )

    return choose


def expanded(graph: Graph, choose: Chosen) -> Graph:
    """The graph in ops that lower directly, without repeated or dead nodes."""

    def composed(graph: Graph) -> Graph:
        """Write out every composed op, and the ops inside it."""

        def replace(node: Node, inputs: Sequence[Tensor], into: Graph) -> Sequence[Tensor] | None:
            lowering = choose(node)
            if not isinstance(lowering, Composed):
                return None
            with scope(layer=node.provenance.layer, phase=node.provenance.phase):
                result = lowering.rule(*inputs, **node.attrs)
            return result if isinstance(result, tuple) else (result,)

        while any(isinstance(choose(node), Composed) for node in work(graph)):
            graph = rebuilt(graph, replace)
        return graph

    return run_passes(graph, [composed, shared, remove_dead_nodes], after="planning began")


def shared(graph: Graph) -> Graph:
    """Equal nodes become one: same op, inputs and attributes."""
    known: dict[Any, tuple[Tensor, ...]] = {}

    def replace(node: Node, inputs: Sequence[Tensor], into: Graph) -> Sequence[Tensor] | None:
        key = (node.op.name, tuple(t.key for t in inputs), tuple(sorted(node.attrs.items(), key=lambda item: item[0])))
        if key not in known:
            known[key] = copied(node, inputs, into).outputs
        return known[key]

    return rebuilt(graph, replace)
