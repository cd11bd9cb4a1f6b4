"""A call that is stopped or interrupted ends after a whole step, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import time
import weakref

import pytest

from chainrule.engines import Stop
from chainrule.engines.native import threads
from chainrule.engines.native.driver import LARGEST_SEQUENCE, Field
from tests.engines.native.runtime.running import WEIGHTS, Loaded, in_thread, planned, python, sizes_of
from tests.engines.native.toys import ToyCall, load_toys


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_call_stops_after_a_whole_step(slow: Loaded, count: int) -> None:
    driver, toys = slow
    sizes = sizes_of(100_000)
    call = ToyCall(driver, sizes)
    done: list[int] = []
    running = in_thread(lambda: done.append(threads.run(driver.entry, call.block, count)))
    while call.block.done < 20:
        time.sleep(0.001)
    call.block.stop()
    running.join()
    assert 20 <= done[0] < 100_000
    assert call.result == toys.expected(sizes[: done[0]], WEIGHTS)


@pytest.mark.parametrize("count", [1, 3])
def test_what_was_asked_before_the_call_stops_it(slow: Loaded, count: int) -> None:
    call, expected = planned(slow, sizes_of(50))
    stop = Stop()
    stop.request()
    assert threads.run(call.driver.entry, call.block, count, stop) == 0
    assert threads.run(call.driver.entry, call.block, count, Stop()) == 50
    assert call.result == expected


@pytest.mark.slow
def test_a_paused_call_is_between_two_steps_and_goes_on(slow: Loaded, pool: threads.Pool) -> None:
    driver, toys = slow
    sizes = sizes_of(20_000)
    call = ToyCall(driver, sizes)
    done: list[int] = []
    running = in_thread(lambda: done.append(pool.run(driver.entry, call.block, 2)))
    while call.block.done < 20:
        time.sleep(0.001)
    pool.pause()
    paused = call.block.done
    assert 20 <= paused < 20_000
    assert call.result == toys.expected(sizes[:paused], WEIGHTS)
    time.sleep(0.01)
    assert call.block.done == paused
    pool.resume()
    running.join()
    assert done == [20_000]
    assert call.result == toys.expected(sizes, WEIGHTS)


def test_a_call_of_more_stages_than_can_be_numbered(quick: Loaded) -> None:
    call = ToyCall(quick[0], [0] * 3)
    call.block.steps = 2 * LARGEST_SEQUENCE
    call.block.open(call.block.steps, 1)
    assert call.block._get(Field.LIMIT) == LARGEST_SEQUENCE // 3


def test_an_interrupt_before_the_first_step_frees_the_workers(
    slow: Loaded, pool: threads.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, expected = planned(slow, sizes_of(50))
    give = threads._Worker.give

    def interrupted(worker: threads._Worker, job: threads._Call, thread: int) -> None:
        give(worker, job, thread)
        if thread == 2:
            time.sleep(0.02)  # the workers are inside by now, and wait
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads._Worker, "give", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.run(call.driver.entry, call.block, 4)
    assert (call.block.done, call.result) == (0, 0)
    assert pool.run(call.driver.entry, call.block, 4) == 50
    assert call.result == expected


def test_an_interrupt_while_the_block_is_taken_locks_nobody_out(quick: Loaded) -> None:
    call = ToyCall(quick[0], [1, 2])
    call.block.__enter__()
    assert threads.run(call.driver.entry, call.block, 1) == 2
    done: list[int] = []
    in_thread(lambda: done.append(threads.run(call.driver.entry, call.block, 1))).join()
    assert done == [2]


def test_a_worker_frees_itself(slow: Loaded, pool: threads.Pool) -> None:
    driver, _ = slow
    call = ToyCall(driver, [40] * 100)
    pool.run(driver.entry, call.block, 2)
    (worker,) = pool._workers
    job = threads._Call((driver.entry, call.block), call.block.open(0, 2))
    worker.call = job
    before = worker.idle
    worker.give(job, 1)
    driver.entry(call.block.address, 0, job.generation)
    give_up = time.monotonic() + 10
    while not worker.idle and time.monotonic() < give_up:
        time.sleep(0.001)
    assert (before, worker.idle) == (False, True)  # although the caller never said that it is over


def test_nothing_holds_on_to_a_call_that_is_over(pool: threads.Pool) -> None:
    driver, _ = load_toys(1)
    call = ToyCall(driver, [40] * 100)
    pool.run(driver.entry, call.block, 3)
    block, code = weakref.ref(call.block), weakref.ref(driver.entry._code)
    del call, driver
    give_up = time.monotonic() + 10
    while (
        block() is not None or code() is not None
    ) and time.monotonic() < give_up:  # a worker may just be on its way out
        time.sleep(0.001)
        gc.collect()
    assert (block(), code()) == (None, None)


INTERRUPTED = """
import os, signal, threading, time
from chainrule.engines.native import threads
from tests.engines.native.toys import ToyCall, load_toys

driver, toys = load_toys(800)
sizes = [40, 3, 17] * 30_000
call = ToyCall(driver, sizes)
alarms = []
signal.signal(signal.SIGALRM, lambda *_: alarms.append(call.block.done))

def disturb():
    while call.block.done < 100: time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGALRM)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=disturb).start()
begin = time.monotonic()
try:
    threads.run(driver.entry, call.block, 2)
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - begin < 10)
done = call.block.done
print(0 < done < len(sizes), call.result == toys.expected(sizes[:done], (31, 37, 41)))
print(len(alarms) == 1 and alarms[0] < done)
print(threads.run(driver.entry, ToyCall(driver, [1, 2]).block, 2))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no signals to one process")
@pytest.mark.slow
def test_ctrl_c_ends_a_long_call_after_a_whole_step() -> None:
    done = python(INTERRUPTED)
    assert done.stdout.split() == ["interrupted", "True", "True", "True", "True", "2"], done.stderr


ENDING = """
import atexit, threading, time
atexit.register(lambda: print(call.block.stopping, not threads._pool._running))  # runs last
from chainrule.engines.native import threads
from tests.engines.native.toys import ToyCall, load_toys

driver, _ = load_toys(800)
call = ToyCall(driver, [40] * 10_000_000)
threading.Thread(target=lambda: threads.run(driver.entry, call.block, 2), daemon=True).start()
while not call.block.done: time.sleep(0.001)
print("ends")
"""


@pytest.mark.slow
def test_the_interpreter_ends_while_a_daemon_thread_trains() -> None:
    begin = time.monotonic()
    done = python(ENDING)
    assert (done.returncode, done.stdout.split()) == (0, ["ends", "True", "True"]), done.stderr
    assert time.monotonic() - begin < 30
