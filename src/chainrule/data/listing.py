"""Lists of pictures: a csv file with a picture, its class and, if wanted, its part of the data set in each row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

from chainrule.errors import DataError
from chainrule.files import readable, reason

__all__ = ["PART_NAMES", "Listed", "listed_files"]

PART_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What folders and rows of parts are called, in any case."""

_FILE, _CLASS, _PART = ("file", "path", "filename", "image"), ("class", "label"), ("part", "split")
"""What the header may call its columns."""

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs"}


class Listed(NamedTuple):
    """A row of a list; `part` is a key of `PART_NAMES`, or empty where the list has no such column."""

    line: int
    file: str
    kind: str
    part: str


def listed_files(source: Path) -> list[Listed]:
    """The rows of a csv file in UTF-8: a header, then a picture in each row; blank lines count for nothing.

    Raises:
        DataError: the file cannot be read, a column is missing, or a row cannot be understood; the row is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "list.csv").write_text("file,class,split\\na.png,cat,val\\n")
        ...     listed_files(Path(folder) / "list.csv")
        [Listed(line=2, file='a.png', kind='cat', part='validation')]
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_understood(_filled(file), source))
    except OSError as error:
        raise DataError(f"'{readable(source)}': cannot be read ({reason(error)}); expected a csv file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{readable(source)}': cannot be understood ({error}); expected a csv file in UTF-8") from None
    if not rows:
        raise DataError(f"'{readable(source)}' lists no pictures")
    return rows


def _filled(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, with the numbers of their lines."""
    reader = csv.reader(file, strict=True)
    for row in reader:
        if any(word.strip() for word in row):
            yield reader.line_num, [word.strip() for word in row]


def _understood(lines: Iterator[tuple[int, list[str]]], source: Path) -> Iterator[Listed]:
    _, header = next(lines, (0, []))
    found = [word.lower() for word in header]
    places = [_column(found, names) for names in (_FILE, _CLASS)]
    for place, names in zip(places, (_FILE, _CLASS), strict=True):
        if place is None:
            raise DataError(
                f"'{readable(source)}': the header is {', '.join(header) or 'empty'}; expected a column "
                f"{' or '.join(names)}{_separator_hint(header)}"
            )
    wanted = [place for place in (*places, _column(found, _PART)) if place is not None]
    for line, row in lines:
        words = [row[place] if place < len(row) else "" for place in wanted]
        if any(row[len(header) :]):
            raise DataError(
                f"'{readable(source)}', row {line}: {row!r} has more cells than the header; a text with a comma stands "
                "in double quotes"
            )
        if not all(words) or "\0" in "".join(row):
            what = "a file or a class" if len(wanted) == 2 else "a file, a class or a part"
            raise DataError(f"'{readable(source)}', row {line}: {row!r} lacks {what}")
        yield Listed(line, words[0], words[1], _part(words[2], line, source) if len(words) == 3 else "")


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _separator_hint(header: list[str]) -> str:
    for mark, name in _OTHER_SEPARATORS.items():
        if len(header) == 1 and mark in header[0]:
            return f"; the columns are separated by {name}, and commas are needed"
    return ""


def _part(word: str, line: int, source: Path) -> str:
    for part, names in PART_NAMES.items():
        if word.lower() in names:
            return part
    raise DataError(f"'{readable(source)}', row {line}: the part {word!r} is none of train, val and test")
