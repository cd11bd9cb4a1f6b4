"""A graph as a picture: valid, complete, the same from run to run, and with nothing drawn on top of anything."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ConfigError, RunFolderError
from chainrule.graph import Graph, scope
from chainrule.graph.drawing import draw
from chainrule.graph.drawing.layered import Path as Line
from chainrule.graph.drawing.layered import Point
from chainrule.graph.drawing.scene import Picture, Scene, item_size, lay_out
from chainrule.graph.show import Names, select
from chainrule.train.step import step_graph

By = Literal["node", "layer"]
SVG = "{http://www.w3.org/2000/svg}"


# --- Graphs to draw --------------------------------------------------------------------------------


def readme_step() -> Graph:
    """A training step with Adam: some hundred nodes."""
    model = cr.Sequential(
        [
            cr.Input((12, 12, 1)),
            cr.layers.Conv2D(8, 3, activation="relu"),
            cr.layers.MaxPooling2D(2),
            cr.layers.Flatten(),
            cr.layers.Dense(10),
        ]
    )
    model.compile("adam", cr.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return step_graph(model, model.objective, cr.input_spec((None, 12, 12, 1)), cr.input_spec((None,), "int32"))


def residual_step() -> Graph:
    """A training step with a branch, batch norm and names that XML would take for markup."""
    inputs = cr.Input((8, 8, 3))
    stem = cr.layers.Conv2D(4, 3, padding="same", activation="relu", name='卷积 <一> & "二"')(inputs)
    branch = cr.layers.BatchNormalization()(cr.layers.Conv2D(4, 3, padding="same")(stem))
    joined = cr.layers.Activation("relu")(branch + cr.layers.Conv2D(4, 1, name="shortcut")(stem))
    model = cr.Model(inputs, cr.layers.Dense(3)(cr.layers.Flatten()(joined)))
    model.compile("sgd", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    return step_graph(model, model.objective, cr.input_spec((None, 8, 8, 3)), cr.input_spec((None,), "int32"))


def dense_cross_entropy() -> Graph:
    """One dense layer under softmax cross-entropy, with its gradients."""
    layer = cr.layers.Dense(10, name="dense")
    loss_of = cr.losses.SparseCategoricalCrossentropy(from_logits=True)

    def function(x: cr.Tensor, y: cr.Tensor) -> Any:
        logits = layer(x)
        with scope(layer="loss"):
            loss = loss_of(y, logits)
        return {"loss": loss, **dict(zip("kb", cr.gradients(loss, layer.trainable_weights), strict=True))}

    return cr.trace(function, cr.input_spec((None, 64)), cr.input_spec((None,), "int32"), name="dense")


def third_derivative() -> Graph:
    """Backward passes of backward passes, without layers."""
    slope = cr.grad(cr.grad(cr.grad(lambda x: cr.ops.exp(x * x))))
    return cr.trace(lambda x: slope(x), cr.input_spec(()), name="third")


def scattered() -> Graph:
    """Layers that are called again after others."""
    table = np.arange(3, dtype=np.float32)

    def function(x: cr.Tensor) -> cr.Tensor:
        for turn in range(3):
            with scope(layer="a"):
                x = cr.ops.relu(x) * table
            with scope(layer=f"b{turn % 2}"):
                x = cr.ops.exp(x) + x
        return x

    return cr.trace(function, cr.input_spec((None, 3)), name="scattered")


def only_state() -> Graph:
    """No node at all: an input becomes state, a constant an output."""
    variable = cr.Variable([1.0, 2.0], name="v")

    def function(x: cr.Tensor) -> Any:
        variable.assign(x)
        return {"same": x, "fixed": 2.5}

    return cr.trace(function, cr.input_spec((2,)))


GRAPHS: dict[str, Callable[[], Graph]] = {
    "readme": readme_step,
    "residual": residual_step,
    "dense": dense_cross_entropy,
    "third": third_derivative,
    "scattered": scattered,
    "state": only_state,
    "empty": lambda: Graph("empty"),
}
WAYS: list[By] = ["node", "layer"]
PHASES = [None, "forward", "backward", "update"]

each_graph = pytest.mark.parametrize("name", GRAPHS)
each_way = pytest.mark.parametrize("by", WAYS)
each_phase = pytest.mark.parametrize("phase", PHASES)


@functools.cache
def graph_of(name: str) -> Graph:
    """One of the graphs, traced once."""
    return GRAPHS[name]()


def parsed(text: str) -> ElementTree.Element:
    """The picture's root element."""
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    return root


