"""What `fit` can be told besides its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.augment.base import Augmentation
from chainrule.checks import check_at_least, check_positive
from chainrule.errors import ConfigError
from chainrule.train.callback import Callback

__all__ = ["BATCH_SIZE", "WORKERS", "FitOptions"]

BATCH_SIZE = 32
"""Samples in a step where nothing is said, as in Keras."""
WORKERS = 2
"""Threads that read samples of a source where nothing is said."""


@dataclass(frozen=True)
class FitOptions:
    """The arguments of `Model.fit` beside the data; see there."""

    batch_size: int | None
    epochs: int
    verbose: str | int
    callbacks: Sequence[Callback]
    validation_split: float
    validation_data: Any
    shuffle: bool
    class_weight: Mapping[int, float] | None
    sample_weight: Any
    initial_epoch: int
    steps_per_epoch: int | None
    validation_steps: int | None
    validation_batch_size: int | None
    validation_freq: int
    workers: int
    augment: Sequence[Augmentation]

    def check(self) -> None:
        """Refuse what no training can have.

        Raises:
            ConfigError: naming the argument.
        """
        for name in ("epochs", "validation_freq", "workers"):
            check_positive(getattr(self, name), name)
        for name in ("batch_size", "steps_per_epoch", "validation_steps", "validation_batch_size"):
            if getattr(self, name) is not None:
                check_positive(getattr(self, name), name)
        check_at_least(self.initial_epoch, 0, "initial_epoch")
        if self.class_weight is not None and not isinstance(self.class_weight, Mapping):
            raise ConfigError(
                f"class_weight must be a mapping from class numbers to factors, such as {{0: 1.0, 1: 2.5}}, "
                f"got {self.class_weight!r}"
            )
