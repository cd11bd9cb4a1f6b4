"""What a training takes its epochs from: an epoch, from a position on, as chunks of whole batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from chainrule.engines import Stop
from chainrule.graph.op import Array, Spec
from chainrule.ops.random import random_permutation
from chainrule.random import get_seed, words
from chainrule.train.feed import Chunk, Feed
from chainrule.train.plans import planned_size

__all__ = ["Numbered", "Position", "Supply"]

_SHUFFLE_STREAM = 0x5487F1E5
"""The random stream of the order of samples; layers' streams are hashes of their paths."""


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch: the running epoch, from 0.
        batches: how many batches of it are done.
        shuffles: epochs that the model was trained before, in all calls of `fit`; the epoch's order follows from it.
        samples: how many samples of the running epoch are done.
    """

    epoch: int
    batches: int = 0
    shuffles: int = 0
    samples: int = 0


class Supply(Protocol):
    """Epochs of batches.

    Attributes:
        batch_size: samples of a batch, where they are alike; the largest that is expected.
        problem: why an epoch cannot be entered in its middle; empty where it can.
    """

    batch_size: int
    problem: str

    @property
    def specs(self) -> Mapping[str, Spec]:
        """A batch of each input, by name: ``x``, ``y``, and ``sample_weight`` where samples are weighted."""
        ...

    @property
    def batches(self) -> int | None:
        """How many batches an epoch has; None where nobody knows yet."""
        ...

    @property
    def samples(self) -> int | None:
        """How many samples an epoch has; None where nobody knows yet."""
        ...

    def planned(self, size: int) -> int:
        """The batch size to plan for where a batch has so many samples."""
        ...

    def epoch(self, position: Position, stop: Stop) -> Iterator[Chunk]:
        """The rest of an epoch; it may end early once `stop` is requested.

        Raises:
            DataError: samples cannot be read, or there are fewer than were promised.
        """
        ...

    def fingerprint(self) -> str | None:
        """SHA-256 over all samples, by which a training knows its data again; None where they cannot be looked at."""
        ...


class Numbered:
    """Epochs of samples that have numbers.

    Args:
        feed: the samples.
        batch_size: samples of a batch; the last one of an epoch may have fewer.
        shuffle: whether each epoch has an order of its own.
        steps_per_epoch: end an epoch after so many batches; the next one begins with an order of its own.
    """

    problem = ""

    def __init__(self, feed: Feed, batch_size: int, *, shuffle: bool, steps_per_epoch: int | None = None) -> None:
        self.feed, self.batch_size, self.shuffle = feed, batch_size, shuffle
        whole = -(-feed.count // batch_size)
        self.batches = whole if steps_per_epoch is None else min(whole, steps_per_epoch)
        self.samples = min(feed.count, self.batches * batch_size)

    @property
    def specs(self) -> Mapping[str, Spec]:
        return self.feed.specs

    def planned(self, size: int) -> int:
        return planned_size(self.batch_size, self.feed.count)

    def epoch(self, position: Position, stop: Stop) -> Iterator[Chunk]:
        order = self._order(position.shuffles)[position.batches * self.batch_size : self.samples]
        return self.feed.chunks(order, self.batch_size)

    def fingerprint(self) -> str | None:
        from chainrule.train.facts import fingerprint

        return fingerprint(self.feed)

    def _order(self, shuffles: int) -> Array:
        if not self.shuffle:
            return np.arange(self.feed.count)
        key = words(get_seed(), time=shuffles)
        return random_permutation(*key, size=self.feed.count, stream=_SHUFFLE_STREAM).data
