"""A graph as text: complete, stable from trace to trace, and readable."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ConfigError
from chainrule.graph import BATCH, CONSTANT, INPUT, Graph, scope
from chainrule.graph.dims import Size
from chainrule.graph.show import Names, format_flops, select, show
from chainrule.train.step import step_graph


def small_step() -> Graph:
    """A whole training step of a small network."""
    model = cr.Sequential(
        [
            cr.Input((8, 8, 1)),
            cr.layers.Conv2D(4, 3, activation="relu", name="卷积"),
            cr.layers.MaxPooling2D(2),
            cr.layers.Flatten(),
            cr.layers.Dense(3),
        ]
    )
    model.compile("adam", cr.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return step_graph(model, model.objective, cr.input_spec((None, 8, 8, 1)), cr.input_spec((None,), "int32"))


def affine() -> Graph:
    """A small graph with all that a text shows."""
    kernel = cr.Variable(np.ones((3, 2), np.float32), name="dense/kernel")
    calls = cr.Variable(np.array(0, np.int32), name="calls", trainable=False)
    table = np.arange(8, dtype=np.float32)

    def function(x: cr.Tensor) -> Any:
        with scope(layer="dense"):
            y = (x @ kernel) * 0.1
        with scope(layer="head/pool"):
            values, places = cr.ops.max_pool2d(y.reshape(-1, 1, 2, 1), (1, 2), return_indices=True)
        calls.assign(calls + 1)
        total = values.sum() + cr.tensor(table).sum()
        return {"y": y * table[:2], "places": places, "slope": cr.gradients(total, [kernel])[0]}

    return cr.trace(function, cr.input_spec((None, 3)), name="affine")


EXPECTED = """\
graph update: 7 nodes, 15*N + 6 FLOPs (forward 9*N, backward 6*N, update 6)
inputs
  x    float32(N, 3)
state
  kernel  float32(3, 1)
constants
  %c0  float32(3,) = [1., 2., 3.]
-- forward
  %0 float32(N, 3) = multiply(x, %c0)                                          # forward, 3*N FLOPs
-- forward: dense
  %1 float32(N, 1) = matmul(%0, kernel) transpose_a=False transpose_b=False    # dense forward, 6*N FLOPs
-- backward
  %2 float32(1, 1) = reshape(1.0) shape=(1,1)                                  # backward
  %3 float32(N, 1) = broadcast_to(%2) shape=(N,1)                              # backward
-- backward: dense
  %4 float32(3, 1) = matmul(%0, %3) transpose_a=True transpose_b=False         # dense backward, 6*N FLOPs
-- update: optimizer
  %5 float32(3, 1) = multiply(%4, 0.1)                                         # optimizer update, 3 FLOPs
  %6 float32(3, 1) = subtract(kernel, %5)                                      # optimizer update, 3 FLOPs
outputs
  out  %1
