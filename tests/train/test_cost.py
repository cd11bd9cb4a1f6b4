"""What metrics and callbacks cost: no second forward pass, and one native call for many steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import chainrule as cr
from benchmarks import overhead
from chainrule.engines.native import executable
from chainrule.graph.graph import Graph

Array = np.ndarray[Any, Any]
RNG = np.random.Generator(np.random.PCG64(1))
X, Y = RNG.normal(size=(60, 6, 6, 1)).astype(np.float32), RNG.integers(0, 3, 60)
EVERYTHING = ["accuracy", "top_2_accuracy", "precision", "recall", "f1_score", "auc", "confusion_matrix"]


def trained(metrics: list[str], monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[list[Graph], list[Array]]:
    """The graph of each native call of a training with validation, and the weights."""
    cr.set_seed(2)
    model = cr.Sequential([cr.Input((6, 6, 1)), cr.layers.Conv2D(4, 3), cr.layers.Flatten(), cr.layers.Dense(3)])
    loss = cr.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=metrics, engine="native")
    graphs: list[Graph] = []
    real = executable.Executable.run_steps

    def run_steps(run: executable.Executable, *arguments: Any) -> int:
        graphs.append(run.graph)
        return real(run, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(executable.Executable, "run_steps", run_steps)
        model.fit(X, Y, 10, epochs=2, verbose=0, validation_data=(X[:20], Y[:20]), **options)
    return graphs, model.get_weights()


@pytest.mark.slow
def test_metrics_need_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, weights = trained([], monkeypatch)
    counted, same = trained(EVERYTHING, monkeypatch)
    names = ["step", "evaluate"] * 2  # one native call for an epoch, and one for its validation
    assert [graph.name for graph in plain] == [graph.name for graph in counted] == names
    for graph in counted:
        forward = [node for node in graph.nodes if node.op.name == "conv2d"]
        assert len(forward) == 1
    for a, b in zip(weights, same, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_callbacks_of_epochs_leave_an_epoch_in_one_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    kinds = cr.callbacks
    graphs, _ = trained(
        EVERYTHING,
        monkeypatch,
        callbacks=[
            kinds.EarlyStopping(patience=9),
            kinds.ModelCheckpoint(tmp_path / "best.safetensors", save_best_only=True),
            kinds.BackupAndRestore(tmp_path / "backup"),
            kinds.CSVLogger(tmp_path / "log.csv"),
        ],
    )
    assert [graph.name for graph in graphs] == ["step", "evaluate"] * 2


@pytest.mark.slow
def test_the_benchmark_of_the_loop_measures() -> None:
    found = overhead._loop(1200, 1)
    assert found["bare steps"] > 0
    assert found["Python: callbacks, files, progress"] > 0
    assert found["validation's forward runs"] > 0
    assert "| bare steps |" in overhead.loop_table(found)
