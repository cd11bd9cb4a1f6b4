"""Passes: dead nodes go, the interface stays, and the pass that breaks a law is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Executable
from chainrule.errors import GraphError
from chainrule.graph import CONSTANT, INPUT, Graph, Provenance, remove_dead_nodes, run_passes


def names(graph: Graph) -> list[str]:
    """The ops of a graph, without inputs and constants."""
    return [node.op.name for node in graph.nodes if node.op not in (INPUT, CONSTANT)]


def sample() -> Graph:
    """Two outputs and a variable that is written."""
    total = cr.Variable([0.0, 0.0], name="total")

    def function(x: cr.Tensor, unused: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        total.assign(total + x.sum(axis=0))
        return cr.ops.exp(x) * 3, cr.ops.relu(x - 5)

    return cr.trace(function, cr.input_spec((None, 2)), cr.input_spec((3,)), name="sample")


# --- Dead nodes -----------------------------------------------------------------------------------


def test_what_nobody_needs_is_dropped() -> None:
    def function(x: cr.Tensor) -> cr.Tensor:
        y = cr.ops.exp(x)
        (y * 17 + np.array([1.0, 2.0], np.float32)).sum()
        return cr.ops.relu(x)

    graph = cr.trace(function, cr.input_spec((None, 2)))
    assert [node.op.name for node in graph.nodes] == ["input", "relu"]


def test_outputs_are_what_keeps_nodes() -> None:
    graph = sample()
    del graph.outputs["out1"]
    assert names(remove_dead_nodes(graph)) == ["sum", "add", "exp", "multiply"]
    del graph.outputs["out0"]
    assert names(remove_dead_nodes(graph)) == ["sum", "add"]


def test_state_is_what_keeps_nodes() -> None:
    graph = sample()
    graph.state = []
    kept = remove_dead_nodes(graph)
    assert names(kept) == ["exp", "multiply", "subtract", "relu"]
    assert len([node for node in kept.nodes if node.op is CONSTANT]) == 2


def test_a_variable_that_is_only_read_stays() -> None:
    weight = cr.Variable([1.0, 2.0], name="weight")

    def function(x: cr.Tensor) -> cr.Tensor:
        x * weight
        return x

    graph = cr.trace(function, cr.input_spec((None, 2)))
    assert names(graph) == []
    assert [entry.name for entry in graph.state] == ["weight"]


def test_every_output_of_a_node_with_several_keeps_it() -> None:
    def function(x: cr.Tensor) -> cr.Tensor:
        return cr.ops.max_pool2d(x, 2, return_indices=True)[1]

    assert names(cr.trace(function, cr.input_spec((None, 4, 4, 1)))) == ["max_pool2d"]


def test_inputs_stay_and_so_does_the_order() -> None:
    graph = sample()
    graph.outputs, graph.state = {}, []
    kept = remove_dead_nodes(graph)
    assert [node.attrs["name"] for node in kept.nodes] == ["x", "unused", "total"]
    ids = [node.id for node in sample().nodes]
    assert ids == sorted(ids)


def test_removing_twice_removes_no_more() -> None:
    once = remove_dead_nodes(sample())
    assert remove_dead_nodes(once).nodes == once.nodes


def test_a_pass_leaves_its_input_alone() -> None:
    graph = sample()
    count = len(graph.nodes)
    del graph.outputs["out1"]
    smaller = remove_dead_nodes(graph)
    assert len(smaller.nodes) < count
    assert len(graph.nodes) == count


def test_a_subset_keeps_interface_and_results() -> None:
    graph = sample()
    kept = remove_dead_nodes(graph)
    assert (kept.name, list(kept.inputs), list(kept.outputs)) == (graph.name, list(graph.inputs), list(graph.outputs))
    assert kept.state == graph.state
    x, unused = np.array([[1.0, 6.0]], np.float32), np.zeros(3, np.float32)
    first, second = Executable(kept)(x, unused)
    np.testing.assert_allclose(first, np.exp(x) * 3, rtol=1e-6)
    assert second.tolist() == [[0.0, 1.0]]


# --- Running passes -------------------------------------------------------------------------------


def test_passes_run_in_order() -> None:
    seen: list[str] = []

    def first(graph: Graph) -> Graph:
        seen.append("first")
        return graph

    def second(graph: Graph) -> Graph:
        seen.append("second")
        return graph

    graph = sample()
    assert run_passes(graph, [first, second, first], after="trace") is graph
    assert seen == ["first", "second", "first"]


def forget_provenance(graph: Graph) -> Graph:
    """A pass that breaks a law."""
    graph.nodes[-1].provenance = Provenance(phase="")
    return graph


def do_nothing(graph: Graph) -> Graph:
    return graph


@pytest.mark.parametrize("passes", [[forget_provenance, do_nothing], [do_nothing, forget_provenance]])
def test_the_pass_that_breaks_a_law_is_named(passes: Sequence[Any]) -> None:
    with pytest.raises(
        GraphError, match="after forget_provenance, graph 'sample' breaks the law 'provenance_is_known'"
    ):
        run_passes(sample(), passes, after="trace")


def test_a_graph_that_comes_broken_is_not_blamed_on_a_pass() -> None:
    with pytest.raises(GraphError, match="after loading a plan, graph 'sample'"):
        run_passes(forget_provenance(sample()), [do_nothing], after="loading a plan")


# --- Looking at a graph ---------------------------------------------------------------------------


def test_users_are_found_by_output() -> None:
    graph = cr.trace(lambda x: (cr.ops.exp(x) * x, x + x), cr.input_spec((2,)))
    users = graph.users()
    x = graph.inputs["x"].node
    assert x is not None
    assert [node.op.name for node in users[x.id, 0]] == ["exp", "multiply", "add", "add"]


def test_flops_are_linear_in_the_batch_and_split_by_pass() -> None:
    kernel = cr.Variable(np.ones((4, 3), np.float32), name="kernel")

    def function(x: cr.Tensor) -> Any:
        loss = (x @ kernel).sum()
        return loss, cr.gradients(loss, [kernel])[0]

    graph = cr.trace(function, cr.input_spec((None, 4)))
    assert repr(graph.flops("forward")) == f"{2 * 4 * 3 + 3}*N"
    assert repr(graph.flops("backward")) == f"{2 * 4 * 3}*N"
    assert graph.flops("update") == 0
    assert graph.flops() == graph.flops("forward") + graph.flops("backward")
