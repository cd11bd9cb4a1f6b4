"""What fit prints: never wider than the terminal, one finished line for each epoch, true numbers, plain logs."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule.callbacks import Callback
from chainrule.engines.native.peak import host_peak
from chainrule.engines.native.threads import get_threads
from chainrule.train.callback import Logs
from chainrule.train.oneline import Part, by_importance, clock, fitted
from chainrule.train.progress import EpochLines, ProgressBar, _PeakShare

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WIDTHS = [40, 80, 200]


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding=encoding)

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """Everything that stood on a line at some time, without the escapes."""
        self.flush()
        return visible(self.bytes.getvalue().decode(self.encoding))


def visible(text: str) -> list[str]:
    lines = (ESCAPE.sub("", line) for line in re.split(r"[\r\n]+|\x1b\[2K", text))
    return [line for line in lines if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Terminal]:
    """Make standard output a terminal of so many columns."""

    def make(columns: int, encoding: str = "utf-8") -> Terminal:
        stream = Terminal(encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "JUPYTER_COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        return stream

    return make


def model_and_data(engine: str | None = None, dtype: str = "float32") -> tuple[Any, Any, Any]:
    cr.set_seed(0)
    model = cr.Sequential([cr.Input((4,), dtype=dtype), cr.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], engine=engine)
    return model, np.random.default_rng(0).normal(size=(60, 4)).astype(dtype), np.arange(60) % 3


class EveryStep(Callback):
    """Has every step run by itself, slowly enough for the live line to move."""

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        import time

        time.sleep(0.03)


def fit(engine: str | None = None, epochs: int = 2, dtype: str = "float32", **options: Any) -> Any:
    model, x, y = model_and_data(engine, dtype)
    return model.fit(
        x,
        y,
        batch_size=8,
        epochs=epochs,
        callbacks=[EveryStep()],
        **{"verbose": "auto", "validation_split": 0.2, **options},
    )


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal(terminal: Callable[..., Terminal], columns: int) -> None:
    stream = terminal(columns)
    history = fit()
    shown = stream.shown()
    assert max(map(len, shown)) <= columns
    name = "" if columns < 60 else "epoch "
    finished = [line for line in shown if "val_loss" in line]
    assert [line.split("  ")[0] for line in finished] == [f"{name}1/2", f"{name}2/2"]
    for line, value in zip(finished, history.history["val_loss"], strict=True):
        assert f"val_loss {value:.4f}" in line
    running = [line for line in shown if line not in finished]
    assert len(running) > 4
    assert all(line.startswith(name) for line in running)
    assert any("loss " in line for line in running)
    if columns == 200:
        for part in ("6/6", "accuracy", "samples/s", "% of peak", " left", " in all", "━━━"):
            assert any(part in line for line in running), part


@pytest.mark.slow
def test_a_finished_line_tells_the_speed_of_the_training(terminal: Callable[..., Terminal]) -> None:
    stream = terminal(200)
    fit(validation_split=0.0)
    finished = [line for line in stream.shown() if " left" not in line]
    assert len(finished) == 2
    assert all(re.search(r" [1-9][0-9,]* samples/s", line) for line in finished)


@pytest.mark.slow
def test_a_terminal_without_a_cursor_gets_finished_lines_only(
    terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = terminal(40)
    monkeypatch.setenv("TERM", "dumb")
    fit()
    shown = stream.shown()
    assert [line.split()[0] for line in shown] == ["1/2", "2/2"]
    assert max(map(len, shown)) <= 40
    assert "\x1b" not in stream.bytes.getvalue().decode()


@pytest.mark.slow
def test_a_terminal_that_is_not_utf8_gets_ascii(terminal: Callable[..., Terminal]) -> None:
    stream = terminal(100, "ascii")
    fit()
    assert stream.bytes.getvalue().isascii()
    assert any("===" in line for line in stream.shown())


@pytest.mark.slow
def test_a_log_that_is_not_utf8_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    model, x, y = model_and_data()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[cr.metrics.SparseCategoricalAccuracy(name="准")])
    model.fit(x, y, epochs=1)
    stream.flush()
    assert rb"\u51c6 0." in stream.buffer.getvalue()


@pytest.mark.slow
def test_no_color_is_respected(terminal: Callable[..., Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(80)
    monkeypatch.setenv("NO_COLOR", "1")
    fit()
    stream.flush()
    assert not re.search(rb"\x1b\[[0-9;]*m", stream.bytes.getvalue())


@pytest.mark.parametrize(("engine", "dtype"), [("reference", "float32"), (None, "float64")])
@pytest.mark.slow
def test_a_share_of_peak_that_is_not_known_is_not_shown(
    terminal: Callable[..., Terminal], engine: str | None, dtype: str
) -> None:
    stream = terminal(200)
    fit(engine, dtype=dtype)
    assert "peak" not in "".join(stream.shown())


@pytest.mark.slow
def test_the_share_of_peak_is_that_of_the_steps_work(terminal: Callable[..., Terminal]) -> None:
    terminal(200)
    seen: list[float] = []

    class Look(EveryStep):
        def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
            (bar,) = (callback for callback in self.fitting.chain if isinstance(callback, ProgressBar))
            found = bar._peak_share.of(1000.0)
            assert found is not None
            seen.append(found)

    model, x, y = model_and_data()
    model.fit(x, y, batch_size=8, epochs=1, verbose=1, callbacks=[Look()])
    step = model._trainer._plans._kept
    (graph,) = (engine.graph for key, engine in step.items() if key[0] == "step")
    expected = 1000.0 * graph.flops().bind(8) / 8 / (host_peak(get_threads()) * 1e9)
    assert seen == pytest.approx([expected])


@pytest.mark.slow
def test_accumulated_steps_count_their_share_of_the_update() -> None:
    def flops(accumulated: int) -> float:
        model, x, y = model_and_data()
        optimizer = cr.optimizers.SGD(0.1, gradient_accumulation_steps=None if accumulated == 1 else accumulated)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        found: list[float] = []

        class Look(Callback):
            def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
                found.append(self.fitting.steps.flops)

        model.fit(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[Look()])
        return found[0]

    assert 0.5 * flops(1) < flops(4) < 2 * flops(1)


def test_an_epoch_that_was_cut_short_counts_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupt(Callback):
        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            if batch == 1:
                self.fitting.stop.request()

    class Look(Callback):
        def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
            (lines,) = (callback for callback in self.fitting.chain if isinstance(callback, EpochLines))
            lines.measure()
            seen.append(lines.seen)

    seen: list[int] = []
    model, x, y = model_and_data()
    model.fit(x, y, batch_size=8, epochs=3, verbose=2, callbacks=[Interrupt(), Look()])
    assert seen == [16]
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.slow
def test_the_time_of_compiling_does_not_count_as_slowness(terminal: Callable[..., Terminal]) -> None:
    class SlowFirst(Callback):
        def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
            import time

            time.sleep(0.5 if batch == 0 and self.fitting.position.epoch == 0 else 0.02)

        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            (bar,) = (callback for callback in self.fitting.chain if isinstance(callback, ProgressBar))
            bar.measure()
            rates.append(bar.rate)

    rates: list[float] = []
    terminal(200)
    model, x, y = model_and_data()
    model.fit(x, y, batch_size=8, epochs=1, verbose=1, callbacks=[SlowFirst()])
    assert rates[0] < 8 / 0.5
    assert min(rates[2:]) > 8 / 0.5


def test_a_failing_callback_leaves_the_cursor_visible(terminal: Callable[..., Terminal]) -> None:
    class Fails(Callback):
        def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
            raise RuntimeError("no")

    stream = terminal(80)
    model, x, y = model_and_data()
    with pytest.raises(RuntimeError, match="no"):
        model.fit(x, y, batch_size=8, verbose=1, callbacks=[Fails()])
    stream.flush()
    text = stream.bytes.getvalue()
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l")


@pytest.mark.slow
def test_without_standard_output_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    fit(epochs=1)


# -- a real terminal ----------------------------------------------------------------------------------------------

SCRIPT = """
import numpy as np, chainrule as cr
model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(3, activation="softmax")])
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
print("begin")
model.fit(x, np.arange(60) % 3, batch_size=8, epochs=3, validation_split=0.2)
print("end")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_pseudo_terminal(columns: int, locale: str) -> None:
    variables = {"LANG": locale, "LC_ALL": locale, "TERM": "xterm"}
    variables |= {"PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"} if locale == "C" else {}
    status, content = in_terminal([sys.executable, "-c", SCRIPT], columns, variables)
    text = content.decode("ascii" if locale == "C" else "utf-8")
    assert status == 0, text
    assert "Traceback" not in text
    lines = visible(text)
    assert max(map(len, lines)) <= columns
    assert (lines[0], lines[-1]) == ("begin", "end")
    assert sum("val_loss" in line for line in lines) == 3


