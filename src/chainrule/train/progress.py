"""What `fit` prints: a live line in a terminal, a line for each epoch in logs."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

from chainrule.errors import ConfigError
from chainrule.train.callback import Callback, Logs
from chainrule.train.oneline import Part, by_importance, clock, fitted, numbers

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

__all__ = ["EpochLines", "ProgressBar", "format_logs", "progress_for"]

_NARROW = 60  # columns below which words are left out before numbers are
_SHORTEST_BAR, _LONGEST_BAR = 4, 20


def progress_for(verbose: str | int) -> list[Callback]:
    """The callbacks that a `verbose` argument asks for.

    Raises:
        ConfigError: not 0, 1, 2 or "auto".
    """
    if verbose == "auto":
        verbose = 1 if sys.stdout is not None and sys.stdout.isatty() else 2
    choices: dict[Any, list[Callback]] = {0: [], 1: [ProgressBar()], 2: [EpochLines()]}
    if verbose not in choices:
        raise ConfigError(f"verbose must be 0, 1, 2 or 'auto', got {verbose!r}")
    return choices[verbose]


def format_logs(logs: Logs) -> str:
    """Loss and metrics as one line.

    >>> format_logs({"loss": 0.51234, "accuracy": 0.98765})
    'loss 0.5123  accuracy 0.9877'
    """
    return "  ".join(numbers((logs or {}).items()))


class _Timed(Callback):
    """Knows how long the training part of an epoch took, and how many samples it saw.

    Attributes:
        seconds: of the running epoch's training, without its validation.
        seen: its samples so far, in this process.
    """

    seconds: float
    seen: int

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()
        self._warm = (0.0, 0)
        self._closed = False

    def measure(self) -> None:
        """Bring `seconds` and `seen` up to date."""
        if not self._closed:
            self.seconds = max(time.perf_counter() - self._start, 1e-9)
            self.seen = self.fitting.seen

    def warmed_up(self) -> None:
        """What comes from now on is what `rate` tells: before it, the step was compiled."""
        self.measure()
        self._warm = (self.seconds, self.seen)

    @property
    def rate(self) -> float:
        """Samples a second; 0 before the first ones."""
        seconds, seen = self._warm if self.seen > self._warm[1] else (0.0, 0)
        return (self.seen - seen) / max(self.seconds - seconds, 1e-9)

    def on_test_begin(self, logs: Logs = None) -> None:
        self._close()

    def on_interrupt(self) -> None:
        self._close()

    def _close(self) -> None:
        """The training part of the epoch is over."""
        self.measure()
        self._closed = True


class EpochLines(_Timed):
    """One line for each epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.measure()
        name = f"epoch {epoch + 1}/{self.params['epochs']}{' (interrupted)' * self.cut_off}"
        speed = f"  {self.rate:,.0f} samples/s" if self.seen else ""
        line = f"{name}  {format_logs(logs)}  {self.seconds:.1f} s{speed}"
        print(_printable(line, getattr(sys.stdout, "encoding", None)), flush=True)


