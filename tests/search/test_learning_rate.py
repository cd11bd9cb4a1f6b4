"""The learning rate range test: a curve that is known, suggestions, and a model that is as before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import layers as kinds
from chainrule.errors import ConfigError, DataError
from chainrule.optimizers import schedules
from chainrule.search import LearningRateTest, learning_rate_test

Array = np.ndarray[Any, Any]
RNG = np.random.Generator(np.random.PCG64(5))
X = RNG.normal(size=(90, 6, 6, 1)).astype(np.float32)
Y = (X.mean((1, 2, 3)) > 0).astype(np.int64)


def make(optimizer: Any = "adam", built: bool = True, metrics: Any = ("accuracy",)) -> cr.Sequential:
    cr.set_seed(3)
    model = cr.Sequential(
        [
            *([cr.Input((6, 6, 1))] if built else []),
            kinds.Conv2D(4, 3, activation="relu"),
            kinds.BatchNormalization(momentum=0.9),
            kinds.Flatten(),
            kinds.Dropout(0.3),
            kinds.Dense(2, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


def trained(model: cr.Model, **options: Any) -> list[Array]:
    history = model.fit(X, Y, 16, epochs=2, verbose=0, **options)
    variables = [v.numpy() for v in (*model.weights, *model.optimizer.variables())]
    return [*variables, *(np.array(values) for values in history.history.values())]


def assert_same(found: list[Array], expected: list[Array]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adam": cr.optimizers.Adam,
    "momentum": lambda: cr.optimizers.SGD(0.1, momentum=0.9),
    "schedule": lambda: cr.optimizers.SGD(schedules.StepDecay(0.1, 3)),
    "accumulation": lambda: cr.optimizers.SGD(0.1, gradient_accumulation_steps=4),
    "averages": lambda: cr.optimizers.AdamW(0.01, use_ema=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_afterwards_everything_is_as_before(name: str, before: bool) -> None:
    plain, tested = make(OPTIMIZERS[name]()), make(OPTIMIZERS[name]())
    if before:
        trained(plain)
        trained(tested)
    rate = tested.optimizer.schedule or tested.optimizer.learning_rate
    found = learning_rate_test(tested, X, Y, start=1e-4, end=10, steps=20, batch_size=16)
    assert (tested.optimizer.schedule or tested.optimizer.learning_rate) == rate
    assert len(found.rates) >= 3
    assert_same(trained(tested), trained(plain))


@pytest.mark.slow
def test_also_where_nothing_was_built_and_layers_are_frozen() -> None:
    plain, tested = make(built=False), make(built=False)
    learning_rate_test(tested, X, Y, steps=5, batch_size=16)
    assert_same(trained(tested), trained(plain))
    for model in (plain, tested):
        model.layers[0].trainable = False
    kernel = tested.get_weights()[0]
    learning_rate_test(tested, X, Y, steps=5, batch_size=16)
    np.testing.assert_array_equal(tested.get_weights()[0], kernel)
    assert_same(trained(tested), trained(plain))


@pytest.mark.slow
def test_the_rates_and_losses_are_those_of_single_steps() -> None:
    tested, plain = make("sgd"), make("sgd")
    found = learning_rate_test(tested, X, Y, start=1e-3, end=0.1, steps=9, batch_size=16, shuffle=False)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-3, 0.1, 9), rtol=1e-12)
    losses = []
    for step, rate in enumerate(found.rates):
        plain.optimizer.learning_rate = float(rate)
        rows = slice(16 * (step % 6), 16 * (step % 6) + 16)
        losses += plain.fit(X[rows], Y[rows], 16, verbose=0, shuffle=False).history["loss"]
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)
    average, expected = 0.0, []
    for number, loss in enumerate(found.losses, 1):
        average = 0.9 * average + 0.1 * loss
        expected.append(average / (1 - 0.9**number))
    np.testing.assert_allclose(found.smoothed, expected, rtol=1e-9)


@pytest.mark.slow
def test_a_quadratic_diverges_where_it_must() -> None:
    """Of ``(w - y)**2`` the second derivative is 2: rates beyond 1 diverge."""
    model = cr.Sequential([cr.Input((1,)), kinds.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    x, y = np.ones((400, 1), np.float32), RNG.normal(3, 0.5, (400, 1)).astype(np.float32)
    found = learning_rate_test(model, x, y, start=1e-4, end=100, steps=120, batch_size=8, smoothing=0.5)
    assert found.diverged
    assert len(found.rates) < 120
    assert 1 < found.rates[-1] < 20
    assert found.suggestion is not None
    assert found.cautious is not None
    assert 1e-3 < found.suggestion < 1
    assert found.cautious == pytest.approx(found.rates[np.argmin(found.smoothed)] / 10)
    np.testing.assert_array_equal(model.get_weights()[0], 0)


@pytest.mark.slow
def test_nan_ends_it() -> None:
    model = cr.Sequential([cr.Input((1,)), kinds.Dense(1)])
    model.compile("sgd", "mse")
    x = np.full((4, 1), 1e25, np.float32)
    found = learning_rate_test(model, x, x, steps=10)
    assert found.diverged
    assert len(found.rates) < 10
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.slow
def test_a_loss_that_never_falls_suggests_nothing(tmp_path: Path) -> None:
    rates = np.geomspace(1e-3, 1, 6)
    rising = np.arange(1.0, 7.0)
    found = LearningRateTest(rates, rising, rising, False)
    assert found.suggestion is None
    assert found.cautious is None
    assert "the loss never fell" in str(found)
    found.plot(tmp_path / "a.png")
    nothing = np.full(6, np.nan)
    assert LearningRateTest(rates, nothing, nothing, True).suggestion is None


def test_the_steepest_place() -> None:
    rates = np.geomspace(1e-4, 1, 5)
    losses = np.array([4.0, 3.9, 3.0, 1.0, 2.0])
    found = LearningRateTest(rates, losses, losses, False)
    assert found.suggestion == pytest.approx(0.01)
    assert found.cautious == pytest.approx(0.01)


@pytest.mark.slow
def test_a_picture_that_is_the_same_twice(tmp_path: Path) -> None:
    found = learning_rate_test(make(), X, Y, end=10, steps=30, batch_size=16)
    found.plot(tmp_path / "a.png")
    found.plot(tmp_path / "b.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:4] == b"\x89PNG"
    assert content == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("kind", ["source", "generator", "loader"])
def test_other_data(kind: str) -> None:
    def batches() -> Iterator[tuple[Array, Array]]:
        while True:
            yield X[:16], Y[:16]

    data = {
        "source": cr.data.ArraySource(X, Y),
        "generator": batches(),
        "loader": [(X[:16], Y[:16])],
    }[kind]
    plain, tested = make(), make()
    found = learning_rate_test(tested, data, steps=7, batch_size=16)
    assert len(found.losses) == 7
    assert_same(trained(tested), trained(plain))


@pytest.mark.slow
def test_after_an_error_everything_is_as_before() -> None:
    def broken() -> Iterator[tuple[Array, Array]]:
        for _ in range(3):
            yield X[:16], Y[:16]
        raise OSError("gone")

    plain, tested = make(), make()
    with pytest.raises(OSError, match="gone"):
        learning_rate_test(tested, lambda: broken(), steps=7)
    with pytest.raises(DataError, match=r"expected 0\.\.1"):
        learning_rate_test(tested, X, Y + 5)
    assert tested.optimizer.schedule is None
    assert_same(trained(tested), trained(plain))


@pytest.mark.slow
def test_after_ctrl_c_everything_is_as_before() -> None:
    def pressed() -> Iterator[tuple[Array, Array]]:
        yield X[:16], Y[:16]
        yield X[:16], Y[:16]
        os.kill(os.getpid(), signal.SIGINT)
        yield from [(X[:16], Y[:16])] * 1000

    plain, tested = make(), make()
    with pytest.raises(KeyboardInterrupt):
        learning_rate_test(tested, lambda: pressed(), steps=900)
    assert_same(trained(tested), trained(plain))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 0}, "0 < start < end, got start=0"),
        ({"start": 2.0}, "0 < start < end"),
        ({"end": float("inf")}, "0 < start < end"),
        ({"steps": 2}, "steps must be an integer >= 3"),
        ({"smoothing": 1}, r"smoothing lies in \[0, 1\)"),
        ({"epochs": 2}, "epochs is not for a test of some steps"),
    ],
)
def test_settings_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learning_rate_test(make(), X, Y, **options)
    with pytest.raises(ConfigError, match=r"call model\.compile"):
        learning_rate_test(cr.Sequential([kinds.Dense(1)]), X, Y)


@pytest.mark.slow
def test_it_is_loaded_when_it_is_used() -> None:
    code = "import sys, chainrule as cr; a = 'chainrule.search' in sys.modules; cr.search; print(a)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