def tips(root: ElementTree.Element, kind: str) -> list[str]:
    """What the shapes of one kind say when pointed at."""
    found = [group for group in root.iter(f"{SVG}g") if group.get("class") == f"item {kind}"]
    return [group.findtext(f"{SVG}title") or "" for group in found]


def texts(root: ElementTree.Element) -> list[str]:
    """All text that is drawn."""
    return [element.text or "" for element in root.iter(f"{SVG}text")]


@functools.cache
def laid_out(name: str, by: By, phase: str | None = None) -> tuple[Scene, Picture]:
    """Items and places of one of the graphs."""
    graph = graph_of(name)
    scene = Scene(graph, select(graph, phase, None), by)
    return scene, lay_out(scene)


@functools.cache
def drawn(name: str, by: By = "node", phase: str | None = None) -> str:
    """The picture of one of the graphs."""
    return draw(graph_of(name), by=by, phase=phase)


# --- The file --------------------------------------------------------------------------------------


@each_graph
@each_way
@each_phase
@pytest.mark.slow
def test_the_picture_is_valid_xml(name: str, by: By, phase: str | None) -> None:
    root = parsed(drawn(name, by, phase))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert root.get("viewBox") == f"0 0 {width:.0f} {height:.0f}"
    assert root.get("font-family") == "sans-serif"
    numbers = [element.get("transform", "") for element in root.iter()]
    assert not any("nan" in text or "inf" in text for text in numbers)


@pytest.mark.slow
@each_graph
@each_way
def test_tracing_again_gives_the_same_picture(name: str, by: By) -> None:
    assert draw(GRAPHS[name](), by=by) == drawn(name, by)


@pytest.mark.slow
def test_the_file_holds_the_text(tmp_path: Path) -> None:
    path = tmp_path / "图.svg"
    path.write_text("old", encoding="utf-8")
    text = draw(graph_of("residual"), path, by="layer")
    assert path.read_text(encoding="utf-8") == text
    assert draw(graph_of("residual"), str(path), by="layer") == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "graph.svg"
    with pytest.raises(RunFolderError, match=r"graph\.svg': cannot be written"):
        draw(graph_of("dense"), absent)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(RunFolderError, match="cannot be written"):
        draw(graph_of("dense"), folder)
    assert sorted(tmp_path.iterdir()) == [folder]


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="by='op' is unknown; expected 'node' or 'layer'"):
        draw(graph_of("dense"), by="op")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown pass 'both'"):
        draw(graph_of("dense"), phase="both")
    with pytest.raises(ConfigError, match="has no node of a layer 'conv'"):
        draw(graph_of("dense"), layer="conv")


@pytest.mark.slow
@settings(max_examples=40)
@given(name=st.text(min_size=1, max_size=30))
def test_any_name_can_be_drawn(name: str) -> None:
    def function(x: cr.Tensor) -> cr.Tensor:
        with scope(layer=name):
            return cr.ops.relu(x)

    graph = cr.trace(function, cr.input_spec((None,)), name=name)
    for by in WAYS:
        parsed(draw(graph, by=by)).find(".")


@pytest.mark.slow
def test_markup_in_names_stays_text() -> None:
    root = parsed(drawn("residual"))
    assert '卷积 <一> & "二", forward' in texts(root)


# --- What is drawn -----------------------------------------------------------------------------------


@each_graph
@each_phase
@pytest.mark.slow
def test_every_node_is_drawn_once(name: str, phase: str | None) -> None:
    graph = graph_of(name)
    names = Names(graph)
    shown = [tip.split(" = ")[0] for tip in tips(parsed(drawn(name, "node", phase)), "op")]
    assert sorted(shown) == sorted(names.node(node) for node in select(graph, phase, None))


@each_graph
@each_phase
@pytest.mark.slow
def test_every_layer_and_pass_is_drawn_once(name: str, phase: str | None) -> None:
    graph = graph_of(name)
    places = {(node.provenance.layer, node.provenance.phase) for node in select(graph, phase, None)}
    expected = [f"{layer}, {kind}" if layer else kind for layer, kind in places]
    assert sorted(tips(parsed(drawn(name, "layer", phase)), "op")) == sorted(expected)


