"""A number of `History` that is watched for its best value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from chainrule.errors import ConfigError
from chainrule.train.callback import Logs

__all__ = ["Mode", "Monitor"]

Mode: TypeAlias = Literal["auto", "min", "max"]

_HIGHER = ("accuracy", "acc", "auc", "precision", "recall", "f1", "top_")


class Monitor:
    """Watches one number.

    Args:
        name: such as ``"val_loss"``.
        mode: whether less or more is better; ``"auto"`` takes more for accuracies, precision, recall, F1 and AUC, and
            less for everything else.
        min_delta: changes by less count for nothing.
        baseline: what must be beaten first.
        who: how messages begin.

    Attributes:
        best: the best value so far; infinite before the first.
    """

    def __init__(
        self, name: str, mode: Mode = "auto", min_delta: float = 0.0, baseline: float | None = None, who: str = ""
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ConfigError(f"{who}: mode must be 'auto', 'min' or 'max', got {mode!r}")
        plain = name.removeprefix("val_")
        self.name, self.who = name, who
        self.upwards = mode == "max" or (mode == "auto" and any(word in plain for word in _HIGHER))
        self.min_delta = abs(float(min_delta))
        self.best = (-math.inf if self.upwards else math.inf) if baseline is None else float(baseline)

    def value(self, logs: Logs, params: Mapping[str, Any] | None = None, epoch: int = 0) -> float | None:
        """The number in an epoch's logs; None where it comes from a validation and this epoch has none.

        Args:
            logs: the epoch's numbers.
            params: the callback's; ``validation_freq`` says which epochs are validated.
            epoch: its number, from 0.

        Raises:
            ConfigError: it is not among them.
        """
        found = dict(logs or {})
        if self.name not in found:
            every = (params or {}).get("validation_freq")
            if self.name.startswith("val_") and every is not None and (epoch + 1) % every:
                return None
            raise ConfigError(f"{self.who}: there is no {self.name!r} to watch; there are {', '.join(found) or 'none'}")
        return float(found[self.name])

    def improves(self, value: float) -> bool:
        """Whether a value beats the best one, which it then is; NaN never does."""
        better = self.beats(value, self.best)
        if better:
            self.best = value
        return better

    def beats(self, value: float, other: float) -> bool:
        """Whether a value is better than another by more than `min_delta`; NaN never is."""
        return value - self.min_delta > other if self.upwards else value + self.min_delta < other
