"""Driver, call block and threads: the same bits whatever the machine does."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from chainrule.engines.native import threads
from chainrule.engines.native.call import CallBlock, Driver
from chainrule.engines.native.driver import LARGEST_SEQUENCE, Field, Stage, UnitCount, driver_symbols, emit_driver
from chainrule.engines.native.ir import Function, Module, Value
from chainrule.engines.native.jit import Library, Target, compile_object, emit_assembly
from chainrule.engines.native.platform import for_triple, host
from chainrule.engines.native.types import I64
from chainrule.errors import ConfigError, EngineError
from tests.engines.native.toys import HIGH, KERNEL, LOW, ToyCall, Toys, emit_toys, entry, load_tiny, load_toys

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = (31, 37, 41)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
needs_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads MXCSR")


def sizes_of(steps: int) -> list[int]:
    """Batch sizes, zero among them."""
    return random.Random(7).choices(range(41), k=steps)


@pytest.fixture(scope="module")
def quick() -> tuple[Driver, Toys]:
    """Toys whose units take some nanoseconds: threads meet all the time."""
    return load_toys(1)


@pytest.fixture(scope="module")
def slow() -> tuple[Driver, Toys]:
    """Toys whose units take about a microsecond: threads share the work."""
    return load_toys(800)


@pytest.fixture
def pool() -> threads.Pool:
    """A pool of its own."""
    return threads.Pool()


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that take all the time they get."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# --- Bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_threads_do_not_change_bits(quick: tuple[Driver, Toys], count: int) -> None:
    driver, toys = quick
    sizes = sizes_of(8000)
    call = ToyCall(driver, sizes)
    assert threads.run(driver.entry, call.block, count) == 8000
    assert call.result == toys.expected(sizes, WEIGHTS)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_threads_that_share_work_do_not_change_bits(slow: tuple[Driver, Toys], count: int) -> None:
    driver, toys = slow
    sizes = sizes_of(800)
    call = ToyCall(driver, sizes)
    threads.run(driver.entry, call.block, count)
    assert call.result == toys.expected(sizes, WEIGHTS)


def test_several_threads_take_part() -> None:
    driver, _ = load_toys(20_000, profile=True)
    call = ToyCall(driver, [40] * 40)
    took_part = False
    give_up = time.monotonic() + 10
    while not took_part and time.monotonic() < give_up:  # a busy machine may leave the worker without a processor
        threads.run(driver.entry, call.block, 2)
        took_part = min(call.block.thread_seconds()) > 0
    assert took_part


def test_a_block_is_used_again_and_again(quick: tuple[Driver, Toys]) -> None:
    driver, toys = quick
    sizes = sizes_of(3)
    call = ToyCall(driver, sizes)
    for turn in range(500):
        call.clear()
        assert threads.run(driver.entry, call.block, 1 + turn % 3) == 3
        assert call.result == toys.expected(sizes, WEIGHTS)


def test_no_steps_and_empty_batches(quick: tuple[Driver, Toys]) -> None:
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

    def mark(unit: Value, _: list[Value]) -> None:
        f.store(f.binary("add", f.load(marks, unit), Value("1", I64)), marks, unit)

    f.loop(LOW, HIGH, mark)
    stages = (Stage(("mark",), units, "mark"),)
    emit_driver(module, "marks", stages, 1, [], host())
    driver = Driver(Library(compile_object(module.text()), driver_symbols("marks")), "marks", stages, 1, 0)
    for n in range(12):
        block, marked = CallBlock(driver), np.zeros(64, np.int64)
        block.table[0] = marked.ctypes.data
        block.set_records(np.full((5, 1), n, np.int64))
        threads.run(driver.entry, block, count)
        assert marked.tolist() == [5] * units.of(n) + [0] * (64 - units.of(n))


# --- Threads that come late, or never ------------------------------------------------------------


def test_absent_threads_hold_nobody_up(slow: tuple[Driver, Toys]) -> None:
    driver, toys = slow
    sizes = sizes_of(50)
    call = ToyCall(driver, sizes)
    generation = call.block.open(50, 8)
    assert driver.entry(call.block.address, 0, generation) == 50
    assert call.result == toys.expected(sizes, WEIGHTS)


def test_a_late_thread_touches_nothing(slow: tuple[Driver, Toys]) -> None:
    driver, toys = slow
    sizes = sizes_of(50)
    call = ToyCall(driver, sizes)
    former = call.block.open(25, 2)
    driver.entry(call.block.address, 0, former)
    assert driver.entry(call.block.address, 1, former) == 0  # the gate is closed
    present = call.block.open(25, 2)
    assert driver.entry(call.block.address, 1, former) == 0  # the gate is open for others
    driver.entry(call.block.address, 0, present)
    assert call.result == toys.expected(sizes, WEIGHTS)


def test_threads_come_and_go_in_the_middle(slow: tuple[Driver, Toys]) -> None:
    driver, toys = slow
    sizes = sizes_of(4000)
    call = ToyCall(driver, sizes)
    generation = call.block.open(4000, 4)
    caller = in_thread(lambda: driver.entry(call.block.address, 0, generation))
    workers = []
    for number in (1, 2, 3):
        time.sleep(0.005)
        workers.append(in_thread(partial(driver.entry, call.block.address, number, generation)))
    for thread in (caller, *workers):
        thread.join()
    assert call.block.done == 4000
    assert call.result == toys.expected(sizes, WEIGHTS)


@pytest.mark.parametrize("count", [2, 8])
def test_a_busy_machine_stays_usable(slow: tuple[Driver, Toys], count: int) -> None:
    driver, toys = slow
    sizes = [40] * 300
    call = ToyCall(driver, sizes)
    expected = toys.expected(sizes, WEIGHTS)

    def seconds(count: int) -> float:
        call.clear()
        start = time.perf_counter()
        threads.run(driver.entry, call.block, count)
        assert call.result == expected
        return time.perf_counter() - start

    with hogs(os.cpu_count() or 1):
        ratios = [seconds(count) / seconds(1) for _ in range(5)]
    # With as many hogs as processors, eight threads that never gave way took three to four times as long as one.
    assert min(ratios) < 2.5


def test_two_callers_at_once(quick: tuple[Driver, Toys], slow: tuple[Driver, Toys]) -> None:
    results: dict[str, bool] = {}

    def train(name: str, pair: tuple[Driver, Toys], steps: int) -> None:
        driver, toys = pair
        sizes = sizes_of(steps)
        expected, call = toys.expected(sizes, WEIGHTS), ToyCall(driver, sizes)
        right = []
        for _ in range(30):
            call.clear()
            threads.run(driver.entry, call.block, 2)
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


def test_one_block_runs_one_call(slow: tuple[Driver, Toys]) -> None:
    driver, _ = slow
    call = ToyCall(driver, [40] * 100_000)
    running = in_thread(lambda: threads.run(driver.entry, call.block, 2))
    while not call.block.done:
        time.sleep(0.001)
    with pytest.raises(EngineError, match="already running in another thread"):
        threads.run(driver.entry, call.block, 2)
    call.block.stop()
    running.join()


# --- Stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_call_stops_after_a_whole_step(slow: tuple[Driver, Toys], count: int) -> None:
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


def test_a_call_of_more_stages_than_can_be_numbered(quick: tuple[Driver, Toys]) -> None:
    call = ToyCall(quick[0], [0] * 3)
    call.block.steps = 2 * LARGEST_SEQUENCE
    call.block.open(call.block.steps, 1)
    assert call.block._get(Field.LIMIT) == LARGEST_SEQUENCE // 3


def test_an_interrupt_before_the_first_step_frees_the_workers(
    slow: tuple[Driver, Toys], pool: threads.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, toys = slow
    sizes = sizes_of(50)
    call = ToyCall(driver, sizes)
    give = threads._Worker.give

    def interrupted(worker: threads._Worker, job: threads._Call, thread: int) -> None:
        give(worker, job, thread)
        if thread == 2:
            time.sleep(0.02)  # the workers are inside by now, and wait
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads._Worker, "give", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.run(driver.entry, call.block, 4)
    assert (call.block.done, call.result) == (0, 0)
    assert pool.run(driver.entry, call.block, 4) == 50
    assert call.result == toys.expected(sizes, WEIGHTS)


def test_an_interrupt_while_the_block_is_taken_locks_nobody_out(quick: tuple[Driver, Toys]) -> None:
    call = ToyCall(quick[0], [1, 2])
    call.block.__enter__()
    assert threads.run(call.driver.entry, call.block, 1) == 2
    done: list[int] = []
    in_thread(lambda: done.append(threads.run(call.driver.entry, call.block, 1))).join()
    assert done == [2]


def test_a_worker_frees_itself(slow: tuple[Driver, Toys], pool: threads.Pool) -> None:
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


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which can import the tests."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


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


def test_the_interpreter_ends_while_a_daemon_thread_trains() -> None:
    begin = time.monotonic()
    done = python(ENDING)
    assert (done.returncode, done.stdout.split()) == (0, ["ends", "True", "True"]), done.stderr
    assert time.monotonic() - begin < 30


# --- Processes -----------------------------------------------------------------------------------


@needs_fork
def test_a_forked_child_has_threads_of_its_own(slow: tuple[Driver, Toys]) -> None:
    driver, toys = slow
    sizes = sizes_of(200)
    expected, call = toys.expected(sizes, WEIGHTS), ToyCall(driver, sizes)
    threads.run(driver.entry, call.block, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs our own code only
        child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            call.clear()
            ran = threads.run(driver.entry, call.block, 3)
            load_toys(3)  # LLVM works too
            status = 0 if (ran, call.result, threading.active_count()) == (200, expected, 3) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    call.clear()
    threads.run(driver.entry, call.block, 3)
    assert call.result == expected


@needs_fork
def test_fork_while_another_thread_trains_and_compiles(slow: tuple[Driver, Toys]) -> None:
    driver, toys = slow
    sizes = sizes_of(50)
    expected = toys.expected(sizes, WEIGHTS)
    over = threading.Event()

    def train() -> None:
        call = ToyCall(driver, sizes)
        while not over.is_set():
            threads.run(driver.entry, call.block, 2)

    def compile_much() -> None:
        while not over.is_set():
            load_toys(2)

    running = [in_thread(train), in_thread(compile_much)]
    try:
        for _ in range(5):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                child = os.fork()
            if not child:
                status = 1
                with contextlib.suppress(BaseException):
                    signal.alarm(20)
                    call = ToyCall(load_toys(800)[0], sizes)
                    threads.run(call.driver.entry, call.block, 2)
                    status = 0 if call.result == expected else 2
                os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        over.set()
        for thread in running:
            thread.join()


SPAWNED = """
import multiprocessing
from chainrule.engines.native import threads
from tests.engines.native.toys import ToyCall, load_toys

