"""The callbacks that come with chainrule, on trainings whose numbers are known."""

from __future__ import annotations

import csv
import json
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import callbacks as kinds
from chainrule.data.source import ArraySource
from chainrule.errors import ConfigError, RunFolderError

Array = np.ndarray[Any, Any]


class Scripted(kinds.Callback):
    """Puts its own numbers into each epoch's logs; comes first."""

    def __init__(self, **numbers: list[float]) -> None:
        self.numbers = numbers

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs.update({name: values[epoch] for name, values in self.numbers.items()})


def model(rate: Any = 0.1) -> cr.Model:
    cr.set_seed(0)
    built = cr.Sequential([cr.Input((2,)), cr.layers.Dense(1, name="out")])
    built.compile(cr.optimizers.SGD(rate), "mse")
    return built


X, Y = np.ones((6, 2), np.float32), np.ones((6, 1), np.float32)


def train(*callbacks: kinds.Callback, epochs: int = 5, built: cr.Model | None = None, **options: Any) -> Any:
    built = built or model()
    return built.fit(X, Y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)


@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([5, 4, 3, 2, 1], {}, 5),
        ([5, 4, 4, 2, 1], {}, 3),
        ([5, 4, 4, 4, 1], {"patience": 2}, 4),
        ([5, 4, 4, 3, 3], {"patience": 2}, 5),
        ([5, 4.9, 4.8, 4.7, 4.6], {"min_delta": 0.5, "patience": 2}, 3),
        ([1, 2, 3, 2, 5], {"mode": "max"}, 4),
        ([5, 4, math.nan, 3, 2], {}, 3),
        ([5, 6, 7, 4, 5], {"start_from_epoch": 3}, 5),
        ([5, 4, 3, 2, 1], {"baseline": 2.5, "patience": 3}, 3),
    ],
)
def test_early_stopping(values: list[float], options: dict[str, Any], epochs: int) -> None:
    stopping = kinds.EarlyStopping("x", **options)
    assert len(train(Scripted(x=values), stopping).epoch) == epochs


