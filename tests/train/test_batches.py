"""Generators, loaders, sequences and functions as data: the same bits as arrays, and errors that name the batch."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import layers as kinds
from chainrule.errors import CheckpointError, ConfigError, DataError, DTypeError, ShapeError
from chainrule.train.batches import AHEAD
from chainrule.train.origins import is_batches

Array = np.ndarray[Any, Any]
Item = tuple[Any, ...]
BATCH, SAMPLES = 8, 60
RNG = np.random.Generator(np.random.PCG64(3))
X = RNG.normal(size=(SAMPLES, 6, 6, 1)).astype(np.float32)
Y = RNG.integers(0, 3, SAMPLES)
W = RNG.uniform(0.5, 2, SAMPLES).astype(np.float32)
COUNT = -(-SAMPLES // BATCH)


def make(**settings: Any) -> cr.Sequential:
    cr.set_seed(7)
    model = cr.Sequential(
        [
            cr.Input((6, 6, 1)),
            kinds.Conv2D(4, 3, activation="relu"),
            kinds.BatchNormalization(momentum=0.9),
            kinds.Flatten(),
            kinds.Dropout(0.3),
            kinds.Dense(3, activation="softmax"),
        ]
    )
    model.compile(settings.pop("optimizer", "adam"), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def parts(size: int = BATCH, weighted: bool = False) -> list[Item]:
    columns = (X, Y, W) if weighted else (X, Y)
    return [tuple(c[start : start + size] for c in columns) for start in range(0, SAMPLES, size)]


class Loader:
    """Can be iterated over again and again; knows no length."""

    def __init__(self, items: list[Item]) -> None:
        self.items, self.closed, self.opened = items, 0, 0

    def __iter__(self) -> Iterator[Item]:
        self.opened += 1
        try:
            yield from self.items
        finally:
            self.closed += 1


class Sequence:
    """As Keras's."""

    def __init__(self, items: list[Item]) -> None:
        self.items, self.ended, self.read = items, 0, []  # type: ignore[var-annotated]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Item:
        self.read.append(number)
        return self.items[number]

    def on_epoch_end(self) -> None:
        self.ended += 1


def forever(items: list[Item]) -> Iterator[Item]:
    while True:
        yield from items


def sized_loader(items: list[Item]) -> Any:
    class Sized(Loader):
        def __len__(self) -> int:
            return len(self.items)

    return Sized(items)


KINDS: dict[str, Callable[[list[Item]], Any]] = {
    "list": lambda items: items,
    "loader": Loader,
    "loader with a length": sized_loader,
    "sequence": Sequence,
    "function": lambda items: lambda: iter(items),
    "function of the epoch": lambda items: lambda epoch: (item for item in items),
    "generator": lambda items: forever(items),
}


def state(model: cr.Model, history: Any) -> list[Array]:
    variables = [v.numpy() for v in (*model.weights, *model.optimizer.variables())]
    return [*variables, *(np.array(values) for values in history.history.values())]


def assert_same(found: list[Array], expected: list[Array]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_as_arrays(kind: str, weighted: bool) -> None:
    plain, batched = make(), make()
    weights: dict[str, Any] = {"sample_weight": W} if weighted else {}
    steps: dict[str, Any] = {"steps_per_epoch": COUNT, "validation_steps": COUNT} if kind == "generator" else {}
    common: dict[str, Any] = {"epochs": 3, "verbose": 0, "class_weight": {1: 2.0}}
    expected = plain.fit(X, Y, BATCH, shuffle=False, validation_data=(X, Y), **weights, **common)
    data = KINDS[kind](parts(weighted=weighted))
    found = batched.fit(data, validation_data=KINDS[kind](parts()), **steps, **common)
    assert_same(state(batched, found), state(plain, expected))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "generator"])
@pytest.mark.slow
def test_evaluate_and_predict(kind: str) -> None:
    model = make()
    assert model.evaluate(KINDS[kind](parts())) == model.evaluate(X, Y, BATCH)
    if kind != "list":
        np.testing.assert_array_equal(model.predict(KINDS[kind](parts())), model.predict(X, BATCH))
        samples = KINDS[kind]([x for x, _ in parts()])
        np.testing.assert_array_equal(model.predict(samples), model.predict(X, BATCH))
    assert len(model.predict(forever(parts()), steps=3)) == 3 * BATCH
    assert model.evaluate(forever(parts()), steps=2) == model.evaluate(X[: 2 * BATCH], Y[: 2 * BATCH], BATCH)


