"""One call of `fit`: epochs of batches from a position on, with callbacks around them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.engines import Stop
from chainrule.graph.op import Array
from chainrule.ops.random import random_permutation
from chainrule.random import get_seed, words
from chainrule.train.callback import Callback, longest_interval
from chainrule.train.feed import Chunk, Feed
from chainrule.train.steps import Steps

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Fitting", "Position"]

_SHUFFLE_STREAM = 0x5487F1E5
"""The random stream of the order of samples; layers' streams are hashes of their paths."""


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch: the running epoch, from 0.
        batches: how many batches of it are done.
        shuffles: epochs that the model was trained before, in all calls of `fit`; the epoch's order follows from it.
    """

    epoch: int
    batches: int = 0
    shuffles: int = 0


class Fitting:
    """A training under way.

    Args:
        model: compiled.
        feed: the samples.
        steps: what runs their batches.
        epochs: the number of the epoch to end before.
        position: where to begin.
        chain: callbacks.
        validate: evaluates what was held out, given the epoch's number; None where it did not.
        shuffle: whether each epoch has an order of its own.
        steps_per_epoch: end an epoch after so many batches; the next one goes on with an order of its own.
        stop: how the training is asked to end.

    Attributes:
        position: where it stands; it moves between two native calls.
    """

    def __init__(
        self,
        model: Model,
        feed: Feed,
        steps: Steps,
        *,
        epochs: int,
        position: Position,
        chain: Sequence[Callback],
        validate: Callable[[int], dict[str, float] | None],
        shuffle: bool,
        steps_per_epoch: int | None,
        stop: Stop,
    ) -> None:
        self.model, self.feed, self.steps = model, feed, steps
        self.epochs, self.position, self.chain = epochs, position, tuple(chain)
        self.shuffle, self.stop = shuffle, stop
        self._validate = validate
        whole = -(-feed.count // steps.batch_size)
        self.batches = whole if steps_per_epoch is None else min(whole, steps_per_epoch)

    # -- epochs -------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until the last epoch, or until someone asks to stop."""
        while self.position.epoch < self.epochs and not self._ended():
            self._epoch()

    def _ended(self) -> bool:
        return self.stop.requested or self.model.stop_training

    def _epoch(self) -> None:
        epoch = self.position.epoch
        if not self.position.batches:
            self.reset()
        self.steps.epoch = self.position.shuffles
        self.call("on_epoch_begin", epoch)
        self._batches()
        logs = self.results()
        held_out = None if self.stop.requested else self._held_out(epoch)
        logs.update({f"val_{name}": value for name, value in (held_out or {}).items()})
        if self.stop.requested:
            self.call("on_interrupt")
        else:
            self.position = Position(epoch + 1, 0, self.position.shuffles + 1)
        self.call("on_epoch_end", epoch, logs)

    def _held_out(self, epoch: int) -> dict[str, float] | None:
        """The numbers of what was held out; the running totals of the training stay as they are."""
        totals = [(total, total.numpy()) for tracker in self.trackers() for total in tracker.variables()]
        self.call("on_test_begin")
        try:
            found = self._validate(epoch)
        finally:
            for total, value in totals:
                total.assign(value)
        self.call("on_test_end", found)
        return found

    # -- batches ------------------------------------------------------------------------------------------

    def _batches(self) -> None:
        """The epoch's batches that are left, as many in one call as the callbacks leave room for."""
        size = self.steps.batch_size
        order = self._order()[self.position.batches * size : self.batches * size]
        pace = _Pace(longest_interval(self.chain), self.steps.group)
        for chunk in self.feed.chunks(order, size):
            self._chunk(chunk, pace)
            if self._ended():
                return

    def _chunk(self, chunk: Chunk, pace: _Pace) -> None:
        total, done = -(-len(chunk.rows) // self.steps.batch_size), 0
        while done < total and not self._ended():
            self.call("on_train_batch_begin", self.position.batches)
            began = time.perf_counter()
            ran = self.steps.run(chunk, done, min(pace.together, total - done), self.stop)
            pace.took(ran, time.perf_counter() - began)
            done += ran
            self.position = replace(self.position, batches=self.position.batches + ran)
            if ran:
                self.call("on_train_batch_end", self.position.batches - 1, self.results())

    def _order(self) -> Array:
        if not self.shuffle:
            return np.arange(self.feed.count)
        key = words(get_seed(), time=self.position.shuffles)
        return random_permutation(*key, size=self.feed.count, stream=_SHUFFLE_STREAM).data

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
