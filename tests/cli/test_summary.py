"""``chainrule summary``: networks by name, and saved models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import chainrule as cr
from chainrule.columns import text_width
from chainrule.models.summary import summary_of
from chainrule.networks import NETWORKS, digits, get_network
from tests.cli.support import Command


@pytest.mark.parametrize("name", NETWORKS)
def test_a_named_network(chainrule: Command, name: str) -> None:
    printed = chainrule("summary", name, "--input-shape", "12x16x3", "--classes", 7)
    assert (printed.status, printed.err) == (0, "")
    assert f"parameters: {get_network(name)((12, 16, 3), 7).count_params():,} " in printed.out


def test_the_usual_shapes(chainrule: Command) -> None:
    assert "parameters: 121,930 " in chainrule("summary", "conv32-conv64-dense64").out
    assert "(N, 8, 8, 1)" in chainrule("summary", "digits").out


def test_a_saved_model(chainrule: Command, digits_run: Path) -> None:
    of_run, of_file = chainrule("summary", digits_run), chainrule("summary", digits_run / "model.safetensors")
    assert of_run == of_file
    assert of_run.status == 0
    assert of_run.out.startswith("model 'digits'\n")


@pytest.mark.parametrize("width", [20, 40, 60, 75, 77])
def test_narrow_terminals(chainrule: Command, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    name, *lines = chainrule("summary", "digits").out.splitlines()
    assert name == "model 'digits'"
    assert max(map(len, lines)) <= max(width, 36)  # names, shapes and counts stay
    layers = [line.split()[0] for line in lines[2:13]]
    assert len(set(layers)) == 11
    assert layers[-2:] == ["dense", "dense_1"]
    assert " ".join(" ".join(lines[13:]).split()).startswith("parameters: 85,450 (85,258 trained, 192 not), 341.8 kB")
    assert ("FLOPs" in lines[0], "kind" in lines[0]) == (width >= 57, width >= 77)


def test_a_pipe_takes_every_column(chainrule: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert chainrule("summary", "digits").out == f"{summary_of(digits())}\n"


def test_what_cannot_be_shown(refused: Callable[..., str], digits_run: Path) -> None:
    assert refused("summary", "digts").startswith("unknown network 'digts' (did you mean 'digits'?)")
    assert "conv2d_1" in refused("summary", "conv32-conv64-dense64", "--input-shape", "5x5x1")
    assert "for named networks" in refused("summary", digits_run, "--classes", 3)
    for shape in ("28", "28x28", "0x8x1", "axbxc", "8x8x1x1"):
        assert "--input-shape: expected HEIGHTxWIDTHxCHANNELS" in refused("summary", "digits", "--input-shape", shape)


def test_a_summary_as_an_object(chainrule: Command, digits_run: Path) -> None:
    printed = chainrule("summary", digits_run, "--json")
    assert (printed.status, printed.err) == (0, "")
    found = json.loads(printed.out)
    assert found["model"] == "digits"
    assert found["layers"][0] == {
        "name": "input",
        "class": "Input",
        "output_shape": [None, 8, 8, 1],
        "parameters": 0,
        "flops": 0,
    }
    assert found["layers"][-1]["output_shape"] == [None, 10]
    totals = found["totals"]
    assert totals["parameters"] == sum(layer["parameters"] for layer in found["layers"]) == 85450
    assert totals["trained"] + totals["not_trained"] == totals["parameters"]
    table = chainrule("summary", digits_run).out
    for layer in found["layers"]:
        assert any(
            line.split()[:2] == [layer["name"], layer["class"]] and f"{layer['flops']:,}" in line
            for line in table.splitlines()
        )


def test_names_of_any_width(chainrule: Command) -> None:
    long = "a_long_name_of_a_network_that_is_wider_than_forty_columns"
    layers = [cr.Input((4,)), cr.layers.Dense(3, name="密集連接層的第一個權重層")]
    text = summary_of(cr.Sequential(layers, name=long)).text(40).splitlines()
    assert text[0].startswith("model 'a_long_name")
    assert text[0].endswith("_columns'")
    assert text[1].split() == ["layer", "output", "parameters"]
    assert max(map(text_width, text)) <= 40
