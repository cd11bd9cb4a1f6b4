"""``chainrule data``: check a data set of pictures, or download one by name."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from chainrule.cli.layout import columns
from chainrule.cli.names import known_name
from chainrule.cli.output import say, say_json
from chainrule.data.check import FolderReport, PartReport, check_data
from chainrule.data.download import Download, fetch, note
from chainrule.data.published import DATA_SETS

__all__ = ["run"]

_PROBLEMS = 1
"""The exit status of a check that found something."""

_MOST = 20
"""So many classes, broken files and groups of duplicates are printed; ``--json`` has all of them."""


def run(arguments: argparse.Namespace) -> int:
    """Check or download.

    Raises:
        ChainruleError: there is no such data set, or its files cannot be had.
    """
    return _check(arguments) if arguments.action == "check" else _download(arguments)


# -- chainrule data check ----------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> int:
    report = check_data(arguments.folder, workers=min(4, os.cpu_count() or 1))
    if arguments.json:
        say_json(_as_json(report))
    else:
        for line in _lines(report):
            say(line)
    return _PROBLEMS if report.problems() else 0


def _as_json(report: FolderReport) -> dict[str, Any]:
    return {
        "folder": report.folder,
        "pictures": sum(part.pictures for part in report.parts),
        "parts": [_part_as_json(part) for part in report.parts],
        "shared": report.shared,
        "conflicts": report.conflicts,
        "problems": report.problems(),
    }


def _part_as_json(part: PartReport) -> dict[str, Any]:
    return {
        "name": part.name,
        "pictures": part.pictures,
        "classes": part.classes,
        "sizes": [{"height": height, "width": width, "pictures": n} for (height, width), n in part.sizes.items()],
        "modes": part.modes,
        "mean": part.mean,
        "deviation": part.deviation,
        "broken": part.broken,
        "duplicates": part.duplicates,
    }


def _lines(report: FolderReport) -> Iterator[str]:
    yield report.folder
    for part in report.parts:
        yield ""
        yield from _part_lines(part)
    yield from _groups("In several parts", report.shared)
    yield from _groups("In several classes", report.conflicts)
    yield ""
    problems = report.problems()
    yield "No problems." if not problems else "Problems:"
    for problem in problems:
        yield from _wrapped(problem, "- ")


def _part_lines(part: PartReport) -> Iterator[str]:
    yield f"{part.name or 'all'}: {_many(part.pictures, 'picture')}, {_many(len(part.classes), 'class', 'classes')}"
    yield from _listed("size", (f"{h}x{w} ({count:,})" for (h, w), count in _most_first(part.sizes)))
    yield from _listed("mode", (f"{mode} ({count:,})" for mode, count in _most_first(part.modes)))
    yield from _wrapped(_numbers(part.mean), "  mean  ")
    yield from _wrapped(_numbers(part.deviation), "  std   ")
    counts = part.classes.values()
    if len(part.classes) > _MOST:
        yield f"  {min(counts):,} to {max(counts):,} pictures in a class"
    else:
        width = max((len(f"{count:,}") for count in counts), default=0)
        yield from (f"  {count:>{width},}  {name}" for name, count in part.classes.items())
    if part.broken:
        yield "  cannot be read:"
        yield from _wrapped_first((f"{name}: {why}" for name, why in part.broken.items()), "    ")
    yield from _groups("  more than once", part.duplicates)


def _most_first(counts: Any) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: -item[1])


def _listed(what: str, words: Iterable[str]) -> Iterator[str]:
    yield from _wrapped(", ".join(_first(words, "...")), f"  {what}  ")


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _groups(title: str, groups: Sequence[Sequence[str]]) -> Iterator[str]:
    if groups:
        indent = " " * (len(title) - len(title.lstrip()) + 2)
        yield f"{title}:"
        yield from _wrapped_first((" = ".join(files) for files in groups), indent)


def _wrapped_first(items: Iterable[str], indent: str) -> Iterator[str]:
    for item in _first(items, "... (--json lists all)"):
        yield from _wrapped(item, indent)


def _first(lines: Iterable[str], rest: str) -> Iterator[str]:
    for number, line in enumerate(lines):
        if number == _MOST:
            yield rest
            return
        yield line


def _many(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def _wrapped(text: str, start: str) -> list[str]:
    """Lines that fit the terminal, words and file names whole; one line where there is none."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return [start + text]
    return textwrap.wrap(
        text,
        columns(),
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


# -- chainrule data download -------------------------------------------------------------------------------------


def _download(arguments: argparse.Namespace) -> int:
    known_name("data set", arguments.name, DATA_SETS)
    folder = fetch(arguments.name, arguments.to, report=_progress if sys.stderr.isatty() else note)
    say(f"{arguments.name}: the published files are in '{folder}'")
    return 0


def _progress(event: Download) -> None:
    """Lines as `note` prints them, and a count that moves while bytes arrive."""
    if event.received and not event.done and not event.failure:
        total = f" of {event.total / 1e6:.1f}" if event.total else ""
        print(f"\r  {event.received / 1e6:.1f}{total} MB", end="", file=sys.stderr, flush=True)
    else:
        if event.failure or event.done:
            print("\r\x1b[K", end="", file=sys.stderr)
        note(event)
