"""Epochs of batches that somebody else makes.

The iterable says how samples come together and in which order.  It is read in one thread, a few batches ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np

from chainrule.engines import Stop
from chainrule.errors import ChainruleError, ConfigError, DataError, DTypeError, ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.op import Array, Spec
from chainrule.train.ahead import Ahead
from chainrule.train.feed import Chunk, batch_spec
from chainrule.train.origins import Indexed, has_length, origin
from chainrule.train.supply import Position

__all__ = ["Batches", "pair", "refuse_beside"]

AHEAD = 2
"""Chunks that lie ready before they are needed."""

Prepare = Callable[[Any], Mapping[str, Array]]


class Batches:
    """Epochs of an iterable's batches; a `Supply`.

    The first batch is read at once: it says what a batch is like.  Batches are copied, so that an iterable may use its
    memory again.

    Args:
        x: an iterable of batches; see `origins.is_batches`.
        prepare: checks a batch as the user gave it, and gives the inputs by name.
        name: how messages call the iterable.
        steps: end an epoch after so many batches.
        epoch: the first epoch.
        batch_size: the largest batch that is expected; by default the first one's.
        group: batches that must lie in one chunk.
        numbered: give each sample its number in the epoch, for augmentations.

    Raises:
        DataError: there is no batch, or the first one cannot be used.
    """

    samples: int | None = None

    def __init__(
        self,
        x: Any,
        prepare: Prepare,
        *,
        name: str = "x",
        steps: int | None = None,
        epoch: int = 0,
        batch_size: int | None = None,
        group: int = 1,
        numbered: bool = False,
    ) -> None:
        self._origin, self._prepare, self._name, self._group = origin(x), prepare, name, group
        self._numbered, self._steps = numbered, steps
        known = self._origin.count
        self.batches = steps if known is None or steps is None else min(known, steps)
        if self.batches is None:
            self.batches = known
        elif known is None and not self._origin.once:
            self.batches = None  # so many at most
        self.problem = "a generator can be run through only once" if self._origin.once else ""
        items = self._origin.open(epoch, 0)
        self._pending: tuple[int, Iterator[Any]] | None = (epoch, items)
        self._first = list(islice(items, 1))
        if not self._first:
            raise DataError(f"{name} gives no batches; expected one or more")
        self._specs: dict[str, Spec] = {}
        arrays = self._checked(self._first[0], 1, 0)
        self._specs = {key: batch_spec(array) for key, array in arrays.items()}
        self.batch_size = len(arrays["x"]) if batch_size is None else batch_size

    @property
    def specs(self) -> Mapping[str, Spec]:
        return self._specs

    def planned(self, size: int) -> int:
        """That of the largest batch expected; one that is larger still gets a plan by its own size alone."""
        return self.batch_size if size <= self.batch_size else 1 << (size - 1).bit_length()

    def fingerprint(self) -> str | None:
        return None

    def epoch(self, position: Position, stop: Stop) -> Iterator[Chunk]:
        reader = Ahead(self._read(position), AHEAD)
        try:
            while (chunk := reader.take(stop)) is not None:
                yield chunk
        finally:
            reader.close()

    def _read(self, position: Position) -> Iterator[Chunk]:
        """In the reading thread: the rest of an epoch."""
        items, owned = self._opened(position)
        number, sample = position.batches, position.samples
        group: list[Mapping[str, Array]] = []
        try:
            for item in islice(items, None if self._steps is None else max(0, self._steps - number)):
                number += 1
                group.append(self._checked(item, number, sample))
                sample += len(group[-1]["x"])
                if len(group) == self._group:
                    yield _chunk(group)
                    group = []
            if group:
                yield _chunk(group)
            if self.batches is not None and number < self.batches:
                raise DataError(self._ran_out(position.epoch, number))
            if isinstance(self._origin, Indexed):
                self._origin.ended()
        finally:
            self._origin.close(owned)

    def _opened(self, position: Position) -> tuple[Iterator[Any], Iterator[Any]]:
        """The batches from a position on, and the iterator to close afterwards."""
        pending, self._pending = self._pending, None
        if pending is not None:
            epoch, items = pending
            if self._origin.once or (epoch == position.epoch and not position.batches):
                first, self._first = self._first, []
                return chain(first, items), items
            self._origin.close(items)
        items = self._origin.open(position.epoch, position.batches)
        return items, items

    def _checked(self, item: Any, number: int, sample: int) -> dict[str, Array]:
        """A batch's inputs, like those of the first one."""
        try:
            arrays = {name: np.array(array, order="C") for name, array in self._prepare(item).items()}
            self._compare(arrays)
        except ChainruleError as error:
            raise type(error)(f"{self._name}: batch {number}: {error}") from error
        if self._numbered:
            arrays["sample"] = np.arange(sample, sample + len(arrays["x"]), dtype=np.uint32)
        return arrays

    def _compare(self, arrays: Mapping[str, Array]) -> None:
        wanted = {name: spec for name, spec in self._specs.items() if name != "sample"}
        if not wanted:
            return
        if set(wanted) != set(arrays):
            raise DataError(f"holds {', '.join(arrays)}; the first batch held {', '.join(wanted)}")
        for name, array in arrays.items():
            spec = wanted[name]
            if array.shape[1:] != spec.shape[1:]:
                raise ShapeError(
                    f"{name} has samples of shape {format_shape(array.shape[1:])}; those of the first batch have "
                    f"{format_shape(spec.shape[1:])}"
                )
            if array.dtype != spec.dtype:
                raise DTypeError(f"{name} is {array.dtype}; the first batch's was {spec.dtype}")

    def _ran_out(self, epoch: int, number: int) -> str:
        more = "; give a function that makes an iterator for each epoch, or fewer steps" if self._origin.once else ""
        return f"{self._name} ran out in epoch {epoch + 1} after {number} of {self.batches} batches{more}"


def _chunk(group: list[Mapping[str, Array]]) -> Chunk:
    """Some batches as one chunk."""
    sizes = np.array([len(batch["x"]) for batch in group], np.int64)
    if len(group) == 1:
        data: Mapping[str, Array] = group[0]
    else:
        data = {name: np.concatenate([batch[name] for batch in group]) for name in group[0]}
    return Chunk(data, np.arange(int(sizes.sum()), dtype=np.int64), sizes)


def pair(item: Any) -> tuple[Any, Any, Any]:
    """Samples, labels and weights (or None) of a batch.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        came = f"{type(item).__name__} of length {len(item)}" if has_length(item) else type(item).__name__
        raise DataError(f"{came} came; expected a pair (x, y), or (x, y, sample_weight)")
    x, y, *weight = item
    return x, y, weight[0] if weight else None


def refuse_beside(**given: Any) -> None:
    """Refuse arguments that do not go with an iterable of batches.

    Raises:
        ConfigError: naming the first that was given.
    """
    hints = {
        "y": "an iterable gives (x, y) batches; leave y out",
        "sample_weight": "an iterable gives weights itself, as (x, y, sample_weight) batches; leave sample_weight out",
        "validation_split": "an iterable cannot be split; give validation_data instead of validation_split",
    }
    for name, value in given.items():
        if value is not None and not (name == "validation_split" and value == 0):
            raise ConfigError(hints[name])
