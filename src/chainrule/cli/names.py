"""Names that a user may mistype: the error says which one was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from chainrule.errors import ConfigError

__all__ = ["known_name", "unknown"]


def unknown(kind: str, name: str, known: Iterable[str], expected: str = "") -> ConfigError:
    """The error for a name that is not known.

    Args:
        kind: what it should name, such as ``"data set"``.
        name: what came.
        known: the names there are.
        expected: what the message ends with; by default all known names.

    >>> str(unknown("data set", "mnits", ["digits", "mnist"]))
    "unknown data set 'mnits' (did you mean 'mnist'?); expected one of digits, mnist"
    """
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ConfigError(f"unknown {kind} {name!r}{hint}; {expected or 'expected one of ' + ', '.join(names)}")


def known_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The name itself.

    Raises:
        ConfigError: it is not among the known ones; the message suggests the nearest.
    """
    names = list(known)
    if name not in names:
        raise unknown(kind, name, names)
    return name
