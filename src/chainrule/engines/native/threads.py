"""The threads that run native steps: parked Python threads, woken for a call.

The caller is thread 0 and never needs the others: what they do not do, it does.  So a worker that is busy, slow,
or gone costs time, never correctness, and the bits are the same for any number of threads.

Native code runs without the interpreter lock, but the interpreter sees a signal such as Ctrl-C only in Python code
of the main thread.  There, calls are cut into slices of some steps, short enough not to be noticed.

What a signal handler raises may come between any two instructions of Python, those that clean up included.  So nothing
hangs on cleaning up: whether a call is over is read off its gate, and the caller's next call lets out what waits at
the gate of one that it never entered.

A fork waits until all other threads are between two steps: the child finds the variables after a whole step.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from chainrule.engines.checks import Stop
from chainrule.engines.native.call import CallBlock
from chainrule.engines.native.jit import NativeFunction
from chainrule.errors import ConfigError, EngineError

__all__ = ["Pool", "get_threads", "processors", "run", "set_threads"]

MOST_THREADS = 1024

# How long the main thread stays in native code before it looks for signals.
_SLICE_SECONDS = 0.05
_GROWTH = 8

# Where a container finds its share of time: microseconds of work and of clock.
_CGROUP = Path("/sys/fs/cgroup/cpu.max")

# How long the end of the interpreter waits for a step that runs in a daemon thread.
_EXIT_SECONDS = 60.0


@dataclass(slots=True, eq=False)
class _Call:
    """One entry into native code.

    Attributes:
        work: the driver's function and the memory of the call; None when the call is over.
        generation: the number by which the gate knows it.
        caller: the thread that is thread 0.
    """

    work: tuple[NativeFunction, CallBlock] | None
    generation: int = 0
    caller: int = field(default_factory=threading.get_ident)

    @property
    def block(self) -> CallBlock | None:
        """The memory of the call."""
        work = self.work
        return None if work is None else work[1]

    @property
    def over(self) -> bool:
        """Whether the caller has been through native code, or has not opened the gate yet."""
        block = self.block
        return block is None or not block.is_open(self.generation)

    def enter(self, thread: int) -> None:
        """Take part as thread number `thread`, if it is not over; memory and code stay alive meanwhile."""
        work = self.work
        if work is not None:
            entry, block = work
            entry(block.address, thread, self.generation)

    def call_off(self) -> None:
        """Let out the workers that wait for a caller which was kept from entering; for whoever holds the block."""
        block = self.block
        if block is not None and block.is_open(self.generation):
            block.call_off()
            self.enter(0)


class _Worker:
    """A parked thread.

    Its mailbox holds one call: a newer one replaces an older one that it did not come to, which is over by then.
    """

    def __init__(self, number: int) -> None:
        self.call: _Call | None = None
        self._mail: deque[tuple[_Call, int]] = deque(maxlen=1)
        self._parked = threading.Lock()
        self._parked.acquire()
        threading.Thread(target=self._serve, name=f"chainrule-{number}", daemon=True).start()

    @property
    def idle(self) -> bool:
        """Whether no running call counts on it."""
        call = self.call
        return call is None or call.over

    def give(self, call: _Call, thread: int) -> None:
        """Let it take part in a call."""
        self._mail.append((call, thread))
        if self._parked.locked():
            self._parked.release()

    def _serve(self) -> None:
        while True:
            self._parked.acquire()
            with contextlib.suppress(IndexError):
                call, thread = self._mail.popleft()
                call.enter(thread)
                if self.call is call:  # an interrupted caller may not have said that it is over
                    self.call = None
                del call


class Pool:
    """Worker threads, made when they are first wanted and shared by all callers of the process."""

    def __init__(self) -> None:
        # Taken to enter native code, and held over a fork.
        self._lock = threading.RLock()
        self._workers: list[_Worker] = []
        self._running: set[CallBlock] = set()
        self._closing = False

    def run(self, entry: NativeFunction, block: CallBlock, threads: int | None = None, stop: Stop | None = None) -> int:
        """Run the steps of a call; returns how many were run.

        A caller that finds the workers busy with another call gets those that are left, or runs alone.

        Args:
            entry: the driver's function.
            block: the call, its steps set.
            threads: how many take part at most; `get_threads()` if None.
            stop: may ask the call to end after the step it is in, or before the first one if it was asked already.

        Raises:
            EngineError: another thread runs this block, or the interpreter is ending.
            KeyboardInterrupt: Ctrl-C; whole steps were run, `block.done` says how many.
        """
        wanted = get_threads() if threads is None else threads
        with block:
            block.begin()
            with contextlib.nullcontext() if stop is None else stop.stopping(block.stop):
                in_main_thread = threading.current_thread() is threading.main_thread()
                while block.done < block.steps and not block.stopping:
                    self._enter(entry, block, _slice(block) if in_main_thread else block.steps, wanted)
            return block.done

    def pause(self) -> None:
        """Let no call enter native code until `resume`, and wait until those of other threads are out of it."""
        self._lock.acquire()
        self._let_out(threading.get_ident())
        # One whose gate is closed has come out: its thread may be in a signal handler that waits for the lock.
        while others := [block for block in self._elsewhere() if not block.closed]:
            for block in others:
                block.pause()
            time.sleep(0.001)

    def resume(self) -> None:
        """Let calls go on after `pause`."""
        self._lock.release()

    def close(self) -> None:
        """Let no call begin, and end the running ones after the step they are in."""
        with self._lock:
            self._closing = True
        give_up = time.monotonic() + _EXIT_SECONDS
        while (others := self._elsewhere()) and time.monotonic() < give_up:
            for block in others:
                block.stop()
            time.sleep(0.001)

    def _elsewhere(self) -> list[CallBlock]:
        """The calls of other threads that are in native code, or on their way; an interrupted one is in no thread."""
        here = threading.get_ident()
        return [block for block in tuple(self._running) if block.holder not in (here, None)]

    def _enter(self, entry: NativeFunction, block: CallBlock, steps: int, threads: int) -> None:
        """Go through native code once, for some steps, with the workers that are free."""
        call = _Call((entry, block))
        try:
            with self._lock:
                if self._closing:
                    raise EngineError("the interpreter is ending; no training step can be run any more")
                self._running.add(block)
                self._let_out(call.caller, block)
                workers = self._reserve(call, threads - 1)
                first = block.done
                call.generation = block.open(steps, 1 + len(workers))  # from here on they are not idle for others
            for thread, worker in enumerate(workers, 1):
                worker.give(call, thread)
            start = time.perf_counter_ns()
            call.enter(0)
            block.account(block.done - first, time.perf_counter_ns() - start)
        finally:
            try:
                call.call_off()
                call.work = None
            finally:
                self._running.discard(block)

    def _reserve(self, call: _Call, count: int) -> list[_Worker]:
        """So many idle workers, or fewer."""
        if count < 1:
            return []
        while len(self._workers) < count:
            try:
                self._workers.append(_Worker(len(self._workers) + 1))
            except RuntimeError:  # the system or an ending interpreter allows no more threads
                break
        found = [worker for worker in self._workers if worker.idle][:count]
        for worker in found:
            worker.call = call
        return found

    def _let_out(self, caller: int, held: CallBlock | None = None) -> None:
        """Free the workers that wait for this thread, or for whoever held a block that this thread holds now.

        That thread is not inside: it was interrupted twice, or is in a signal handler.
        """
        for worker in self._workers:
            call = worker.call
            if call is not None and (call.caller == caller or call.block is held):
                call.call_off()


def run(entry: NativeFunction, block: CallBlock, threads: int | None = None, stop: Stop | None = None) -> int:
    """`Pool.run` with the threads of this process."""
    return _pool.run(entry, block, threads, stop)


def get_threads() -> int:
    """How many threads a step runs on: what `set_threads` or ``CHAINRULE_THREADS`` said, else one per processor.

    Raises:
        ConfigError: ``CHAINRULE_THREADS`` is no number of threads.
    """
    return _chosen if _chosen is not None else _default_threads()


def set_threads(count: int) -> None:
    """Choose how many threads steps run on from now on, in this process.  Results do not depend on it.

    Raises:
        ConfigError: not an integer from 1 to 1024.
    """
    global _chosen
    if type(count) is not int or not 1 <= count <= MOST_THREADS:
        raise ConfigError(f"set_threads: {count!r} threads; expected an integer from 1 to {MOST_THREADS}")
    _chosen = count


@functools.cache
def _default_threads() -> int:
    named = os.environ.get("CHAINRULE_THREADS", "")
    if named:
        if not (named.isascii() and named.isdigit() and 1 <= int(named) <= MOST_THREADS):
            raise ConfigError(f"CHAINRULE_THREADS is {named!r}; expected an integer from 1 to {MOST_THREADS}")
        return int(named)
    return max(1, min(processors(), _quota(_CGROUP), MOST_THREADS))


def processors() -> int:
    """How many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = os.cpu_count() if affinity is None else len(affinity(0))
    return count or 1


def _quota(path: Path) -> int:
    """How many processors' time a container on Linux may use; more threads would only be stopped in turn."""
    try:
        quota, period = path.read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # another system, or no limit ("max")
        return MOST_THREADS


def _slice(block: CallBlock) -> int:
    """How many steps the main thread may run before it looks for signals; one where nothing is known."""
    if not block.seconds_per_step:
        return 1
    return max(1, min(int(_SLICE_SECONDS / block.seconds_per_step), _GROWTH * block.latest_steps))


def _renew() -> None:
    """Begin anew in a forked child, which has none of the threads."""
    global _pool
    _pool.resume()
    _pool = Pool()


_chosen: int | None = None
_pool = Pool()
atexit.register(lambda: _pool.close())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _pool.pause(), after_in_parent=lambda: _pool.resume(), after_in_child=_renew)