def test_a_box_says_op_shape_and_scalars() -> None:
    said = texts(parsed(drawn("dense")))
    assert "matmul" in said
    assert "(N, 10)" in said
    assert "int32(N,)" in said
    assert "divide(1.0, ·)" in said


def test_a_box_of_a_layer_says_ops_shape_and_flops() -> None:
    said = texts(parsed(drawn("dense", "layer")))
    assert "matmul, add" in said
    assert "→ (N, 10)" in said
    assert "1,290*N FLOPs" in said


@pytest.mark.slow
def test_inputs_variables_and_results_have_their_own_shapes() -> None:
    root = parsed(drawn("readme"))
    assert {tip.split(":")[0] for tip in tips(root, "input")} == {"x", "y", "count", "learning_rate"}
    assert {"conv2d/kernel", "adam/iterations"} < {tip.split(":")[0] for tip in tips(root, "state")}
    assert {"conv2d/kernel", "metrics/loss/total"} < {tip.split(":")[0] for tip in tips(root, "written")}
    assert tips(root, "output") == ["out: float32()"]
    assert "inputs that nothing reads: seed, first_row" in texts(root)[1]


def test_an_input_is_drawn_in_every_group_that_reads_it() -> None:
    root = parsed(drawn("dense"))
    assert [tip.split(":")[0] for tip in tips(root, "input")].count("x") == 2


def test_constant_arrays_are_drawn_and_scalars_are_not() -> None:
    assert len(tips(parsed(drawn("scattered")), "constant")) >= 1
    assert tips(parsed(drawn("third")), "constant") == []


def test_what_a_filter_leaves_out_is_drawn_as_made_elsewhere() -> None:
    root = parsed(draw(graph_of("dense"), phase="backward", layer="dense"))
    assert len(tips(root, "op")) == 2
    assert len(tips(root, "outside")) == 1
    assert sorted(tips(root, "output")) == ["b: float32(10,)", "k: float32(64, 10)"]


def test_kept_values_are_dashed_and_explained() -> None:
    whole, half = drawn("dense"), drawn("dense", "node", "forward")
    assert "kept for the backward pass" in whole
    assert "stroke-dasharray" in whole
    assert "stroke-dasharray" not in half


def test_the_legend_holds_what_is_drawn() -> None:
    said = texts(parsed(drawn("dense", "node", "forward")))
    assert {"forward pass", "input", "variable", "output"} <= set(said)
    assert not {"backward pass", "update", "constant", "made elsewhere"} & set(said)


def test_every_line_has_an_arrow() -> None:
    root = parsed(drawn("readme"))
    lines = [element for element in root.iter(f"{SVG}path") if element.get("class") == "line"]
    arrows = [element for element in root.iter(f"{SVG}polygon") if element.get("stroke") is None]
    assert len(lines) == len(arrows) > 100


def test_groups_do_not_lead_back_to_themselves() -> None:
    assert [group.layer for group in laid_out("scattered", "node")[0].groups] == ["a", "b0", "a", "b1", "a", "b0"]
    assert [group.layer for group in laid_out("scattered", "layer")[0].groups] == ["a", "b0", "b1"]


# --- Where it stands ---------------------------------------------------------------------------------


def corners(centre: Point, size: Point) -> tuple[float, float, float, float]:
    return centre[0] - size[0] / 2, centre[1] - size[1] / 2, centre[0] + size[0] / 2, centre[1] + size[1] / 2


