"""Callbacks that change the learning rate from epoch to epoch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from chainrule.errors import ConfigError
from chainrule.train.callback import Callback, Logs, as_json, from_json
from chainrule.train.callbacks.monitor import Mode, Monitor

__all__ = ["LearningRateScheduler", "ReduceLROnPlateau"]


class LearningRateScheduler(Callback):
    """Sets each epoch's learning rate.

    Args:
        schedule: ``schedule(epoch, rate)`` or ``schedule(epoch)`` gives the rate of an epoch, counted from 0; `rate` is
            the present one.  For rates that change within an epoch give the optimizer a `Schedule`.
        verbose: anything but 0 prints each rate.

    >>> import chainrule as cr
    >>> callback = cr.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    >>> callback.schedule(1)
    0.05
    """

    changes_rate = True

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        self.schedule, self.verbose = schedule, verbose
        self._takes_rate = len(inspect.signature(schedule).parameters) > 1
        self._latest = -1

    def on_train_begin(self, logs: Logs = None) -> None:
        self._latest = -1

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if epoch == self._latest:
            return  # the epoch is entered in its middle, and its rate was restored
        self._latest = epoch
        optimizer = self.model.optimizer
        rate = self.schedule(epoch, optimizer.learning_rate) if self._takes_rate else self.schedule(epoch)
        optimizer.learning_rate = rate
        if self.verbose:
            print(f"epoch {epoch + 1}: learning rate {optimizer.learning_rate:g}", flush=True)

    def get_state(self) -> dict[str, Any]:
        return {"latest": self._latest}

    def set_state(self, state: dict[str, Any]) -> None:
        self._latest = int(state["latest"])


class ReduceLROnPlateau(Callback):
    """Multiplies the learning rate when a number has not improved for some epochs.

    Epochs without the validation that the number comes from count for nothing.

    Args:
        monitor: the number; ``"loss"``, a metric, or either after ``val_``.
        factor: what the rate is multiplied by, below 1.
        patience: epochs without improvement before that.
        mode: see `Monitor`.
        min_delta: changes by less count for nothing.
        cooldown: epochs after a reduction that do not count.
        min_lr: the rate never falls below.
        verbose: anything but 0 prints each new rate.

    >>> import chainrule as cr
    >>> cr.callbacks.ReduceLROnPlateau(factor=0.5).factor
    0.5
    """

    changes_rate = True

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: Mode = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        if not 0 < factor < 1:
            raise ConfigError(f"ReduceLROnPlateau: factor lies between 0 and 1, got {factor!r}")
        self._settings = (monitor, mode, min_delta, None, "ReduceLROnPlateau")
        self.monitor = Monitor(*self._settings)
        self.factor, self.patience, self.verbose = float(factor), patience, verbose
        self.cooldown, self.min_lr = cooldown, float(min_lr)
        self.wait = self.cooling = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        self.monitor = Monitor(*self._settings)
        self.wait = self.cooling = 0
        if self.model.optimizer.schedule is not None:
            raise ConfigError("ReduceLROnPlateau: the optimizer follows a schedule; give it a number instead")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.cut_off:
            return
        value = self.monitor.value(logs, self.params, epoch)
        if value is None:
            return
        if self.cooling:
            self.cooling, self.wait = self.cooling - 1, 0
        if self.monitor.improves(value):
            self.wait = 0
        elif not self.cooling:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        optimizer = self.model.optimizer
        if optimizer.learning_rate > self.min_lr:
            optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
            self.cooling, self.wait = self.cooldown, 0
            if self.verbose:
                print(f"epoch {epoch + 1}: learning rate reduced to {optimizer.learning_rate:g}", flush=True)

    def get_state(self) -> dict[str, Any]:
        return {"best": as_json(self.monitor.best), "wait": self.wait, "cooling": self.cooling}

    def set_state(self, state: dict[str, Any]) -> None:
        self.monitor.best = from_json(state["best"])
        self.wait, self.cooling = int(state["wait"]), int(state["cooling"])
