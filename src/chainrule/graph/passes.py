"""Passes over graphs, and the runner that verifies the graph's laws after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chainrule.graph.graph import INPUT, Graph
from chainrule.graph.verify import verify

__all__ = ["remove_dead_nodes", "run_passes"]


def run_passes(graph: Graph, passes: Sequence[Callable[[Graph], Graph]], *, after: str) -> Graph:
    """Verify the graph, then run each pass and verify its result.

    Raises:
        GraphError: a law is broken; the message names the pass that broke it.
    """
    verify(graph, after=after)
    for step in passes:
        graph = step(graph)
        verify(graph, after=step.__name__)
    return graph


def remove_dead_nodes(graph: Graph) -> Graph:
    """Drop nodes that no output and no state needs; inputs stay, since they are the interface."""
    live: set[int] = set()
    pending = [item.node for item in graph.results()]
    while pending:
        node = pending.pop()
        assert node is not None
        if node.id not in live:
            live.add(node.id)
            pending.extend(item.node for item in node.inputs)
    return graph.with_nodes(node for node in graph.nodes if node.id in live or node.op is INPUT)
