"""Epochs of batches that somebody else makes: generators, loaders, sequences, functions that give them.

The iterable says how samples come together and in which order.  It is read in one thread, a few batches ahead.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np

from chainrule.engines import Stop
from chainrule.errors import ChainruleError, ConfigError, DataError, DTypeError, ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Tensor
from chainrule.train.ahead import Ahead
from chainrule.train.feed import Chunk, batch_spec
from chainrule.train.supply import Position

__all__ = ["Batches", "is_batches", "is_once", "pair", "refuse_beside"]

AHEAD = 2
"""Chunks that lie ready before they are needed."""

Prepare = Callable[[Any], Mapping[str, Array]]


# -- what counts as batches ----------------------------------------------------------------------------------


def is_batches(x: Any, y: Any = None) -> bool:
    """Whether x is an iterable of batches, and not an array or something that NumPy can make one of.

    Args:
        x: what a user gave as data.
        y: the labels beside it; a sequence with labels is data, not batches.
    """
    if isinstance(x, np.ndarray | Tensor | str | bytes | Mapping | range) or hasattr(x, "__array__"):
        return False
    if isinstance(x, list | tuple):
        return y is None and bool(x) and all(isinstance(item, tuple) and len(item) in (2, 3) for item in x)
    if hasattr(x, "__next__") or (callable(x) and not hasattr(x, "__iter__") and not _indexable(x)):
        return True
    return y is None and (hasattr(x, "__iter__") or _indexable(x)) and not _is_buffer(x)


def is_once(x: Any) -> bool:
    """Whether it can be run through only once, as a generator."""
    return hasattr(x, "__next__")


def _indexable(x: Any) -> bool:
    return hasattr(x, "__len__") and hasattr(x, "__getitem__")


def _is_buffer(x: Any) -> bool:
    try:
        memoryview(x)
    except TypeError:
        return False
    return True


# -- where they come from ------------------------------------------------------------------------------------


class _Origin(ABC):
    """Gives each epoch's batches.

    Attributes:
        count: batches of an epoch; None where it does not say.
        once: whether there is one iterator for all epochs.
    """

    count: int | None = None
    once = False

    @abstractmethod
    def open(self, epoch: int, start: int) -> Iterator[Any]:
        """An epoch's batches from a batch number on."""

    def close(self, items: Iterator[Any]) -> None:
        """Let an iterator go that `open` gave."""
        closing = getattr(items, "close", None)
        if closing is not None:
            closing()


class _Once(_Origin):
    """An iterator of the user's, which stays the user's: it is not closed."""

    once = True

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def open(self, epoch: int, start: int) -> Iterator[Any]:
        return self._items

    def close(self, items: Iterator[Any]) -> None: ...


class _Again(_Origin):
    """Something that gives a new iterator each time."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self.count = len(items) if _has_length(items) else None

    def open(self, epoch: int, start: int) -> Iterator[Any]:
        return _skipped(iter(self._items), start)


class _Indexed(_Origin):
    """Batches by number, as a Keras `Sequence` gives them; its `on_epoch_end` is called after each epoch."""

    def __init__(self, items: Any) -> None:
        self._items, self.count = items, len(items)
        self._epoch: int | None = None

    def open(self, epoch: int, start: int) -> Iterator[Any]:
        if self._epoch is None:
            self._epoch = epoch
        while self._epoch < epoch:  # a training that goes on: as if the epochs before had been read here
            self.ended()
        return (self._items[number] for number in range(start, len(self._items)))

    def ended(self) -> None:
        """An epoch was read to its end."""
        assert self._epoch is not None
        self._epoch += 1
        getattr(self._items, "on_epoch_end", lambda: None)()


class _Made(_Origin):
    """A function that makes each epoch's iterator."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make, self._takes_epoch = make, _takes_epoch(make)

    def open(self, epoch: int, start: int) -> Iterator[Any]:
        made = self._make(epoch) if self._takes_epoch else self._make()
        if _indexable(made) and not hasattr(made, "__iter__"):
            return (made[number] for number in range(start, len(made)))
        if not hasattr(made, "__iter__"):
            raise DataError(f"the function that makes batches gave {type(made).__name__}; expected an iterable of them")
        return _skipped(iter(made), start)


def _origin(x: Any) -> _Origin:
    if is_once(x):
        return _Once(x)
    if _indexable(x):
        return _Indexed(x)
    return _Again(x) if hasattr(x, "__iter__") else _Made(x)


def _has_length(x: Any) -> bool:
    """Whether `len` gives a number; some loaders have the method and no length."""
    try:
        len(x)
    except TypeError:
        return False
    return True


def _skipped(items: Iterator[Any], start: int) -> Iterator[Any]:
    """What comes after so many items."""
    next(islice(items, start, start), None)
    return items


def _takes_epoch(make: Callable[..., Any]) -> bool:
    """Whether a function asks for the epoch: by a parameter that it needs, or one of that name."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return any(p.default is p.empty for p in positional) or any(p.name == "epoch" for p in positional[:1])


# -- epochs --------------------------------------------------------------------------------------------------


class Batches:
    """Epochs of an iterable's batches; a `Supply`.

    The first batch is read at once: it says what a batch is like.  Batches are copied, so that an iterable may use its
    memory again.

    Args:
        x: an iterable of batches; see `is_batches`.
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
        self._origin, self._prepare, self._name, self._group = _origin(x), prepare, name, group
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
            if isinstance(self._origin, _Indexed):
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
        came = f"{type(item).__name__} of length {len(item)}" if _has_length(item) else type(item).__name__
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
