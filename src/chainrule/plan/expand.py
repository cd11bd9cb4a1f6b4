"""Graph passes before planning: composed ops are written out, equal nodes become one, dead ones go."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

from chainrule.errors import EngineError
from chainrule.graph.graph import CONSTANT, INPUT, Graph, StateEntry
from chainrule.graph.lowering import Composed, Contraction, Lowering
from chainrule.graph.passes import remove_dead_nodes, run_passes
from chainrule.graph.tensor import Node, Tensor, scope, tracing_into

__all__ = ["Chosen", "chooser", "expanded", "rebuilt", "shared", "work"]

Chosen: TypeAlias = Callable[[Node], Lowering]
"""Which lowering a node gets."""


def chooser(supports: Callable[[Node, Contraction], bool]) -> Chosen:
    """The first candidate of each op that can be used.

    Args:
        supports: whether the engine's generator takes a contraction.
    """

    def choose(node: Node) -> Lowering:
        for candidate in node.op.lowering:
            if not isinstance(candidate, Contraction) or supports(node, candidate):
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
            known[key] = _copied(node, inputs, into).outputs
        return known[key]

    return rebuilt(graph, replace)


def work(graph: Graph) -> list[Node]:
    """The nodes that compute something."""
    return [node for node in graph.nodes if node.op not in (INPUT, CONSTANT)]


Replace: TypeAlias = Callable[[Node, Sequence[Tensor], Graph], "Sequence[Tensor] | None"]


def rebuilt(graph: Graph, replace: Replace) -> Graph:
    """A copy of a graph in which some nodes are replaced.

    Args:
        graph: the original.
        replace: ``replace(node, new inputs, new graph)`` gives the tensors to use instead, or None to copy the node.
    """
    new = Graph(graph.name)
    new.structure = graph.structure
    moved: dict[Hashable, Tensor] = {}
    with tracing_into(new):
        for node in graph.nodes:
            if node.op is CONSTANT:
                made: Sequence[Tensor] = (new.constant(Tensor(node.specs[0], data=node.attrs["value"].array)),)
            elif node.op is INPUT:
                made = (new.leaf(INPUT, node.specs[0], **node.attrs),)
            else:
                inputs = tuple(moved[item.key] for item in node.inputs)
                made = replace(node, inputs, new) or _copied(node, inputs, new).outputs
            for index, tensor in enumerate(made):
                moved[node.id, index] = tensor if tensor.is_traced else new.constant(tensor)
    new.inputs = {name: moved[item.key] for name, item in graph.inputs.items()}
    new.outputs = {name: moved[item.key] for name, item in graph.outputs.items()}
    new.state = [StateEntry(e.variable, moved[e.before.key], moved[e.after.key]) for e in graph.state]
    new.sealed = True
    return new


def _copied(node: Node, inputs: Sequence[Tensor], graph: Graph) -> Node:
    copy = Node(node.op, tuple(inputs), node.attrs, node.specs, node.provenance, graph=graph)
    graph.append(copy)
    return copy
