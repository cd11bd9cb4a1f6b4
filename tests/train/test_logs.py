"""Logs of epochs in files: nothing is lost or written twice, however often a training is cut off."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import callbacks as kinds
from chainrule.errors import ChainruleError, DataError

X, Y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
STEPS = 4


class CutOff(Exception):
    """What a crash is in these tests."""


class Crash(kinds.Callback):
    """Raises after so many steps, or when so many epochs have ended."""

    def __init__(self, step: int | None = None, epoch: int | None = None) -> None:
        self.step, self.epoch, self.seen = step, epoch, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.step:
            raise CutOff

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            raise CutOff


def train(*callbacks: kinds.Callback, epochs: int = 5, **options: Any) -> Any:
    cr.set_seed(0)
    model = cr.Sequential([cr.Input((2,)), cr.layers.Dense(1, name="out")])
    model.compile(cr.optimizers.SGD(0.01), "mse")
    return model.fit(X, Y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


def loggers(folder: Path, **options: Any) -> list[kinds.Callback]:
    return [kinds.CSVLogger(folder / "a.csv", **options), kinds.JSONLogger(folder / "a.jsonl", **options)]


def rows(path: Path) -> list[dict[str, str]]:
    found = list(csv.DictReader(path.read_text().splitlines(), strict=True))
    assert all(None not in row and None not in row.values() for row in found)  # as many cells as the header has
    return found


def check(folder: Path, history: Any) -> None:
    """Both files hold every epoch of a history once."""
    found, lines = rows(folder / "a.csv"), (folder / "a.jsonl").read_text().splitlines()
    assert [int(row["epoch"]) for row in found] == history.epoch
    assert [json.loads(line)["epoch"] for line in lines] == history.epoch
    for name, values in history.history.items():
        assert [float(row[name] or "nan") for row in found] == pytest.approx(values, nan_ok=True, rel=0)


@pytest.mark.parametrize("append", [False, True])
@pytest.mark.parametrize(
    "crashes",
    [
        [Crash(step=1)],
        [Crash(epoch=0)],
        [Crash(epoch=0), Crash(epoch=0), Crash(epoch=2), Crash(epoch=2)],
        [Crash(step=2 * STEPS + 2), Crash(step=1), Crash(step=1)],
        [Crash(step=2 * STEPS + 2), Crash(epoch=2), Crash(step=3), Crash(epoch=3)],
    ],
)
@pytest.mark.parametrize("frequency", [1, 2])
@pytest.mark.slow
def test_every_epoch_is_there_once_whatever_happens(
    crashes: list[Crash], append: bool, frequency: int, tmp_path: Path
) -> None:
    """A crash at an epoch's end comes after the line of that epoch, and before its checkpoint."""
    options: dict[str, Any] = {"validation_data": (X, Y), "validation_freq": frequency}
    for crash in [*crashes, None]:
        last = Crash() if crash is None else Crash(crash.step, crash.epoch)
        backup = kinds.BackupAndRestore(tmp_path / "backup", save_freq=1)
        with contextlib.suppress(CutOff):
            history = train(*loggers(tmp_path, append=append), last, backup, **options)
    check(tmp_path, history)
    assert len(history.epoch) == 5


@pytest.mark.slow
def test_what_was_there_stays_and_is_continued(tmp_path: Path) -> None:
    first = train(*loggers(tmp_path), epochs=3)
    for crash in (Crash(epoch=3), Crash(step=6), Crash()):
        backup = kinds.BackupAndRestore(tmp_path / "backup", save_freq=1)
        with contextlib.suppress(CutOff):
            train(*loggers(tmp_path, append=True), crash, backup, initial_epoch=3, epochs=6)
    found = rows(tmp_path / "a.csv")
    assert [int(row["epoch"]) for row in found] == [0, 1, 2, 3, 4, 5]
    assert [float(row["loss"]) for row in found[:3]] == first.history["loss"]
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 6


def test_a_training_that_fails_at_once_leaves_the_older_log(tmp_path: Path) -> None:
    train(*loggers(tmp_path), epochs=2)
    before = [(tmp_path / name).read_bytes() for name in ("a.csv", "a.jsonl")]
    with pytest.raises(CutOff):
        train(*loggers(tmp_path), Crash(step=1))
    assert [(tmp_path / name).read_bytes() for name in ("a.csv", "a.jsonl")] == before


def test_columns_that_come_later_are_in_the_header(tmp_path: Path) -> None:
    history = train(*loggers(tmp_path), epochs=3, validation_data=(X, Y), validation_freq=2)
    check(tmp_path, history)
    train(*loggers(tmp_path, append=True), epochs=2)
    last = rows(tmp_path / "a.csv")[-1]
    assert (last["epoch"], last["val_loss"]) == ("1", "")


def test_a_line_without_its_end_is_ended(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("epoch,loss\n0,2.5")
    (tmp_path / "a.jsonl").write_text('{"epoch": 0}')
    train(*loggers(tmp_path, append=True), epochs=2, initial_epoch=1)
    assert [row["epoch"] for row in rows(tmp_path / "a.csv")] == ["0", "1"]
    assert [json.loads(line)["epoch"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [0, 1]


def test_an_interrupted_epoch_gets_no_line(tmp_path: Path) -> None:
    class Interrupt(kinds.Callback):
        def __init__(self, on: bool) -> None:
            self.on = on

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.on and self.fitting.position.epoch == 1:
                signal.raise_signal(signal.SIGTERM)

    backup = kinds.BackupAndRestore(tmp_path / "backup")
    assert train(*loggers(tmp_path), Interrupt(True), backup).interrupted
    assert [row["epoch"] for row in rows(tmp_path / "a.csv")] == ["0"]
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1
    backup = kinds.BackupAndRestore(tmp_path / "backup")
    check(tmp_path, train(*loggers(tmp_path), Interrupt(False), backup))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"notes\nof mine\n", "begins with 'notes'; expected the header of a CSVLogger, 'epoch' and the names"),
        (b"epoch;loss\n0;1\n", "begins with 'epoch;loss'; expected the header of a CSVLogger"),
        (b"\xff\xfe\n", "not the text of a CSVLogger"),
    ],
)
def test_a_file_that_is_no_log_is_refused_untouched(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        train(kinds.CSVLogger(path, append=True))
    assert path.read_bytes() == content


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    for make in (kinds.CSVLogger, kinds.JSONLogger):
        with pytest.raises(ChainruleError, match=r"cannot be (read|written)"):
            train(make(tmp_path))
