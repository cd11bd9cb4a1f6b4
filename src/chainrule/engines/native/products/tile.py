"""The register tile that all heavy work shares: rows of one operand times panels of the other.

A tile holds ``rows x (2 * panels)`` vector accumulators.  One step of the sum loads two vectors of B per panel and,
row after row, one element of A in every lane, and multiplies and adds::

    acc[i][v] += a[rows[i] + o_a] * b[columns[v] + o_b]        for every step (o_a, o_b) of the summed axes

The summed axes are a nest of affine loops (`Axis`), outermost first; convolution, its weight gradient and the matrix
product differ only in those axes and in where rows and columns begin.  Every accumulator is summed in the order of
the axes, one term after the other, whatever the tile: tile parameters never change a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial

from chainrule.engines.native.ir import Buffer, Function, Index, Module, Value
from chainrule.engines.native.types import Type

__all__ = [
    "PANEL_VECTORS",
    "RUN_TIME",
    "Axis",
    "InPanels",
    "RunTime",
    "Tile",
    "contract",
    "default_tile",
    "equal_width",
    "merged",
    "multiply_add",
    "panel_width",
    "vectors",
]

PANEL_VECTORS = 2
"""Vectors per panel: a panel is as many channels."""

SHORTEST = 4
"""Tiles of fewer rows (and one panel) have too few accumulators to hide the latency of multiply-add: of the peak, 6, 5,
4 and 3 rows reach 91, 89, 91 and 70 % (Zen 3)."""

TILE_OVERHEAD = 0.3
"""What a tile costs beside its rows, in rows.  Small, since 4 rows measured as fast as 6; it prefers the taller of
equally wasteful tiles, which reads B less often."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Size of the register tile.

    Attributes:
        rows: rows of A (pixels, taps, or matrix rows).
        panels: panels of B side by side, `PANEL_VECTORS` vectors each.
    """

    rows: int
    panels: int = 1


class RunTime(Enum):
    """Stands in a product's description for a number that the function takes as a parameter."""

    RUN_TIME = "run time"

    def __repr__(self) -> str:
        return self.name


RUN_TIME = RunTime.RUN_TIME


@dataclass(frozen=True, slots=True)
class Axis:
    """A summed axis: how many steps, and how far each moves in A and in B."""

    count: Index
    a: Index
    b: int


