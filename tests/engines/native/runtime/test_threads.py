"""The same bits whatever the threads do: how many there are, and when they come."""

from __future__ import annotations

import os
import threading
import time
from functools import partial

import numpy as np
import pytest

from chainrule.engines.native import threads
from chainrule.engines.native.call import CallBlock, Driver
from chainrule.engines.native.driver import Stage, UnitCount, Work, driver_symbols, emit_driver
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.jit import Library, compile_object
from chainrule.engines.native.platform import host
from chainrule.engines.native.types import I64
from chainrule.errors import EngineError
from tests.engines.native.runtime.running import Loaded, hogs, in_thread, planned, sizes_of
from tests.engines.native.toys import HIGH, KERNEL, LOW, ToyCall, entry, load_toys

# --- Bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.slow
def test_threads_do_not_change_bits(quick: Loaded, count: int) -> None:
    call, expected = planned(quick, sizes_of(8000))
    assert threads.run(call.driver.entry, call.block, count) == 8000
    assert call.result == expected


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_threads_that_share_work_do_not_change_bits(slow: Loaded, count: int) -> None:
    call, expected = planned(slow, sizes_of(800))
    threads.run(call.driver.entry, call.block, count)
    assert call.result == expected


@pytest.mark.slow
def test_several_threads_take_part() -> None:
    driver, _ = load_toys(20_000, profile=True)
    call = ToyCall(driver, [40] * 40)
    took_part = False
    give_up = time.monotonic() + 10
    while not took_part and time.monotonic() < give_up:  # a busy machine may leave the worker without a processor
        threads.run(driver.entry, call.block, 2)
        took_part = min(call.block.thread_seconds()) > 0
    assert took_part


def test_a_block_is_used_again_and_again(quick: Loaded) -> None:
    call, expected = planned(quick, sizes_of(3))
    for turn in range(500):
        call.clear()
        assert threads.run(call.driver.entry, call.block, 1 + turn % 3) == 3
        assert call.result == expected


def test_no_steps_and_empty_batches(quick: Loaded) -> None:
    driver, _ = quick
    call = ToyCall(driver, [])
    assert threads.run(driver.entry, call.block, 2) == 0
    call = ToyCall(driver, [0] * 10)
    assert threads.run(driver.entry, call.block, 2) == 10
    assert call.result == 0


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize(
    "units", [UnitCount(1, 0, 1), UnitCount(3, -5, 4), UnitCount(0, 7, 2), UnitCount(2, 1, 3), UnitCount(1, -9, 1)]
)
def test_every_unit_runs_once(units: UnitCount, count: int) -> None:
    module = Module()
    f = Function(module, "mark", KERNEL)
    marks = entry(f, 0, 64)

    f.loop(LOW, HIGH, partial(_add_one, f, marks))
    stages = (Stage((Work("mark", units, units.of(11)),)),)
    emit_driver(module, "marks", stages, 1, [], host())
    driver = Driver(Library([compile_object(module.text())], driver_symbols("marks")), "marks", stages, 1, 0)
    for n in range(12):
        block, marked = CallBlock(driver), np.zeros(64, np.int64)
        block.table[0] = marked.ctypes.data
        block.set_records(np.full((5, 1), n, np.int64))
        threads.run(driver.entry, block, count)
        assert marked.tolist() == [5] * units.of(n) + [0] * (64 - units.of(n))


@pytest.mark.parametrize("count", [1, 3])
def test_kernels_side_by_side_each_run_their_units_once(count: int) -> None:
    module = Module()
    most = 11
    units = {"a": UnitCount(1, 0, 1), "b": UnitCount(0, 3, 1), "c": UnitCount(2, -3, 4)}
    for number, name in enumerate(units):
        f = Function(module, name, KERNEL)
        marks = entry(f, number, 64)
        f.loop(LOW, HIGH, partial(_add_one, f, marks))
    stages = (Stage(tuple(Work(name, how, how.of(most)) for name, how in units.items())),)
    emit_driver(module, "marks", stages, 3, [], host())
    driver = Driver(Library([compile_object(module.text())], driver_symbols("marks")), "marks", stages, 3, 0)
    for n in range(most + 1):
        block, marked = CallBlock(driver), np.zeros((3, 64), np.int64)
        block.table[:3] = [row.ctypes.data for row in marked]
        block.set_records(np.full((5, 1), n, np.int64))
        threads.run(driver.entry, block, count)
        for row, how in zip(marked, units.values(), strict=True):
            assert row.tolist() == [5] * how.of(n) + [0] * (64 - how.of(n))


