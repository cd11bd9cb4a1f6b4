"""An iterator that runs in a thread of its own, a few items ahead of whoever takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextvars import copy_context
from typing import Generic, TypeVar

from chainrule.engines import Stop

__all__ = ["Ahead"]

T = TypeVar("T")

_LOOK_SECONDS = 0.1  # how long who waits for an item may not notice that it should stop
_CLOSE_SECONDS = 5.0  # how long the end waits for an item that is being made


class Ahead(Generic[T]):
    """Runs an iterator ahead.

    Whatever the iterator raises is raised again where its next item would have been taken, with its traceback.  The
    iterator is closed in its own thread; one that never gives its next item is left behind, and ends with the process.

    Args:
        items: the iterator, a generator of ours; it is used by nobody else from here on.
        most: how many items may lie ready.
    """

    def __init__(self, items: Iterator[T], most: int) -> None:
        self._items, self._most = items, most
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._changed = threading.Condition()
        work = copy_context().run
        self._thread = threading.Thread(target=work, args=(self._read,), name="chainrule-batches", daemon=True)
        self._thread.start()

    def take(self, stop: Stop) -> T | None:
        """The next item; None after the last one, or once `stop` is requested."""
        with self._changed:
            while not self._ready and not self._ended and not stop.requested:
                self._changed.wait(_LOOK_SECONDS)
            if stop.requested:
                return None
            if self._ready:
                item = self._ready.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        return None

    def close(self) -> None:
        """Read no further."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(_CLOSE_SECONDS)

    def _read(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:
            self._error = error
        finally:
            try:
                getattr(self._items, "close", _nothing)()
            except BaseException as error:
                self._error = self._error or error
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Lay an item ready, and wait until there is room for another; False where none is wanted."""
        with self._changed:
            self._ready.append(item)
            self._changed.notify_all()
            while len(self._ready) >= self._most and not self._closed:
                self._changed.wait()
            return not self._closed


def _nothing() -> None: ...
