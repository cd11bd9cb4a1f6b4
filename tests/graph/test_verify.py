"""Every law of a graph, broken by hand: the error names the law, the node and the pass that broke it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Executable
from chainrule.errors import GraphError
from chainrule.graph import Graph, Node, Provenance, Spec, Trait, get_op, scope, verify
from chainrule.graph.show import PASSES
from chainrule.graph.verify import LAWS, PHASES

FLOAT = np.dtype("float32")


def sample() -> Graph:
    """A graph with a layer, a multi-output op, two variables, a random draw and a backward pass."""
    scale, steps = cr.Variable([1.0, 2.0], name="scale"), cr.Variable(np.array(0, np.int32), name="steps")

    def function(x: cr.Tensor, seed: cr.Tensor, time: cr.Tensor) -> Any:
        with scope(layer="body"):
            y = cr.ops.relu(x * scale)
            with cr.random.key_scope(seed, time):
                y = y + cr.random.uniform(y.shape)
            loss = y.sum(axis=1).mean()
        steps.assign(steps + 1)
        return loss, cr.gradients(loss, [scale])[0]

    return cr.trace(
        function, cr.input_spec((None, 2)), cr.input_spec((2,), "uint32"), cr.input_spec((), "uint32"), name="sample"
    )


def find(graph: Graph, op: str) -> Node:
    """The first node of that op."""
    return next(node for node in graph.nodes if node.op.name == op)


# --- Breaking the laws ----------------------------------------------------------------------------


def reverse(graph: Graph) -> str:
    graph.nodes.reverse()
    return graph.nodes[0].where


def repeat(graph: Graph) -> str:
    graph.nodes.append(find(graph, "relu"))
    return "layer 'body' (relu) stands in the graph twice"


def drop_a_maker(graph: Graph) -> str:
    graph.nodes.remove(find(graph, "multiply"))
    return "layer 'body' (relu) reads float32(N, 2), which no earlier node of the graph makes"


def read_an_eager_tensor(graph: Graph) -> str:
    find(graph, "relu").inputs = (cr.tensor([[1.0, 2.0]]),)
    return "layer 'body' (relu) reads float32(1, 2)"


def read_an_output_too_many(graph: Graph) -> str:
    node = find(graph, "relu")
    (item,) = node.inputs
    node.inputs = (cr.Tensor(item.spec, node=item.node, index=1),)
    return "layer 'body' (relu) reads output 1 of multiply"


def give_a_foreign_output(graph: Graph) -> str:
    graph.outputs["out0"] = cr.tensor(1.0)
    return "output 'out0' is float32(), which no node of the graph makes"


def give_a_foreign_input(graph: Graph) -> str:
    graph.inputs["x"] = sample().inputs["x"]
    return "input 'x' is float32(N, 2)"


def give_foreign_state(graph: Graph) -> str:
    place = [entry.name for entry in graph.state].index("steps")
    graph.state[place] = dataclasses.replace(graph.state[place], after=sample().state[place].after)
    return "variable 'steps' is int32()"


def use_an_unknown_op(graph: Graph) -> str:
    node = find(graph, "relu")
    node.op = dataclasses.replace(node.op, name="relu_of_mine")
    return "layer 'body' (relu_of_mine) uses an op that is not registered"


def use_an_impostor(graph: Graph) -> str:
    node = find(graph, "relu")
    node.op = dataclasses.replace(node.op)
    return "layer 'body' (relu) uses another op than the registered 'relu'"


def record_another_shape(graph: Graph) -> str:
    find(graph, "relu").specs = (Spec((7,), FLOAT),)
    return "layer 'body' (relu) is recorded as (float32(7,),), its shape rule says (float32(N, 2),)"


def record_another_dtype(graph: Graph) -> str:
    find(graph, "mean").specs = (Spec((), np.dtype("float64")),)
    return "layer 'body' (mean) is recorded as (float64(),)"


def break_an_attribute(graph: Graph) -> str:
    node = find(graph, "sum")
    node.attrs = {**node.attrs, "axes": (7,)}
    return "layer 'body' (sum) is recorded as"


def mix_dtypes(graph: Graph) -> str:
    node = find(graph, "multiply")
    steps = next(entry.before for entry in graph.state if entry.name == "steps")
    graph.nodes.remove(steps.node)  # type: ignore[arg-type]
    graph.nodes.insert(0, steps.node)  # type: ignore[arg-type]
    node.inputs = (node.inputs[0], steps)
    return "layer 'body' (multiply) no longer accepts its inputs: operands have different dtypes"


def invent_an_attribute(graph: Graph) -> str:
    node = find(graph, "mean")
    node.attrs = {**node.attrs, "fused": True}
    return "layer 'body' (mean) no longer accepts its inputs"


def list_in_an_attribute(graph: Graph) -> str:
    node = find(graph, "sum")
    node.attrs = {**node.attrs, "axes": [1]}
    return "attribute 'axes' of layer 'body' (sum) is list, which cannot be a key"


def list_in_a_tuple(graph: Graph) -> str:
    find(graph, "relu").attrs = {"note": ([1],)}
    return "attribute 'note' of layer 'body' (relu) is tuple"


def tensor_in_an_attribute(graph: Graph) -> str:
    find(graph, "relu").attrs = {"note": cr.tensor(1.0)}
    return "attribute 'note' of layer 'body' (relu) is Tensor"


def forget_the_pass(graph: Graph) -> str:
    find(graph, "relu").provenance = Provenance("body", "sideways")
    return "layer 'body' (relu) has the unknown pass 'sideways'"


def change_the_type_of_state(graph: Graph) -> str:
    entry = graph.state[0]
    graph.state[0] = dataclasses.replace(entry, after=graph.outputs["out0"])
    return f"variable {entry.name!r} enters as {entry.before.spec} and leaves as float32()"


def repeat_a_name(graph: Graph) -> str:
    graph.state[1].variable.name = graph.state[0].name
    return f"two variables or inputs are named {graph.state[0].name!r}; give the layers distinct names"


def name_a_variable_like_an_input(graph: Graph) -> str:
    graph.state[0].variable.name = "x"
    return "two variables or inputs are named 'x'"


def draw_twice(graph: Graph) -> str:
    node = find(graph, "random_uniform")
    again = dataclasses.replace(node, provenance=Provenance("tail"), id=graph.nodes[-1].id + 1)
    graph.nodes.append(again)
    return "layer 'tail' (random_uniform) and layer 'body' (random_uniform) draw the same random stream"


def grow_a_second_batch(graph: Graph) -> str:
    place = graph.inputs["x"].node
    assert place is not None
    spec = Spec((*place.specs[0].shape, place.specs[0].shape[0]), FLOAT)
    place.specs, place.attrs = (spec,), {"name": "x", "spec": spec}
    graph.nodes = [place]
    graph.outputs, graph.state, graph.inputs = {}, [], {"x": place.outputs[0]}
    return "input makes float32(N, 2, N), which holds the batch size twice"


BROKEN: dict[str, list[Callable[[Graph], str]]] = {
    "inputs_come_first": [reverse, repeat, drop_a_maker, read_an_eager_tensor, read_an_output_too_many],
    "results_are_made_here": [give_a_foreign_output, give_a_foreign_input, give_foreign_state],
    "ops_are_registered": [use_an_unknown_op, use_an_impostor],
    "specs_follow_from_the_shape_rules": [
        record_another_shape,
        record_another_dtype,
        break_an_attribute,
        mix_dtypes,
        invent_an_attribute,
    ],
    "attributes_are_plain_values": [list_in_an_attribute, list_in_a_tuple, tensor_in_an_attribute],
    "provenance_is_known": [forget_the_pass],
    "state_keeps_its_type": [change_the_type_of_state, repeat_a_name, name_a_variable_like_an_input],
    "random_streams_are_distinct": [draw_twice],
    "shapes_hold_the_batch_once": [grow_a_second_batch],
}
CASES = [(law, corrupt) for law, ways in BROKEN.items() for corrupt in ways]


@pytest.mark.parametrize(("law", "corrupt"), CASES, ids=[corrupt.__name__ for _, corrupt in CASES])
def test_a_broken_law_is_named_with_the_node_and_the_pass(law: str, corrupt: Callable[[Graph], str]) -> None:
    graph = sample()
    culprit = corrupt(graph)
    with pytest.raises(GraphError) as caught:
        verify(graph, after="fuse_everything")
    message = str(caught.value)
    assert message.startswith(f"after fuse_everything, graph 'sample' breaks the law {law!r}: ")
    assert culprit in message


def test_every_law_is_broken_here() -> None:
    assert set(BROKEN) == {law.__name__ for law in LAWS}


def test_every_law_says_what_it_demands() -> None:
    for law in LAWS:
        assert law.__doc__ is not None, law.__name__
        assert law.__doc__.strip().endswith("."), law.__name__


# --- Keeping them ---------------------------------------------------------------------------------


def test_a_traced_graph_keeps_every_law() -> None:
    graph = sample()
    for law in LAWS:
        assert law(graph) is None, law.__name__
    verify(graph, after="nothing")


def test_an_empty_graph_keeps_every_law() -> None:
    verify(Graph("empty"), after="nothing")


def test_the_sample_holds_what_the_laws_speak_of() -> None:
    graph = sample()
    assert any(Trait.RANDOM in node.op.traits for node in graph.nodes)
    assert any(node.provenance.phase == "backward" for node in graph.nodes)
    assert any(entry.changes for entry in graph.state)
    assert any(not entry.changes for entry in graph.state)


def test_passes_are_known_everywhere() -> None:
    assert set(PASSES) == PHASES


def test_an_engine_verifies_what_it_loads() -> None:
    graph = sample()
    corrupted = record_another_shape(graph)
    with pytest.raises(GraphError, match="after loading, graph 'sample' breaks the law") as caught:
        Executable(graph)
    assert corrupted in str(caught.value)


def test_drawing_one_stream_twice_is_found_when_tracing() -> None:
    def function(seed: cr.Tensor, time: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        row = np.array(0, np.uint32)
        first = cr.ops.random_uniform(seed, time, row, shape=(2,), stream=3)
        return first, cr.ops.random_normal(seed, time, row, shape=(2,), stream=3)

    with pytest.raises(GraphError, match="random_normal and random_uniform draw the same random stream 3"):
        cr.trace(function, cr.input_spec((2,), "uint32"), cr.input_spec((), "uint32"))


def test_streams_under_other_keys_are_others() -> None:
    def function(seed: cr.Tensor, time: cr.Tensor, later: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        row = np.array(0, np.uint32)
        first = cr.ops.random_uniform(seed, time, row, shape=(2,), stream=3)
        return first, cr.ops.random_uniform(seed, later, row, shape=(2,), stream=3)

    scalar = cr.input_spec((), "uint32")
    cr.trace(function, cr.input_spec((2,), "uint32"), scalar, scalar)


def test_two_variables_of_one_name_are_found_when_tracing() -> None:
    a, b = cr.Variable([1.0], name="kernel"), cr.Variable([2.0], name="kernel")
    with pytest.raises(GraphError, match="two variables or inputs are named 'kernel'"):
        cr.trace(lambda x: x * a + b, cr.input_spec((None,)))


def test_structural_ops_stand_in_no_registry() -> None:
    for node in sample().nodes:
        if node.op.name in ("input", "constant"):
            with pytest.raises(cr.errors.OpError, match="no op named"):
                get_op(node.op.name)
