"""Threads that read samples ahead, and that nobody has to wait for when a training ends early."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future

from chainrule.data.source import Source
from chainrule.graph.op import Array

__all__ = ["Readers"]

_PIECE = 16  # samples that a worker reads in one go
_PATIENCE = 1.0  # seconds that a stuck reader gets to end in


class Readers:
    """Threads that read rows of buffers, in the order in which they were asked for.

    They are daemons: a file system that hangs keeps neither Ctrl-C nor the end of the process.

    Args:
        source: what they read from.
        workers: how many there are.
    """

    def __init__(self, source: Source, workers: int) -> None:
        self._source, self._closed = source, False
        self._tasks: queue.SimpleQueue[tuple[Future[None], Array, Array] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"chainrule-reader-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, numbers: Array, rows: Array) -> list[Future[None]]:
        """Have samples read into rows of a buffer.

        Args:
            numbers: which samples.
            rows: where they go, one each.

        Returns:
            What is done when they are there, or fails with the error of the first that could not be read.
        """
        found: list[Future[None]] = []
        for low in range(0, len(numbers), _PIECE):
            future: Future[None] = Future()
            self._tasks.put((future, numbers[low : low + _PIECE], rows[low : low + _PIECE]))
            found.append(future)
        return found

    def close(self) -> None:
        """Let the threads end after the sample that each is reading."""
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, numbers, rows = task
            try:
                for row, number in enumerate(numbers):
                    if self._closed:
                        return
                    rows[row] = self._source.read(int(number))
            except BaseException as error:  # it is raised where the samples are waited for
                future.set_exception(error)
            else:
                future.set_result(None)
            del task, future, numbers, rows  # an idle thread keeps no buffer
