"""``chainrule plan``: kernels, what they cost, and every level; and what nests cost by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli.usual import compile_as_usual, training_step
from chainrule.engines.native.priced import Priced
from chainrule.graph.dims import bind_size
from chainrule.networks import NETWORKS, digits
from chainrule.plan.dump import LEVELS
from tests.cli.support import Command


@pytest.fixture(scope="module")
def of_digits() -> dict[str, Any]:
    """The plan of the digits' network as JSON."""
    import contextlib
    import io

    from chainrule.cli.main import main

    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        assert main(["plan", "digits", "--json"]) == 0
    found: dict[str, Any] = json.loads(stream.getvalue())
    return found


@pytest.mark.slow
def test_the_table_tells_what_the_object_does(chainrule: Command, of_digits: dict[str, Any]) -> None:
    printed = chainrule("plan", "digits")
    assert (printed.status, printed.err) == (0, "")
    lines = printed.out.splitlines()
    assert lines[0] == "training step of 'digits', 32 samples"
    assert len(of_digits["kernels"]) == len(lines) - 3 - 4
    for kernel, line in zip(of_digits["kernels"], lines[3:], strict=False):
        assert line.split()[0] == str(kernel["stage"])
        assert all(name in line for name in (*kernel["layers"], *kernel["ops"], kernel["kind"]))
    assert f"{len(of_digits['kernels'])} in {of_digits['stages']} stages" in printed.out


def test_products_cost_what_the_graph_says(of_digits: dict[str, Any]) -> None:
    model = digits()
    compile_as_usual(model)
    graph = training_step(model)
    totals = of_digits["totals"]
    assert totals["graph_flops"] == bind_size(graph.flops(), 32)
    assert totals["flops"] == sum(kernel["flops"] for kernel in of_digits["kernels"])
    assert totals["flops"] == pytest.approx(totals["graph_flops"], rel=0.05)
    assert sum(kernel["share"] for kernel in of_digits["kernels"]) == pytest.approx(1, abs=1e-3)
    products = [kernel for kernel in of_digits["kernels"] if kernel["kind"] == "product"]
    forward = next(kernel for kernel in products if kernel["ops"] == ["conv2d"] and kernel["layers"] == ["conv2d_1"])
    assert forward["flops"] == 2 * 32 * 4 * 4 * 64 * 32 * 9
    packing = [kernel for kernel in products if any("packing" in op for op in kernel["ops"])]
    assert packing
    assert not any(kernel["flops"] for kernel in packing)
    dense = [kernel for kernel in products if kernel["ops"] == ["matmul"] and kernel["layers"] == ["dense"]]
    assert sum(kernel["flops"] for kernel in dense) == 3 * 2 * 32 * 1024 * 64
    assert totals["state_bytes"] >= 3 * 4 * 85258


@pytest.mark.slow
def test_it_is_the_plan_that_fit_runs(of_digits: dict[str, Any]) -> None:
    model = digits()
    compile_as_usual(model)
    x, y = np.zeros((32, 8, 8, 1), np.float32), np.arange(32) % 10
    model.fit(x, y, batch_size=32, verbose=0)
    assert model._trainer is not None
    (engine,) = (engine for key, engine in model._trainer._plans._kept.items() if key[0] == "step")
    program = engine._compiled.program  # type: ignore[attr-defined]
    assert (program.batch, program.arena) == (32, of_digits["totals"]["arena_bytes"])
    assert len(program.stages) == of_digits["stages"]


@pytest.mark.parametrize("columns", [40, 69, 80])
@pytest.mark.slow
def test_the_table_fits_the_terminal(chainrule: Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    printed = chainrule("plan", "conv32-dense128", "--batch-size", 8)
    assert printed.status == 0
    assert max(map(len, printed.out.splitlines())) <= columns


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_named_networks_of_any_shape(chainrule: Command, name: str) -> None:
    found = json.loads(
        chainrule("plan", name, "--input-shape", "12x16x3", "--classes", 7, "--batch-size", 5, "--json").out
    )
    assert (found["model"], found["batch_size"]) == (name, 5)


@pytest.mark.slow
def test_every_level(chainrule: Command) -> None:
    signs = ("graph step: ", "graph step: ", "plan of step: ", "define ", ".text")
    for level, sign in zip(LEVELS, signs, strict=True):
        printed = chainrule("plan", "digits", "--level", level)
        assert (printed.status, printed.err) == (0, "")
        assert sign in printed.out


def test_a_run_is_planned_with_its_own_batch_size_and_a_model_file_without(
    chainrule: Command, digits_run: Path
) -> None:
    settings = json.loads((digits_run / "config.json").read_text())["settings"]
    assert json.loads(chainrule("plan", digits_run, "--json").out)["batch_size"] == settings["batch_size"]
    assert json.loads(chainrule("plan", digits_run / "model.safetensors", "--json").out)["batch_size"] == 32


@pytest.mark.parametrize(
    ("loss", "units", "activation"),
    [
        ("sparse_categorical_crossentropy", 3, "softmax"),
        ("categorical_crossentropy", 3, "softmax"),
        ("binary_crossentropy", 1, "sigmoid"),
        ("mean_squared_error", 4, None),
    ],
)
def test_models_with_any_loss(
    chainrule: Command, tmp_path: Path, loss: str, units: int, activation: str | None
) -> None:
    model = cr.Sequential([cr.Input((5,)), cr.layers.Dense(units, activation=activation)])
    model.compile("sgd", loss)
    model.save(tmp_path / "a.safetensors")
    assert chainrule("plan", tmp_path / "a.safetensors").status == 0


def test_what_cannot_be_planned(refused: Callable[..., str], digits_run: Path) -> None:
    assert "did you mean 'assembly'" in refused("plan", "digits", "--level", "assembler")
    assert "give one of them" in refused("plan", "digits", "--level", "ir", "--json")
    assert "unknown network 'digit'" in refused("plan", "digit")
    assert "for named networks" in refused("plan", digits_run, "--classes", 3)
    assert "positive integer" in refused("plan", "digits", "--batch-size", 0)


# -- loops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda x: x * 3 + 1, 2 * 5 * 7),
        (lambda x: cr.ops.sum(x * x, axis=1), 5 * (2 * 7)),
        (lambda x: cr.ops.exp(x), 5 * 7),
        (lambda x: cr.ops.transpose(x, (1, 0)), 0),
    ],
)
def test_the_cost_of_loops(function: Any, flops: int) -> None:
    graph = cr.trace(function, cr.input_spec((5, 7)), name="f")
    priced = Priced.of(graph, 1)
    assert sum(cost.flops for cost in priced.costs.values()) == pytest.approx(flops, rel=0.2)
    read_and_written = 4 * (35 + int(np.prod([int(n) for n in next(iter(graph.outputs.values())).shape])))
    assert sum(cost.bytes for cost in priced.costs.values()) >= read_and_written
