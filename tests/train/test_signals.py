"""SIGTERM and Ctrl-C as they come from outside, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import chainrule as cr
from chainrule.train.interrupt import interruptible

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

PROGRAM = """
import signal, sys, time
import numpy as np
import chainrule as cr
{before}
x = np.ones((64, 4), np.float32)
cr.set_seed(1)
model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(1)])
model.compile("sgd", "mse")

class Say(cr.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print("step", flush=True)
        time.sleep({pause})

backup = cr.callbacks.BackupAndRestore(sys.argv[1])
history = model.fit(x, x[:, :1], 1, epochs=10**6, verbose=0, callbacks=[Say(), backup])
print("done", history.interrupted, history.signal, signal.getsignal(signal.SIGTERM), flush=True)
"""


def start(folder: Path, before: str = "", pause: float = 0.002) -> subprocess.Popen[str]:
    program = PROGRAM.format(before=before, pause=pause)
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "step\n"
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    printed = process.communicate(timeout=60)[0].splitlines()
    return process.returncode, printed[-1] if printed else ""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_after_the_step_with_a_checkpoint(number: signal.Signals, tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(number)
    assert end(process) == (0, f"done True {int(number)} 0")
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT)])
def test_a_second_signal_ends_at_once(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = start(tmp_path, pause=5)
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None  # the first one waits for the step
    began = time.monotonic()
    process.send_signal(number)
    assert end(process)[0] == code
    assert time.monotonic() - began < 4


@pytest.mark.slow
def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    process = start(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    for _ in range(30):
        assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGINT)
    assert end(process)[1].startswith("done True 2")


@pytest.mark.slow
def test_a_handler_of_ones_own_is_called_too(tmp_path: Path) -> None:
    before = "signal.signal(signal.SIGTERM, lambda number, frame: print('own', number, flush=True))"
    process = start(tmp_path, before)
    process.send_signal(signal.SIGTERM)
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert "own 15" in lines
    assert lines[-1].startswith("done True 15 <function <lambda>")


def test_handlers_are_put_back_whatever_happens() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with contextlib.suppress(ZeroDivisionError), interruptible():
        assert signal.getsignal(signal.SIGTERM) not in before
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_two_inside_one_another() -> None:
    """The outer one is told, too."""
    with interruptible() as outer:
        with interruptible() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert (inner.signal, outer.signal) == (signal.SIGTERM, signal.SIGTERM)


def test_a_second_ctrl_c_comes_through() -> None:
    with interruptible() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.slow
def test_the_history_names_the_signal() -> None:
    class Terminate(cr.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            signal.raise_signal(signal.SIGTERM)

    model = cr.Sequential([cr.Input((2,)), cr.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit([[1.0, 2.0]] * 4, [[1.0]] * 4, 1, verbose=0, callbacks=Terminate())
    assert history.interrupted
    assert history.signal == signal.SIGTERM
    assert model.fit([[1.0, 2.0]], [[1.0]], verbose=0).signal is None
