"""An exception out of a signal handler may come between any two lines; no thread is lost by it, and no later call."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from chainrule.engines.native import call as call_module
from chainrule.engines.native import threads
from chainrule.engines.native.driver import Field
from tests.engines.native.runtime.running import Loaded, in_thread, planned
from tests.engines.native.toys import ToyCall

WATCHED = (threads.__file__, call_module.__file__)
SIZES = [40, 3, 17]


@contextmanager
def interrupted_at(lines: set[int]) -> Iterator[Callable[[], int]]:
    """Raise KeyboardInterrupt before those lines of pool and block that this thread comes to, counted from 0.

    Gives how many lines it came to.
    """
    count = -1

    def line(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count in lines:
                raise KeyboardInterrupt
        return line

    def function(frame: FrameType, event: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename in WATCHED else None

    before = sys.gettrace()
    sys.settrace(function)
    try:
        yield lambda: count + 1
    finally:
        sys.settrace(before)


def wait_until_idle(pool: threads.Pool) -> bool:
    """A worker may just be on its way out."""
    give_up = time.monotonic() + 10
    while not all(worker.idle for worker in pool._workers) and time.monotonic() < give_up:
        time.sleep(0.0005)
    return all(worker.idle for worker in pool._workers)


@pytest.mark.parametrize("distance", [None, 1, 2, 3, 5])
@pytest.mark.slow
def test_no_interrupt_loses_a_worker_or_a_step(slow: Loaded, pool: threads.Pool, distance: int | None) -> None:
    """Before any line, and a second time some lines after it."""
    driver, toys = slow
    call, expected = planned(slow, SIZES)
    pool.run(driver.entry, call.block, 3)
    with interrupted_at(set()) as lines:
        pool.run(driver.entry, call.block, 3)
    for first in range(lines()):
        call = ToyCall(driver, SIZES)
        places = {first} if distance is None else {first, first + distance}
        with contextlib.suppress(KeyboardInterrupt), interrupted_at(places):
            pool.run(driver.entry, call.block, 3)
        assert call.result == toys.expected(SIZES[: call.block.done], (31, 37, 41))
        call.clear()
        assert pool.run(driver.entry, call.block, 3) == 3
        assert call.result == expected
        assert wait_until_idle(pool)
        assert not pool._elsewhere()
    assert len(pool._workers) == 2


def left_waiting(loaded: Loaded, pool: threads.Pool, monkeypatch: pytest.MonkeyPatch) -> ToyCall:
    """A call whose workers wait inside for a caller that was interrupted twice."""
    call = ToyCall(loaded[0], SIZES)
    give = threads._Worker.give

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    def gave(worker: threads._Worker, job: threads._Call, thread: int) -> None:
        give(worker, job, thread)
        if thread == 2:
            give_up = time.monotonic() + 10
            while call.block._get(Field.GATE) & 3 < 2 and time.monotonic() < give_up:
                time.sleep(0.0005)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads._Worker, "give", gave)
        patch.setattr(threads._Call, "call_off", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.run(call.driver.entry, call.block, 3)
    return call


def test_the_next_call_lets_out_who_waits_for_this_thread(
    slow: Loaded, pool: threads.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_waiting(slow, pool, monkeypatch)
    assert not any(worker.idle for worker in pool._workers)
    other, expected = planned(slow, SIZES)
    assert pool.run(other.driver.entry, other.block, 1) == 3
    assert other.result == expected
    assert wait_until_idle(pool)


@pytest.mark.parametrize("count", [1, 3])
def test_the_next_call_of_the_block_lets_out_who_waits_there(
    slow: Loaded, pool: threads.Pool, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    call = left_waiting(slow, pool, monkeypatch)
    done: list[int] = []
    in_thread(lambda: done.append(pool.run(call.driver.entry, call.block, count))).join()
    assert done == [3]
    assert call.result == slow[1].expected(SIZES, (31, 37, 41))
    assert wait_until_idle(pool)
