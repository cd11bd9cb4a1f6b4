"""One module's text as several, so that several threads can compile it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["divided"]

PART_LINES = 1500
"""A part of about so many lines is worth a thread of its own."""
MOST_PARTS = 8

_PASSES_LINES = 15
"""What a function costs in itself, as lines of code: LLVM runs some hundred passes over each."""

_FUNCTION = re.compile(r"^define .*?^\}\n", re.MULTILINE | re.DOTALL)
_HEAD = re.compile(r'define (internal )?(.*?) ?@("[^"]+"|[-\w.$]+)\(([^)]*)\)')
_NAME = re.compile(r'@("[^"]+"|[-\w.$]+)')


@dataclass(frozen=True, slots=True)
class _Function:
    """A function's text, and what can be read off it.

    Attributes:
        text: all of it.
        name: its symbol.
        internal: whether it is for its own module only.
        uses: the functions, globals and intrinsics that it names.
        declaration: how another module says that it exists.
    """

    text: str
    name: str
    internal: bool
    uses: frozenset[str]
    declaration: str

    @staticmethod
    def read(text: str) -> _Function:
        head = _HEAD.match(text)
        assert head is not None, text[:80]
        internal, result, name, parameters = head.groups()
        types = ", ".join(parameter.rsplit(" ", 1)[0] for parameter in parameters.split(", ") if parameter)
        uses = frozenset(_NAME.findall(text)) - {name}
        return _Function(text, name, bool(internal), uses, f"declare hidden {result} @{name}({types})\n")

    @property
    def weight(self) -> int:
        return self.text.count("\n") + _PASSES_LINES

    def visible(self) -> str:
        """The text, of a function that the other parts may call."""
        return self.text.replace("define internal ", "define hidden ", 1)


def divided(text: str) -> list[str]:
    """A module as several that are linked together; a small one stays whole.

    The functions are the same to the letter, and so is their code.  Exported functions and all that touches a global
    stand in the first part, the others are dealt out by their length.

    Args:
        text: of a module that `Module` wrote.
    """
    functions = [_Function.read(found) for found in _FUNCTION.findall(text)]
    count = min(MOST_PARTS, sum(function.weight for function in functions) // PART_LINES)
    if count < 2:
        return [text]
    rest = _FUNCTION.sub("", text).splitlines(keepends=True)
    globals_ = [line for line in rest if line.startswith("@")]
    parts = _dealt(functions, frozenset(line[1:].split(" =", 1)[0] for line in globals_), count)
    used = [frozenset().union(*(function.uses for function in part)) for part in parts]
    used[0] |= frozenset(name for line in globals_ for name in _NAME.findall(line))
    written = []
    for number, part in enumerate(parts):
        others = frozenset().union(*(used[other] for other in range(count) if other != number))
        own = frozenset(function.name for function in part)
        lines = [line for line in rest if _belongs(line, used[number], first=number == 0)]
        lines += [function.visible() if function.name in others else function.text for function in part]
        lines += [function.declaration for function in functions if function.name in used[number] - own]
        written.append("".join(lines))
    return written


def _dealt(functions: Sequence[_Function], bound: frozenset[str], count: int) -> list[list[_Function]]:
    """The functions of each part: those that are exported or touch a `bound` global in the first one."""
    parts: list[list[_Function]] = [[] for _ in range(count)]
    weights = [0] * count
    loose = []
    for function in functions:
        if function.internal and not bound & function.uses:
            loose.append(function)
        else:
            parts[0].append(function)
            weights[0] += function.weight
    for function in sorted(loose, key=lambda one: -one.weight):
        lightest = weights.index(min(weights))
        parts[lightest].append(function)
        weights[lightest] += function.weight
    return parts


def _belongs(line: str, used: frozenset[str], *, first: bool) -> bool:
    """Whether a part needs a line that is in no function: a global, a declaration, attributes."""
    if line.startswith("@"):
        return first
    if line.startswith("declare "):
        return any(name in used for name in _NAME.findall(line))
    return True
