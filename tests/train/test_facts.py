"""What a checkpoint knows of its training, and what is said when that has changed."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines.native.threads import get_threads, set_threads
from chainrule.errors import CheckpointError
from chainrule.optimizers import schedules
from chainrule.train import facts
from chainrule.train.checkpoint import newest, read_checkpoint
from chainrule.train.facts import changes, fingerprint
from chainrule.train.feed import Arrays, Stream

Array = np.ndarray[Any, Any]
X = np.linspace(-1, 1, 80, dtype=np.float32).reshape(20, 4)
Y = X.sum(axis=1, keepdims=True)


class Stopped(Exception):
    """What a crash is in these tests."""


class Crash(cr.callbacks.Callback):
    """Raises after two epochs if told to, and knows before which step the training began."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.began: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.began is None:
            self.began = int(self.model.optimizer.iterations.data)
        if epoch == 2 and self.wanted:
            raise Stopped


def train(folder: Path, crash: bool = False, **changed: Any) -> Any:
    cr.set_seed(changed.get("seed", 1))
    model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(1, activation=changed.get("activation"))])
    optimizer = changed.get("optimizer") or functools.partial(cr.optimizers.SGD, 0.1)
    model.compile(optimizer(), "mse", engine=changed.get("engine"))
    backup = cr.callbacks.BackupAndRestore(
        folder, delete_checkpoint=False, accept_changes=changed.get("accept", False), facts=changed.get("facts")
    )
    watch = Crash(crash)
    history = model.fit(
        changed.get("x", X),
        Y,
        changed.get("batch_size", 5),
        epochs=4,
        verbose=0,
        shuffle=changed.get("shuffle", True),
        steps_per_epoch=changed.get("steps"),
        validation_data=changed.get("validation"),
        validation_batch_size=changed.get("validation_batch"),
        callbacks=[backup, watch],
    )
    assert watch.began == 8, "it did not go on"
    return history


