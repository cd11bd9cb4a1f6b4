"""Tracing: what a function returns and changes becomes a graph, once, for every batch size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Executable
from chainrule.errors import GraphError, ShapeError, TraceError
from chainrule.graph import CONSTANT, INPUT, Graph, scope


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def constants(graph: Graph) -> list[Any]:
    """The values of the graph's constants, in order."""
    return [node.attrs["value"].array.tolist() for node in graph.nodes if node.op is CONSTANT]


def ops_of(graph: Graph) -> list[str]:
    """The names of the ops that compute something."""
    return [node.op.name for node in graph.nodes if node.op not in (INPUT, CONSTANT)]


# --- Inputs and outputs ---------------------------------------------------------------------------


class Pair(NamedTuple):
    left: Any
    right: Any


RETURNS: dict[str, tuple[Callable[[cr.Tensor], Any], list[str], type]] = {
    "tensor": (lambda x: x * 2, ["out"], np.ndarray),
    "tuple": (lambda x: (x, x * 2), ["out0", "out1"], tuple),
    "list": (lambda x: [x * 2], ["out0"], list),
    "dict": (lambda x: {"a": x, "b": x * 2}, ["a", "b"], dict),
    "named tuple": (lambda x: Pair(x, x * 2), ["out0", "out1"], tuple),
    "empty": (lambda x: {}, [], dict),
    "with a number": (lambda x: (x * 2, 1.5, np.float32(2.5)), ["out0", "out1", "out2"], tuple),
}


def leaves(result: Any) -> list[Any]:
    """The values inside what a function returned."""
    if isinstance(result, dict | tuple | list):
        values = list(result.values()) if isinstance(result, dict) else list(result)
        return [leaf for value in values for leaf in leaves(value)]
    return [result.numpy() if isinstance(result, cr.Tensor) else result]


