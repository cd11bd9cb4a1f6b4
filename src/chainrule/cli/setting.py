"""What a setting is: a name, what its value may be, and how the command line takes and explains it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.cli.names import known_name
from chainrule.cli.options import real, whole
from chainrule.errors import ConfigError

__all__ = ["Setting", "names", "one_of", "real_number", "switch", "text", "whole_number"]


@dataclass(frozen=True)
class Setting:
    """One entry of a configuration.

    Attributes:
        name: as in a configuration file; the option has dashes.
        help: what it decides.
        check: gives the value, or raises ConfigError saying what was expected.
        parse: from a word of the command line; None for a switch.
        metavar: what the help calls the value.
    """

    name: str
    help: str
    check: Callable[[Any], Any]
    parse: Callable[[str], Any] | None
    metavar: str

    @property
    def option(self) -> str:
        """The word of the command line."""
        return f"--{self.name.replace('_', '-')}"


def text(name: str, help: str, metavar: str, what: str | None = None) -> Setting:
    """A name or path."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value or not _is_text(value):
            raise ConfigError(f"{what or _plain(name)} must be a name, got {value!r}")
        return value

    return Setting(name, help, check, str, metavar)


def one_of(name: str, known: Sequence[str], help: str) -> Setting:
    """A name among several."""
    plain = text(name, help, "NAME")
    return Setting(name, help, lambda value: known_name(_plain(name), plain.check(value), known), str, "NAME")


def names(name: str, help: str, check_one: Callable[[str], Any], metavar: str = "LIST") -> Setting:
    """Several names: a list in a file, separated by commas on the command line; ``none`` for none."""

    def check(value: Any) -> list[str]:
        if isinstance(value, str):
            value = parse(value)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f'{_plain(name)} must be a list of names such as ["a", "b"], got {value!r}')
        for item in value:
            check_one(item)
        return list(value)

    def parse(word: str) -> list[str]:
        return [] if word == "none" else [item.strip() for item in word.split(",") if item.strip()]

    return Setting(name, help, check, parse, metavar)


def whole_number(name: str, help: str, lowest: int, highest: int | None = None) -> Setting:
    """An integer in a range."""
    wanted = f"an integer of at least {lowest}" if highest is None else f"an integer in {lowest}..{highest}"

    def check(value: Any) -> int:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
        if not fits or (highest is not None and value > highest):
            raise ConfigError(f"{_plain(name)} must be {wanted}, got {value!r}")
        return int(value)

    return Setting(name, help, check, whole, "N")


def real_number(name: str, help: str, wanted: str, accepts: Callable[[float], bool], metavar: str = "X") -> Setting:
    """A finite number that `accepts` takes; `wanted` says which those are."""

    def check(value: Any) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not accepts(value):
            raise ConfigError(f"{_plain(name)} must be {wanted}, got {value!r}")
        return float(value)

    return Setting(name, help, check, real, metavar)


def switch(name: str, help: str) -> Setting:
    """True or false; on the command line ``--name`` and ``--no-name``."""

    def check(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{_plain(name)} must be true or false, got {value!r}")
        return value

    return Setting(name, help, check, None, "")


def _is_text(value: str) -> bool:
    """Whether a file could be called so."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _plain(name: str) -> str:
    return name.replace("_", " ")
