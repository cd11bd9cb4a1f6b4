"""Learning-rate schedules: the rate of a step as a function of its number.

A schedule is computed for many steps at once, before they run, so that it costs a training nothing.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from chainrule.errors import ConfigError
from chainrule.graph.op import Array

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "OneCycle",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "Schedule",
    "StepDecay",
    "Warmup",
    "get_schedule",
]

_CLASSES: dict[str, Callable[..., Schedule]] = {}

Rate: TypeAlias = "float | Schedule"


class Schedule(ABC):
    """Base class: subclasses write `rates`; their constructor's arguments become attributes of the same names.

    >>> import chainrule as cr
    >>> class Halved(cr.optimizers.schedules.Schedule):
    ...     def rates(self, steps):
    ...         return 0.1 * 0.5**steps
    >>> Halved()(2)
    0.025
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _CLASSES[cls.__name__] = cls

    @abstractmethod
    def rates(self, steps: Array) -> Array:
        """The learning rates of some steps.

        Args:
            steps: their numbers as float64, the first step of a training being 0.

        Returns:
            A rate for each, float64, not negative.
        """

    def __call__(self, step: int) -> float:
        """The learning rate of one step."""
        return float(self.rates(np.array([step], np.float64))[0])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        values = ((name, getattr(self, name)) for name in names)
        return {name: described(value) if isinstance(value, Schedule) else value for name, value in values}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.get_config().items())})"


def described(schedule: Schedule) -> dict[str, Any]:
    """A schedule as plain data, for a model file; `get_schedule` reads it."""
    return {"class": type(schedule).__name__, "config": schedule.get_config()}


def get_schedule(value: Any) -> Any:
    """A schedule from its description; anything else as it is.

    Raises:
        ConfigError: no schedule has that name.

    >>> get_schedule({"class": "StepDecay", "config": {"initial_learning_rate": 0.1, "step_size": 10}})(0)
    0.1
    """
    if not isinstance(value, dict):
        return value
    if value.get("class") not in _CLASSES:
        raise ConfigError(f"unknown schedule {value.get('class')!r}; expected one of {', '.join(sorted(_CLASSES))}")
    return _CLASSES[value["class"]](**value["config"])


class PiecewiseConstantDecay(Schedule):
    """One rate up to each boundary and another after the last.

    ``values[i]`` holds for steps up to and including ``boundaries[i]``, the last value after them all.

    Args:
        boundaries: step numbers, rising.
        values: rates, one more than boundaries.

    >>> schedule = PiecewiseConstantDecay([10, 20], [0.1, 0.01, 0.001])
    >>> [schedule(step) for step in (0, 10, 11, 21)]
    [0.1, 0.1, 0.01, 0.001]
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float]) -> None:
        self.boundaries = [_positive(step, "PiecewiseConstantDecay: a boundary") for step in boundaries]
        self.values = [_rate(value, "PiecewiseConstantDecay: a value") for value in values]
        if len(self.values) != len(self.boundaries) + 1:
            raise ConfigError(
                f"PiecewiseConstantDecay: {len(self.boundaries)} boundaries need {len(self.boundaries) + 1} values, "
                f"got {len(self.values)}"
            )
        if any(a >= b for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise ConfigError(f"PiecewiseConstantDecay: boundaries must rise, got {self.boundaries}")

    def rates(self, steps: Array) -> Array:
        return np.asarray(self.values)[np.searchsorted(self.boundaries, steps, side="left")]


class StepDecay(Schedule):
    """``rate * gamma ** floor(step / step_size)``.

    Args:
        initial_learning_rate: the first rate.
        step_size: steps between two changes.
        gamma: what each change multiplies by.

    >>> [StepDecay(1.0, 10, 0.5)(step) for step in (9, 10, 20)]
    [1.0, 0.5, 0.25]
    """

    def __init__(self, initial_learning_rate: float, step_size: int, gamma: float = 0.1) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "StepDecay: initial_learning_rate")
        self.step_size = _positive(step_size, "StepDecay: step_size")
        self.gamma = _rate(gamma, "StepDecay: gamma")

    def rates(self, steps: Array) -> Array:
        return self.initial_learning_rate * self.gamma ** np.floor(steps / self.step_size)


class ExponentialDecay(Schedule):
    """``rate * decay_rate ** (step / decay_steps)``; with `staircase` the exponent is rounded down.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: steps after which the rate is `decay_rate` times as large.
        decay_rate: that factor.
        staircase: change only every `decay_steps` steps.

    >>> ExponentialDecay(1.0, 10, 0.5)(20)
    0.25
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "ExponentialDecay: initial_learning_rate")
        self.decay_steps = _positive(decay_steps, "ExponentialDecay: decay_steps")
        self.decay_rate = _rate(decay_rate, "ExponentialDecay: decay_rate")
        self.staircase = bool(staircase)

    def rates(self, steps: Array) -> Array:
        exponent = steps / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (np.floor(exponent) if self.staircase else exponent)