@pytest.mark.parametrize(("function", "names", "kind"), RETURNS.values(), ids=RETURNS.keys())
def test_a_graph_returns_what_the_function_returns(
    function: Callable[[cr.Tensor], Any], names: list[str], kind: type
) -> None:
    graph = cr.trace(function, cr.input_spec((None,)))
    assert list(graph.outputs) == names
    x = floats(3)
    got, expected = Executable(graph)(x), function(cr.tensor(x))
    assert isinstance(got, kind)
    assert len(leaves(got)) == len(leaves(expected))
    for mine, theirs in zip(leaves(got), leaves(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_keys_of_a_dict_are_kept() -> None:
    assert list(Executable(cr.trace(lambda x: {3: x, ("a", 1): x}, cr.input_spec((2,))))(floats(2))) == [3, ("a", 1)]


def test_a_variable_can_be_returned() -> None:
    variable = cr.Variable([1.0, 2.0], name="v")
    graph = cr.trace(lambda: variable, name="read")
    assert Executable(graph)().tolist() == [1.0, 2.0]
    assert [entry.name for entry in graph.state] == ["v"]
    assert not graph.state[0].changes


NOT_TENSORS: dict[str, tuple[Callable[[cr.Tensor], Any], str]] = {
    "nothing": (lambda x: None, r"must return tensors.*it returned NoneType"),
    "number": (lambda x: 3.0, r"must return tensors.*it returned float"),
    "text": (lambda x: "loss", r"must return tensors.*it returned str"),
    "nothing inside": (lambda x: (x, None), r"output 'out1' of a traced function is a NoneType"),
    "nested": (lambda x: {"a": (x, x)}, r"output 'a' of a traced function is a tuple"),
}


@pytest.mark.parametrize(("function", "message"), NOT_TENSORS.values(), ids=NOT_TENSORS.keys())
def test_other_results_are_named_errors(function: Callable[[cr.Tensor], Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        cr.trace(function, cr.input_spec((None,)))


def test_inputs_are_called_like_the_arguments() -> None:
    def function(image: cr.Tensor, label: cr.Tensor, *rest: cr.Tensor) -> cr.Tensor:
        return image + label

    two = [cr.input_spec((None,))] * 2
    assert list(cr.trace(function, *two).inputs) == ["image", "label"]
    assert list(cr.trace(functools.partial(function), *two).inputs) == ["image", "label"]
    assert list(cr.trace(function, *two, cr.input_spec((3,))).inputs) == ["arg0", "arg1", "arg2"]


def test_the_graph_is_called_like_the_function() -> None:
    def double(x: cr.Tensor) -> cr.Tensor:
        return x * 2

    assert cr.trace(double, cr.input_spec((2,))).name == "double"
    assert cr.trace(double, cr.input_spec((2,)), name="twice").name == "twice"
    assert cr.trace(functools.partial(double), cr.input_spec((2,))).name == "graph"
    assert repr(cr.trace(double, cr.input_spec((None,)))) == "<Graph double(x: float32(N,)), 3 nodes, 0 variables>"


def test_inputs_that_nothing_reads_stay() -> None:
    graph = cr.trace(lambda x, unused: x * 2, cr.input_spec((2,)), cr.input_spec((None, 3)))
    assert list(graph.inputs) == ["x", "unused"]
    assert Executable(graph)(np.ones(2, np.float32), floats(4, 3)).tolist() == [2.0, 2.0]


# --- Constants ------------------------------------------------------------------------------------


def test_equal_constants_are_one_node() -> None:
    table = np.array([1.0, 2.0], np.float32)
    graph = cr.trace(lambda x: ((x + 1.5) * 1.5 + table, x * cr.tensor(table)), cr.input_spec((None, 2)))
    assert constants(graph) == [1.5, [1.0, 2.0]]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.float32(1), np.float64(1)),
        (np.float32(0.0), np.float32(-0.0)),
        (np.zeros((2, 1), np.float32), np.zeros((1, 2), np.float32)),
        (np.int32(1), np.float32(1)),
        (np.bool_(True), np.uint8(1)),
    ],
)
def test_constants_of_other_dtype_shape_or_bits_are_others(left: Any, right: Any) -> None:
    graph = cr.trace(lambda x: (left, right), cr.input_spec((None,)))
    assert len(constants(graph)) == 2
    for got, expected in zip(Executable(graph)(floats(1)), (left, right), strict=True):
        assert got.dtype == expected.dtype
        assert got.tobytes() == np.asarray(expected).tobytes()


def test_equal_nans_are_one_node() -> None:
    graph = cr.trace(lambda x: x + float("nan") - float("nan"), cr.input_spec((None,)))
    assert len(constants(graph)) == 1


def test_constants_are_folded_before_they_enter() -> None:
    graph = cr.trace(lambda x: x + cr.ops.exp(cr.tensor(0.0)) * 3, cr.input_spec((None,)))
    assert ops_of(graph) == ["add"]
    assert constants(graph) == [3.0]


def test_a_graph_does_not_see_later_changes_of_a_captured_array() -> None:
    table = np.array([1.0, 2.0], np.float32)
    run = Executable(cr.trace(lambda x: x + table, cr.input_spec((None, 2))))
    table[:] = 99.0
    assert run(np.zeros((1, 2), np.float32)).tolist() == [[1.0, 2.0]]


def test_a_constant_can_be_repeated_along_the_batch() -> None:
    graph = cr.trace(lambda x: cr.ops.broadcast_to(cr.tensor(2.0), x.shape) * 3, cr.input_spec((None, 3)))
    assert ops_of(graph) == ["broadcast_to", "multiply"]
    assert Executable(graph)(floats(2, 3)).tolist() == [[6.0] * 3] * 2


def test_a_recurrent_state_can_start_from_constants() -> None:
    def function(x: cr.Tensor) -> cr.Tensor:
        state = cr.ops.broadcast_to(cr.tensor(0.0), (x.shape[0], 2))
        for step in range(3):
            state = state * 0.5 + x[:, step]
        return state

    x = floats(4, 3, 2)
    expected = (x[:, 0] * 0.5 + x[:, 1]) * 0.5 + x[:, 2]
    np.testing.assert_allclose(Executable(cr.trace(function, cr.input_spec((None, 3, 2))))(x), expected, rtol=1e-5)


# --- The symbolic batch size ----------------------------------------------------------------------


def test_the_first_axis_is_n() -> None:
    seen: list[str] = []

    def function(x: cr.Tensor) -> cr.Tensor:
        seen.append(repr(x.shape[0]))
        return x

    cr.trace(function, cr.input_spec((None, 3)))
    assert seen == ["N"]


def test_time_merges_into_the_batch_and_splits_again() -> None:
    kernel = floats(4, 2, seed=1)

    def per_step(x: cr.Tensor) -> cr.Tensor:
        batch, time, features = x.shape
        merged = x.reshape(batch * time, features)
        return (merged @ kernel).reshape(batch, time, 2)

    graph = cr.trace(per_step, cr.input_spec((None, 5, 4)))
    assert "float32(5*N, 4)" in [repr(node.specs[0]) for node in graph.nodes]
    assert repr(graph.outputs["out"].spec) == "float32(N, 5, 2)"
    for batch in (1, 3):
        x = floats(batch, 5, 4)
        np.testing.assert_allclose(Executable(graph)(x), x @ kernel, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(-1, 6), (None, 6)])
