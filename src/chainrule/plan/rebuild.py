"""Copies of graphs in which some nodes are replaced."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

from chainrule.graph.graph import CONSTANT, INPUT, Graph, StateEntry
from chainrule.graph.tensor import Node, Tensor, tracing_into

__all__ = ["copied", "rebuilt", "work"]


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
                made = replace(node, inputs, new) or copied(node, inputs, new).outputs
            for index, tensor in enumerate(made):
                moved[node.id, index] = tensor if tensor.is_traced else new.constant(tensor)
    new.inputs = {name: moved[item.key] for name, item in graph.inputs.items()}
    new.outputs = {name: moved[item.key] for name, item in graph.outputs.items()}
    new.state = [StateEntry(e.variable, moved[e.before.key], moved[e.after.key]) for e in graph.state]
    new.sealed = True
    return new


def copied(node: Node, inputs: Sequence[Tensor], graph: Graph) -> Node:
    copy = Node(node.op, tuple(inputs), node.attrs, node.specs, node.provenance, graph=graph)
    graph.append(copy)
    return copy
