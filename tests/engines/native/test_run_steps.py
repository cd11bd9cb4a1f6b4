"""Many steps in one call: what is checked before the first one, and what an interrupt or a fork leaves."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Stop
from chainrule.engines.native import threads
from chainrule.engines.native.executable import Executable as Native
from chainrule.errors import ChainruleError, DataError, DTypeError, EngineError, ShapeError
from tests.engines.native.runtime.running import assert_in_child, needs_fork
from tests.ops.harness import Array

ROWS = np.ones((4, 3), np.float32)


def counting(checked: bool = False) -> tuple[Native, cr.Variable, cr.Variable]:
    """Counts steps in two variables and adds up rows times a factor in the second one."""
    first = cr.Variable(np.zeros((), np.float64), name="first")
    second = cr.Variable(np.zeros(3, np.float32), name="second")

    def step(x: cr.Tensor, factor: cr.Tensor) -> cr.Tensor:
        first.assign(first + 1.0)
        second.assign(second + cr.ops.sum(x, axis=0) * factor)
        return cr.ops.sum(x)

    graph = cr.trace(step, cr.input_spec((None, 3)), cr.input_spec(()), name="counting")
    return Native(graph, gathered=("x",), checked=checked), first, second


def run(native: Native, order: Any, data: Any = None, factor: Any = 1.0, stop: Stop | None = None) -> int:
    given = {"x": ROWS} if data is None else data
    return native.run_steps(given, np.asarray(order), 2, {"factor": np.asarray(factor, np.float32)}, stop or Stop())


def test_an_input_may_have_any_name() -> None:
    """Also one that a plan might use for row numbers or data sets."""
    total = cr.Variable(np.zeros((), np.float32), name="total")

    def step(order: cr.Tensor, source: cr.Tensor) -> cr.Tensor:
        total.assign(total + cr.ops.sum(order * source))
        return cr.ops.sum(source)

    graph = cr.trace(step, cr.input_spec(()), cr.input_spec((None, 3)), name="f")
    assert list(graph.inputs) == ["order", "source"]
    native = Native(graph, gathered=("source",))
    data = np.arange(12, dtype=np.float32).reshape(4, 3)
    factors = np.array([2, 10], np.float32)
    assert native.run_steps({"source": data}, np.array([3, 0, 1]), 2, {"order": factors}, Stop()) == 2
    assert float(total.numpy()) == 2 * data[[3, 0]].sum() + 10 * data[1].sum()


# --- Checks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "data", "factor", "error", "message"),
    [
        ([0, 4, 1], None, 1, DataError, "input 'x' has no row 4; expected 0 to 3"),
        ([0, 10**12], None, 1, DataError, "input 'x' has no row 1000000000000; expected 0 to 3"),
        ([1, 2, -1], None, 1, DataError, "input 'x' has no row -1; expected 0 to 3"),
        ([0.0, 1.0], None, 1, DTypeError, "the row numbers are float64; expected integers"),
        ([[0, 1]], None, 1, ShapeError, r"the row numbers have shape \(1, 2\); expected one axis"),
        ([0], {"x": ROWS.astype(np.float64)}, 1, DTypeError, "input 'x' is float64; expected float32"),
        ([0], {"x": ROWS[:, :1]}, 1, ShapeError, r"input 'x' has shape \(4, 1\); expected \(N, 3\)"),
        ([0], {"x": ROWS[0]}, 1, ShapeError, r"input 'x' has shape \(3\,?\); expected \(N, 3\)"),
        ([0], {"y": ROWS}, 1, EngineError, "no data set was given for input 'x'; got y"),
        ([0, 1, 2], None, [1], ShapeError, r"'factor' has shape \(1\,?\); expected \(\), or \(2\,?\) for 2 steps"),
        ([0], None, [[1]], ShapeError, r"'factor' has shape \(1, 1\)"),
    ],
)
@pytest.mark.parametrize("checked", [False, True])
def test_what_would_be_read_from_elsewhere_is_refused(
    order: Any, data: Any, factor: Any, error: type[ChainruleError], message: str, checked: bool
) -> None:
    native, first, second = counting(checked)
    with pytest.raises(error, match=message):
        run(native, order, data, factor)
    assert (float(first.data), second.data.tolist()) == (0, [0, 0, 0])


def test_a_missing_value_and_a_batch_of_nothing_are_named() -> None:
    native, _, _ = counting()
    with pytest.raises(EngineError, match="no value was given for input 'factor'; got none"):
        native.run_steps({"x": ROWS}, np.arange(4), 2, {}, Stop())
    with pytest.raises(ShapeError, match="the steps of counting were to take 0 rows each; expected 1 or more"):
        native.run_steps({"x": ROWS}, np.arange(4), 0, {"factor": np.ones((), np.float32)}, Stop())


@pytest.mark.slow
def test_what_is_right_is_taken() -> None:
    native, first, second = counting()
    assert run(native, []) == 0
    assert run(native, np.array([3, 0, 3], np.uint8), {"x": ROWS.T.copy().T}, [1, 2, 100]) == 2
    assert (float(first.data), second.data.tolist()) == (2, [4, 4, 4])


# --- Interrupts ----------------------------------------------------------------------------------


def test_a_stop_that_was_asked_while_compiling_counts() -> None:
    native, first, _ = counting()
    stop = Stop()
    stop.request()
    assert run(native, [0, 1, 2, 3], stop=stop) == 0
    assert float(first.data) == 0
    assert run(native, [0, 1, 2, 3]) == 2


def interrupted_after(work: Callable[..., int]) -> Callable[..., int]:
    def raising(*arguments: Any) -> int:
        work(*arguments)
        raise KeyboardInterrupt

    return raising


@pytest.mark.parametrize("many", [True, False])
def test_an_interrupted_call_leaves_the_variables_what_the_memory_is(
    monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    native, first, second = counting()
    call = (lambda: run(native, [0, 1, 2, 3])) if many else (lambda: native(ROWS[:2], np.float32(1)))
    call()
    done = 2 if many else 1
    assert float(first.data) == done
    with monkeypatch.context() as patch:
        patch.setattr(threads, "run", interrupted_after(threads.run))
        with pytest.raises(KeyboardInterrupt):
            call()
    assert (float(first.data), second.data.tolist()) == (2 * done, [4 * done] * 3)


def test_an_interrupt_between_two_addresses_leaves_no_half_table(monkeypatch: pytest.MonkeyPatch) -> None:
    native, first, second = counting()

    class Torn(dict[str, Array]):
        def __getitem__(self, key: str) -> Array:
            self.reads += 1
            if self.reads == 2:
                raise KeyboardInterrupt
            return super().__getitem__(key)

        reads = 0

    inputs = [ROWS[:2], np.ones((), np.float32)]
    native.run(inputs, {"first": np.zeros(()), "second": np.zeros(3, np.float32)})
    monkeypatch.setattr(native, "_variables", Torn(native._memory()))
    for done in (0, 1):
        with pytest.raises(KeyboardInterrupt) if not done else contextlib.nullcontext():
            run(native, [0, 1])
        assert (float(first.data), second.data.tolist()) == (done, [2 * done] * 3)


def test_an_interrupted_assignment_agrees_with_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = cr.Variable(np.zeros(2, np.float32), name="v")
    memory = variable.memory()

    class Raising:
        def __setitem__(self, place: Any, value: Any) -> None:
            raise KeyboardInterrupt

        def copy(self) -> Array:
            return memory.copy()

    monkeypatch.setattr(variable, "_memory", Raising())
    with pytest.raises(KeyboardInterrupt):
        variable.set_array(np.ones(2, np.float32))
    assert variable.data.tolist() == memory.tolist()


# --- Signal handlers and forks -------------------------------------------------------------------


def test_a_signal_handler_cannot_run_what_it_came_in_the_middle_of() -> None:
    native, first, _ = counting()
    run(native, [0, 1])
    errors = list[str]()
    over = threading.Event()

    def handler(*_: object) -> None:
        try:
            run(native, [0, 1])
        except EngineError as error:
            errors.append(str(error))

    def disturb() -> None:
        while not over.wait(0.05):
            _thread.interrupt_main(signal.SIGINT)

    former = signal.signal(signal.SIGINT, handler)
    disturbing = threading.Thread(target=disturb)
    disturbing.start()
    try:
        while not errors and float(first.data) < 50_000_000:
            run(native, np.tile(np.arange(4), 100_000))
    finally:
        over.set()
        disturbing.join()
        signal.signal(signal.SIGINT, former)
    assert set(errors) == {"counting is running already in this thread; expected one run at a time"}
    before = float(first.data)
    run(native, [0, 1])
    assert float(first.data) == before + 1


@needs_fork
@pytest.mark.slow
def test_a_child_that_is_forked_in_the_middle_of_a_step_goes_on_after_a_whole_one() -> None:
    native, first, second = counting()
    run(native, [0, 1])
    block = native._compiled.block if native._compiled else None
    assert block is not None
    order, stop = np.tile(np.arange(4), 1_000_000), Stop()
    running = threading.Thread(target=lambda: run(native, order, stop=stop))
    running.start()
    while block.done < 100:
        time.sleep(0.0005)

    def work() -> bool:
        steps = float(first.data)
        whole = 101 <= steps < 2_000_001 and second.data.tolist() == [2 * steps] * 3
        run(native, [0, 1])
        return whole and (float(first.data), second.data[0]) == (steps + 1, 2 * steps + 2)

    at_fork = block.done
    assert_in_child(work, seconds=5)
    give_up = time.monotonic() + 10
    while block.done <= at_fork and time.monotonic() < give_up:  # it goes on in the parent
        time.sleep(0.0005)
    assert at_fork < block.done
    stop.request()
    running.join()
    assert float(first.data) == 1 + block.done