def test_reshape_finds_the_batch(shape: Any) -> None:
    graph = cr.trace(lambda x: x.reshape(shape), cr.input_spec((None, 2, 3)))
    assert repr(graph.outputs["out"].spec) == "float32(N, 6)"


def test_an_impossible_split_names_the_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(N, 5\) with 5\*N elements does not fit \(-1, 4\)"):
        cr.trace(lambda x: x.reshape(-1, 4), cr.input_spec((None, 5)))


@pytest.mark.parametrize("axis", [None, 0, (0, 1), 1])
def test_means_divide_by_the_count_at_run_time(axis: Any) -> None:
    def function(x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor]:
        mean = x.mean(axis=axis)
        (slope,) = cr.gradients((mean * mean).sum(), [x])
        assert slope is not None
        return mean, slope

    run = Executable(cr.trace(function, cr.input_spec((None, 3))))
    for batch in (1, 2, 7):
        x = floats(batch, 3, seed=batch)
        mean, slope = run(x)
        expected = x.mean(axis=axis, keepdims=True)
        np.testing.assert_allclose(mean, expected.reshape(mean.shape), rtol=1e-5, atol=1e-6)
        share = expected.size / x.size
        np.testing.assert_allclose(slope, np.broadcast_to(2 * expected * share, x.shape), rtol=1e-4, atol=1e-6)


def test_elements_can_be_counted_at_run_time() -> None:
    run = Executable(cr.trace(lambda x: x.sum() / cr.ops.element_count(x, 0), cr.input_spec((None,))))
    assert run(np.array([1.0, 2.0, 6.0], np.float32)) == 3.0


def test_one_batch_size_only() -> None:
    with pytest.raises(GraphError, match="shapes_hold_the_batch_once"):
        cr.trace(lambda x: x, cr.input_spec((None, None)))


# --- State ----------------------------------------------------------------------------------------


def test_variables_that_are_read_or_written_become_state() -> None:
    weight = cr.Variable([2.0], name="weight")
    steps = cr.Variable(np.array(0, np.int32), name="steps", trainable=False)
    other = cr.Variable([5.0], name="other")

    def function(x: cr.Tensor) -> cr.Tensor:
        steps.assign(steps + 1)
        return x * weight

    graph = cr.trace(function, cr.input_spec((None,)))
    assert {entry.name: entry.changes for entry in graph.state} == {"steps": True, "weight": False}
    assert steps.numpy() == 0
    run = Executable(graph)
    run(floats(2))
    run(floats(2))
    assert steps.numpy() == 2
    assert other.numpy().tolist() == [5.0]


def test_a_read_sees_the_assignment_before_it() -> None:
    counter = cr.Variable([1.0], name="counter")

    def function(x: cr.Tensor) -> tuple[cr.Tensor, cr.Tensor, cr.Tensor]:
        before = counter + 0
        counter.assign(counter * 10)
        between = counter + x
        counter.assign(counter + 1)
        return before, between, counter + 0

    run = Executable(cr.trace(function, cr.input_spec((1,))))
    assert [value.tolist() for value in run(np.array([5.0], np.float32))] == [[1.0], [15.0], [11.0]]
    assert counter.numpy().tolist() == [11.0]


