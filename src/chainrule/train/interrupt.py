"""Ctrl-C and SIGTERM that take effect between two steps, so that no step is torn."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from chainrule.engines import Stop

__all__ = ["interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Turn the first Ctrl-C or SIGTERM into a flag; a second one takes effect at once.

    At once, Ctrl-C raises KeyboardInterrupt, and SIGTERM ends the process.  A handler that the program has set before
    is called too, each time, and says alone what a second SIGTERM does.  A signal that is ignored stays ignored.
    Outside the main thread, which alone gets signals, nothing is installed.
    """
    state = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        second = state.requested
        if not second:
            state.request(number)
        handler = before[number]
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, frame)
        elif second and number != signal.SIGINT:
            signal.signal(number, handler)
            signal.raise_signal(number)
        if second and number == signal.SIGINT:
            raise KeyboardInterrupt

    try:
        for number in _SIGNALS:
            found = signal.getsignal(number)
            if found is not None and found is not signal.SIG_IGN:  # None: somebody's who knows no Python
                before[number] = found
                signal.signal(number, note)
        yield state
    finally:
        for taken, handler in before.items():
            signal.signal(taken, handler)
