"""Callbacks that end a training."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from chainrule.checks import check_at_least
from chainrule.graph.op import Array
from chainrule.train.callback import Callback, Logs, as_json, from_json
from chainrule.train.callbacks.monitor import Mode, Monitor
from chainrule.train.callbacks.saving import SwapEMAWeights, averaged

__all__ = ["EarlyStopping", "TerminateOnNaN"]


class EarlyStopping(Callback):
    """Ends the training when a number has not improved for some epochs.

    Epochs without the validation that the number comes from count for nothing.

    Args:
        monitor: the number; ``"loss"``, a metric, or either after ``val_``.
        min_delta: changes by less count for nothing.
        patience: epochs without improvement after which the training ends.
        mode: see `Monitor`.
        baseline: what must be beaten, too, before an improvement counts for `patience`.
        restore_best_weights: give the model the weights of its best epoch at the end, whether or not the baseline was
            beaten; with `SwapEMAWeights` the averaged ones, wherever that stands among the callbacks.
        start_from_epoch: epochs at the beginning that do not count.

    Attributes:
        stopped_epoch: the epoch after which the training ended; 0 if it went on to its end.
        best_epoch: the epoch with the best number.

    >>> import chainrule as cr
    >>> cr.callbacks.EarlyStopping("val_accuracy", patience=3).patience
    3
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: Mode = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        self._settings = (monitor, mode, min_delta, None, "EarlyStopping")
        self.monitor = Monitor(*self._settings)
        self.baseline = None if baseline is None else float(baseline)
        self.patience = check_at_least(patience, 0, "EarlyStopping: patience")
        self.start_from_epoch = check_at_least(start_from_epoch, 0, "EarlyStopping: start_from_epoch")
        self.restore_best_weights = bool(restore_best_weights)
        self.wait, self.stopped_epoch, self.best_epoch = 0, 0, 0
        self.best_weights: list[Array] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self.monitor = Monitor(*self._settings)
        self.wait, self.stopped_epoch, self.best_epoch, self.best_weights = 0, 0, 0, None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.cut_off:
            return
        value = self.monitor.value(logs, self.params, epoch)
        if value is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self.monitor.improves(value):
            self._keep(epoch)
            if self.baseline is None or self.monitor.beats(value, self.baseline):
                self.wait = 0
        elif self.restore_best_weights and self.best_weights is None:
            self._keep(epoch)
        if self.wait > 0 and self.wait >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs = None) -> None:
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def _keep(self, epoch: int) -> None:
        self.best_epoch = epoch
        if self.restore_best_weights:
            swapped = any(isinstance(callback, SwapEMAWeights) for callback in self.fitting.chain)
            with averaged(self.model) if swapped else contextlib.nullcontext():
                self.best_weights = self.model.get_weights()

    def get_state(self) -> dict[str, Any]:
        return {
            "best": as_json(self.monitor.best),
            "wait": self.wait,
            "stopped_epoch": self.stopped_epoch,
            "best_epoch": self.best_epoch,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self.monitor.best = from_json(state["best"])
        self.wait, self.stopped_epoch, self.best_epoch = (
            int(state[name]) for name in ("wait", "stopped_epoch", "best_epoch")
        )

    def get_arrays(self) -> dict[str, Array]:
        return {} if self.best_weights is None else {str(i): array for i, array in enumerate(self.best_weights)}

    def set_arrays(self, arrays: dict[str, Array]) -> None:
        self.best_weights = [arrays[str(i)] for i in range(len(arrays))] or None


class TerminateOnNaN(Callback):
    """Ends the training when the loss is no longer finite, and says at which step that began.

    Args:
        interval: how many seconds may pass between two looks.

    Attributes:
        step: the first step, counted from 1 over all trainings of the model, whose loss was not finite in the last
            training; None if there is none.

    >>> import chainrule as cr
    >>> cr.callbacks.TerminateOnNaN().step is None
    True
    """

    def __init__(self, interval: float = 0.5) -> None:
        self.interval = float(interval)
        self.step: int | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self.step = None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._look()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._look()

    def tell(self, text: str) -> None:
        """Say what a user should know, on standard error."""
        print(text, file=sys.stderr, flush=True)

    def _look(self) -> None:
        if self.step is None and self.model.objective.first_bad_step:
            self.step = self.model.objective.first_bad_step
            self.tell(f"the loss is not finite from step {self.step} on; the training ends here")
            self.model.stop_training = True