@pytest.mark.slow
def test_gradients_of_several_batches_and_augmentation() -> None:
    def trained(data: Any, y: Any, **options: Any) -> list[Array]:
        model = make(optimizer=cr.optimizers.SGD(0.1, gradient_accumulation_steps=3))
        flip = cr.augment.RandomFlip()
        return state(model, model.fit(data, y, epochs=2, verbose=0, augment=[flip], **options))

    assert_same(trained(parts(), None), trained(X, Y, batch_size=BATCH, shuffle=False))


@pytest.mark.slow
def test_batches_of_unequal_size() -> None:
    """Smaller and larger ones; without dropout and batch statistics the sums are those of one group."""
    items = [(X[:5], Y[:5]), (X[5:45], Y[5:45]), (X[45:46], Y[45:46]), (X[46:], Y[46:])]
    model, seen = make(), []
    watch = cr.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    model.fit(items, epochs=2, verbose=0, callbacks=watch)
    assert seen == [0, 1, 2, 3] * 2
    assert int(model.optimizer.iterations.data) == 8
    whole, cut = ([item for size in (5, 40, 1, 14) for item in [size]], [len(x) for x, _ in items])
    assert whole == cut
    np.testing.assert_allclose(model.evaluate(items), model.evaluate(X, Y), rtol=1e-5)

    def linear(data: Any, y: Any, **options: Any) -> Array:
        cr.set_seed(1)
        built = cr.Sequential([cr.Input((6, 6, 1)), kinds.Flatten(), kinds.Dense(3, activation="softmax")])
        built.compile(cr.optimizers.SGD(0.1, gradient_accumulation_steps=4), "sparse_categorical_crossentropy")
        built.fit(data, y, verbose=0, **options)
        return built.get_weights()[0]

    np.testing.assert_allclose(linear(items, None), linear(X, Y, batch_size=15, shuffle=False), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_memory_that_is_used_again() -> None:
    def reusing() -> Iterator[Item]:
        x, y = np.empty((BATCH, 6, 6, 1), np.float32), np.empty(BATCH, np.int64)
        for start in range(0, 56, BATCH):
            x[:], y[:] = X[start : start + BATCH], Y[start : start + BATCH]
            yield x, y

    one, two = make(), make()
    assert_same(
        state(one, one.fit(reusing, epochs=2, verbose=0)),
        state(two, two.fit(X[:56], Y[:56], BATCH, epochs=2, verbose=0, shuffle=False)),
    )


def test_a_generator_goes_on_in_the_next_epoch_and_nothing_is_lost_at_the_end() -> None:
    numbers: list[int] = []

    def counted() -> Iterator[Item]:
        for number in range(1000):
            numbers.append(number)
            yield parts()[0]

    items = counted()
    make().fit(items, epochs=2, steps_per_epoch=3, verbose=0)
    assert numbers == [0, 1, 2, 3, 4, 5]
    assert next(items)  # it is the user's, and still open


@pytest.mark.slow
def test_reading_ahead_is_bounded() -> None:
    read, done, most = 0, 0, 0

    def counted() -> Iterator[Item]:
        nonlocal read, most
        for item in parts(1):
            most = max(most, read - done)
            read += 1
            yield item

    def step(batch: int, logs: Any) -> None:
        nonlocal done
        done += 1
        time.sleep(0.002)

    make().fit(counted, verbose=0, callbacks=cr.callbacks.LambdaCallback(on_train_batch_end=step))
    assert read == SAMPLES
    assert 1 <= most <= AHEAD + 2


@pytest.mark.slow
def test_a_loader_is_closed_and_no_thread_is_left() -> None:
    class Enough(cr.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = True

    data, before = Loader(parts()), threading.active_count()
    make().fit(data, epochs=3, verbose=0, callbacks=Enough())
    assert data.opened == data.closed == 1
    data = Loader(parts())
    make().fit(data, epochs=3, verbose=0)
    assert data.opened == data.closed == 3
    assert not [t for t in threading.enumerate() if t.name == "chainrule-batches"]
    assert threading.active_count() <= before + 1  # a worker of the engine may be new


def test_errors_of_a_generator_reach_the_user_with_their_traceback() -> None:
    def broken_on_purpose() -> Iterator[Item]:
        yield from parts()[:3]
        raise OSError("the cable is out")

    with pytest.raises(OSError, match="the cable is out") as caught:
        make().fit(broken_on_purpose, verbose=0)
    assert "broken_on_purpose" in "".join(traceback.format_tb(caught.value.__traceback__))


# -- errors --------------------------------------------------------------------------------------------------


def second(item: Any) -> list[Any]:
    return [parts()[0], item]


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (second((X[:4, :5], Y[:4])), ShapeError, r"x: batch 2: .*inputs of shape \(N, 6, 6, 1\), got \(N, 5, 6"),
        (second((X[:4].astype(float), Y[:4])), DTypeError, "x: batch 2: x is float64; the first batch's was float32"),
        (second((X[:4], Y[:3])), DataError, "x: batch 2: y: 4 samples but 3 labels"),
        (second((X[:4], Y[:4] + 5)), DataError, r"x: batch 2: y: label 0 is \d; expected 0..2"),
        (second((X[:4] * np.nan, Y[:4])), DataError, r"x: batch 2: x: sample 0 holds NaN"),
        (second((X[:4], Y[:4], W[:4])), DataError, "batch 2: holds x, y, sample_weight; the first batch held x, y"),
        (second((X[:4], Y[:4], -W[:4])), DataError, "batch 2: sample_weight: sample 0 has the weight -"),
        (second({"x": X[:4]}), DataError, r"x: batch 2: dict of length 1 came; expected a pair \(x, y\), or"),
        (second((X[:0], Y[:0])), DataError, r"x: batch 2: x: the shape is \(0, 6, 6, 1\); expected at least one"),
        ([(X[:4], Y[:4] + 5), parts()[0]], DataError, r"x: batch 1: y: label 0 is"),
        ([], DataError, "x gives no batches; expected one or more"),
    ],
)
@pytest.mark.slow
def test_what_is_wrong_with_a_batch_is_said(data: list[Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make().fit(Loader(data), verbose=0)
    with pytest.raises(kind, match=message.replace("x: batch", "validation_data: batch").replace("x gives", "gives")):
        make().fit(X, Y, verbose=0, validation_data=Loader(data))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 0.1}, "an iterable cannot be split; give validation_data instead"),
        ({"sample_weight": W}, "leave sample_weight out"),
        ({"epochs": 3}, "x: a generator can be run through only once, and 3 epochs need it each time; give steps_per_"),
        (
            {"epochs": 2, "steps_per_epoch": 3, "validation_data": forever(parts())},
            "validation_data: a generator can be run through only once, and 2 epochs need it each time; give valid",
        ),
        ({"validation_data": 3}, "or an iterable of such batches"),
    ],
)
def test_what_does_not_go_with_a_generator(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make().fit(forever(parts()), verbose=0, **options)


def test_labels_beside_a_generator_and_a_function_that_gives_nothing() -> None:
    with pytest.raises(ConfigError, match=r"an iterable gives \(x, y\) batches; leave y out"):
        make().fit(forever(parts()), Y, verbose=0)
    with pytest.raises(DataError, match="the function that makes batches gave NoneType; expected an iterable"):
        make().fit(lambda: None, verbose=0)


@pytest.mark.slow
def test_one_that_runs_out_early() -> None:
    model = make()
    with pytest.raises(DataError, match=r"x ran out in epoch 2 after 3 of 5 batches; give a function"):
        model.fit(iter(parts()), epochs=3, steps_per_epoch=5, verbose=0)
    assert int(model.optimizer.iterations.data) == 8
    lying = sized_loader(parts())
    type(lying).__len__ = lambda self: 99
    with pytest.raises(DataError, match=f"x ran out in epoch 1 after {COUNT} of 99 batches$"):
        make().fit(lying, verbose=0)


def test_a_loader_that_is_empty_the_second_time() -> None:
    class Emptied(Loader):
        def __iter__(self) -> Iterator[Item]:
            items, self.items = self.items, []
            return iter(items)

    with pytest.raises(DataError, match="there are no batches in epoch 2; expected one or more"):
        make().fit(Emptied(parts()), epochs=2, verbose=0)


@pytest.mark.parametrize("x", [X, [1.0, 2.0], [[1.0], [2.0]], (X, Y), "text", {"x": X}, range(3), memoryview(b"12")])
def test_data_that_are_no_batches(x: Any) -> None:
    assert not is_batches(x)


def test_a_list_beside_labels_is_data() -> None:
    assert not is_batches([(1.0, 2.0), (3.0, 4.0)], [0, 1])
    assert is_batches([(X, Y)])


# -- numbers of steps, bars, ends -----------------------------------------------------------------------------


@pytest.mark.slow
def test_what_callbacks_know_of_an_unknown_length(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[Any, Any]] = []

    class Look(cr.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen.append((self.params["steps"], self.params["samples"]))

    make().fit(Loader(parts()), epochs=2, callbacks=Look(), verbose=2)
    assert seen == [(None, np.inf), (COUNT, SAMPLES)]
    assert "inf samples/s" not in capsys.readouterr().out
    make().fit(Loader(parts()), epochs=2, callbacks=Look(), verbose=1)
    make().fit(Loader(parts()), epochs=1, steps_per_epoch=2, callbacks=Look(), verbose=0)


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
@pytest.mark.slow
def test_a_terminal_and_an_unknown_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of unequal size: what is shown counts samples, and has no bar until the length is known."""
    import pty

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    here, there = pty.openpty()
    shown: list[bytes] = []

    def drain() -> None:
        with contextlib.suppress(OSError):
            while content := os.read(here, 4096):
                shown.append(content)

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    slow = cr.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: time.sleep(0.02))
    with open(there, "w", encoding="utf-8") as screen, contextlib.redirect_stdout(screen):
        items = [(X[:5], Y[:5]), (X[5:45], Y[5:45]), *parts()]
        make().fit(Loader(items), epochs=2, verbose=1, callbacks=slow)
    reader.join(5)
    text = b"".join(shown).decode()
    assert "-:-- left" in text
    assert "/10  " in text  # the second epoch's bar knows the length
    assert "/None" not in text


@pytest.mark.slow
def test_steps_per_epoch_begins_a_loader_anew() -> None:
    data = Sequence(parts())
    make().fit(data, epochs=2, steps_per_epoch=3, verbose=0)
    assert data.read == [0, 1, 2, 0, 1, 2]
    assert data.ended == 2


class CutOff(Exception):
    """What a crash is in these tests."""


class Crash(cr.callbacks.Callback):
    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.after -= 1
        if not self.after:
            raise CutOff


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "generator"])
def test_a_training_goes_on_where_it_was_cut_off(kind: str, tmp_path: Path) -> None:
    def run(crash: int, folder: Path | None, data: Any) -> list[Array]:
        model = make()
        backup = [] if folder is None else [cr.callbacks.BackupAndRestore(folder, save_freq=3)]
        flip = cr.augment.RandomFlip()
        history = model.fit(data, epochs=3, verbose=0, callbacks=[Crash(crash), *backup], augment=[flip])
        return state(model, history)

    expected = run(-1, None, KINDS[kind](parts()))
    with pytest.raises(CutOff):
        run(COUNT + 5, tmp_path, KINDS[kind](parts()))
    data = KINDS[kind](parts())
    assert_same(run(-1, tmp_path, data), expected)
    if isinstance(data, Sequence):
        assert data.read[:3] == [0, 4, 5]  # the first says what a batch is like
        assert data.ended == 3


def test_a_generator_cannot_go_on(tmp_path: Path) -> None:
    model = make()
    with pytest.raises(CheckpointError, match="BackupAndRestore: a generator can be run through only once"):
        model.fit(
            forever(parts()), steps_per_epoch=3, verbose=0, callbacks=cr.callbacks.BackupAndRestore(tmp_path / "b")
        )
    assert not int(model.optimizer.iterations.data)


@pytest.mark.slow
def test_validation_that_is_used_up_is_an_error_and_no_nan() -> None:
    made = iter(parts())

    class Once:
        def __iter__(self) -> Iterator[Item]:
            return made

    with pytest.raises(DataError, match=r"there are no batches to evaluate; expected one or more .*give a function"):
        make().fit(X, Y, epochs=3, verbose=0, validation_data=Once())
    with pytest.raises(ConfigError, match="validation_data: a generator can be run through only once, and 2 epochs"):
        make().fit(X, Y, initial_epoch=1, epochs=4, validation_freq=2, verbose=0, validation_data=iter(parts()))


@pytest.mark.slow
def test_a_generator_to_validate_with_cannot_go_on(tmp_path: Path) -> None:
    backup = cr.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(CheckpointError, match="validation_data: a generator can be run through only once"):
        make().fit(
            X,
            Y,
            epochs=2,
            verbose=0,
            validation_data=forever(parts()),
            validation_steps=COUNT,
            callbacks=[backup],
        )


@pytest.mark.parametrize("way", ["named", "only by name", "second", "first"])
def test_a_function_gets_the_epoch_where_it_asks_for_it(way: str) -> None:
    seen: list[int] = []

    def give(epoch: int) -> Iterator[Item]:
        seen.append(epoch)
        return iter(parts())

    ways: dict[str, Callable[..., Any]] = {
        "named": lambda epoch=7: give(epoch),
        "only by name": lambda *, epoch: give(epoch),
        "second": lambda size=8, epoch=7: give(epoch),
        "first": lambda number: give(number),
    }
    make().fit(ways[way], epochs=3, verbose=0)
    assert seen == [0, 1, 2]
