"""Callbacks: what happens around the steps of `fit`, with Keras's names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Callback", "History", "Logs", "longest_interval"]

Logs = Mapping[str, float] | None


class Callback:
    """Override what you need; `fit` calls these in order.

    Attributes:
        model: the model in training; set ``self.model.stop_training = True`` to end after the running epoch.
        params: ``epochs``, ``steps`` (in an epoch), ``samples`` and ``batch_size``.
        interval: how many seconds may pass between two calls of the batch methods; by default 0, a call for every
            step.  A callback that only shows something gives the engine room to run many steps in one go.

    >>> import chainrule as cr
    >>> class Print(cr.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    """

    model: Model
    params: Mapping[str, Any]
    interval: float = 0.0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before an epoch, counted from 0."""

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before a step, counted from 0 in the epoch; calls `on_batch_begin`."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After a step; `logs` are the running means of loss and metrics; calls `on_batch_end`."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Keras's older name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Keras's older name of `on_train_batch_end`."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch; `logs` are its means, those of validation under ``val_...``."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After the last epoch, also when Ctrl-C ended it."""


_BATCH_METHODS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


def longest_interval(chain: Sequence[Callback]) -> float:
    """How many seconds may pass before some callback wants to hear of a step; infinite if none does."""
    watching = [callback for callback in chain if any(_is_own(callback, name) for name in _BATCH_METHODS)]
    return min((callback.interval for callback in watching), default=math.inf)


def _is_own(callback: Callback, name: str) -> bool:
    """Whether a method is the callback's own: its class's, or set on the object itself."""
    return getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name)


class History(Callback):
    """What `fit` returns: the means of every epoch.

    Attributes:
        history: a list for each name, such as ``loss`` and ``val_accuracy``, with one number an epoch; NaN where
            an interrupted epoch did not come to it.
        epoch: the epochs' numbers, from 0.
        interrupted: whether Ctrl-C ended the training.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.interrupted = False

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        found = dict(logs or {})
        for name in {**self.history, **found}:
            values = self.history.setdefault(name, [math.nan] * len(self.epoch))
            values.append(float(found.get(name, math.nan)))
        self.epoch.append(epoch)

    def __repr__(self) -> str:
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"
