"""Callbacks: what happens around the steps of `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Callback", "History"]


class Callback:
    """Override what you need; `fit` calls these in order.

    Attributes:
        model: the model in training; set ``self.model.stop_training = True`` to end after the running epoch.

    >>> import chainrule as cr
    >>> class Print(cr.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         print(epoch, sorted(logs))
    """

    model: Model

    def on_train_begin(self, plan: Mapping[str, Any]) -> None:
        """Before the first epoch; `plan` holds ``epochs``, ``steps`` (in an epoch) and ``samples``."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Before an epoch, counted from 0."""

    def on_batch_end(self, step: int, logs: Mapping[str, float]) -> None:
        """After a step, counted from 0 in the epoch; `logs` are the running means, and ``samples`` so far."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """After an epoch; `logs` are its means, those of validation under ``val_...``."""

    def on_train_end(self) -> None:
        """After the last epoch, also when Ctrl-C ended it."""


class History(Callback):
    """What `fit` returns: the means of every epoch.

    Attributes:
        history: a list for each name, such as ``loss`` and ``val_accuracy``, with one number an epoch.
        epoch: the epochs' numbers, from 0.
        interrupted: whether Ctrl-C ended the training.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.interrupted = False

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))

    def __repr__(self) -> str:
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"
