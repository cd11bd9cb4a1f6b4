"""Trainings that are cut off and go on: the same bits as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
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
from chainrule.errors import CheckpointError, ConfigError, RunFolderError
from chainrule.optimizers import schedules
from chainrule.train.callback import Logs
from chainrule.train.checkpoint import Checkpoint, newest, read_checkpoint
from chainrule.train.fitting import Position

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


class Watch(cr.callbacks.Callback):
    """Notes where a training begins, and how many batches it runs."""

    def __init__(self) -> None:
        self.began: tuple[Position, int] | None = None
        self.batches = self._before = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        position = self.fitting.position
        self._before = position.batches
        if self.began is None:
            self.began = (position, int(self.model.optimizer.iterations.data))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        done = self.fitting.position.batches
        self.batches, self._before = self.batches + done - self._before, done


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


def train(
    optimizer: Callable[[], Any],
    folder: Path | None,
    crash: int | None = None,
    verbose: int = 0,
    delete: bool = False,
    watch: Watch | None = None,
    **backup: Any,
) -> Any:
    trained = model(optimizer)
    x, y = data()
    callbacks: list[cr.callbacks.Callback] = [
        cr.callbacks.EarlyStopping("val_loss", patience=9),
        watch or Watch(),
        Crash(crash),
    ]
    if folder is not None:
        callbacks.append(cr.callbacks.BackupAndRestore(folder, delete_checkpoint=delete, **backup))
    history = trained.fit(
        x, y, batch_size=BATCH, epochs=EPOCHS, verbose=verbose, callbacks=callbacks, validation_data=(x[:20], y[:20])
    )
    state = [v.numpy() for v in (*trained.weights, *trained.optimizer.variables())]
    return [*state, *(np.array(values) for values in history.history.values())]


def resumed(optimizer: Callable[[], Any], folder: Path, crash: int | None = None, **options: Any) -> Any:
    """As `train`, which must begin where the newest checkpoint was taken, and run no batch but those that are left.

    To begin anew would give the same bits.
    """
    found, _ = newest(folder)
    position, step = (Position(0), 0) if found is None else (found.position, found.step)
    left = (EPOCHS - position.epoch) * STEPS - position.batches
    watch = Watch()
    try:
        result = train(optimizer, folder, crash, watch=watch, **options)
        assert watch.batches == left
        return result
    finally:
        assert watch.began == ((position, step) if left else None)


def watchers(folder: Path, name: str) -> list[cr.callbacks.Callback]:
    """What remembers something from epoch to epoch; nothing is ever good enough for them."""
    return [
        cr.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=2, min_delta=10),
        cr.callbacks.EarlyStopping("loss", patience=4, min_delta=10),
        cr.callbacks.CSVLogger(folder / f"{name}.csv"),
    ]


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.slow
def test_a_backup_may_stand_anywhere_among_the_callbacks(place: int, tmp_path: Path) -> None:
    began: list[tuple[Position, int] | None] = []

    def fit(name: str, backup: bool, crash: int | None = None) -> Any:
        trained = model(lambda: cr.optimizers.SGD(0.1))
        chain, watch = watchers(tmp_path, name), Watch()
        if backup:
            chain.insert(place, cr.callbacks.BackupAndRestore(tmp_path / "backup"))
        try:
            history = trained.fit(
                *data(), batch_size=BATCH, epochs=8, verbose=0, callbacks=[*chain, watch, Crash(crash)]
            )
        finally:
            began.append(watch.began)
        return [trained.optimizer.learning_rate, *trained.get_weights(), np.array(history.history["loss"])]

    expected = fit("whole", backup=False)
    for crash in (2 * STEPS + 1, 1, STEPS + 1):  # in the third epoch, in it again, and in the fourth
        with pytest.raises(CutOff):
            fit("cut", backup=True, crash=crash)
    found = fit("cut", backup=True)
    assert began == [(Position(epoch, 0, epoch), STEPS * epoch) for epoch in (0, 0, 2, 2, 3)]
    assert expected[0] == 0.05 / 2
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len((tmp_path / "whole.csv").read_text().splitlines()) == 1 + 5
    assert (tmp_path / "cut.csv").read_text() == (tmp_path / "whole.csv").read_text()


@pytest.mark.parametrize("crashes", [[STEPS + 5], [5], [2], [STEPS + 5, 2, 7]])
@pytest.mark.slow
def test_an_epoch_entered_in_its_middle_has_its_rate(crashes: list[int], tmp_path: Path) -> None:
    def fit(name: str | None, crash: int | None = None) -> Any:
        trained, rates, watch = model(lambda: cr.optimizers.SGD(0.1)), [], Watch()
        chain: list[cr.callbacks.Callback] = [
            cr.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
            cr.callbacks.LambdaCallback(on_epoch_end=lambda *_: rates.append(trained.optimizer.learning_rate)),
            watch,
            Crash(crash),
        ]
        if name is not None:
            chain.append(cr.callbacks.BackupAndRestore(tmp_path / name, save_freq=3))
        trained.fit(*data(), batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=chain)
        return rates, trained.get_weights(), watch.batches

    expected = fit(None)
    assert expected[0] == [0.05, 0.025, 0.0125]
    for crash in crashes:
        with pytest.raises(CutOff):
            fit("backup", crash)
    found, _ = newest(tmp_path / "backup")
    rates, weights, batches = fit("backup")
    assert batches == EPOCHS * STEPS - (0 if found is None else found.step)
    assert rates == expected[0][-len(rates) :]
    for a, b in zip(weights, expected[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_each_training_asks_for_its_rates() -> None:
    trained, asked = model(lambda: cr.optimizers.SGD(0.1)), []

    def schedule(epoch: int) -> float:
        asked.append(epoch)
        return 0.1

    scheduler = cr.callbacks.LearningRateScheduler(schedule)
    for _ in range(2):
        trained.fit(*data(), epochs=1, verbose=0, callbacks=scheduler)
    assert asked == [0, 0]


@pytest.mark.parametrize(
    "event", ["on_epoch_begin", "on_train_batch_end", "on_test_begin", "on_test_end", "on_epoch_end"]
)
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.slow
def test_a_signal_leaves_a_checkpoint_wherever_it_comes(event: str, epoch: int, tmp_path: Path) -> None:
    def fit(folder: Path | None, stops: bool) -> Any:
        def stop(*_: Any) -> None:
            fitting = watch.fitting
            if stops and fitting.position.epoch == epoch + (event == "on_epoch_end"):
                fitting.stop.request(15)

        trained = model(lambda: cr.optimizers.SGD(0.1))
        watch = cr.callbacks.LambdaCallback(**{event: stop})
        backup = [] if folder is None else [cr.callbacks.BackupAndRestore(folder)]
        x, y, steps = *data(), Watch()
        history = trained.fit(
            x, y, BATCH, epochs=EPOCHS, verbose=0, callbacks=[watch, steps, *backup], validation_data=(x[:9], y[:9])
        )
        return trained, history, steps

    trained, history, _ = fit(tmp_path, True)
    assert history.interrupted
    found, _ = newest(tmp_path)
    assert found is not None
    assert found.step == int(trained.optimizer.iterations.data)
    again, _, steps = fit(tmp_path, False)
    assert (steps.began, steps.batches) == ((found.position, found.step), EPOCHS * STEPS - found.step)
    for a, b in zip(again.get_weights(), fit(None, False)[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module", params=[adam, accumulating], ids=["adam", "accumulating"])
def optimizer(request: pytest.FixtureRequest) -> Callable[[], Any]:
    made: Callable[[], Any] = request.param
    return made


@pytest.fixture(scope="module")
def expected(optimizer: Callable[[], Any]) -> Any:
    return train(optimizer, None)


@pytest.mark.slow
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
                resumed(optimizer, folder, crash, save_freq=every)
            except CutOff:
                continue
        set_threads(2)
        found = resumed(optimizer, folder, save_freq=every)
    finally:
        set_threads(threads)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_finished_training_does_nothing_more(optimizer: Callable[[], Any], expected: Any, tmp_path: Path) -> None:
    train(optimizer, tmp_path)
    finished, _ = newest(tmp_path)
    assert finished is not None
    assert finished.position == Position(EPOCHS, 0, EPOCHS)
    watch = Watch()
    found = train(optimizer, tmp_path, watch=watch)
    assert (watch.began, watch.batches) == (None, 0)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
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
    found = resumed(optimizer, tmp_path, save_freq=2)
    assert f"'{files[-1]}': damaged" in capsys.readouterr().err
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
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


@pytest.mark.slow
def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3)
    with pytest.raises(CheckpointError, match="not go on to the same bits: the network, the loss or the optimizer has"):
        train(accumulating, tmp_path)
    with pytest.raises(CheckpointError, match="belongs to another model or optimizer"):
        train(accumulating, tmp_path, accept_changes=True)


@pytest.mark.slow
def test_changed_facts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3, facts={"data": "one"})
    with pytest.raises(CheckpointError, match="not go on to the same bits: the data have changed"):
        train(adam, tmp_path, facts={"data": "two"})


@pytest.mark.slow
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
    assert "no checkpoint could be written" in capsys.readouterr().err
    after, damaged = newest(tmp_path)
    assert before is not None
    assert after is not None
    assert after.step == before.step
    assert not damaged
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"] * 2


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)], check=True)
from tests.train.test_resume import CutOff, adam, train
from chainrule.train.checkpoint import newest
try:
    train(adam, folder, 7, save_freq=3)
except CutOff:
    pass
before = newest(folder)[0].step
free = os.statvfs(folder)
(folder / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - 4096))
try:
    train(adam, folder, 5, save_freq=2)
except CutOff:
    pass
found, damaged = newest(folder)
print("steps", before, found.step, len(damaged), len(list(folder.glob("checkpoint-*"))), len(list(folder.glob(".*"))))
"""


