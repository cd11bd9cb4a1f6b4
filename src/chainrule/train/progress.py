"""The progress bar of `fit`, and its one-line form for logs."""

from __future__ import annotations

import sys
import time
from typing import Any

from chainrule.errors import ConfigError
from chainrule.train.callback import Callback, Logs

__all__ = ["EpochLines", "ProgressBar", "format_logs", "progress_for"]


def progress_for(verbose: str | int) -> list[Callback]:
    """The callbacks that a `verbose` argument asks for.

    Raises:
        ConfigError: not 0, 1, 2 or "auto".
    """
    if verbose == "auto":
        verbose = 1 if sys.stdout.isatty() else 2
    choices: dict[Any, list[Callback]] = {0: [], 1: [ProgressBar()], 2: [EpochLines()]}
    if verbose not in choices:
        raise ConfigError(f"verbose must be 0, 1, 2 or 'auto', got {verbose!r}")
    return choices[verbose]


def format_logs(logs: Logs) -> str:
    """Loss and metrics as one line.

    >>> format_logs({"loss": 0.51234, "accuracy": 0.98765})
    'loss 0.5123  accuracy 0.9877'
    """
    return "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())


class EpochLines(Callback):
    """One line for each epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        seconds = time.perf_counter() - self._start
        rate = self.params["samples"] / max(seconds, 1e-9)
        print(
            f"epoch {epoch + 1}/{self.params['epochs']}  {format_logs(logs)}  {seconds:.1f} s  {rate:,.0f} samples/s",
            flush=True,
        )


class ProgressBar(Callback):
    """A live bar for each epoch: running means, samples a second, time left."""

    interval = 0.1

    def on_train_begin(self, logs: Logs = None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[logs]}"),
            TextColumn("{task.fields[rate]} samples/s"),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._start = time.perf_counter()
        self._task = self._bar.add_task(
            "", total=self.params["steps"], epoch=f"{epoch + 1}/{self.params['epochs']}", logs="", rate="-"
        )

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        seen = min((batch + 1) * self.params["batch_size"], self.params["samples"])
        rate = seen / max(time.perf_counter() - self._start, 1e-9)
        self._bar.update(self._task, completed=batch + 1, logs=format_logs(logs), rate=f"{rate:,.0f}")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self._bar.update(self._task, completed=self.params["steps"], logs=format_logs(logs))

    def on_train_end(self, logs: Logs = None) -> None:
        self._bar.stop()