def train(_):
    driver, _ = load_toys(1)
    call = ToyCall(driver, [3, 5])
    threads.run(driver.entry, call.block, 2)
    return call.result

if __name__ == "__main__":
    here = train(0)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(pool.map(train, range(2)) == [here, here])
"""


def test_spawned_children_train(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert done.stdout.split() == ["True"], done.stderr


# --- Floating-point state ------------------------------------------------------------------------


def multiply(driver: Driver, left: float, right: float) -> float:
    """The product that native code computes."""
    block, data = CallBlock(driver), np.array([left, right])
    block.table[:] = data.ctypes.data, data.ctypes.data + 8
    block.set_records(np.zeros((1, 1), np.int64))
    threads.run(driver.entry, block, 1)
    return float(data[0])


def numpy_keeps_denormals() -> bool:
    return bool(np.array([1e-300])[0] * np.array([1e-10])[0] > 0) and bool(np.array([5e-324]) * 1.0 > 0)


@pytest.mark.skipif(host().name == "portable", reason="denormals are not flushed there")
def test_denormals_are_flushed_inside_and_kept_outside() -> None:
    tiny = load_tiny()
    assert multiply(tiny, 3.0, 5.0) == 15.0
    assert multiply(tiny, 1e-300, 1e-10) == 0.0  # a denormal result
    assert multiply(tiny, 5e-324, 2.0**60) == 0.0  # a denormal operand
    assert numpy_keeps_denormals()


@pytest.mark.skipif(host().name == "portable", reason="denormals are not flushed there")
def test_workers_restore_their_state_too(slow: tuple[Driver, Toys]) -> None:
    driver, _ = slow
    call = ToyCall(driver, [40] * 300)
    generation = call.block.open(300, 2)
    kept = []

    def work() -> None:
        driver.entry(call.block.address, 1, generation)
        kept.append(numpy_keeps_denormals())

    worker = in_thread(work)
    driver.entry(call.block.address, 0, generation)
    worker.join()
    assert kept == [True]


MXCSR = """
define i64 @get() {
  %p = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %p)
  %v = load i32, ptr %p
  %r = zext i32 %v to i64
  ret i64 %r
}
define void @set(i64 %x) {
  %p = alloca i32
  %v = trunc i64 %x to i32
  store i32 %v, ptr %p
  call void @llvm.x86.sse.ldmxcsr(ptr %p)
  ret void
}
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
"""


@needs_x86
def test_the_callers_rounding_neither_changes_bits_nor_is_changed() -> None:
    library = Library(compile_object(MXCSR), ["get", "set"])
    get, put = library.function("get", ctypes.c_int64), library.function("set", None, ctypes.c_int64)
    tiny, usual = load_tiny(), get()
    expected = multiply(tiny, 0.1, 0.1)
    upwards = 0x1F80 | 2 << 13
    try:
        put(upwards)
        got, after = multiply(tiny, 0.1, 0.1), get()
    finally:
        put(usual)
    assert got == expected
    assert after & ~0x3F == upwards  # the low bits note what has happened


# --- Profile and checks --------------------------------------------------------------------------


def test_the_profile_names_where_the_time_goes() -> None:
    driver, toys = load_toys(3000, profile=True)
    sizes = [40] * 300
    call = ToyCall(driver, sizes)
    start = time.perf_counter()
    threads.run(driver.entry, call.block, 2)
    spent = time.perf_counter() - start
    assert call.result == toys.expected(sizes, WEIGHTS)
    mix, change, total = call.block.times()
    assert [stage.name for stage in (mix, change, total)] == ["mix", "change", "sum"]
    assert [name for name, _ in change.kernels] == ["first", "second"]
    assert all(seconds > 0 for stage in (mix, change, total) for _, seconds in stage.kernels)
    together = mix.seconds + change.seconds + total.seconds
    assert 0.1 * spent < together <= spent
    assert mix.seconds > 0.5 * together
    assert mix.kernels[0][1] <= 2 * mix.seconds
    call.block.clear_times()
    assert [stage.seconds for stage in call.block.times()] == [0, 0, 0]


def test_a_checked_build_reports_a_stray_access() -> None:
    driver, toys = load_toys(1, checked=True)
    sizes = [3, 40, 64]
    call = ToyCall(driver, sizes)
    threads.run(driver.entry, call.block, 2)
    assert driver.stray() is None
    assert call.result == toys.expected(sizes, WEIGHTS)
    threads.run(driver.entry, ToyCall(driver, [65]).block, 1)
    stray = driver.stray()
    assert stray is not None
    assert stray[1:] == (64, 64)
    assert driver.stray() is None


# --- The number of threads -----------------------------------------------------------------------


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Neither a call nor the environment has said how many threads."""
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.delenv("CHAINRULE_THREADS", raising=False)
    threads._default_threads.cache_clear()
    yield
    threads._default_threads.cache_clear()