def scheduled(rate: float) -> Any:
    return lambda: cr.optimizers.SGD(schedules.StepDecay(rate, 10))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": X + 1}, "the data have changed"),
        ({"seed": 2}, "seed 1 -> 2"),
        ({"batch_size": 4}, "batch size 5 -> 4"),
        ({"shuffle": False}, "shuffle True -> False"),
        ({"steps": 2}, "batches of an epoch 4 -> 2"),
        ({"activation": "tanh"}, "the network, the loss or the optimizer has changed"),
        ({"optimizer": scheduled(0.1), "before": {"optimizer": scheduled(0.2)}}, "the learning rate's schedule has"),
        ({"optimizer": scheduled(0.1)}, "the learning rate's schedule has"),
        ({"before": {"optimizer": scheduled(0.1)}}, "the learning rate's schedule has"),
        (
            {"optimizer": lambda: cr.optimizers.SGD(0.1, clipnorm=1.0)},
            "the network, the loss or the optimizer has changed",
        ),
        ({"validation": (X, Y + 1), "before": {"validation": (X, Y)}}, "the validation data, or their batches, have"),
        ({"validation": (X, Y, Y[:, 0] ** 2), "before": {"validation": (X, Y)}}, "the validation data, or"),
        ({"validation": (X, Y)}, "the validation data, or their batches, have changed"),
        ({"before": {"validation": (X, Y)}}, "the validation data, or their batches, have changed"),
        ({"validation": (X, Y), "validation_batch": 7, "before": {"validation": (X, Y)}}, "the validation data, or"),
        ({"facts": {"what": [1, 2]}, "before": {"facts": {"what": (1, 3)}}}, r"what \[1, 3\] -> \[1, 2\]"),
        ({"engine": "reference", "before": {"engine": "native"}}, "engine native -> reference"),
    ],
)
@pytest.mark.slow
def test_what_has_changed_is_said(
    changed: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = changed.pop("before", {})
    with pytest.raises(Stopped):
        train(tmp_path, crash=True, **before)
    names = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=f"not go on to the same bits: .*{message}"):
        train(tmp_path, **changed)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    history = train(tmp_path, accept=True, **changed)
    cr.set_seed(0)
    assert history.epoch == [0, 1, 2, 3]
    assert "the training goes on from step 8, although" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chainrule", r"chainrule 0\.0 -> "),
        ("numpy", r"numpy 0\.0 -> 2"),
        ("llvmlite", r"llvmlite 0\.0 -> "),
        ("source", "the source code of chainrule has changed"),
        ("cpu", r"processor 0\.0 -> "),
        ("cpu_features", "the processor has other instructions"),
        ("plan", "the plan of the step has changed"),
    ],
)
def test_code_and_machine_are_facts(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = facts.facts_of
    with monkeypatch.context() as patched:
        patched.setattr(facts, "facts_of", lambda *a, **k: {**real(*a, **k), name: "0.0"})
        with pytest.raises(Stopped):
            train(tmp_path, crash=True, engine="native")
    with pytest.raises(CheckpointError, match=message):
        train(tmp_path, engine="native")


def test_data_that_were_counted_elsewhere_are_not_looked_at(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, crash=True, facts={"data": "known"}, validation=(X, Y))
    known = read_checkpoint(max(tmp_path.iterdir())).header["facts"]
    assert (known["data"], known["validation_data"]) == ("known", None)
    assert train(tmp_path, facts={"data": "known"}, validation=(X, Y + 1)).epoch == [0, 1, 2, 3]


def test_threads_are_no_fact_and_a_second_fit_is_the_same(tmp_path: Path) -> None:
    threads = get_threads()
    try:
        set_threads(1)
        with pytest.raises(Stopped):
            train(tmp_path, crash=True)
        set_threads(3)
        assert train(tmp_path).epoch == [0, 1, 2, 3]
    finally:
        set_threads(threads)


@pytest.mark.slow
def test_the_plan_can_be_read_and_its_hash_is_the_fact(tmp_path: Path) -> None:
    texts: list[str] = []

    class Read(cr.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            texts.append(self.fitting.plan_text())

    model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(1)])
    model.compile("sgd", "mse", engine="native")
    backup = cr.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[Read(), backup])
    assert texts[0].startswith("plan of step: ")
    known = read_checkpoint(max(tmp_path.iterdir())).header["facts"]
    assert known["plan"] == hashlib.sha256(texts[0].encode()).hexdigest()
    assert newest(tmp_path)[0] is not None
    model.compile("sgd", "mse", engine="reference")
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[Read()])
    assert texts[1] == ""


def test_the_plan_s_change_is_left_out_where_its_reason_is_named() -> None:
    assert changes({"graph": "a", "plan": "b"}, {"graph": "c", "plan": "d"}) == [
        "the network, the loss or the optimizer has changed"
    ]
    assert changes({"graph": "a", "data": None}, {"graph": "a", "data": "d"}) == []


def test_fingerprints_see_every_value_and_not_how_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_BLOCK", 64)
    first = fingerprint(Arrays({"x": X, "y": Y}))
    assert fingerprint(Arrays({"y": Y.copy(), "x": np.asfortranarray(X)})) == first
    assert fingerprint(Arrays({"x": X, "y": Y}).numbered()) == first
    for place in (0, 37, 79):
        other = X.copy()
        other.reshape(-1)[place] += 1e-6
        assert fingerprint(Arrays({"x": other, "y": Y})) != first
    assert fingerprint(Arrays({"x": X.reshape(20, 2, 2), "y": Y})) != first
    assert fingerprint(Arrays({"x": X, "y": Y, "sample_weight": Y})) != first


def test_fingerprints_of_sources() -> None:
    def of(x: Array, labels: Array) -> str | None:
        return fingerprint(Stream(cr.data.ArraySource(x, labels), {"y": labels}, 1))

    labels = np.arange(20)
    assert of(X, labels) == of(X.copy(), labels)
    assert of(X, labels) != of(X + 1, labels)
    assert of(X, labels) != of(X, labels[::-1])