def in_terminal(words: list[str], columns: int, variables: dict[str, str]) -> tuple[int, bytes]:
    """Run a program in a pseudo-terminal; its exit status and all that it printed."""
    import fcntl
    import pty
    import struct
    import subprocess
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    path = str(Path(cr.__file__).parent.parent)
    program = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, "PYTHONPATH": path, **variables}
    )
    os.close(theirs)
    content = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        content += part
    os.close(ours)
    return program.wait(), content


# -- one line -----------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(blacklist_categories=("C", "Mn", "Me", "Zl", "Zp")), min_size=1, max_size=12)


@given(st.lists(st.tuples(TEXTS, st.integers(0, 5)), min_size=1, max_size=8), st.integers(1, 60))
@pytest.mark.slow
def test_parts_fit_and_the_most_important_one_stays(parts: list[tuple[str, int]], width: int) -> None:
    from rich.cells import cell_len

    given_parts = [Part(*part) for part in parts]
    kept = fitted(given_parts, width)
    assert cell_len("  ".join(kept)) <= width
    first = min(given_parts, key=lambda part: part.rank)
    assert first.text in kept or cell_len(first.text) > width
    texts = [part.text for part in given_parts]
    if cell_len(first.text) <= width:
        places = iter(texts)
        assert all(text in places for text in kept)  # in their order
    if cell_len("  ".join(texts)) <= width:
        assert kept == texts


