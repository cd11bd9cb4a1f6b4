"""Learning-rate schedules by name, fitted to the length of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from chainrule.optimizers import schedules
from chainrule.optimizers.schedules import Schedule

__all__ = ["SCHEDULES", "schedule_for"]

_MAKERS: Mapping[str, Callable[[float, int, int], Schedule]] = {
    "step": lambda rate, total, epoch: schedules.PiecewiseConstantDecay(
        [max(1, total // 2), max(2, total * 3 // 4)], [rate, rate / 10, rate / 100]
    ),
    "exponential": lambda rate, total, epoch: schedules.ExponentialDecay(rate, total, 0.01),
    "polynomial": lambda rate, total, epoch: schedules.PolynomialDecay(rate, total, end_learning_rate=0.0),
    "cosine": lambda rate, total, epoch: schedules.CosineDecay(rate, total),
    "cosine-restarts": lambda rate, total, epoch: schedules.CosineDecayRestarts(rate, epoch),
    "one-cycle": lambda rate, total, epoch: schedules.OneCycle(rate, total),
}

SCHEDULES = ("constant", *_MAKERS, "plateau")
"""The names; ``plateau`` is a callback, which lowers a constant rate."""


def schedule_for(name: str, rate: float, updates: int, updates_per_epoch: int, warmup: int = 0) -> float | Schedule:
    """A schedule over a whole training.

    - ``constant``, ``plateau``: the rate itself.
    - ``step``: a tenth after half of the updates, a hundredth after three quarters.
    - ``exponential``: down to a hundredth at the end; ``polynomial``: in a straight line to 0.
    - ``cosine``: half a cosine wave to 0; ``cosine-restarts``: the same over 1, 2, 4, ... epochs.
    - ``one-cycle``: up from a 25th during 30 % of the updates, then down along a cosine.

    Args:
        name: one of `SCHEDULES`.
        rate: the learning rate that it starts from, or reaches.
        updates: of the whole training.
        updates_per_epoch: of one epoch.
        warmup: updates during which the rate first rises from 0 in a straight line; the schedule follows.

    >>> schedule_for("cosine", 0.1, updates=100, updates_per_epoch=10)(50)
    0.05
    """
    rest = max(1, updates - warmup)
    chosen = _MAKERS[name](rate, rest, updates_per_epoch) if name in _MAKERS else rate
    return schedules.Warmup(chosen, warmup) if warmup else chosen
