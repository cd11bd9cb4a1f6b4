"""Facts in two columns, as wide as the terminal is, and coloured where that is wanted."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

__all__ = ["columns", "has_colour", "known_columns", "painted", "pairs"]

_WIDEST = 100
_NARROWEST = 20
_MOST_LABEL = 16
_COLOURS = {"green": 32, "red": 31, "bold": 1}


def columns() -> int:
    """How wide lines may be: the terminal, at most 100 columns."""
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns))


def known_columns() -> int | None:
    """How wide the terminal is; None where there is none, and lines may be as long as they are."""
    found = shutil.get_terminal_size((0, 0)).columns
    return max(_NARROWEST, found) if found else None


def has_colour() -> bool:
    """Whether standard output is a terminal that takes colour, and ``NO_COLOR`` does not forbid it."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, colour: str) -> str:
    """Text in a colour (``green``, ``red``, ``bold``), where that is wanted."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if has_colour() else text


def pairs(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Labels and values in two columns; values that are too long go on below themselves, and stand below long labels.

    >>> pairs([("name", "a value of several words"), ("n", "1")], 22)
    ['  name  a value of', '        several words', '  n     1']
    """
    label = min(max((len(name) for name, _ in rows), default=0), _MOST_LABEL)
    lines = []
    for name, value in rows:
        room = max(8, width - label - 4)
        first, *rest = textwrap.wrap(value, room, break_on_hyphens=False) or [""]
        if len(name) > label:  # a line of its own
            lines.append(f"  {name}")
            name = ""
        lines.append(f"  {name:{label}}  {first}".rstrip())
        lines += [f"  {'':{label}}  {line}" for line in rest]
    return lines
