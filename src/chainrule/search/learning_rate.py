"""The learning rate range test: a short training whose rate grows from step to step, on weights that are put back."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.callbacks import Callback
from chainrule.checks import check_at_least
from chainrule.errors import ConfigError
from chainrule.graph.op import Array
from chainrule.graph.variable import Variable
from chainrule.models import Model
from chainrule.optimizers.schedules import Schedule
from chainrule.random import get_seed, set_seed

__all__ = ["LearningRateTest", "learning_rate_test"]

_DIVERGED = 4.0
"""A loss so many times the best one's ends the test."""
_LEAST = 3  # points that have a slope


@dataclass(frozen=True, eq=False)
class LearningRateTest:
    """What came out of a range test.

    Attributes:
        rates: of each step.
        losses: the mean loss of each step's samples.
        smoothed: the same, smoothed.
        diverged: whether the test ended early, since the loss grew without bounds or was no number.
    """

    rates: Array
    losses: Array
    smoothed: Array
    diverged: bool

    @property
    def suggestion(self) -> float | None:
        """The rate where the loss falls most steeply, over the rate's logarithm; None if it never falls.

        A slope is that of the line through the losses of a fifth of the steps; it is looked for up to the lowest
        smoothed loss.
        """
        low, half = self._lowest, max(1, len(self.rates) // 10)
        if low < _LEAST - 1:
            return None
        half = min(half, low // 2)
        around = (slice(step - half, step + half + 1) for step in range(half, low - half + 1))
        slopes = [_slope(np.log(self.rates[some]), self.losses[some]) for some in around]
        steepest = int(np.argmin(slopes))
        return float(self.rates[half + steepest]) if slopes[steepest] < 0 else None

    @property
    def cautious(self) -> float | None:
        """A tenth of the rate with the lowest smoothed loss; None if the loss never falls."""
        return None if self.suggestion is None else float(self.rates[self._lowest]) / 10

    @property
    def _lowest(self) -> int:
        return int(np.nanargmin(self.smoothed)) if np.isfinite(self.smoothed).any() else 0

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw loss over rate, with both suggestions, as a PNG file; an older one is replaced.

        Raises:
            RunFolderError: the file cannot be written.
        """
        from chainrule.search.pictures import draw_rates

        draw_rates(path, self)

    def __str__(self) -> str:
        end = ", where the loss diverged" if self.diverged else ""
        head = f"{len(self.rates)} steps with learning rates from {self.rates[0]:.3g} to {self.rates[-1]:.3g}{end}"
        if self.suggestion is None:
            return f"{head}; the loss never fell"
        return f"{head}; steepest at {self.suggestion:.3g}, cautious {self.cautious:.3g}"


def _slope(x: Array, y: Array) -> float:
    """That of the line of least squares."""
    x = x - x.mean()
    return float(x @ (y - y.mean()) / (x @ x))


def learning_rate_test(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    start: float = 1e-6,
    end: float = 1.0,
    steps: int = 100,
    batch_size: int | None = None,
    smoothing: float = 0.9,
    **options: Any,
) -> LearningRateTest:
    """Train for some steps with a rate that grows geometrically, and note the loss of each.

    The model, the optimizer with its slots and its rate or schedule, the running statistics, the metrics and the seed
    are as before afterwards, to the bit, also after an error or a signal.  (A generator given as `x` has moved on.)

    Args:
        model: compiled.
        x, y: the data, as for `Model.fit`.
        start, end: the first and the last rate.
        steps: how many updates, if the loss does not diverge before: grow beyond four times its best, or cease to be a
            number.
        batch_size: as for `fit`.
        smoothing: how much of the smoothed loss is that of the steps before, in [0, 1).
        options: of `fit`, such as ``augment`` or ``class_weight``.

    Returns:
        Rates, losses, and suggestions.

    Raises:
        ConfigError: a setting that is none.
        ChainruleError: whatever `fit` raises.

    Sources: Smith, WACV 2017 (the test); the suggestions are those that fastai made common.

    >>> import chainrule as cr
    >>> cr.set_seed(0)
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(32, 2)
    >>> model = cr.Sequential([cr.Input((2,)), cr.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> found = cr.search.learning_rate_test(model, x, x[:, :1] * 3, start=1e-3, end=100, steps=50, batch_size=8)
    >>> found.diverged, 0.01 < found.suggestion < 10
    (True, True)
    """
    if not 0 < start < end < math.inf:
        raise ConfigError(f"learning_rate_test: expected 0 < start < end, got start={start!r} and end={end!r}")
    check_at_least(steps, _LEAST, "learning_rate_test: steps")
    if not 0 <= smoothing < 1:
        raise ConfigError(f"learning_rate_test: smoothing lies in [0, 1), got {smoothing!r}")
    for name in ("epochs", "initial_epoch", "callbacks", "validation_data", "validation_split", "steps_per_epoch"):
        if name in options:
            raise ConfigError(f"learning_rate_test: {name} is not for a test of some steps; leave it out")
    watch = _Watch(steps, smoothing)
    options = {"verbose": 0, **options}
    optimizer, trainer, seed = model.optimizer, model.compiled(), get_seed()
    rate = optimizer.learning_rate if optimizer.schedule is None else optimizer.schedule
    stopped, shuffles = model.stop_training, trainer.shuffles
    first = int(optimizer.iterations.data)
    optimizer.learning_rate = sweep = _Sweep(start, end, steps, first)
    try:
        history = model.fit(x, y, batch_size, callbacks=[watch], **_lengths(model, x, steps), **options)
    finally:
        optimizer.learning_rate, model.stop_training, trainer.shuffles = rate, stopped, shuffles
        set_seed(seed)
        watch.put_back()
    if history.signal is not None:
        signal.raise_signal(history.signal)
    taken = len(watch.losses)
    rates = sweep.rates(np.arange(first, first + taken, dtype=np.float64))
    return LearningRateTest(rates, np.array(watch.losses), np.array(watch.smoothed), watch.diverged)


def _lengths(model: Model, x: Any, steps: int) -> dict[str, Any]:
    """Enough epochs; a generator has one, which is as long as it takes."""
    if hasattr(x, "__next__"):
        return {"epochs": 1, "steps_per_epoch": steps * model.optimizer.options.accumulated}
    return {"epochs": steps}


class _Sweep(Schedule):
    """Rates that grow from step to step by the same factor."""

    def __init__(self, start: float, end: float, steps: int, first: int) -> None:
        self.start, self.end, self.steps, self.first = float(start), float(end), steps, first

    def rates(self, steps: Array) -> Array:
        share: Array = np.clip((np.asarray(steps, np.float64) - self.first) / (self.steps - 1), 0, 1)
        found: Array = self.start * (self.end / self.start) ** share
        return found


class _Watch(Callback):
    """Notes the mean loss of each update's samples, ends the training, and knows what was before it."""

    def __init__(self, steps: int, smoothing: float) -> None:
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.diverged = False
        self._steps, self._smoothing = steps, smoothing
        self._running, self._total, self._count = 0.0, 0.0, 0.0
        self._before: list[tuple[Variable, Array]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Now everything is built and nothing has changed."""
        trackers = self.model.objective.trackers()
        totals = (variable for tracker in trackers for variable in tracker.variables())
        optimizer = self.model.optimizer
        optimizer.make_slots(self.model.trainable_weights)
        everything = (*self.model.weights, *optimizer.variables(), *totals)
        self._before = [(variable, variable.numpy()) for variable in everything]

    def put_back(self) -> None:
        """Give every variable its value from before."""
        for variable, value in self._before:
            variable.set_array(value)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._total = self._count = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        mean = self.model.objective.loss_mean
        total, count = float(mean.total("total")), float(mean.total("count"))
        self._note((total - self._total) / (count - self._count))
        self._total, self._count = total, count
        if self.diverged or len(self.losses) == self._steps:
            self.model.stop_training = True

    def _note(self, loss: float) -> None:
        self.losses.append(loss)
        self._running = self._smoothing * self._running + (1 - self._smoothing) * loss
        smoothed = self._running / (1 - self._smoothing ** len(self.losses))  # an average that starts from nothing
        best = min(self.smoothed, default=smoothed)
        self.smoothed.append(smoothed)
        self.diverged = not math.isfinite(loss) or smoothed > best + (_DIVERGED - 1) * abs(best)