@pytest.mark.parametrize("value", [0.0, [7.0], np.array([7.0]), cr.tensor([7.0])], ids=str)
def test_assigning_a_constant_is_state_of_the_graph(value: Any) -> None:
    variable = cr.Variable([1.0], name="v")

    def function(x: cr.Tensor) -> cr.Tensor:
        variable.assign(value if np.shape(value) else [value])
        return x * variable

    graph = cr.trace(function, cr.input_spec((None,)))
    assert variable.numpy().tolist() == [1.0]
    assert [entry.changes for entry in graph.state] == [True]
    expected = float(np.ravel(value)[0])
    assert Executable(graph)(np.ones(1, np.float32)).tolist() == [expected]
    assert variable.numpy().tolist() == [expected]


def test_a_failed_assignment_changes_nothing() -> None:
    variable = cr.Variable([1.0], name="v")

    def function(x: cr.Tensor) -> cr.Tensor:
        variable.assign(x)
        return x

    with pytest.raises(
        ShapeError, match=r"variable 'v' has shape \(1,\); it cannot be assigned a value of shape \(N,\)"
    ):
        cr.trace(function, cr.input_spec((None,)))
    assert variable.numpy().tolist() == [1.0]


# --- Traces inside traces -------------------------------------------------------------------------


def test_traces_nest() -> None:
    weight = cr.Variable([3.0], name="w")
    inner: list[Graph] = []

    def outer(x: cr.Tensor) -> cr.Tensor:
        inner.append(cr.trace(lambda y: y * weight, cr.input_spec((2,)), name="inner"))
        return x + weight

    graph = cr.trace(outer, cr.input_spec((1,)))
    assert ops_of(graph) == ["add"]
    assert ops_of(inner[0]) == ["multiply"]
    assert Executable(inner[0])(np.ones(2, np.float32)).tolist() == [3.0, 3.0]
    assert Executable(graph)(np.ones(1, np.float32)).tolist() == [4.0]


def test_an_inner_error_leaves_the_outer_trace_running() -> None:
    weight = cr.Variable([3.0], name="w")

    def outer(x: cr.Tensor) -> cr.Tensor:
        with pytest.raises(TraceError):
            cr.trace(lambda y: None, cr.input_spec((2,)))
        return x * weight

    assert Executable(cr.trace(outer, cr.input_spec((1,))))(np.ones(1, np.float32)).tolist() == [3.0]
    assert (weight * 2).numpy().tolist() == [6.0]


def test_tensors_of_two_traces_do_not_meet() -> None:
    with pytest.raises(TraceError, match="add received tensors of two different traces"):
        cr.trace(lambda x: cr.trace(lambda y: x + y, cr.input_spec((2,))), cr.input_spec((2,)))


def test_an_outer_tensor_is_no_output_of_an_inner_trace() -> None:
    with pytest.raises(TraceError, match="output 'out' of inner belongs to another trace"):
        cr.trace(lambda x: cr.trace(lambda y: x * 2, cr.input_spec((2,)), name="inner"), cr.input_spec((2,)))


