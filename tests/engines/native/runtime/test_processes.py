"""Forked and spawned processes train too."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from chainrule.engines.native import threads
from tests.engines.native.runtime.running import (
    WEIGHTS,
    Loaded,
    assert_in_child,
    in_thread,
    needs_fork,
    planned,
    python,
    sizes_of,
)
from tests.engines.native.toys import ToyCall, load_toys


@needs_fork
@pytest.mark.slow
def test_a_forked_child_has_threads_of_its_own(slow: Loaded) -> None:
    call, expected = planned(slow, sizes_of(200))
    threads.run(call.driver.entry, call.block, 3)

    def work() -> bool:
        call.clear()
        ran = threads.run(call.driver.entry, call.block, 3)
        load_toys(3)  # LLVM works too
        return (ran, call.result, threading.active_count()) == (200, expected, 3)

    assert_in_child(work)
    call.clear()
    threads.run(call.driver.entry, call.block, 3)
    assert call.result == expected


@pytest.mark.slow
@needs_fork
def test_fork_while_another_thread_trains_and_compiles(slow: Loaded) -> None:
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

    def work() -> bool:
        call = ToyCall(load_toys(800)[0], sizes)
        threads.run(call.driver.entry, call.block, 2)
        return call.result == expected

    running = [in_thread(train), in_thread(compile_much)]
    try:
        for _ in range(5):
            assert_in_child(work)
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


@pytest.mark.slow
def test_spawned_children_train(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    done = python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    assert done.stdout.split() == ["True"], done.stderr