def apart(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def item_boxes(scene: Scene, picture: Picture) -> list[tuple[float, float, float, float]]:
    pairs = zip(scene.items, picture.centres, strict=True)
    return [corners(centre, item_size(item)) for item, centre in pairs]


@each_graph
@each_way
@each_phase
@pytest.mark.slow
def test_no_box_lies_on_another(name: str, by: By, phase: str | None) -> None:
    scene, picture = laid_out(name, by, phase)
    boxes = item_boxes(scene, picture)
    assert all(apart(a, b) for a, b in itertools.combinations(boxes, 2))


@each_graph
@each_way
@pytest.mark.slow
def test_groups_hold_their_items_and_nothing_else(name: str, by: By) -> None:
    scene, picture = laid_out(name, by)
    frames = [
        (x, y, x + block.size[0], y + block.size[1])
        for (x, y), block in zip(picture.corners, picture.blocks, strict=True)
    ]
    assert all(apart(a, b) for a, b in itertools.combinations(frames, 2))
    for item, box in zip(scene.items, item_boxes(scene, picture), strict=True):
        frame = frames[item.group]
        assert frame[0] <= box[0] + 1e-6
        assert frame[1] <= box[1] + 1e-6
        assert box[2] <= frame[2] + 1e-6
        assert box[3] <= frame[3] + 1e-6
    for frame in frames:
        assert frame[0] >= -1e-6
        assert frame[2] <= picture.size[0] + 1e-6


def points_on(line: Line) -> Iterator[Point]:
    """Points along a line, close together."""
    place = line[0][1][0]
    for command, points in line[1:]:
        controls = (place, *points) if command == "C" else (place, place, points[0], points[0])
        for t in np.linspace(0, 1, 21):
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            x, y = (sum(w * p[axis] for w, p in zip(weights, controls, strict=True)) for axis in (0, 1))
            yield float(x), float(y)
        place = points[-1]


@each_graph
@each_way
@pytest.mark.slow
def test_lines_run_around_the_boxes(name: str, by: By) -> None:
    scene, picture = laid_out(name, by)
    boxes = np.array(item_boxes(scene, picture)).reshape(-1, 4)
    for line in picture.paths.values():
        points = np.array(list(points_on(line)))[:, None, :]
        inside = (points > boxes[:, :2] + 0.6) & (points < boxes[:, 2:] - 0.6)
        assert not inside.all(axis=-1).any()


@each_graph
@each_way
@pytest.mark.slow
def test_lines_join_what_they_should(name: str, by: By) -> None:
    scene, picture = laid_out(name, by)
    boxes = item_boxes(scene, picture)
    expected = {(source, reader) for reader, item in enumerate(scene.items) for source in item.sources}
    assert set(picture.paths) == expected
    for (source, reader), line in picture.paths.items():
        for point, box in ((line[0][1][0], boxes[source]), (line[-1][1][-1], boxes[reader])):
            assert box[0] - 1e-6 <= point[0] <= box[2] + 1e-6
            assert min(abs(point[1] - box[1]), abs(point[1] - box[3])) < 1e-6


def test_forward_runs_down_and_backward_climbs_beside_it() -> None:
    scene, picture = laid_out("readme", "layer")
    place = {item.tip: centre for item, centre in zip(scene.items, picture.centres, strict=True) if item.kind == "op"}
    layers = ["conv2d", "max_pooling2d", "flatten", "dense", "loss"]
    for upper, lower in itertools.pairwise(layers):
        assert place[f"{upper}, forward"][1] < place[f"{lower}, forward"][1]
        assert place[f"{upper}, backward"][1] < place[f"{lower}, backward"][1]
    for layer in layers:
        assert place[f"{layer}, forward"][0] < place[f"{layer}, backward"][0]
    assert all(place["optimizer, update"][1] > y for tip, (_, y) in place.items() if tip != "optimizer, update")


def test_one_pass_alone_runs_down() -> None:
    scene, picture = laid_out("readme", "layer", "backward")
    place = {item.tip: centre for item, centre in zip(scene.items, picture.centres, strict=True) if item.kind == "op"}
    assert place["loss, backward"][1] < place["dense, backward"][1] < place["conv2d, backward"][1]


@pytest.mark.slow
def test_a_step_of_many_layers_is_drawn_in_seconds() -> None:
    layers: list[Any] = [cr.Input((16, 16, 4))]
    for _ in range(12):
        layers += [cr.layers.Conv2D(4, 3, padding="same", activation="relu"), cr.layers.BatchNormalization()]
    model = cr.Sequential([*layers, cr.layers.Flatten(), cr.layers.Dense(3)])
    model.compile("adam", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    graph = step_graph(model, model.objective, cr.input_spec((None, 16, 16, 4)), cr.input_spec((None,), "int32"))
    assert len(graph.nodes) > 1000
    assert len(tips(parsed(draw(graph)), "op")) == len(select(graph, None, None))