class InverseTimeDecay(Schedule):
    """``rate / (1 + decay_rate * step / decay_steps)``; with `staircase` the quotient is rounded down.

    Args: as `ExponentialDecay`.

    >>> InverseTimeDecay(1.0, 10, 1.0)(10)
    0.5
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "InverseTimeDecay: initial_learning_rate")
        self.decay_steps = _positive(decay_steps, "InverseTimeDecay: decay_steps")
        self.decay_rate = _rate(decay_rate, "InverseTimeDecay: decay_rate")
        self.staircase = bool(staircase)

    def rates(self, steps: Array) -> Array:
        share = steps / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (np.floor(share) if self.staircase else share))


class PolynomialDecay(Schedule):
    """``(rate - end) * (1 - min(step, D) / D) ** power + end`` with ``D = decay_steps``.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: steps until the last rate is reached.
        end_learning_rate: the last rate.
        power: 1 for a straight line.
        cycle: begin anew at the end, each time with D taken so many times that it exceeds the step.

    >>> PolynomialDecay(1.0, 10, 0.0)(5)
    0.5
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "PolynomialDecay: initial_learning_rate")
        self.decay_steps = _positive(decay_steps, "PolynomialDecay: decay_steps")
        self.end_learning_rate = _rate(end_learning_rate, "PolynomialDecay: end_learning_rate")
        self.power = _positive(power, "PolynomialDecay: power")
        self.cycle = bool(cycle)

    def rates(self, steps: Array) -> Array:
        length = (
            self.decay_steps * np.maximum(1.0, np.ceil(steps / self.decay_steps)) if self.cycle else self.decay_steps
        )
        left = 1 - np.minimum(steps, length) / length
        return (self.initial_learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate


class CosineDecay(Schedule):
    """Half a cosine wave from the full rate to `alpha` times it, after an optional straight warm-up.

    Without warm-up ``rate * ((1 - alpha) * (1 + cos(pi min(step, D) / D)) / 2 + alpha)``, ``D = decay_steps``.  With
    one, the rate first rises on a line from `initial_learning_rate` to `warmup_target` in `warmup_steps` steps, and the
    cosine begins there.

    Args:
        initial_learning_rate: the first rate.
        decay_steps: steps of the cosine.
        alpha: the last rate as a share of the highest.
        warmup_target: the rate after the warm-up.
        warmup_steps: its length.

    Source: Loshchilov and Hutter, ICLR 2017, without restarts.

    >>> CosineDecay(1.0, 10)(5)
    0.5
    >>> CosineDecay(0.0, 10, warmup_target=1.0, warmup_steps=4)(2)
    0.5
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "CosineDecay: initial_learning_rate")
        self.decay_steps = _positive(decay_steps, "CosineDecay: decay_steps")
        self.alpha = _rate(alpha, "CosineDecay: alpha")
        self.warmup_target = None if warmup_target is None else _rate(warmup_target, "CosineDecay: warmup_target")
        self.warmup_steps = int(_rate(warmup_steps, "CosineDecay: warmup_steps"))

    def rates(self, steps: Array) -> Array:
        if self.warmup_target is None:
            return self.initial_learning_rate * _cosine(steps / self.decay_steps, self.alpha)
        low, high, length = self.initial_learning_rate, self.warmup_target, self.warmup_steps
        rising = low + (high - low) * np.minimum(steps, length) / max(1, length)
        return np.where(steps < length, rising, high * _cosine((steps - length) / self.decay_steps, self.alpha))


class CosineDecayRestarts(Schedule):
    """Cosine waves one after another, each `t_mul` times as long and beginning `m_mul` times as high as the last.

    Args:
        initial_learning_rate: the first rate.
        first_decay_steps: length of the first wave.
        t_mul, m_mul: see above.
        alpha: the lowest rate of a wave as a share of its highest.

    Source: Loshchilov and Hutter, ICLR 2017.

    >>> [CosineDecayRestarts(1.0, 10)(step) for step in (0, 5, 10, 20)]
    [1.0, 0.5, 1.0, 0.5]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        self.initial_learning_rate = _rate(initial_learning_rate, "CosineDecayRestarts: initial_learning_rate")
        self.first_decay_steps = _positive(first_decay_steps, "CosineDecayRestarts: first_decay_steps")
        self.t_mul = _positive(t_mul, "CosineDecayRestarts: t_mul")
        self.m_mul = _positive(m_mul, "CosineDecayRestarts: m_mul")
        self.alpha = _rate(alpha, "CosineDecayRestarts: alpha")
        if self.t_mul < 1:
            raise ConfigError(f"CosineDecayRestarts: t_mul must be 1 or more, got {t_mul!r}")

    def rates(self, steps: Array) -> Array:
        number, share = np.divmod(steps, self.first_decay_steps)
        share /= self.first_decay_steps
        if self.t_mul > 1:
            begins, length = [0.0], self.first_decay_steps
            while begins[-1] <= np.max(steps, initial=0):
                begins.append(begins[-1] + length)
                length *= self.t_mul
            wave = np.searchsorted(begins, steps, side="right") - 1
            number, share = wave, (steps - np.asarray(begins)[wave]) / np.diff(begins)[wave]
        return self.initial_learning_rate * self.m_mul**number * _cosine(share, self.alpha)


class OneCycle(Schedule):
    """One rise to the highest rate and one longer fall far below the first, both along a cosine.

    The first rate is ``max_learning_rate / div_factor``, the last one is the first divided by `final_div_factor`.

    Args:
        max_learning_rate: the highest rate.
        total_steps: steps of the whole training.
        pct_start: the rise's share of them.
        div_factor, final_div_factor: see above.

    Source: Smith and Topin, SPIE 2019; the constants are those of fastai and PyTorch.

    >>> schedule = OneCycle(1.0, 101, pct_start=0.3)
    >>> [round(schedule(step), 4) for step in (0, 30, 100)]
    [0.04, 1.0, 0.0]
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        self.max_learning_rate = _rate(max_learning_rate, "OneCycle: max_learning_rate")
        self.total_steps = _positive(total_steps, "OneCycle: total_steps")
        self.pct_start = _rate(pct_start, "OneCycle: pct_start")
        self.div_factor = _positive(div_factor, "OneCycle: div_factor")
        self.final_div_factor = _positive(final_div_factor, "OneCycle: final_div_factor")
        if not 0 < self.pct_start < 1:
            raise ConfigError(f"OneCycle: pct_start lies between 0 and 1, got {pct_start!r}")

    def rates(self, steps: Array) -> Array:
        high, first = self.max_learning_rate, self.max_learning_rate / self.div_factor
        last_step = max(1.0, self.total_steps - 1)
        top = self.pct_start * last_step
        rising = _between(first, high, steps / top)
        falling = _between(high, first / self.final_div_factor, (steps - top) / (last_step - top))
        return np.where(steps < top, rising, falling)


class Warmup(Schedule):
    """A straight rise from a share of the rate to all of it, then another schedule, counted from its end.

    Args:
        learning_rate: the rate after the warm-up, or its schedule.
        steps: length of the warm-up.
        start: the first rate as a share of the rate after the warm-up.

    Source: Goyal et al., arXiv:1706.02677, 2017.

    >>> [Warmup(0.1, 4)(step) for step in (0, 2, 4, 9)]
    [0.0, 0.05, 0.1, 0.1]
    """

    def __init__(self, learning_rate: Rate | dict[str, Any], steps: int, start: float = 0.0) -> None:
        after = get_schedule(learning_rate)
        self.learning_rate: Rate = after if isinstance(after, Schedule) else _rate(after, "Warmup: learning_rate")
        self.steps = _positive(steps, "Warmup: steps")
        self.start = _rate(start, "Warmup: start")

    def rates(self, steps: Array) -> Array:
        rest = np.maximum(steps - self.steps, 0)
        after = self.learning_rate.rates(rest) if isinstance(self.learning_rate, Schedule) else self.learning_rate
        share = np.minimum(steps / self.steps, 1)
        return after * (self.start + (1 - self.start) * share)


def _cosine(share: Array, alpha: float) -> Array:
    return (1 - alpha) * (1 + np.cos(np.pi * np.minimum(share, 1))) / 2 + alpha


def _between(a: float, b: float, share: Array) -> Array:
    """From a to b along half a cosine wave."""
    return b + (a - b) * _cosine(np.maximum(share, 0), 0.0)


def _rate(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
        raise ConfigError(f"{what} must be a number >= 0, got {value!r}")
    return float(value)


def _positive(value: Any, what: str) -> float:
    if not _rate(value, what) > 0:
        raise ConfigError(f"{what} must be positive, got {value!r}")
    return float(value)
