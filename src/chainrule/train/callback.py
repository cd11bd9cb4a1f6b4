"""Callbacks: what happens around the steps of `fit`, with Keras's names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chainrule.graph.op import Array

if TYPE_CHECKING:
    from chainrule.models.model import Model
    from chainrule.train.fitting import Fitting

__all__ = ["Callback", "History", "Logs", "as_json", "from_json", "is_own", "longest_interval"]

Logs = Mapping[str, float] | None


class Callback:
    """Override what you need; `fit` calls these in order.

    Attributes:
        model: the model in training; set ``self.model.stop_training = True`` to end after the running step: the epoch
            ends there, with its validation and `on_epoch_end`.
        params: ``epochs``, ``steps`` (in an epoch; None where nobody knows yet), ``samples`` (infinite then),
            ``batch_size``, and ``validation_freq`` (None without validation data).
        fitting: the running call of `fit`, of which a checkpoint can be taken.
        interval: how many seconds may pass between two calls of the batch methods; by default 0, a call for every
            step.  A callback that only shows something gives the engine room to run many steps in one go.
        called_last: whether it is called after all others, wherever it stands among them: it keeps what they remember.
        changes_rate: whether it sets the optimizer's learning rate, which then stands in `History`, as it does where
            the optimizer follows a schedule.

    >>> import chainrule as cr
    >>> class Print(cr.callbacks.Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    """

    model: Model
    fitting: Fitting
    params: Mapping[str, Any]
    interval: float = 0.0
    called_last: bool = False
    changes_rate: bool = False

    @property
    def cut_off(self) -> bool:
        """Whether the epoch that ends was interrupted: its numbers are those of a part, and not validated."""
        fitting = getattr(self, "fitting", None)
        return fitting is not None and bool(fitting.cut_off)

    def get_state(self) -> dict[str, Any]:
        """What a run that goes on later must know of this callback, as JSON can hold it."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what `get_state` gave, after `on_train_begin`."""

    def get_arrays(self) -> dict[str, Array]:
        """As `get_state`, what is better kept as arrays."""
        return {}

    def set_arrays(self, arrays: dict[str, Array]) -> None:
        """Take what `get_arrays` gave, after `set_state`."""

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before the first epoch."""

    def resume(self) -> None:
        """After every callback's `on_train_begin`: bring back the state of a training that was cut off."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before an epoch, counted from 0.

        A training that was cut off in an epoch's middle calls this again when it goes on there, after `set_state`.  A
        callback that adds to what is there, or takes it times something, must remember for which epoch it did.
        """

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

    def on_test_begin(self, logs: Logs = None) -> None:
        """Before the validation at the end of an epoch."""

    def on_test_end(self, logs: Logs = None) -> None:
        """After it; `logs` are its numbers."""

    def on_interrupt(self) -> None:
        """When Ctrl-C or SIGTERM ended the training inside an epoch; that epoch's `on_epoch_end` follows."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After the last epoch, also when Ctrl-C or SIGTERM ended it."""


_BATCH_METHODS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")


def longest_interval(chain: Sequence[Callback]) -> float:
    """How many seconds may pass before some callback wants to hear of a step; infinite if none does."""
    watching = [callback for callback in chain if any(is_own(callback, name) for name in _BATCH_METHODS)]
    return min((callback.interval for callback in watching), default=math.inf)


def is_own(callback: Callback, name: str) -> bool:
    """Whether a method is the callback's own: its class's, or set on the object itself."""
    return getattr(getattr(callback, name), "__func__", None) is not getattr(Callback, name)


def as_json(number: float) -> float | str:
    """A number as strict JSON can hold it: what is not finite as text."""
    return number if math.isfinite(number) else str(number)


def from_json(value: float | str) -> float:
    """What `as_json` gave, as a number again."""
    return float(value)


class History(Callback):
    """What `fit` returns: the means of every epoch.

    Attributes:
        history: a list for each name, such as ``loss`` and ``val_accuracy``, with one number an epoch; NaN where
            an interrupted epoch did not come to it.  One that was interrupted before its first batch is not there.
        epoch: the epochs' numbers, from 0.
        interrupted: whether Ctrl-C or SIGTERM ended the training.
        signal: the number of the signal that did; None otherwise.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.interrupted = False
        self.signal: int | None = None

    def get_state(self) -> dict[str, Any]:
        return {
            "history": {name: list(map(as_json, values)) for name, values in self.history.items()},
            "epoch": self.epoch,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.history = {name: list(map(from_json, values)) for name, values in state["history"].items()}
        self.epoch = list(state["epoch"])

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        found = dict(logs or {})
        for name in {**self.history, **found}:
            values = self.history.setdefault(name, [math.nan] * len(self.epoch))
            values.append(float(found.get(name, math.nan)))
        self.epoch.append(epoch)

    def __repr__(self) -> str:
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history)}>"
