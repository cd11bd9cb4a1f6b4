"""What the commands print: results on standard output, warnings and errors on standard error."""

from __future__ import annotations

import contextlib
import io
import os
import sys

__all__ = ["discard_output", "print_any_text", "say", "warn"]


def say(text: str) -> None:
    """Print a line at once, in order with the lines of `fit`."""
    print(text, flush=True)


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