@pytest.mark.usefixtures("no_choice")
def test_one_thread_per_processor_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= threads.get_threads() <= threads._processors()
    threads._default_threads.cache_clear()
    monkeypatch.setenv("CHAINRULE_THREADS", "3")
    assert threads.get_threads() == 3
    threads.set_threads(5)
    assert threads.get_threads() == 5


@pytest.mark.usefixtures("no_choice")
@pytest.mark.parametrize("named", ["0", "-1", "two", "2.0", "1025", "٣"])
def test_a_wrong_number_in_the_environment_is_named(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_THREADS", named)
    with pytest.raises(ConfigError, match=f"CHAINRULE_THREADS is '{named}'"):
        threads.get_threads()


@pytest.mark.usefixtures("no_choice")
@pytest.mark.parametrize("count", [0, -1, 1025, True, 2.0, "2"])
def test_a_wrong_number_of_threads_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="expected an integer from 1 to 1024"):
        threads.set_threads(count)


@pytest.mark.parametrize(
    ("content", "count"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("max 100000\n", 1024), ("", 1024), ("1000 100000", 1)],
)
def test_a_containers_share_limits_the_threads(content: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(content)
    assert threads._quota(path) == count
    assert threads._quota(tmp_path / "absent") == 1024


def test_where_no_thread_can_be_started_the_caller_runs_alone(
    slow: tuple[Driver, Toys], pool: threads.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, toys = slow
    sizes = sizes_of(20)
    call = ToyCall(driver, sizes)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert pool.run(driver.entry, call.block, 4) == 20
    assert call.result == toys.expected(sizes, WEIGHTS)


# --- Other targets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triple", "cpu", "features", "name", "machine"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64", "", "linux-x86_64", 62),
        ("x86_64-unknown-linux-gnu", "znver4", "", "linux-x86_64", 62),
        ("aarch64-unknown-linux-gnu", "generic", "+neon", "linux-aarch64", 183),
        ("x86_64-pc-windows-msvc-elf", "x86-64", "", "windows-x86_64", 62),
        ("riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d", "portable", 243),
    ],
)
def test_the_driver_is_emitted_for_other_machines(
    triple: str, cpu: str, features: str, name: str, machine: int
) -> None:
    target = for_triple(triple)
    assert target.name == name
    text = emit_toys(3, target, profile=True)[0].text()
    content = compile_object(text, Target(triple, cpu, features))
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == machine


