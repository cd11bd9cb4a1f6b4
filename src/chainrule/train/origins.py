"""Where batches of somebody else's come from: generators, loaders, sequences, functions that give them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

import numpy as np

from chainrule.errors import DataError
from chainrule.graph.tensor import Tensor

__all__ = ["Indexed", "Origin", "has_length", "is_batches", "is_once", "origin"]


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


class Origin(ABC):
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


class _Once(Origin):
    """An iterator of the user's, which stays the user's: it is not closed."""

    once = True

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def open(self, epoch: int, start: int) -> Iterator[Any]:
        return self._items

    def close(self, items: Iterator[Any]) -> None: ...


class _Again(Origin):
    """Something that gives a new iterator each time."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self.count = len(items) if has_length(items) else None

    def open(self, epoch: int, start: int) -> Iterator[Any]:
        return _skipped(iter(self._items), start)


class Indexed(Origin):
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


class _Made(Origin):
    """A function that makes each epoch's iterator."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make, self._way = make, _way_of_epoch(make)

    def open(self, epoch: int, start: int) -> Iterator[Any]:
        named = {"epoch": epoch} if self._way == "named" else {}
        made = self._make(epoch) if self._way == "first" else self._make(**named)
        if _indexable(made) and not hasattr(made, "__iter__"):
            return (made[number] for number in range(start, len(made)))
        if not hasattr(made, "__iter__"):
            raise DataError(f"the function that makes batches gave {type(made).__name__}; expected an iterable of them")
        return _skipped(iter(made), start)


def origin(x: Any) -> Origin:
    if is_once(x):
        return _Once(x)
    if _indexable(x):
        return Indexed(x)
    return _Again(x) if hasattr(x, "__iter__") else _Made(x)


def has_length(x: Any) -> bool:
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


def _way_of_epoch(make: Callable[..., Any]) -> Literal["named", "first", "not"]:
    """How a function asks for the epoch: by a parameter of that name, else by a first one that it needs."""
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return "not"
    if any(p.name == "epoch" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
        return "named"
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return "first" if any(p.default is p.empty for p in positional) else "not"
