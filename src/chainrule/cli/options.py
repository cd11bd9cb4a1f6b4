"""The types of command-line options, and a parser whose errors are chainrule's."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from chainrule.errors import ConfigError

__all__ = [
    "Parser",
    "image_shape",
    "parsed_size",
    "picture_size",
    "positive",
    "real",
    "seed_list",
    "size_option",
    "verbosity",
    "whole",
]

_MOST_SEEDS = 1000


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors, and takes no abbreviations."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(allow_abbrev=False, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')} (see {self.prog} --help)")

    def option_names(self) -> list[str]:
        """The long options."""
        return re.findall(r"--[a-z][a-z-]+", self.format_usage())


def whole(text: str) -> int:
    """An integer.

    >>> whole("-3")
    -3
    """
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def positive(text: str) -> int:
    """A positive integer."""
    number = whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return number


def real(text: str) -> float:
    """A number.

    >>> real("1e-3")
    0.001
    """
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def verbosity(text: str) -> int | str:
    """What `fit` takes as `verbose`."""
    if text == "auto":
        return text
    if text in ("0", "1", "2"):
        return int(text)
    raise argparse.ArgumentTypeError(f"expected 0, 1, 2 or auto, got {text!r}")


def seed_list(text: str) -> list[int]:
    """Several seeds: numbers and ranges, separated by commas.

    >>> seed_list("0-2,7")
    [0, 1, 2, 7]
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,20})\s*(?:-\s*(\d{1,20})\s*)?", part, re.ASCII)
        if not found:
            raise argparse.ArgumentTypeError(f"expected seeds such as 0-4 or 0,1,2, got {text!r}")
        first = int(found[1])
        last = int(found[2] or first)
        if last < first or len(seeds) + last - first >= _MOST_SEEDS:
            raise argparse.ArgumentTypeError(f"expected 1 to {_MOST_SEEDS} seeds in rising ranges, got {text!r}")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"a seed appears twice in {text!r}")
    return seeds


def image_shape(text: str) -> tuple[int, ...]:
    """The shape of an image, HEIGHTxWIDTHxCHANNELS.

    >>> image_shape("28x28x1")
    (28, 28, 1)
    """
    if not re.fullmatch(r"\d{1,9}x\d{1,9}x\d{1,9}", text, re.ASCII) or "0" in (sizes := text.split("x")):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTHxCHANNELS such as 28x28x1, got {text!r}")
    return tuple(map(int, sizes))


def picture_size(value: object) -> str:
    """The size of pictures, HEIGHTxWIDTH.

    >>> picture_size("64x48")
    '64x48'
    """
    found = isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", value, re.ASCII)
    if not found:
        raise ConfigError(f"size must be HEIGHTxWIDTH such as 64x64, got {value!r}")
    return str(value)


def size_option(text: str) -> str:
    """`picture_size`, as a type of an option."""
    try:
        return picture_size(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parsed_size(text: str | None) -> tuple[int, int] | None:
    """Height and width in such a text."""
    if text is None:
        return None
    height, width = text.split("x")
    return int(height), int(width)
