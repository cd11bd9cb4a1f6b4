"""What the commands print: results on standard output, warnings and errors on standard error."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.errors import ConfigError
from chainrule.train.callback import Callback, Logs

__all__ = ["Output", "check_new_file", "discard_output", "print_any_text", "say", "say_json", "warn"]


@dataclass(frozen=True)
class Output:
    """How much a training prints, and in what form.

    Attributes:
        verbose: what `fit` takes.
        quiet: print the result and nothing else.
        json: print one JSON object a line, for programs.
    """

    verbose: int | str = "auto"
    quiet: bool = False
    json: bool = False

    @property
    def progress(self) -> int | str:
        """What `fit` is to show."""
        return 0 if self.quiet or self.json else self.verbose

    def callbacks(self) -> list[Callback]:
        """What prints while the training runs, beside the progress of `fit`."""
        return [JSONLines()] if self.json and not self.quiet else []

    def say(self, text: str) -> None:
        """Print a line for people, unless nothing but the result is wanted."""
        if not self.quiet and not self.json:
            say(text)

    def result(self, text: str) -> None:
        """Print the result for people."""
        if not self.json:
            say(text)

    def event(self, name: str, /, **facts: Any) -> None:
        """Print an object for programs, where that is wanted."""
        if self.json and (name == "result" or not self.quiet):
            say_json({"event": name, **facts})


class JSONLines(Callback):
    """An object after each epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        cut = {"interrupted": True} if self.cut_off else {}
        say_json({"event": "epoch", "epoch": epoch + 1, **cut, **(logs or {})})


def say(text: str) -> None:
    """Print a line at once, in order with the lines of `fit`."""
    print(text, flush=True)


def say_json(value: Any) -> None:
    """Print a value as JSON on one line: numbers that are not finite as null, what the stream lacks escaped."""
    strict = _strict(value)
    text = json.dumps(strict, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        text = json.dumps(strict, allow_nan=False)
    say(text)


def _strict(value: Any) -> Any:
    """What strict JSON can hold."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_new_file(path: Path, option: str) -> None:
    """Refuse to overwrite a file, or to write where there is no folder.

    Raises:
        ConfigError: the path cannot be that of a new file.
    """
    if os.path.lexists(path):
        raise ConfigError(f"'{path}' already exists and is not overwritten; name a new file with {option}")
    if not path.parent.is_dir():
        raise ConfigError(f"'{path.parent}' is not a folder; {option} names a new file in a folder that exists")


def warn(text: str) -> None:
    """Print a warning, on one line."""
    print(f"chainrule: warning: {' '.join(text.split())}", file=sys.stderr, flush=True)


def print_any_text() -> None:
    """Let the standard streams print every character; one that the terminal lacks comes as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Send what is still to be printed nowhere, after the reader has gone."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