def test_an_outer_tensor_is_no_state_of_an_inner_trace() -> None:
    variable = cr.Variable([1.0, 2.0], name="v")

    def inner(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        variable.assign(x)
        return y

    with pytest.raises(TraceError, match="variable 'v' was assigned a tensor of another trace"):
        cr.trace(lambda x: cr.trace(lambda y: inner(x, y), cr.input_spec((2,))), cr.input_spec((2,)))


# --- Leaks ----------------------------------------------------------------------------------------


def leaked(*, failing: bool = False) -> cr.Tensor:
    """A traced tensor that outlived its trace."""
    kept: list[cr.Tensor] = []

    def function(x: cr.Tensor) -> Any:
        kept.append(x * 2)
        return None if failing else x

    try:
        cr.trace(function, cr.input_spec((1,)))
    except TraceError:
        assert failing
    return kept[0]


@pytest.mark.parametrize("failing", [False, True])
def test_a_leaked_tensor_is_a_named_error(failing: bool) -> None:
    tensor = leaked(failing=failing)
    uses: list[Callable[[], Any]] = [
        lambda: tensor + 1,
        lambda: cr.tensor([1.0]) * tensor,
        lambda: cr.gradients(tensor.sum(), [tensor]),
    ]
    for use in uses:
        with pytest.raises(TraceError, match="received a traced tensor after its trace had ended; return values"):
            use()


def test_a_leaked_tensor_is_no_value_for_a_variable() -> None:
    variable = cr.Variable([1.0], name="v")
    with pytest.raises(TraceError, match="variable 'v' was assigned a traced tensor after its trace had ended"):
        variable.assign(leaked())
    assert variable.numpy().tolist() == [1.0]


# --- Errors speak of layers -----------------------------------------------------------------------


def test_control_flow_on_a_value_names_the_layer() -> None:
    class Gate(cr.layers.Layer):
        def call(self, x: Any) -> Any:
            return x if cr.ops.sum(x) > 0 else -x

    gate = Gate(name="my_gate")
    with pytest.raises(TraceError, match=r"layer 'my_gate' \(greater\)\) cannot be used as a Python bool"):
        cr.trace(lambda x: gate(x), cr.input_spec((None, 3)))


def test_a_shape_error_names_the_layer() -> None:
    def function(x: cr.Tensor) -> cr.Tensor:
        with scope(layer="encoder/join"):
            return x + cr.tensor([1.0, 2.0])

    with pytest.raises(ShapeError, match=r"layer 'encoder/join' \(add\): shapes \(N, 3\) and \(2,\) do not broadcast"):
        cr.trace(function, cr.input_spec((None, 3)))


def test_random_numbers_need_a_key_in_a_trace() -> None:
    with pytest.raises(TraceError, match=r"a random uniform inside a traced function needs a run-time key"):
        cr.trace(lambda x: x + cr.random.uniform(x.shape), cr.input_spec((None, 3)))


def test_random_numbers_follow_their_run_time_key() -> None:
    def function(seed: cr.Tensor, time: cr.Tensor, x: cr.Tensor) -> cr.Tensor:
        with cr.random.key_scope(seed, time):
            return x + cr.random.uniform(x.shape)

    uint32 = "uint32"
    graph = cr.trace(function, cr.input_spec((2,), uint32), cr.input_spec((), uint32), cr.input_spec((None, 3)))
    run, x = Executable(graph), np.zeros((2, 3), np.float32)
    seed = np.array([1, 0], np.uint32)
    first = run(seed, np.array(0, np.uint32), x)
    np.testing.assert_array_equal(first, run(seed, np.array(0, np.uint32), x))
    assert (first != run(seed, np.array(1, np.uint32), x)).all()
    assert (first != run(seed[::-1], np.array(0, np.uint32), x)).all()


def test_nodes_know_layer_and_pass() -> None:
    def function(x: cr.Tensor) -> Any:
        with scope(layer="body"):
            y = (x * x).sum()
        return y, cr.gradients(y, [x])[0]

    graph = cr.trace(function, cr.input_spec((None,)))
    places = {
        (node.provenance.layer, node.provenance.phase) for node in graph.nodes if node.op not in (INPUT, CONSTANT)
    }
    assert places == {("body", "forward"), ("body", "backward")}


def test_cotangents_are_summed_in_the_backward_pass() -> None:
    def function(x: cr.Tensor) -> Any:
        with scope(layer="first"):
            y = cr.ops.exp(x)
        with scope(layer="second"):
            loss = (y * y).sum() + y.sum()
        return cr.gradients(loss, [x])[0]

    graph = cr.trace(function, cr.input_spec((None,)))
    sums = [node.provenance for node in graph.nodes if node.op.name == "add" and node.provenance.phase == "backward"]
    assert {place.layer for place in sums} == {"first"}
    assert len(sums) == 2
