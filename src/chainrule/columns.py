"""Text in columns of a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["shortened", "table", "text_width"]

_SHORTEST = 9
"""Columns that a name keeps however narrow the table must be."""


def text_width(text: str) -> int:
    """How many columns of a terminal a text takes; a Chinese character takes two.

    >>> text_width("猫 cat")
    6
    """
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def shortened(text: str, width: int) -> str:
    """A text without its middle: names of one kind differ in their last characters.

    >>> shortened("batch_normalization_12", 12)
    'batch...n_12'
    """
    if text_width(text) <= width:
        return text
    first, last = text, ""
    room = width - 3
    while text_width(first) > room - room // 2:
        first = first[:-1]
    for character in reversed(text):
        if text_width(character + last) > room // 2:
            break
        last = character + last
    return f"{first}...{last}"


def table(rows: Sequence[Sequence[str]], numbers: int, width: int | None = None, flexible: int = 0) -> list[str]:
    """Rows under a header: the first columns are text, the last `numbers` are on the right.

    Args:
        rows: the header first.
        numbers: how many columns are numbers.
        width: of a line, at most, as far as cells of nine columns allow; by default as wide as needed.
        flexible: the column whose cells are shortened where lines would be wider.

    >>> table([("kernel", "FLOPs"), ("conv2d", "12"), ("dense_and_more", "3")], 1, 16)
    ['kernel     FLOPs', '----------------', 'conv2d        12', 'den...ore      3']
    """
    widths = [max(text_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    over = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
    widths[flexible] = min(widths[flexible], max(_SHORTEST, widths[flexible] - max(0, over)))
    texts = len(widths) - numbers
    lines = []
    for row in rows:
        cells = [shortened(cell, widths[i]) if i == flexible else cell for i, cell in enumerate(row)]
        gaps = [" " * (wide - text_width(cell)) for cell, wide in zip(cells, widths, strict=True)]
        placed = [c + gap if i < texts else gap + c for i, (c, gap) in enumerate(zip(cells, gaps, strict=True))]
        lines.append("  ".join(placed).rstrip())
    return [lines[0], "-" * max(map(text_width, lines)), *lines[1:]]
