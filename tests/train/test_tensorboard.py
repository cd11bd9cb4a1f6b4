"""TensorBoard's event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import chainrule as cr
from chainrule.errors import MissingDependencyError

pytestmark = pytest.mark.slow


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_event_files_hold_the_history(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    model = cr.Sequential([cr.Input((3,)), cr.layers.Dense(1)])
    schedule = cr.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(cr.optimizers.SGD(schedule), loss="mse", metrics=["mae"])
    callbacks = [cr.callbacks.TensorBoard(tmp_path)]
    history = model.fit(x, x[:, :1], epochs=3, validation_split=0.25, verbose=0, callbacks=callbacks).history
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    assert set(train) == {"epoch_loss", "epoch_mae", "epoch_learning_rate"}
    assert set(validation) == {"epoch_loss", "epoch_mae"}
    for found, prefix in ((train, ""), (validation, "val_")):
        for tag in set(found) - {"epoch_learning_rate"}:
            steps, values = zip(*found[tag], strict=True)
            assert steps == (0, 1, 2)
            np.testing.assert_allclose(values, history[prefix + tag.removeprefix("epoch_")], rtol=1e-6)
    rates = [value for _, value in train["epoch_learning_rate"]]
    np.testing.assert_allclose(rates, [0.1 * 0.5 ** (step / 10) for step in (0, 1, 2)], rtol=1e-6)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"] + ["tensorboard"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"install chainrule\[tensorboard\]"):
        cr.callbacks.TensorBoard()