def namespaces_allowed() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not namespaces_allowed(), reason="this system lets nobody mount a small disk")
def test_a_disk_that_is_really_full_leaves_the_older_checkpoints(tmp_path: Path) -> None:
    command = ["unshare", "-Urm", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in done.stderr and "ermission" in done.stderr:
        pytest.skip("this system lets nobody mount a small disk")
    assert done.returncode == 0, done.stderr
    assert "no checkpoint could be written" in done.stderr
    assert "No space left on device" in done.stderr
    assert done.stdout.splitlines()[-1] == "steps 6 6 0 2 0"


@pytest.mark.slow
def test_an_error_keeps_the_checkpoints_and_the_end_deletes_them(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3, delete=True)
    assert len(list(tmp_path.iterdir())) == 2
    resumed(adam, tmp_path, save_freq=3, delete=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_damaged_checkpoints_make_no_room_for_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Newer by name than what comes after them, they would outlive it."""
    with pytest.raises(CutOff):
        train(adam, tmp_path, 20, save_freq=5)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CutOff):
        train(adam, tmp_path, 4, save_freq=3, accept_changes=True)
    assert "the training begins anew" in capsys.readouterr().err
    found, damaged = newest(tmp_path)
    assert found is not None
    assert (found.step, damaged) == (3, [])
    assert len(list(tmp_path.glob("*.damaged"))) == 2


def same(a: Checkpoint, b: Checkpoint) -> bool:
    return a.header == b.header and all(np.array_equal(a.arrays[name], b.arrays[name]) for name in b.arrays)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.raises(CutOff):
        train(adam, folder, 10, save_freq=3)
    return max(folder.iterdir())


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), head=st.booleans())
def test_a_changed_byte_is_noticed_or_means_nothing(
    whole: Path, tmp_path: Path, place: float, change: int, head: bool
) -> None:
    """Half of the places lie in the file's header, whose spaces may be other white space."""
    content, expected = bytearray(whole.read_bytes()), read_checkpoint(whole)
    length = int.from_bytes(content[:8], "little") + 8
    content[int(place * (length if head else len(content)))] ^= change
    path = tmp_path / whole.name
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        assert same(read_checkpoint(path), expected)


@settings(max_examples=25)
@given(length=st.floats(0, 1, exclude_max=True))
@pytest.mark.slow
def test_a_shorter_file_is_noticed(whole: Path, tmp_path_factory: pytest.TempPathFactory, length: float) -> None:
    content = whole.read_bytes()
    path = tmp_path_factory.getbasetemp() / "short.safetensors"
    for kept in (int(length * len(content)), 0, 7, 8):
        path.write_bytes(content[:kept])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


@pytest.mark.slow
def test_progress_may_be_shown_another_way(tmp_path: Path) -> None:
    """A training that began in a terminal goes on without one."""
    expected = train(adam, None)
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3, verbose=1)
    for a, b in zip(resumed(adam, tmp_path, save_freq=3, verbose=2), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1}, "keep must be an integer >= 2, got 1"),
        ({"seconds": 0}, "seconds is a number > 0 or None, got 0"),
        ({"facts": {"a": object()}}, "facts must be what JSON can hold"),
    ],
)
def test_settings_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cr.callbacks.BackupAndRestore("b", **options)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(RunFolderError, match="cannot be made"):
        train(adam, tmp_path / "file")


@pytest.mark.slow
def test_the_header_is_strict_json(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        train(adam, tmp_path, 10, save_freq=3)
    header = read_checkpoint(max(tmp_path.iterdir())).header
    assert json.loads(json.dumps(header, allow_nan=False)) == header