changed state
  kernel  %6"""


def test_the_whole_text() -> None:
    kernel = cr.Variable(np.ones((3, 1), np.float32), name="kernel")
    table = np.arange(1, 4, dtype=np.float32)

    def function(x: cr.Tensor) -> Any:
        x = x * table
        with scope(layer="dense"):
            y = x @ kernel
        slope = cr.gradients(y.sum(), [kernel])[0]
        assert slope is not None
        with scope(layer="optimizer", phase="update"):
            kernel.assign(kernel - slope * 0.1)
        return y

    assert show(cr.trace(function, cr.input_spec((None, 3)), name="update")) == EXPECTED


def lines_of(text: str, section: str) -> list[str]:
    """The lines of one section."""
    lines = text.splitlines()
    rest = lines[lines.index(section) + 1 :]
    return rest[: next((i for i, line in enumerate(rest) if not line.startswith("  ")), len(rest))]


# --- What the text holds ---------------------------------------------------------------------------


def test_inputs_state_and_constants_come_first() -> None:
    text = show(affine())
    assert lines_of(text, "inputs") == ["  x    float32(N, 3)"]
    assert lines_of(text, "state") == ["  dense/kernel  float32(3, 2)", "  calls         int32()"]
    assert lines_of(text, "constants") == ["  %c0  float32(2,) = [0., 1.]"]


def test_results_come_last() -> None:
    text = show(affine())
    assert lines_of(text, "outputs") == ["  y       %5", "  places  %3.1", "  slope   %11"]
    assert lines_of(text, "changed state") == ["  calls  %4"]


def test_every_node_has_a_line_with_its_specs_inputs_and_flops() -> None:
    graph = small_step()
    names, lines = Names(graph), show(graph).splitlines()
    for node in graph.nodes:
        if node.op in (INPUT, CONSTANT):
            continue
        (line,) = [line for line in lines if line.startswith(f"  {names.node(node)} ")]
        arguments = ", ".join(map(names.value, node.inputs))
        assert f" = {node.op.name}({arguments})" in line
        assert all(repr(spec) in line.split(" = ")[0] for spec in node.specs)
        assert all(f" {name}=" in line for name in node.attrs)
        assert node.provenance.layer in line.split("# ")[1]
        assert node.provenance.phase in line.split("# ")[1]
        assert node.flops() == 0 or line.endswith(f", {format_flops(node.flops())} FLOPs")


def test_headings_follow_layer_and_pass() -> None:
    headings = [line for line in show(small_step()).splitlines() if line.startswith("-- ")]
    assert headings[:5] == [
        "-- forward: 卷积",
        "-- forward: max_pooling2d",
        "-- forward: flatten",
        "-- forward: dense",
        "-- forward: loss",
    ]
    assert headings[5:10] == [line.replace("forward", "backward") for line in reversed(headings[:5])]
    assert headings[10:] == ["-- forward: metrics", "-- update: optimizer"]


def test_scalars_stand_where_they_are_read() -> None:
    text = show(cr.trace(lambda x: (x + 0.1) * np.float32(1e-7) + float("inf"), cr.input_spec((2,))))
    assert "add(x, 0.1)" in text
    assert "multiply(%0, 1e-07)" in text
    assert "add(%1, inf)" in text
    assert "constant" not in text


def test_large_constants_show_their_ends() -> None:
    text = show(cr.trace(lambda x: x + np.arange(100.0), cr.input_spec((100,), "float64")))
    assert lines_of(text, "constants") == ["  %c0  float64(100,) = [ 0., 1., ..., 98., 99.]"]


def test_matrices_stay_on_one_line() -> None:
    text = show(cr.trace(lambda x: x + np.eye(2), cr.input_spec((2, 2), "float64")))
    assert lines_of(text, "constants") == ["  %c0  float64(2, 2) = [[1., 0.], [0., 1.]]"]


def test_long_attributes_are_cut() -> None:
    graph = cr.trace(lambda x: x.reshape(*[1] * 40, 2), cr.input_spec((2,)))
    (line,) = [line for line in show(graph).splitlines() if "reshape" in line]
    assert re.search(r" shape=\(1,[1,]+…", line)


def test_an_input_may_be_an_output() -> None:
    variable = cr.Variable([1.0, 2.0], name="v")

    def swap(x: cr.Tensor) -> tuple[cr.Tensor, Any]:
        variable.assign(x)
        return x, 2.5

    text = show(cr.trace(swap, cr.input_spec((2,)), name="swap"))
    assert text.startswith("graph swap: 0 nodes, 0 FLOPs\n")
    assert lines_of(text, "outputs") == ["  out0  x", "  out1  2.5"]
    assert lines_of(text, "changed state") == ["  v    x"]


def test_an_empty_graph_has_a_header() -> None:
    assert show(Graph("nothing")) == "graph nothing: 0 nodes, 0 FLOPs"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1234567, "1,234,567"), (BATCH, "N"), (BATCH * 1200 + 7, "1,200*N + 7"), (BATCH - 1000, "N - 1,000")],
)
def test_flops_with_their_thousands_apart(count: Size, text: str) -> None:
    assert format_flops(count) == text


# --- Stability ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [affine, small_step])
def test_tracing_again_gives_the_same_text(make: Any) -> None:
    cr.set_seed(0)
    first = show(make())
    cr.tensor([1.0], requires_grad=True) * 2  # uses up a global node number
    assert show(make()) == first


def test_numbers_are_dense() -> None:
    numbers = [int(number) for number in re.findall(r"^  %(\d+) ", show(small_step()), re.MULTILINE)]
    assert numbers == list(range(len(numbers)))


def test_names_are_unique() -> None:
    graph = small_step()
    names = Names(graph)
    called = [names.node(node) for node in graph.nodes if node.specs[0].shape or node.op is not CONSTANT]
    assert len(set(called)) == len(called)


# --- Filters -----------------------------------------------------------------------------------------


def test_one_pass() -> None:
    graph = small_step()
    text = show(graph, phase="backward")
    assert {line.split(":")[0] for line in text.splitlines() if line.startswith("-- ")} == {"-- backward"}
    assert text.splitlines()[1] == "only backward"
    assert "adam/" not in text
    assert lines_of(text, "inputs") == ["  x    float32(N, 8, 8, 1)"]


def test_one_layer_of_one_pass_keeps_its_numbers() -> None:
    graph = small_step()
    whole = show(graph).splitlines()
    part = show(graph, phase="forward", layer="dense").splitlines()
    assert part[1] == "only forward of dense"
    shown = [line.split("# ")[0].rstrip() for line in part if line.startswith("  %")]
    assert len(shown) == 2
    assert all(any(line.startswith(text) for line in whole) for text in shown)


def test_a_layer_brings_the_layers_inside_it() -> None:
    def function(x: cr.Tensor) -> cr.Tensor:
        with scope(layer="block"):
            x = cr.ops.exp(x)
        with scope(layer="block/inner"):
            x = cr.ops.relu(x)
        with scope(layer="blocks"):
            return cr.ops.tanh(x)

    graph = cr.trace(function, cr.input_spec((2,)))
    assert [node.op.name for node in select(graph, None, "block")] == ["exp", "relu"]
    assert [node.op.name for node in select(graph, None, "block/inner")] == ["relu"]


def test_a_layer_may_have_nothing_in_a_pass() -> None:
    assert show(small_step(), phase="update", layer="dense").startswith("graph step: 0 nodes, 0 FLOPs")


def test_unknown_filters_are_named() -> None:
    graph = small_step()
    with pytest.raises(ConfigError, match="unknown pass 'sideways'; expected 'forward', 'backward' or 'update'"):
        show(graph, phase="sideways")
    with pytest.raises(
        ConfigError, match=r"graph 'step' has no node of a layer 'conv'; its layers are '卷积', 'max_pool"
    ):
        show(graph, layer="conv")
    with pytest.raises(ConfigError, match="its layers are none"):
        show(Graph("empty"), layer="conv")
