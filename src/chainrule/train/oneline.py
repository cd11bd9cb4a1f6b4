"""What a running training has to tell, as one line that is never wider than the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Part", "by_importance", "clock", "fitted", "number", "numbers"]

_GAP = 2


class Part(NamedTuple):
    """A piece of a line.

    Attributes:
        text: what it says.
        rank: pieces of a lower rank are kept where not all of them fit.
    """

    text: str
    rank: int


def fitted(parts: Sequence[Part], width: int) -> list[str]:
    """The pieces that fit into a width, two spaces apart, in their order.

    A piece that does not fit is left out; the most important one is cut instead.

    >>> fitted([Part("epoch 1/3", 0), Part("99 samples/s", 2), Part("loss 0.5", 1)], 20)
    ['epoch 1/3', 'loss 0.5']
    """
    from rich.cells import cell_len, set_cell_size

    order = sorted(range(len(parts)), key=lambda i: parts[i].rank)
    kept: set[int] = set()
    used = -_GAP
    for i in order:
        need = used + _GAP + cell_len(parts[i].text)
        if not kept and need > width:
            return [set_cell_size(parts[i].text, width)]
        if need <= width:
            kept.add(i)
            used = need
    return [parts[i].text for i in sorted(kept)]


def number(value: float) -> str:
    """A loss or a metric: four digits after the point, or an exponent where these would say nothing.

    >>> number(0.51234), number(3.2e-7), number(1.5e9), number(float("nan"))
    ('0.5123', '3.2e-07', '1.5e+09', 'nan')
    """
    size = abs(value)
    return f"{value:.4g}" if math.isfinite(value) and size and not 1e-3 <= size < 1e6 else f"{value:.4f}"


def numbers(logs: Iterable[tuple[str, float]]) -> list[str]:
    """Each name with its number.

    >>> numbers([("loss", 0.5), ("accuracy", 0.75)])
    ['loss 0.5000', 'accuracy 0.7500']
    """
    return [f"{name} {number(value)}" for name, value in logs]


def by_importance(names: Sequence[str]) -> list[str]:
    """The order in which numbers are left out of a line last: the loss, that of validation, the first metric, ...

    >>> by_importance(["loss", "accuracy", "val_loss", "val_accuracy"])
    ['loss', 'val_loss', 'accuracy', 'val_accuracy']
    """
    plain = [name for name in names if not name.startswith("val_")]
    paired = [name for first in plain for name in (first, f"val_{first}") if name in names]
    return [*paired, *(name for name in names if name not in paired)]


def clock(seconds: float) -> str:
    """A time that is left.

    >>> clock(0.4), clock(75), clock(7322), clock(float("inf"))
    ('0:00', '1:15', '2:02:02', '-:--')
    """
    if not seconds < 1e8:
        return "-:--"
    whole = round(seconds)
    minutes = f"{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{whole // 3600}:{minutes}:{whole % 60:02}" if whole >= 3600 else f"{minutes}:{whole % 60:02}"
