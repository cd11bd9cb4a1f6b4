"""The learning rate of a training that goes on: a number, a schedule, or what a callback has put in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import CheckpointError
from chainrule.optimizers import schedules
from chainrule.train.callback import Callback

X = np.linspace(-1, 1, 80, dtype=np.float32).reshape(20, 4)
Y = X.sum(axis=1, keepdims=True)
Rate = float | schedules.Schedule


class Stopped(Exception):
    """What a crash is in these tests."""


class Watch(Callback):
    """Notes the rate of every step, and raises in the second batch of an epoch if told to."""

    def __init__(self, crash: int | None) -> None:
        self.rates: list[float] = []
        self._crash, self._epoch = crash, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.rates.append(self.model.optimizer.learning_rate)
        if (self._epoch, batch) == (self._crash, 2):
            raise Stopped


def sets(rate: Rate, at: int) -> Callable[[], Callback]:
    """A callback that gives the optimizer another rate at the beginning of an epoch."""

    def set_rate(epoch: int, logs: Any = None) -> None:
        if epoch == at:
            callback.model.optimizer.learning_rate = rate

    callback = cr.callbacks.LambdaCallback(on_epoch_begin=set_rate)
    return lambda: callback


def train(
    folder: Path,
    rate: Rate,
    callback: Callable[[], Callback] = Callback,
    crash: int | None = None,
    accept: bool = False,
    weights: list[Any] | None = None,
) -> list[float]:
    """The rates of the steps."""
    cr.set_seed(1)
    model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(1)])
    model.compile(cr.optimizers.SGD(rate), "mse")
    watch = Watch(crash)
    backup = cr.callbacks.BackupAndRestore(folder, save_freq=1, accept_changes=accept)
    before = model.get_weights()
    try:
        model.fit(X, Y, 5, epochs=4, verbose=0, callbacks=[callback(), watch, backup])
    except CheckpointError:
        assert not watch.rates
        assert model.optimizer.learning_rate == (rate if isinstance(rate, float) else rate(0))
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
        raise
    return watch.rates


STEPS, OTHER = schedules.StepDecay(0.25, 3), schedules.StepDecay(0.125, 5)


@pytest.mark.parametrize(
    ("rate", "callback"),
    [
        (0.1, Callback),
        (STEPS, Callback),
        (STEPS, sets(0.03, at=1)),
        (0.1, sets(0.03, at=1)),
    ],
)
@pytest.mark.parametrize("crash", [0, 1, 2, 3])
@pytest.mark.slow
def test_the_rates_go_on(rate: Rate, callback: Callable[[], Callback], crash: int, tmp_path: Path) -> None:
    expected = train(tmp_path / "whole", rate, callback)
    with pytest.raises(Stopped):
        train(tmp_path / "cut", rate, callback, crash)
    assert train(tmp_path / "cut", rate, callback) == expected[4 * crash + 2 :]


@pytest.mark.parametrize("rate", [0.1, STEPS])
@pytest.mark.slow
def test_a_schedule_that_a_callback_has_set_is_not_lost_unsaid(rate: Rate, tmp_path: Path) -> None:
    expected = train(tmp_path / "whole", rate, sets(OTHER, at=2))
    for crash in (1, 0):
        with pytest.raises(Stopped):
            train(tmp_path / str(crash), rate, sets(OTHER, at=2), crash)
        assert train(tmp_path / str(crash), rate, sets(OTHER, at=2)) == expected[4 * crash + 2 :]
    for crash in (2, 3):
        with pytest.raises(Stopped):
            train(tmp_path / str(crash), rate, sets(OTHER, at=2), crash)
        with pytest.raises(CheckpointError, match="a schedule of learning rates that a callback had set"):
            train(tmp_path / str(crash), rate, sets(OTHER, at=2))


@pytest.mark.parametrize(("first", "then"), [(0.1, STEPS), (STEPS, 0.1), (STEPS, OTHER)])
@pytest.mark.parametrize("callback", [Callback, sets(0.03, at=1)])
@pytest.mark.slow
def test_another_schedule_is_refused_before_anything_changes_and_kept_if_accepted(
    first: Rate, then: Rate, callback: Callable[[], Callback], tmp_path: Path
) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, first, callback, 2)
    with pytest.raises(CheckpointError, match="the learning rate's schedule has changed"):
        train(tmp_path, then, callback)
    rates = train(tmp_path, then, callback, accept=True)
    assert rates == [then if isinstance(then, float) else then(step) for step in range(10, 16)]


@pytest.mark.slow
def test_a_lost_schedule_can_be_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, 0.1, sets(OTHER, at=0), 2)
    assert train(tmp_path, 0.1, accept=True) == [0.1] * 6
    assert "although it followed a schedule" in capsys.readouterr().err
