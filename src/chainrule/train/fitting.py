"""One call of `fit`: epochs of batches from a position on, with callbacks around them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chainrule.engines import Stop
from chainrule.errors import DataError
from chainrule.train.callback import Callback, longest_interval
from chainrule.train.feed import Chunk
from chainrule.train.steps import Steps
from chainrule.train.supply import Position, Supply

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Fitting", "Position"]


class Fitting:
    """A training under way.

    Args:
        model: compiled.
        supply: the samples.
        steps: what runs their batches.
        epochs: the number of the epoch to end before.
        position: where to begin.
        chain: callbacks; those that are called last come after the others.
        validate: evaluates what was held out, given the epoch's number; None where it did not.
        stop: how the training is asked to end.
        held_out: the samples that `validate` takes; None where there are none.

    Attributes:
        position: where it stands; it moves between two native calls.
        seen: samples that this call of `fit` took of the running epoch, or of the one that has just ended.
        params: what callbacks know of it.
        finished: whether it came to its end: not cut off by an error or a signal.
        cut_off: whether the last epoch was interrupted.
        schedule: what the optimizer followed before callbacks had a say; None for a number.
    """

    def __init__(
        self,
        model: Model,
        supply: Supply,
        steps: Steps,
        *,
        epochs: int,
        position: Position,
        chain: Sequence[Callback],
        validate: Callable[[int], dict[str, float] | None],
        stop: Stop,
        held_out: Supply | None = None,
    ) -> None:
        self.model, self.supply, self.steps, self.held_out = model, supply, steps, held_out
        self.epochs, self.position = epochs, position
        self.chain = tuple(sorted(chain, key=lambda callback: callback.called_last))
        self.stop, self.schedule = stop, model.optimizer.schedule
        self._validate = validate
        self.params: dict[str, Any] = {}
        self.finished = self.cut_off = False
        self.seen = 0

    # -- epochs -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the last epoch, or until someone asks to stop."""
        while self.position.epoch < self.epochs and not self._ended():
            self._epoch()
        self.finished = not self.stop.requested

    def _ended(self) -> bool:
        return self.stop.requested or self.model.stop_training

    def _epoch(self) -> None:
        epoch, self.seen = self.position.epoch, 0
        if not self.position.batches:
            self.reset()
        self.steps.epoch = self.position.shuffles
        self.call("on_epoch_begin", epoch, {})
        self._batches()
        logs = self.results()
        held_out = None if self.stop.requested else self._held_out(epoch)
        logs |= {f"val_{name}": value for name, value in (held_out or {}).items()} | self._rate()
        self.cut_off = self.stop.requested
        if self.cut_off:
            self.call("on_interrupt")
        else:
            self.position = Position(epoch + 1, 0, self.position.shuffles + 1)
        if not self.cut_off or self.position.batches:  # else there is nothing of it to tell
            self.call("on_epoch_end", epoch, logs)

    def _held_out(self, epoch: int) -> dict[str, float] | None:
        """The numbers of what was held out; the running totals of the training stay as they are.

        None, and no callback hears of it, where nothing was held out or the epoch is not one to validate after.
        """
        often = self.params.get("validation_freq")
        if often is None or (epoch + 1) % often:
            return None
        totals = [(total, total.numpy()) for tracker in self.trackers() for total in tracker.variables()]
        self.call("on_test_begin", {})
        try:
            found = self._validate(epoch)
        finally:
            for total, value in totals:
                total.assign(value)
        self.call("on_test_end", found or {})
        return found

    def _rate(self) -> dict[str, float]:
        """The learning rate of the latest step, where it is not the same in all epochs."""
        optimizer = self.model.optimizer
        if optimizer.schedule is None and not any(callback.changes_rate for callback in self.chain):
            return {}
        latest = max(0, int(optimizer.iterations.data) - 1)
        return {"learning_rate": float(optimizer.rates(latest, 1)[0])}

    # -- batches ------------------------------------------------------------------------------------------

    def _batches(self) -> None:
        """The epoch's batches that are left, as many in one call as the callbacks leave room for."""
        pace = _Pace(longest_interval(self.chain), self.steps.group)
        chunks = self.supply.epoch(self.position, self.stop)
        try:
            for chunk in chunks:
                self._chunk(chunk, pace)
                if self._ended():
                    return
        finally:
            closing = getattr(chunks, "close", None)
            if closing is not None:
                closing()
        if not self.position.batches and not self.stop.requested:
            raise DataError(f"there are no batches in epoch {self.position.epoch + 1}; expected one or more")
        if self.supply.samples is None:  # nobody knew before
            self.params |= {"steps": self.position.batches, "samples": self.position.samples}

    def _chunk(self, chunk: Chunk, pace: _Pace) -> None:
        total, done = self.steps.count(chunk), 0
        while done < total and not self._ended():
            self.call("on_train_batch_begin", self.position.batches, {})
            began = time.perf_counter()
            ran = self.steps.run(chunk, done, min(pace.together, total - done), self.stop)
            pace.took(ran, time.perf_counter() - began)
            samples = self.steps.samples(chunk, done, ran)
            done += ran
            self.seen += samples
            position = self.position
            self.position = replace(position, batches=position.batches + ran, samples=position.samples + samples)
            if ran:
                self.call("on_train_batch_end", self.position.batches - 1, self.results())

    def plan_text(self) -> str:
        """How a step is computed, in words; empty for an engine that plans nothing."""
        from chainrule.train.facts import plan_text

        return plan_text(self.steps.engines())

    # -- what callbacks and metrics see ----------------------------------------------------------------------

    def call(self, event: str, *args: Any) -> None:
        """Tell every callback."""
        for callback in self.chain:
            getattr(callback, event)(*args)

    def trackers(self) -> tuple[Any, ...]:
        """The mean loss and every metric."""
        return self.model.objective.trackers()

    def reset(self) -> None:
        """Begin the totals of loss and metrics anew."""
        for tracker in self.trackers():
            tracker.reset_state()

    def results(self) -> dict[str, float]:
        """The numbers so far."""
        return {tracker.name: tracker.result() for tracker in self.trackers() if tracker.is_scalar}


class _Pace:
    """How many batches one call runs, so that callbacks are called about as often as they want.

    Args:
        interval: seconds between two calls of the batch methods; 0 for each batch, infinite for none.
        group: batches that belong together.
    """

    def __init__(self, interval: float, group: int) -> None:
        self._interval, self._group = interval, group
        self.together = group if math.isfinite(interval) else 1 << 62

    def took(self, batches: int, seconds: float) -> None:
        """Take a call's time into account."""
        if batches and 0 < self._interval < math.inf:
            fitting = int(self._interval * batches / max(seconds, 1e-9))
            wanted = max(1, min(2 * self.together, fitting))
            self.together = max(self._group, wanted // self._group * self._group)