class ProgressBar(_Timed):
    """A live line in a terminal: how far the epoch is, running means, speed, time left; and a line for each epoch.

    The line has as many parts as the terminal has room for.  Where there is no terminal, it is `EpochLines`.
    """

    interval = 0.2

    def on_train_begin(self, logs: Logs = None) -> None:
        from rich.console import Console

        self._console: Console = Console(highlight=False)
        self._plain: EpochLines | None = None
        self._live: Live | None = None
        self._latest, self._compiled = 0.0, False
        self._logs: Logs = None
        self._epoch_seconds: list[float] = []
        self._peak_share = _PeakShare()
        self._moves = not self._console.is_dumb_terminal
        if not (self._console.is_terminal or self._console.is_jupyter):
            self._plain = EpochLines()
            self._plain.model, self._plain.fitting, self._plain.params = self.model, self.fitting, self.params
        else:
            self._peak_share.prepare(self)
        if self._plain is not None or not self._moves:
            self.interval = math.inf  # nothing is shown between two epochs

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if self._plain is not None:
            self._plain.on_epoch_begin(epoch, logs)
            return
        self._epoch = epoch
        if not self._moves:
            return
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._show({})

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        now = time.perf_counter()
        if not self._compiled:
            self._compiled = True
            self.warmed_up()
        self._logs = logs
        if self._live is not None and now - self._latest >= self.interval:
            self._latest = now
            self._show(logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        super().on_test_begin(logs)
        if self._plain is not None:
            self._plain.on_test_begin(logs)
        elif self._live is not None:
            self._show(self._logs)  # validation may take a while

    def on_interrupt(self) -> None:
        super().on_interrupt()
        if self._plain is not None:
            self._plain.on_interrupt()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.measure()
        self._epoch_seconds.append(time.perf_counter() - self._start)
        if self._plain is not None:
            self._plain.on_epoch_end(epoch, logs)
        else:
            if self._live is not None:
                self._live.update("", refresh=True)  # else printing would draw the old one once more
            self._console.print(self._text(self._finished(logs)), no_wrap=True, overflow="crop", crop=True)

    def on_train_end(self, logs: Logs = None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    # -- the lines ----------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        """Columns of the terminal now."""
        if self._moves:
            return self._console.width
        import shutil

        return shutil.get_terminal_size().columns  # rich takes 80 for granted

    def _show(self, logs: Logs) -> None:
        assert self._live is not None
        self.measure()
        self._live.update(_Line(self, dict(logs or {})), refresh=True)

    def _name(self) -> str:
        number = f"{self._epoch + 1}/{self.params['epochs']}"
        return number if self._width < _NARROW else f"epoch {number}"

    def _finished(self, logs: Logs) -> list[str]:
        """A line for the whole epoch, with the numbers of validation."""
        cut = [Part("(interrupted)", 15)] if self.cut_off else []
        parts = [Part(self._name(), 0), *cut, *_ranked(logs), Part(f"{self.seconds:.1f} s", 50), *self._speed(60)]
        return fitted(parts, self._width)

    def running(self, logs: Logs) -> list[str]:
        """The live line without its bar: it follows the first part."""
        done, steps = self.fitting.position.batches, self.params["steps"]
        left = (self.params["samples"] - self.fitting.position.samples) / self.rate if self.seen else math.inf
        left = max(0.0, left)
        narrow = self._width < _NARROW
        parts = [
            Part(self._name(), 0),
            Part(f"{done}" if steps is None else f"{done}/{steps}", 30),
            *_ranked(logs),
            *self._speed(40),
        ]
        parts.append(Part(clock(left) if narrow else f"{clock(left)} left", 20))
        if self.params["epochs"] - self._epoch > 1:
            parts.append(Part(f"{clock(left + self._later())} in all", 35))
        room = 0 if narrow else _SHORTEST_BAR + 2
        return fitted(parts, self._width - room)

    def _later(self) -> float:
        """Seconds that the epochs after this one will take, going by those that are done."""
        known = self._epoch_seconds[1:][-5:]  # in the first one, steps were compiled
        fresh = self.params["samples"] / self.rate if self.seen else math.inf
        each = sum(known) / len(known) if known else fresh
        epochs: int = self.params["epochs"] - self._epoch - 1
        return epochs * each

    def _speed(self, rank: int) -> list[Part]:
        if not self.seen:
            return []
        share = self._peak_share.of(self.rate)
        parts = [Part(f"{self.rate:,.0f} samples/s", rank)]
        return parts if share is None else [*parts, Part(f"{share:.0%} of peak", rank + 1)]

    def _text(self, parts: list[str], done: float | None = None) -> Text:
        """The parts side by side, with a bar after the first one if there is room."""
        from rich.cells import cell_len
        from rich.text import Text

        encoding = self._console.encoding
        line = [_printable(part, encoding) for part in parts]
        room = self._width - sum(map(cell_len, line)) - 2 * len(line)
        text = Text(line[0], no_wrap=True, overflow="crop")
        if done is not None and room >= _SHORTEST_BAR:
            full, empty = ("━", "━") if encoding.startswith("utf") else ("=", "-")
            cells = min(room, _LONGEST_BAR)
            filled = round(cells * min(1.0, done))
            coloured = not self._console.no_color and self._console.color_system is not None
            text.append("  ")
            text.append(full * filled, "bar.complete")
            text.append((empty if coloured or empty != full else " ") * (cells - filled), "bar.back")
        for part in line[1:]:
            text.append(f"  {part}")
        return text


class _Line:
    """The live line, made anew for the width that the terminal has when it is drawn."""

    def __init__(self, bar: ProgressBar, logs: dict[str, float]) -> None:
        self._bar, self._logs = bar, logs

    def __rich__(self) -> Text:
        bar, steps = self._bar, self._bar.params["steps"]
        done = None if steps is None else bar.fitting.position.batches / max(1, steps)
        return bar._text(bar.running(self._logs), done)


class _PeakShare:
    """What share of the machine's multiply-adds a training reaches; unknown unless the native engine runs it."""

    def __init__(self) -> None:
        self._flops_per_sample: float | None = None
        self._peak = 0.0

    def prepare(self, callback: Callback) -> None:
        """Count the step's FLOPs and measure the machine, once in a process."""
        from chainrule.engines import chosen_engine

        model = callback.model
        if chosen_engine(model.engine) != "native" or any(w.dtype.itemsize > 4 for w in model.trainable_weights):
            return  # the peak is that of float32
        from chainrule.engines.native.peak import host_peak
        from chainrule.engines.native.threads import get_threads

        self._peak = host_peak(get_threads()) * 1e9
        self._flops_per_sample = callback.fitting.steps.flops / callback.params["batch_size"]

    def of(self, rate: float) -> float | None:
        """The share at so many samples a second; None where the peak was measured too low to be one."""
        share = 0.0 if self._flops_per_sample is None else rate * self._flops_per_sample / self._peak
        return share if 0 < share <= 1 else None


def _ranked(logs: Logs) -> list[Part]:
    found = dict(logs or {})
    ranks = {name: rank for rank, name in enumerate(by_importance(list(found)), start=1)}
    # The loss comes before everything; from the third number on, others are more wanted.
    return [
        Part(text, min(ranks[name], 9)) if ranks[name] <= 4 else Part(text, 45)
        for name, text in zip(found, numbers(found.items()), strict=True)
    ]


def _printable(text: str, encoding: str | None) -> str:
    """The text with what its stream lacks as escapes."""
    if encoding is None or encoding.lower().startswith("utf"):
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)