@pytest.mark.parametrize(
    ("triple", "name"), [("arm64-apple-macosx12.0.0", "macos-arm64"), ("x86_64-apple-macosx12.0.0", "macos-x86_64")]
)
def test_the_driver_is_emitted_for_macos(triple: str, name: str) -> None:
    target = for_triple(triple)
    assert target.name == name
    content = compile_object(emit_toys(3, target)[0].text(), Target(triple, "", ""))
    assert content[:4] == bytes.fromhex("cffaedfe")


def test_what_is_particular_to_a_processor_is_there() -> None:
    arm = emit_assembly(
        emit_toys(3, for_triple("aarch64-linux-gnu"), profile=True)[0].text(),
        Target("aarch64-unknown-linux-gnu", "generic", "+neon"),
    ).lower()
    assert all(word in arm for word in ("isb", "fpcr", "cntvct_el0"))
    intel = emit_assembly(
        emit_toys(3, for_triple("x86_64-linux-gnu"), profile=True)[0].text(),
        Target("x86_64-unknown-linux-gnu", "x86-64", ""),
    )
    assert all(word in intel for word in ("pause", "stmxcsr", "ldmxcsr", "rdtsc", "lock\t"))


# The system's functions with Windows' calling convention, and the way from ours to it.
AS_ON_WINDOWS = """
define win64cc i32 @give_way() {
  %n = atomicrmw add ptr @yields, i64 1 monotonic
  ret i32 0
}
define win64cc i32 @wait(ptr %word, ptr %compare, i64 %size, i32 %milliseconds) {
  %n = atomicrmw add ptr @waits, i64 1 monotonic
  ret i32 0
}
define win64cc void @wake(ptr %word) {
  ret void
}
define i64 @enter(ptr %entry, ptr %call, i64 %thread, i64 %generation) {
  %done = call win64cc i64 %entry(ptr %call, i64 %thread, i64 %generation)
  ret i64 %done
}
define i64 @count_yields() {
  %n = load atomic i64, ptr @yields monotonic, align 8
  ret i64 %n
}
define i64 @count_waits() {
  %n = load atomic i64, ptr @waits monotonic, align 8
  ret i64 %n
}
@yields = internal global i64 0
@waits = internal global i64 0
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the bridge is for Linux")
def test_the_code_for_windows_runs_over_a_bridge() -> None:
    target = Target("x86_64-pc-windows-msvc-elf", "x86-64", "")
    module, toys = emit_toys(800, for_triple(target.triple))
    driver = toys.load(compile_object(module.text(), target))
    names = ["give_way", "wait", "wake", "enter", "count_yields", "count_waits"]
    bridge = Library(compile_object(AS_ON_WINDOWS), names)
    enter = bridge.function("enter", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    sizes = sizes_of(300)
    call = ToyCall(driver, sizes)
    for field, name in ((Field.GIVE_WAY, "give_way"), (Field.WAIT, "wait"), (Field.WAKE, "wake")):
        call.block._set(field, bridge.function(name, None).address)
    generation = call.block.open(300, 3)
    come_in = partial(enter, driver.entry.address, call.block.address)
    workers = [in_thread(partial(come_in, number, generation)) for number in (1, 2)]
    time.sleep(0.01)  # both wait for the first step by now
    assert come_in(0, generation) == 300
    for worker in workers:
        worker.join()
    assert call.result == toys.expected(sizes, WEIGHTS)
    assert bridge.function("count_yields", ctypes.c_int64)() > 0
    assert bridge.function("count_waits", ctypes.c_int64)() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="knows what uname says on Linux")
def test_the_host_is_known() -> None:
    assert host().name == {"x86_64": "linux-x86_64", "aarch64": "linux-aarch64"}.get(platform.machine(), "portable")
