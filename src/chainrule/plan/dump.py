"""Printing the levels of a plan: ``CHAINRULE_DUMP=plan,ir``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from chainrule.errors import ConfigError

__all__ = ["LEVELS", "dump", "dumping"]

LEVELS = ("graph", "expanded", "plan", "ir", "assembly")
"""The step graph; the same in ops that lower directly; kernels, loop nests and stages; LLVM IR; machine code."""


def dumping() -> set[str]:
    """The levels that ``CHAINRULE_DUMP`` asks for.

    Raises:
        ConfigError: an unknown level.
    """
    wanted = {name.strip() for name in os.environ.get("CHAINRULE_DUMP", "").split(",") if name.strip()}
    for name in wanted:
        if name not in (*LEVELS, "all"):
            raise ConfigError(f"CHAINRULE_DUMP={name}: expected some of {', '.join(LEVELS)}, or all")
    return set(LEVELS) if "all" in wanted else wanted


def dump(level: str, text: Callable[[], str]) -> None:
    """Print one level to standard error if it is wanted."""
    if level in dumping():
        print(f"== {level}\n{text()}", file=sys.stderr)
