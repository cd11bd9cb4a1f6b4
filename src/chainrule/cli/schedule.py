"""How the learning rate changes while `train` runs."""

from __future__ import annotations

import math

from chainrule.train.callbacks import Callback, Logs

__all__ = ["SCHEDULES", "callbacks_for"]

SCHEDULES = ("constant", "cosine")


class _CosineDecay(Callback):
    """``rate(t) = rate / 2 * (1 + cos(pi t / T))`` before step t of T: from the full rate to almost none.

    The optimizer gets its own rate back at the end, so that the saved model can be trained on.

    Source: Loshchilov and Hutter, ICLR 2017, without restarts.
    """

    def on_train_begin(self, logs: Logs = None) -> None:
        self._rate = self.model.optimizer.learning_rate
        self._taken, self._total = 0, self.params["epochs"] * self.params["steps"]

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._taken += 1
        share = self._taken / self._total
        self.model.optimizer.learning_rate = self._rate / 2 * (1 + math.cos(math.pi * share))

    def on_train_end(self, logs: Logs = None) -> None:
        self.model.optimizer.learning_rate = self._rate


def callbacks_for(schedule: str) -> list[Callback]:
    """The callbacks that follow a schedule from `SCHEDULES`.

    >>> callbacks_for("constant")
    []
    """
    return [_CosineDecay()] if schedule == "cosine" else []