def test_early_stopping_gives_the_best_weights_back() -> None:
    built, kept = model(), []

    class Keep(kinds.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            kept.append(self.model.get_weights()[0])

    stopping = kinds.EarlyStopping("x", patience=2, restore_best_weights=True)
    train(Scripted(x=[3, 1, 2, 2, 2]), stopping, Keep(), built=built)
    assert (stopping.best_epoch, stopping.stopped_epoch) == (1, 3)
    np.testing.assert_array_equal(built.get_weights()[0], kept[1])


def test_a_baseline_that_is_not_beaten_leaves_the_best_weights() -> None:
    built, kept = model(), []

    class Keep(kinds.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            kept.append(self.model.get_weights()[0])

    stopping = kinds.EarlyStopping("x", patience=4, baseline=0.5, restore_best_weights=True)
    train(Scripted(x=[3, 2, 1, 2, 2]), stopping, Keep(), built=built)
    assert (stopping.best_epoch, stopping.stopped_epoch) == (2, 3)
    np.testing.assert_array_equal(built.get_weights()[0], kept[2])


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.slow
def test_the_best_averaged_weights_are_given_back(backwards: bool) -> None:
    """The model that is left is the one that was validated best, which is neither the last nor the first."""
    built = model()
    built.compile(cr.optimizers.SGD(0.02, use_ema=True, ema_momentum=0.8), "mse")
    x = np.ones((1, 2), np.float32)
    y = (built.predict(x) + 1) / 2  # half of the way to what is learned
    stopping = kinds.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    chain = [stopping, kinds.SwapEMAWeights()]
    history = train(*(reversed(chain) if backwards else chain), epochs=12, built=built, validation_data=(x, y))
    losses = history.history["val_loss"]
    assert 0 < stopping.best_epoch == int(np.argmin(losses)) < len(losses) - 1
    assert built.evaluate(x, y) == pytest.approx(min(losses), rel=1e-4)


def test_epochs_without_validation_count_for_nothing(tmp_path: Path) -> None:
    """Validated are the second, fourth ... epoch; the loss gets worse there, since the targets are others."""
    built = model(0.01)
    stopping = kinds.EarlyStopping("val_loss", patience=2)
    plateau = kinds.ReduceLROnPlateau("val_loss", patience=1, factor=0.5)
    best = kinds.ModelCheckpoint(tmp_path / "{epoch}.safetensors", save_best_only=True)
    apart = (X, Y * -50)
    history = train(
        stopping, plateau, best, epochs=9, built=built, validation_data=apart, validation_freq=2, shuffle=False
    )
    losses = [value for value in history.history["val_loss"] if not math.isnan(value)]
    assert losses == sorted(losses)
    assert (stopping.best_epoch, stopping.stopped_epoch, len(history.epoch)) == (1, 5, 6)
    assert built.optimizer.learning_rate == pytest.approx(0.0025)
    assert [path.name for path in tmp_path.iterdir()] == ["2.safetensors"]


@pytest.mark.parametrize(
    "watching",
    [
        kinds.EarlyStopping("val_x"),
        kinds.ReduceLROnPlateau("val_x"),
        kinds.ModelCheckpoint("never.safetensors", monitor="val_x", save_best_only=True),
    ],
)
def test_a_number_that_no_validation_gives_is_an_error(watching: kinds.Callback) -> None:
    with pytest.raises(ConfigError, match=r"there is no 'val_x' to watch; there are loss, val_loss(, learning_rate)?$"):
        train(watching, validation_data=(X, Y), validation_freq=2)
    with pytest.raises(ConfigError, match=r"there is no 'val_x' to watch; there are loss(, learning_rate)?$"):
        train(watching, validation_freq=2)


def test_accuracy_is_better_when_it_is_higher() -> None:
    for name, upwards in (("val_accuracy", True), ("auc", True), ("val_f1_score", True), ("val_loss", False)):
        assert kinds.EarlyStopping(name).monitor.upwards is upwards


def test_what_is_not_there_cannot_be_watched() -> None:
    with pytest.raises(ConfigError, match="EarlyStopping: there is no 'val_loss' to watch; there are loss"):
        train(kinds.EarlyStopping())


def test_the_rate_falls_on_a_plateau() -> None:
    rates = []

    class Watch(kinds.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            rates.append(self.model.optimizer.learning_rate)

    plateau = kinds.ReduceLROnPlateau("x", factor=0.5, patience=2, cooldown=1, min_lr=0.03)
    train(Scripted(x=[1.0] * 9), plateau, Watch(), epochs=9)
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03, 0.03])


def test_a_plateau_and_a_schedule_do_not_go_together() -> None:
    built = model(cr.optimizers.schedules.StepDecay(0.1, 10))
    with pytest.raises(ConfigError, match="the optimizer follows a schedule; give it a number instead"):
        train(kinds.ReduceLROnPlateau("loss"), built=built)


def test_a_rate_for_each_epoch() -> None:
    built, seen = model(), []

    def schedule(epoch: int, rate: float) -> float:
        seen.append(rate)
        return rate / 2

    train(kinds.LearningRateScheduler(schedule), built=built, epochs=3)
    assert seen == pytest.approx([0.1, 0.05, 0.025])
    assert built.optimizer.learning_rate == pytest.approx(0.0125)


def test_rates_that_change_stand_in_the_history() -> None:
    def halved(epoch: int, rate: float) -> float:
        return rate / 2

    plateau = kinds.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0)
    steps = model(cr.optimizers.schedules.StepDecay(0.1, 3))  # three steps are an epoch
    assert "learning_rate" not in train().history
    assert train(kinds.LearningRateScheduler(halved), epochs=3).history["learning_rate"] == [0.05, 0.025, 0.0125]
    assert train(plateau, epochs=3).history["learning_rate"] == [0.1, 0.1, 0.05]
    assert train(built=steps, epochs=3).history["learning_rate"] == [
        float(steps.optimizer.rates(number, 1)[0]) for number in (2, 5, 8)
    ]