def _add_one(f: Function, marks: Buffer, unit: Value, _: list[Value]) -> None:
    f.store(f.binary("add", f.load(marks, unit), Value("1", I64)), marks, unit)


# --- Threads that come late, or never ------------------------------------------------------------


def test_absent_threads_hold_nobody_up(slow: Loaded) -> None:
    call, expected = planned(slow, sizes_of(50))
    generation = call.block.open(50, 8)
    assert call.driver.entry(call.block.address, 0, generation) == 50
    assert call.result == expected


def test_a_late_thread_touches_nothing(slow: Loaded) -> None:
    call, expected = planned(slow, sizes_of(50))
    former = call.block.open(25, 2)
    call.driver.entry(call.block.address, 0, former)
    assert call.driver.entry(call.block.address, 1, former) == 0  # the gate is closed
    present = call.block.open(25, 2)
    assert call.driver.entry(call.block.address, 1, former) == 0  # the gate is open for others
    call.driver.entry(call.block.address, 0, present)
    assert call.result == expected


@pytest.mark.slow
def test_threads_come_and_go_in_the_middle(slow: Loaded) -> None:
    call, expected = planned(slow, sizes_of(4000))
    generation = call.block.open(4000, 4)
    caller = in_thread(lambda: call.driver.entry(call.block.address, 0, generation))
    workers = []
    for number in (1, 2, 3):
        time.sleep(0.005)
        workers.append(in_thread(partial(call.driver.entry, call.block.address, number, generation)))
    for thread in (caller, *workers):
        thread.join()
    assert call.block.done == 4000
    assert call.result == expected


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.slow
def test_a_busy_machine_stays_usable(slow: Loaded, count: int) -> None:
    call, expected = planned(slow, [40] * 300)

    def seconds(count: int) -> float:
        call.clear()
        start = time.perf_counter()
        threads.run(call.driver.entry, call.block, count)
        assert call.result == expected
        return time.perf_counter() - start

    with hogs(os.cpu_count() or 1):
        ratios = [seconds(count) / seconds(1) for _ in range(5)]
    # With as many hogs as processors, eight threads that never gave way took three to four times as long as one.
    assert min(ratios) < 2.5


def test_two_callers_at_once(quick: Loaded, slow: Loaded) -> None:
    results: dict[str, bool] = {}

    def train(name: str, pair: Loaded, steps: int) -> None:
        call, expected = planned(pair, sizes_of(steps))
        right = []
        for _ in range(30):
            call.clear()
            threads.run(call.driver.entry, call.block, 2)
            right.append(call.result == expected)
        results[name] = all(right)

    running = [
        in_thread(lambda: train("quick", quick, 500)),
        in_thread(lambda: train("slow", slow, 50)),
        in_thread(lambda: train("again", slow, 50)),
    ]
    for thread in running:
        thread.join()
    assert results == {"quick": True, "slow": True, "again": True}


def test_one_block_runs_one_call(slow: Loaded) -> None:
    driver, _ = slow
    call = ToyCall(driver, [40] * 100_000)
    running = in_thread(lambda: threads.run(driver.entry, call.block, 2))
    while not call.block.done:
        time.sleep(0.001)
    with pytest.raises(EngineError, match="already running in another thread"):
        threads.run(driver.entry, call.block, 2)
    call.block.stop()
    running.join()


def test_where_no_thread_can_be_started_the_caller_runs_alone(
    slow: Loaded, pool: threads.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, expected = planned(slow, sizes_of(20))

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert pool.run(call.driver.entry, call.block, 4) == 20
    assert call.result == expected