def test_the_order_of_importance() -> None:
    assert by_importance(["loss", "a", "b", "val_loss", "val_b"]) == ["loss", "val_loss", "a", "b", "val_b"]
    assert by_importance(["val_x", "loss"]) == ["loss", "val_x"]


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "1:00"), (3599.7, "1:00:00"), (float("nan"), "-:--")])
def test_clocks(seconds: float, text: str) -> None:
    assert clock(seconds) == text


class Press(Callback):
    """Ctrl-C in the second epoch, after some of its batches."""

    def __init__(self, batches: int) -> None:
        self.batches, self.second = batches, False

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.second = epoch == 1
        self.press(0)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self.press(batch + 1)

    def press(self, done: int) -> None:
        if self.second and done == self.batches:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("batches", "expected"), [(3, ["epoch 1/3  ", "epoch 2/3 (interrupted)  "]), (0, ["epoch 1/3  "])]
)
def test_an_epoch_that_was_interrupted_says_so(
    capsys: pytest.CaptureFixture[str], batches: int, expected: list[str]
) -> None:
    """And one of which no batch ran is not told at all."""
    model, x, y = model_and_data(None, "float32")
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=2, callbacks=[Press(batches)])
    assert history.interrupted
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(history.epoch) == len(expected)
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True))
    assert "nan" not in "".join(lines)


def test_a_peak_that_was_measured_too_low_gives_no_share() -> None:
    share = _PeakShare()
    share._flops_per_sample, share._peak = 1.0, 100.0
    assert share.of(96.0) == 0.96
    assert share.of(131.0) is None