def test_csv_and_json(tmp_path: Path) -> None:
    history = train(
        kinds.CSVLogger(tmp_path / "a.csv"),
        kinds.JSONLogger(tmp_path / "a.jsonl"),
        Scripted(x=[1.0, math.nan, 3.0]),
        epochs=3,
        validation_split=0.5,
    )
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["val_loss"]) for row in rows] == history.history["val_loss"]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == history.history["loss"]
    train(kinds.CSVLogger(tmp_path / "a.csv", append=True), epochs=1, validation_split=0.5)
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize("weights_only", [False, True])
def test_the_best_model_is_kept(tmp_path: Path, weights_only: bool) -> None:
    path = tmp_path / "best-{epoch}-{x:.1f}.safetensors"
    train(
        Scripted(x=[3, 1, 2, 0.5, 4]),
        kinds.ModelCheckpoint(path, monitor="x", save_best_only=True, save_weights_only=weights_only),
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"best-{epoch}-{x}.safetensors" for epoch, x in ((1, 3.0), (2, 1.0), (4, 0.5))
    ]
    other = model()
    other.load_weights(tmp_path / "best-4-0.5.safetensors")


def test_a_model_every_few_batches(tmp_path: Path) -> None:
    train(kinds.ModelCheckpoint(tmp_path / "{epoch}.safetensors", save_freq=4), epochs=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2.safetensors", "3.safetensors"]


def test_a_name_that_cannot_be_filled_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be filled in \('val_loss'\); there are epoch, loss"):
        train(kinds.ModelCheckpoint(tmp_path / "{val_loss}.safetensors"))
    with pytest.raises(ConfigError, match=r"the name .* cannot be filled in .*; there are epoch, loss"):
        train(kinds.ModelCheckpoint(tmp_path / "{loss.x}.safetensors"), epochs=1)


@pytest.mark.slow
def test_the_first_bad_step_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows in order: the samples of the fifth step give an infinite loss."""
    x = np.ones((40, 2), np.float32)
    x[16:20] = 1e30
    built, ending = model(1e-12), kinds.TerminateOnNaN()
    built.fit(x, np.ones((40, 1), np.float32), batch_size=4, epochs=3, verbose=0, shuffle=False, callbacks=[ending])
    assert ending.step == 5
    assert "the loss is not finite from step 5 on" in capsys.readouterr().err


def test_a_second_training_ends_at_its_bad_step_too() -> None:
    x = np.ones((40, 2), np.float32)
    x[16:20] = 1e30
    ending = kinds.TerminateOnNaN()
    for _ in range(2):
        built = model(1e-12)
        history = built.fit(
            x, np.ones((40, 1), np.float32), batch_size=4, epochs=3, verbose=0, shuffle=False, callbacks=[ending]
        )
        assert ending.step == 5
        assert len(history.epoch) == 1
    train(ending, epochs=1)
    assert ending.step is None


def test_an_epoch_that_was_interrupted_before_its_first_batch_is_no_epoch() -> None:
    def interrupt(epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    history = train(kinds.LambdaCallback(on_epoch_begin=interrupt), validation_data=(X, Y))
    assert history.interrupted
    assert history.epoch == [0, 1]
    assert all(len(values) == 2 and all(map(math.isfinite, values)) for values in history.history.values())


@pytest.mark.slow
def test_an_unfrozen_layer_joins_the_averages_with_its_weights() -> None:
    cr.set_seed(0)
    late = cr.layers.Dense(2)
    built = cr.Sequential([cr.Input((2,)), late, cr.layers.Dense(1)])
    late.trainable = False
    optimizer = cr.optimizers.SGD(1e-6, use_ema=True, ema_momentum=0.99)
    built.compile(optimizer, "mse")
    built.fit(X, Y, batch_size=2, verbose=0)
    late.trainable = True
    built.compile(optimizer, "mse")
    built.fit(X, Y, batch_size=2, verbose=0, callbacks=[kinds.SwapEMAWeights()])
    for weight in late.weights:
        np.testing.assert_allclose(optimizer.average_of(weight).numpy(), weight.numpy(), rtol=1e-3, atol=1e-4)
    assert np.abs(late.weights[0].numpy()).max() > 0.1


@pytest.mark.slow
def test_averages_are_shown_to_the_validation_and_kept_at_the_end() -> None:
    built = model(0.1)
    built.compile(cr.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    weights: list[Array] = []

    class Watch(kinds.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            weights.append(self.model.get_weights()[0])

    history = built.fit(
        X, Y, batch_size=6, epochs=3, verbose=0, validation_data=(X, Y), callbacks=[kinds.SwapEMAWeights(), Watch()]
    )
    average = weights[0]
    for value in weights[1:]:
        average = 0.5 * average + 0.5 * value
    np.testing.assert_allclose(built.get_weights()[0], average, rtol=1e-6)
    assert history.history["val_loss"][-1] == pytest.approx(built.evaluate(X, Y), rel=1e-5)


def test_functions_as_a_callback() -> None:
    seen: list[Any] = []
    train(kinds.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)), epochs=2)
    assert seen == [0, 1]
    with pytest.raises(ConfigError, match="LambdaCallback: there is no 'on_epoch'; expected some of on_"):
        kinds.LambdaCallback(on_epoch=lambda: None)


# --- Arguments of fit --------------------------------------------------------------------------------------


def test_epochs_are_counted_on() -> None:
    history = train(epochs=5, initial_epoch=3)
    assert history.epoch == [3, 4]


def test_short_epochs_and_rare_validation() -> None:
    seen: list[int] = []

    class Count(kinds.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(batch)

    history = train(Count(), epochs=4, steps_per_epoch=2, validation_data=(X, Y), validation_freq=2)
    assert seen == [0, 1] * 4
    assert [math.isnan(value) for value in history.history["val_loss"]] == [True, False, True, False]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_weights_of_samples_and_classes(engine: str) -> None:
    """A weight of two is the sample twice, but for the number that the sum is divided by."""
    rng = np.random.Generator(np.random.PCG64(5))
    x, y = rng.normal(size=(12, 3)).astype(np.float32), rng.integers(0, 3, 12)

    def weights(x: Array, y: Array, rate: float, **options: Any) -> Array:
        cr.set_seed(3)
        built = cr.Sequential([cr.Input((3,)), cr.layers.Dense(3)])
        loss = cr.losses.SparseCategoricalCrossentropy(from_logits=True)
        built.compile(cr.optimizers.SGD(rate), loss, engine=engine)
        built.fit(x, y, batch_size=100, epochs=3, verbose=0, **options)
        found: Array = built.get_weights()[0]
        return found

    counts = np.array([1, 2, 0])[y]
    repeated = np.repeat(np.arange(12), counts)
    wanted = weights(x[repeated], y[repeated], 0.1 * len(repeated) / 12)
    for options in ({"sample_weight": counts}, {"class_weight": {1: 2.0, 2: 0}}):
        np.testing.assert_allclose(weights(x, y, 0.1, **options), wanted, rtol=1e-4, atol=1e-6)
    both = weights(x, y, 0.1, sample_weight=counts / 2, class_weight={0: 2, 1: 2, 2: 5})
    np.testing.assert_allclose(both, wanted, rtol=1e-4, atol=1e-6)


def classifier() -> cr.Model:
    cr.set_seed(3)
    built = cr.Sequential([cr.Input((3,)), cr.layers.Dense(3)])
    built.compile(cr.optimizers.SGD(0.1), cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    return built


@pytest.mark.parametrize("own", [None, "sample_weight"])
@pytest.mark.parametrize("source", [False, True])
@pytest.mark.slow
def test_what_is_split_off_is_not_weighted_by_class(source: bool, own: str | None) -> None:
    """As with the same samples given apart."""
    rng = np.random.Generator(np.random.PCG64(5))
    x, y, weight = rng.normal(size=(16, 3)).astype(np.float32), rng.integers(0, 3, 16), rng.random(16)
    common: dict[str, Any] = {"epochs": 2, "verbose": 0, "class_weight": {0: 7.0, 2: 0.5}}
    given: dict[str, Any] = {} if own is None else {own: weight}
    whole: Any = (ArraySource(x, y), None) if source else (x, y)
    split = classifier().fit(whole[0], whole[1], validation_split=0.25, **common, **given)
    apart: Any = (x[12:], y[12:]) if own is None else (x[12:], y[12:], weight[12:])
    given = {} if own is None else {own: weight[:12]}
    assert split.history == classifier().fit(x[:12], y[:12], validation_data=apart, **common, **given).history


@pytest.mark.parametrize(
    ("by_class", "message"),
    [
        ({99: 5.0}, "class_weight: there is no class 99; expected 0..2"),
        ({3: 0.0}, "class_weight: there is no class 3; expected 0..2"),
        ({-1: 1.0}, "class_weight: a class number must be an integer >= 0, got -1"),
        ({1: -1.0}, "class_weight: class 1 has the weight -1.0; expected a number >= 0"),
    ],
)
def test_a_class_that_is_not_there_has_no_weight(by_class: dict[int, float], message: str) -> None:
    x, y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
    with pytest.raises(ConfigError, match=message):
        classifier().fit(x, y, verbose=0, class_weight=by_class)
    with pytest.raises(ConfigError, match=message):
        classifier().fit([(x, y)], verbose=0, class_weight=by_class)


def test_class_weights_are_for_one_label_a_sample() -> None:
    built = cr.Sequential([cr.Input((4, 2)), cr.layers.Dense(3)])
    built.compile("sgd", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ConfigError, match="class_weight is for labels of classes, one for each sample"):
        built.fit(np.ones((2, 4, 2), np.float32), np.zeros((2, 4), np.int64), verbose=0, class_weight={0: 1.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": np.ones(5)}, r"sample_weight has shape \(5\); expected \(6,\)|sample_weight has shape"),
        ({"sample_weight": np.array([1, 1, -1, 1, 1, 1.0])}, "sample 2 has the weight -1.0; expected 0 or more"),
        (
            {"class_weight": {0: 1.0}},
            "class_weight is for labels of classes, one for each sample; the loss 'mean_squared_error' takes values",
        ),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be a positive integer, got 0"),
        ({"initial_epoch": -1}, "initial_epoch must be an integer >= 0, got -1"),
        ({"validation_freq": 0}, "validation_freq must be a positive integer, got 0"),
    ],
)
def test_what_fit_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(cr.errors.ChainruleError, match=message):
        train(**options)


@pytest.mark.slow
def test_a_penalty_joins_the_loss() -> None:
    built = cr.Sequential(
        [
            cr.Input((2,)),
            cr.layers.Dense(1, kernel_initializer="ones", kernel_regularizer=cr.regularizers.L1L2(0.5, 0.25)),
        ]
    )
    built.compile(cr.optimizers.SGD(0.1), "mse")
    assert built.evaluate(X, Y) == pytest.approx(1 + 0.5 * 2 + 0.25 * 2)
    built.fit(X, Y, batch_size=6, verbose=0)
    np.testing.assert_allclose(built.get_weights()[0], 1 - 0.1 * (2 + 0.5 + 0.5), rtol=1e-6)


def test_folders_are_made_before_the_first_step(tmp_path: Path) -> None:
    for make in (kinds.CSVLogger, kinds.JSONLogger, kinds.ModelCheckpoint):
        train(make(tmp_path / make.__name__ / "in" / "file.safetensors"), epochs=1)
        assert (tmp_path / make.__name__ / "in" / "file.safetensors").exists()
        (tmp_path / "file").write_text("here")
        built = model()
        with pytest.raises(RunFolderError, match=r"cannot be made \(.*\); expected the name of a folder"):
            train(make(tmp_path / "file" / "in" / "a.safetensors"), built=built)
        assert not int(built.optimizer.iterations.data)
    train(kinds.ModelCheckpoint(tmp_path / "{epoch}" / "a.safetensors"), epochs=2)
    assert (tmp_path / "2" / "a.safetensors").exists()


@pytest.mark.parametrize("separator", ["", ";;", '"', "\n"])
def test_a_separator_is_one_character(separator: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CSVLogger: separator is one character"):
        kinds.CSVLogger(tmp_path / "a.csv", separator=separator)


def test_logs_come_where_keras_gives_them() -> None:
    """Functions and methods that take `logs` and have no default for it."""
    seen = []
    names = ("on_train_begin", "on_train_end", "on_test_begin", "on_test_end")
    numbered = ("on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end")
    functions: dict[str, Any] = {name: lambda logs, name=name: seen.append(name) for name in names}
    functions |= {name: lambda number, logs, name=name: seen.append(name) for name in numbered}
    train(kinds.LambdaCallback(**functions), epochs=1, validation_split=0.5)
    assert set(seen) == {*names, *numbered}