@dataclass(frozen=True, slots=True)
class InPanels:
    """Channels or columns in whole panels.

    >>> InPanels(size=20, panel=16).count, InPanels(size=20, panel=16).width
    (2, 32)

    Attributes:
        size: how many there are.
        panel: how many a panel holds.
    """

    size: int
    panel: int

    @property
    def count(self) -> int:
        """How many panels there are."""
        return -(-self.size // self.panel)

    @property
    def whole(self) -> bool:
        """Whether they fill their panels."""
        return self.size == self.width

    @property
    def width(self) -> int:
        """Channels or columns of all panels, those included that only fill the last one."""
        return self.count * self.panel


def panel_width(module: Module, type: Type) -> int:
    """Channels per panel of a scalar type."""
    return PANEL_VECTORS * module.lanes(type)


def default_tile(module: Module, panels: int, rows: int | None = None) -> Tile:
    """The register tile for a number of panels and, if known, of rows.

    6 x 2 vectors fill 16 registers, 6 x 4 (or 12 x 2 for one panel) fill 32; the latter are not measured.  Fewer rows
    are taken where they waste less: 32 rows go in 8 tiles of 4 rather than 6 of 6.  Where there are fewer rows than
    tiles need to hide the latency, more panels go side by side, as far as the registers hold them.
    """
    registers = module.vector_registers
    wide = registers >= 32 and panels > 1
    tallest = 12 if registers >= 32 and not wide else 6
    across = 2 if wide else 1
    if rows is None:
        return Tile(tallest, across)
    if rows < SHORTEST:
        return Tile(rows, min(panels, across * (SHORTEST // rows)))

    def cost(height: int) -> float:
        return -(-rows // height) * (height + TILE_OVERHEAD)

    return Tile(min(range(tallest, SHORTEST - 1, -1), key=cost), across)


def equal_width(count: int, widest: int) -> int:
    """The width of tiles no wider than `widest` that cover `count` with the least waste in the fewest tiles."""
    tiles = -(-count // widest)
    return -(-count // tiles)


def vectors(f: Function, starts: Sequence[Index], lanes: int) -> list[Index]:
    """The indices of all vectors of the panels that start there."""
    return [f.add(start, v * lanes) for start in starts for v in range(PANEL_VECTORS)]


def multiply_add(f: Function, a: Value, b: Value, c: Value) -> Value:
    """``a * b + c``, rounded once where the target can."""
    if f.module.has_fma:
        return f.fma(a, b, c)
    return f.binary("fadd", f.binary("fmul", a, b), c)


def merged(axes: Sequence[Axis]) -> list[Axis]:
    """The same steps in the same order as fewer axes: neighbours whose steps are evenly spaced become one."""
    result: list[Axis] = []
    for axis in reversed(axes):
        inner = result[-1] if result else None
        if axis.count == 1:
            continue
        if (
            inner is not None
            and isinstance(inner.count, int)
            and isinstance(inner.a, int)
            and (axis.a, axis.b) == (inner.count * inner.a, inner.count * inner.b)
            and isinstance(axis.count, int)
        ):
            result[-1] = Axis(axis.count * inner.count, inner.a, inner.b)
        else:
            result.append(axis)
    return result[::-1]


def contract(
    f: Function,
    accumulators: Sequence[Value],
    a: Buffer,
    rows: Sequence[Index],
    b: Buffer,
    columns: Sequence[Index],
    axes: Sequence[Axis],
    unroll: int = 1,
    straight: int = 1,
) -> list[Value]:
    """Add the sum over all axes to a tile of accumulators.

    Args:
        f: the function under construction.
        accumulators: ``len(rows) * len(columns)`` vectors, row by row.
        a: the operand that is broadcast, element by element.
        rows: index in `a` of each row's first element.
        b: the operand that is read in vectors.
        columns: index in `b` of each vector at the first step.
        axes: what is summed over, outermost first.
        unroll: steps of the innermost loop per turn; of a count known beforehand, the largest divisor up to it.
        straight: inner axes with at most so many steps in all become straight-line code.  LLVM orders such code
            freely and needs registers to spare for that: with a tile that fills them it spills.

    Returns:
        The accumulators with the sum added.
    """
    lanes = accumulators[0].type.lanes

    def step(carried: Sequence[Value], at_a: Index, at_b: Index) -> list[Value]:
        following = list(carried)
        vectors = [f.load(b, f.add(column, at_b), lanes) for column in columns]
        for i, row in enumerate(rows):
            element = f.splat(f.load(a, f.add(row, at_a)), lanes)
            for v, vector in enumerate(vectors):
                place = i * len(columns) + v
                following[place] = multiply_add(f, element, vector, following[place])
        return following

    def nest(remaining: Sequence[Axis], carried: Sequence[Value], at_a: Index, at_b: Index) -> list[Value]:
        if not remaining:
            return step(carried, at_a, at_b)
        axis, inner = remaining[0], remaining[1:]
        if _steps(remaining) <= straight:
            assert isinstance(axis.count, int)
            result = list(carried)
            for i in range(axis.count):
                result = nest(inner, result, f.add(at_a, f.mul(axis.a, i)), f.add(at_b, i * axis.b))
            return result
        turns = 1 if inner else _divisor(axis.count, unroll)

        def turn(steps: int, i: Value, values: list[Value]) -> list[Value]:
            here_a, here_b = f.add(at_a, f.mul(i, axis.a)), f.add(at_b, f.mul(i, axis.b))
            for u in range(steps):
                values = nest(inner, values, f.add(here_a, f.mul(axis.a, u)), f.add(here_b, u * axis.b))
            return values

        whole = axis.count if isinstance(axis.count, int) else f.mul(f.div(axis.count, turns), turns)
        result = f.loop(0, whole, partial(turn, turns), carried, step=turns)
        return result if whole == axis.count else f.loop(whole, axis.count, partial(turn, 1), result)

    return nest(merged(axes), accumulators, 0, 0)


def _steps(axes: Sequence[Axis]) -> float:
    """How many steps a nest makes; infinitely many where a count is known at run time only."""
    return math.prod(axis.count if isinstance(axis.count, int) else math.inf for axis in axes)


def _divisor(count: Index, at_most: int) -> int:
    """How many steps to write out per turn: so many that nothing is left over, if the count is known."""
    if not isinstance(count, int):
        return at_most
    return max(d for d in range(1, at_most + 1) if count % d == 0)
