"""Learning-rate schedules: their formulas, written once more in plain Python, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule.errors import ConfigError
from chainrule.optimizers import schedules as s

STEPS = st.integers(0, 100_000)


def cosine(share: float, alpha: float = 0.0) -> float:
    return (1 - alpha) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))) + alpha


def restarted(step: int, first: float, t_mul: float, m_mul: float, alpha: float) -> float:
    length, height = first, 1.0
    while step >= length:
        step, length, height = step - int(length), length * t_mul, height * m_mul
    return height * cosine(step / length, alpha)


def one_cycle(step: int, high: float, total: int, rise: float) -> float:
    top = rise * (total - 1)
    low, last = high / 25, high / 25 / 1e4
    if step < top:
        return high + (low - high) * cosine(step / top)
    return last + (high - last) * cosine((step - top) / (total - 1 - top))


FORMULAS: dict[str, tuple[s.Schedule, Callable[[int], float]]] = {
    "step": (s.StepDecay(0.5, 30, 0.5), lambda t: 0.5 * 0.5 ** (t // 30)),
    "exponential": (s.ExponentialDecay(0.1, 100, 0.9), lambda t: 0.1 * 0.9 ** (t / 100)),
    "exponential stairs": (s.ExponentialDecay(0.1, 100, 0.9, staircase=True), lambda t: 0.1 * 0.9 ** (t // 100)),
    "inverse time": (s.InverseTimeDecay(0.1, 10, 0.5), lambda t: 0.1 / (1 + 0.5 * t / 10)),
    "polynomial": (
        s.PolynomialDecay(0.1, 1000, 0.01, 2.0),
        lambda t: (0.1 - 0.01) * (1 - min(t, 1000) / 1000) ** 2 + 0.01,
    ),
    "polynomial cycle": (
        s.PolynomialDecay(0.1, 1000, 0.01, cycle=True),
        lambda t: 0.09 * (1 - t / (1000 * max(1, math.ceil(t / 1000)))) + 0.01,
    ),
    "cosine": (s.CosineDecay(0.1, 1000, 0.1), lambda t: 0.1 * cosine(t / 1000, 0.1)),
    "cosine warm": (
        s.CosineDecay(0.01, 1000, warmup_target=0.1, warmup_steps=100),
        lambda t: 0.01 + 0.09 * t / 100 if t < 100 else 0.1 * cosine((t - 100) / 1000),
    ),
    "restarts": (s.CosineDecayRestarts(0.1, 100, 1.0), lambda t: 0.1 * cosine(t % 100 / 100)),
    "longer restarts": (
        s.CosineDecayRestarts(0.1, 64, 2.0, 0.5, 0.1),
        lambda t: 0.1 * restarted(t, 64, 2.0, 0.5, 0.1),
    ),
    "one cycle": (s.OneCycle(1.0, 2000), lambda t: one_cycle(t, 1.0, 2000, 0.3)),
    "warm-up": (s.Warmup(0.2, 50, 0.1), lambda t: 0.2 * (0.1 + 0.9 * min(1, t / 50))),
    "warm-up and steps": (
        s.Warmup(s.StepDecay(0.2, 10), 50),
        lambda t: 0.2 * 0.1 ** (max(0, t - 50) // 10) * min(1, t / 50),
    ),
    "pieces": (
        s.PiecewiseConstantDecay([100, 200], [0.3, 0.2, 0.1]),
        lambda t: 0.3 if t <= 100 else 0.2 if t <= 200 else 0.1,
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@given(step=STEPS)
@pytest.mark.slow
def test_formula(name: str, step: int) -> None:
    schedule, formula = FORMULAS[name]
    assert schedule(step) == pytest.approx(formula(step), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
@given(first=st.integers(0, 3000), count=st.integers(1, 200))
@pytest.mark.slow
def test_many_steps_at_once_are_the_same_bits(name: str, first: int, count: int) -> None:
    schedule = FORMULAS[name][0]
    together = schedule.rates(np.arange(first, first + count, dtype=np.float64))
    assert together.dtype == np.float64
    assert together.tolist() == [schedule(step) for step in range(first, first + count)]
    assert (together >= 0).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_a_schedule_can_be_described_and_made_again(name: str) -> None:
    schedule = FORMULAS[name][0]
    again = s.get_schedule({"class": type(schedule).__name__, "config": schedule.get_config()})
    assert type(again) is type(schedule)
    assert [again(step) for step in range(0, 3000, 7)] == [schedule(step) for step in range(0, 3000, 7)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: s.StepDecay(-0.1, 10), "StepDecay: initial_learning_rate must be a number >= 0, got -0.1"),
        (lambda: s.StepDecay(0.1, 0), "StepDecay: step_size must be positive, got 0"),
        (lambda: s.CosineDecay(True, 10), "CosineDecay: initial_learning_rate must be a number"),
        (lambda: s.CosineDecay(math.nan, 10), "CosineDecay: initial_learning_rate must be a number"),
        (lambda: s.CosineDecayRestarts(0.1, 10, 0.5), "CosineDecayRestarts: t_mul must be 1 or more, got 0.5"),
        (lambda: s.OneCycle(0.1, 10, 1.5), "OneCycle: pct_start lies between 0 and 1, got 1.5"),
        (lambda: s.PiecewiseConstantDecay([1, 2], [0.1]), "2 boundaries need 3 values, got 1"),
        (lambda: s.PiecewiseConstantDecay([2, 1], [1, 2, 3]), r"boundaries must rise, got \[2.0, 1.0\]"),
        (lambda: s.get_schedule({"class": "Sawtooth", "config": {}}), "unknown schedule 'Sawtooth'; expected one of"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


# --- In an optimizer ---------------------------------------------------------------------------------------


def test_an_optimizer_follows_its_schedule_eagerly() -> None:
    w = cr.Variable([0.0], name="w")
    optimizer = cr.optimizers.SGD(s.StepDecay(1.0, 2, 0.5))
    seen = []
    for _ in range(5):
        seen.append(optimizer.learning_rate)
        w.grad = None
        (w * 1.0).sum().backward()
        optimizer.step([w])
    assert seen == [1.0, 1.0, 0.5, 0.5, 0.25]
    assert w.numpy()[0] == -3.25


@pytest.mark.parametrize("batch_callback", [False, True])
@pytest.mark.slow
def test_fit_gives_every_step_its_rate(batch_callback: bool) -> None:
    """The weight falls by the rate at each step, whatever number of steps a call has."""

    class Watch(cr.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            pass

    schedule = s.OneCycle(0.5, 30)
    model = cr.Sequential([cr.Input((1,)), cr.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(cr.optimizers.SGD(schedule), lambda y, p: (p - y)[:, 0])
    x, y = np.ones((40, 1), np.float32), np.zeros((40, 1), np.float32)
    model.fit(x, y, batch_size=4, epochs=3, verbose=0, callbacks=[Watch()] if batch_callback else None)
    assert model.get_weights()[0][0, 0] == pytest.approx(-sum(schedule(step) for step in range(30)), rel=1e-5)


def test_a_model_file_holds_the_schedule(tmp_path: Any) -> None:
    model = cr.Sequential([cr.Input((1,)), cr.layers.Dense(1)])
    model.compile(cr.optimizers.Adam(s.Warmup(s.CosineDecay(0.1, 100), 10)), "mse")
    again = cr.load_model(model.save(tmp_path / "m.safetensors"))
    assert again.optimizer.schedule(7) == model.optimizer.schedule(7)
