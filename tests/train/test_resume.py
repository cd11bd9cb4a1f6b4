"""Trainings that are cut off and go on: the same bits as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import layers as kinds
from chainrule.engines.native.threads import get_threads, set_threads
from chainrule.errors import CheckpointError
from chainrule.optimizers import schedules
from chainrule.train.callback import Logs
from chainrule.train.checkpoint import newest, read_checkpoint

Array = np.ndarray[Any, Any]
EPOCHS, BATCH, SAMPLES = 3, 8, 61
STEPS = -(-SAMPLES // BATCH)


class CutOff(Exception):
    """What a crash is in these tests."""


class Crash(cr.callbacks.Callback):
    """Raises after so many steps."""

    def __init__(self, after: int | None) -> None:
        self.after, self.seen = after, 0

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.seen += 1
        if self.seen == self.after:
            raise CutOff


def data() -> tuple[Array, Array]:
    rng = np.random.Generator(np.random.PCG64(1))
    return rng.normal(size=(SAMPLES, 6, 6, 1)).astype(np.float32), rng.integers(0, 3, SAMPLES)


def model(optimizer: Callable[[], Any]) -> cr.Model:
    cr.set_seed(11)
    built = cr.Sequential(
        [
            cr.Input((6, 6, 1)),
            kinds.Conv2D(4, 3, activation="relu"),
            kinds.BatchNormalization(momentum=0.9),
            kinds.Flatten(),
            kinds.Dropout(0.4),
            kinds.Dense(3),
        ]
    )
    loss = cr.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile(optimizer(), loss, metrics=["accuracy", "f1_score"])
    return built


def adam() -> Any:
    return cr.optimizers.AdamW(schedules.OneCycle(0.02, EPOCHS * STEPS), use_ema=True)


def accumulating() -> Any:
    return cr.optimizers.SGD(0.05, momentum=0.9, gradient_accumulation_steps=3)


def train(optimizer: Callable[[], Any], folder: Path | None, crash: int | None = None, **backup: Any) -> Any:
    trained = model(optimizer)
    x, y = data()
    callbacks: list[cr.callbacks.Callback] = [cr.callbacks.EarlyStopping("val_loss", patience=9), Crash(crash)]
    if folder is not None:
        callbacks.append(cr.callbacks.BackupAndRestore(folder, delete_checkpoint=False, **backup))
    history = trained.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks, validation_data=(x[:20], y[:20])
    )
    state = [v.numpy() for v in (*trained.weights, *trained.optimizer.variables())]
    return [*state, *(np.array(values) for values in history.history.values())]


@pytest.fixture(scope="module", params=[adam, accumulating], ids=["adam", "accumulating"])
def optimizer(request: pytest.FixtureRequest) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param
    return made


@pytest.fixture(scope="module")
def expected(optimizer: Callable[[], Any]) -> Any:
    return train(optimizer, None)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crashes=st.lists(st.integers(1, EPOCHS * STEPS - 1), min_size=1, max_size=4), every=st.integers(1, 9))
def test_any_crashes_leave_the_same_bits(
    optimizer: Callable[[], Any],
    expected: Any,
    crashes: list[int],
    every: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("backup")
    threads = get_threads()
    try:
        for number, crash in enumerate(crashes):
            set_threads(1 + number % 3)
            try:
                train(optimizer, folder, crash, save_freq=every)
            except CutOff:
                continue
        set_threads(2)
        found = train(optimizer, folder, save_freq=every)
    finally:
        set_threads(threads)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_training_does_nothing_more(optimizer: Callable[[], Any], expected: Any, tmp_path: Path) -> None:
    train(optimizer, tmp_path)
    for a, b in zip(train(optimizer, tmp_path), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    optimizer: Callable[[], Any], expected: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CutOff):
        train(optimizer, tmp_path, 7, save_freq=2)  # groups of batches are one event
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    content = bytearray(files[-1].read_bytes())
    content[len(content) // 2] ^= 1
    files[-1].write_bytes(content)
    found = train(optimizer, tmp_path, save_freq=2)
    assert f"'{files[-1]}': damaged" in capsys.readouterr().out
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_cut_or_changed_byte_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3)
    path = max(tmp_path.iterdir())
    whole = path.read_bytes()
    rng = np.random.Generator(np.random.PCG64(2))
    for place in [0, 1, 8, len(whole) - 1, *rng.integers(0, len(whole), 60).tolist()]:
        changed = bytearray(whole)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
        path.write_bytes(whole[:place])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3)
    with pytest.raises(CheckpointError, match="belongs to another model or optimizer"):
        train(accumulating, tmp_path)


def test_changed_facts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3, facts={"data": "one"})
    with pytest.raises(CheckpointError, match="was made with data 'one'; this training has 'two'"):
        train(adam, tmp_path, facts={"data": "two"})


def test_a_full_disk_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3)
    before = newest(tmp_path)[0]

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("chainrule.files._write_durably", full)
    with pytest.raises(CutOff):
        train(adam, tmp_path, 8, save_freq=3)
    assert "no checkpoint could be written" in capsys.readouterr().out
    after, damaged = newest(tmp_path)
    assert before is not None
    assert after is not None
    assert after.step == before.step
    assert not damaged
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"] * 2


def test_the_header_is_strict_json(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3)
    header = read_checkpoint(max(tmp_path.iterdir())).header
    assert json.loads(json.dumps(header, allow_nan=False)) == header
