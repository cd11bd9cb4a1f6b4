"""Matrix products in panels.

``MatrixProduct``: ``void @f(ptr %a, ptr %b, ptr %y, i64 %m, i64 %k[, i64 %panels][, strides])``
    ``y[i][j] (+)= sum over l < k of a[i*a_row_stride + l*a_step] * b[l][j]`` for ``i < m`` and all columns j of the
    panels, with m, k at least 1.  b is read in panels: vector v of panel n at step l lies at
    ``n*b_panel_stride + l*b_row_stride + v*L``, so that it may be packed ``[panel][k][PANEL]`` (the default) or any
    row-major matrix whose columns fill its panels (``b_row_stride = columns, b_panel_stride = PANEL``).

The three products of a dense layer ``y[B][O] = x[B][I] @ w[I][O]``:

======================= ===================== =================== ======================================
product                 a (row stride, step)  b                   unit of work
======================= ===================== =================== ======================================
y = x @ w               x (I, 1)              w, panels of O      panels, or ranges of I with partial sums
dx = dy @ w^T           dy (O, 1)             w^T, panels of I    panels of I
dw = x^T @ dy           x (1, I)              dy, panels of O     ranges of I: rows of y
======================= ===================== =================== ======================================

What lies how, measured by benchmarks/kernels.py on one thread of a Zen 3: per cent of the peak of multiply-add with
128 outputs, at 32 rows and 1600 / 5408 inputs, then at 128 rows and the same inputs.  Runs differ by up to 4.

- y = x @ w, packed w, ``block_depth=256``: 89 / 90, 88 / 86.
  Packing just before use into scratch of the first cache, 4 panels of 64 rows at a time (so that rows of w are read in
  runs of 256 bytes), with ``accumulate``: 78 / 77, 83 / 83.
  Natural w, ``unroll=1``: 75 / 72, 77 / 72: at 32 rows not told apart from packing.  But the lines of a panel lie in
  few cache sets: with 1024 inputs and outputs it reaches 47, packed w 84.
- dx = dy @ w^T, packed w^T: 90 / 89, 90 / 89.  Each panel transposed into scratch just before use: 81 / 75, 90 / 81.
- dw = x^T @ dy, dy in panels and x packed 24 columns at a time (``Panels(width=24)``, ``a_row_stride=1``,
  ``a_step=24``): 87 / 87, 92 / 91.  Natural x, ``block_rows=24``: 88 / 83, 88 / 83.  Both natural: 86 / 83, 80 / 82.

Order of summation: l from 0 to k, one term after the other; blocks only say when a sum rests in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.engines.native.ir import Buffer, Function, Index, Module, Value
from chainrule.engines.native.products.tile import (
    Axis,
    RunTime,
    Tile,
    contract,
    default_tile,
    panel_width,
    vectors,
)
from chainrule.engines.native.types import BOOL, I64, Type

__all__ = ["MatrixProduct", "emit_matrix_product"]


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """A product of matrices of run-time height and depth; see the module for the function's signature.

    Attributes:
        type: scalar float type.
        panels: panels of columns (the most, where it is a parameter).
        a_row_stride, a_step: how far the next row and the next step of the sum lie in a, in elements.
        y_row_stride: in elements.
        b_row_stride: from one step of the sum to the next in b; one panel if None.
        b_panel_stride: from one panel of b to the next; ``k * b_row_stride`` if None.  Of the four strides those that
            are ``RUN_TIME`` are parameters, in this order.
        y_panel_stride: from one panel of y to the next; one panel if None.
        accumulate: whether the product is added to y.
        block_rows: rows that go through all panels before the next ones do; all rows if None.
        block_depth: steps of the sum that go through all rows before the next ones do, so that the panel's part
            stays in the first cache; all steps if None.
        run_time_panels: whether the number of panels is a parameter.
        likely_rows: how many rows most calls have, if that is known: the default tile wastes little on so many.
        tile: register tile; the best for `likely_rows` if None.
        unroll: steps of the innermost loop per turn.  With packed b, 2 is up to 5 points of the peak faster than
            1, and 4 gains no more; with natural b, 2 is 6 to 11 points slower than 1.
    """

    type: Type
    panels: int
    a_row_stride: int | RunTime
    a_step: int | RunTime
    y_row_stride: int | RunTime
    b_row_stride: int | None = None
    b_panel_stride: int | RunTime | None = None
    y_panel_stride: int | None = None
    accumulate: bool = False
    block_rows: int | None = None
    block_depth: int | None = None
    run_time_panels: bool = False
    likely_rows: int | None = None
    tile: Tile | None = None
    unroll: int = 2


def emit_matrix_product(module: Module, name: str, spec: MatrixProduct) -> None:
    """Add a `MatrixProduct` function to a module."""
    lanes, panel = module.lanes(spec.type), panel_width(module, spec.type)
    tile = spec.tile or default_tile(module, spec.panels, spec.likely_rows)
    parameters = [("ptr", "a"), ("ptr", "b"), ("ptr", "y"), ("i64", "m"), ("i64", "k")]
    strides = {
        "a_row_stride": spec.a_row_stride,
        "a_step": spec.a_step,
        "y_row_stride": spec.y_row_stride,
        "b_panel_stride": spec.b_panel_stride,
    }
    given = [("i64", stride) for stride, value in strides.items() if isinstance(value, RunTime)]
    f = Function(module, name, [*parameters, *[("i64", "panels")] * spec.run_time_panels, *given])

    def stride(which: str) -> Index:
        value = strides[which]
        if isinstance(value, RunTime):
            return Value(f"%{which}", I64)
        assert value is not None
        return value

    a_row, a_step, y_row = stride("a_row_stride"), stride("a_step"), stride("y_row_stride")
    m, k = Value("%m", I64), Value("%k", I64)
    panels: Index = Value("%panels", I64) if spec.run_time_panels else spec.panels
    b_row = spec.b_row_stride or panel
    b_panel = f.mul(k, b_row) if spec.b_panel_stride is None else stride("b_panel_stride")
    y_panel = spec.y_panel_stride or panel
    last_row, last_step, last_panel = f.sub(m, 1), f.sub(k, 1), f.sub(panels, 1)

    def extent(*terms: tuple[Index, Index]) -> Index:
        total: Index = 0
        for count, stride in terms:
            total = f.add(total, f.mul(count, stride))
        return total

    a_size = f.add(extent((last_row, a_row), (last_step, a_step)), 1)
    b_size = f.add(extent((last_panel, b_panel), (last_step, b_row)), panel)
    y_size = f.add(extent((last_panel, y_panel), (last_row, y_row)), panel)
    a = Buffer("%a", spec.type, a_size, f"{name} a")
    b = Buffer("%b", spec.type, b_size, f"{name} b")
    y = Buffer("%y", spec.type, y_size, f"{name} y")

    def one_tile(row: Index, group: Index, low: Index, depth: Index, first: Value | None) -> None:
        # Rows and panels beyond the last one repeat it: all loads of a tile precede its stores, so that the
        # repetitions store the same sums and nothing is added twice.
        chosen = [f.min(f.add(row, i), last_row) for i in range(tile.rows)]
        numbers = [f.min(f.add(group, i), last_panel) if i else group for i in range(tile.panels)]
        columns = vectors(f, [extent((n, b_panel), (low, b_row)) for n in numbers], lanes)
        rows = [extent((i, a_row), (low, a_step)) for i in chosen]
        outputs = vectors(f, [f.mul(n, y_panel) for n in numbers], lanes)
        places = [f.add(f.mul(i, y_row), output) for i in chosen for output in outputs]
        zero = f.constant(0.0, spec.type.of(lanes))
        if not spec.accumulate and spec.block_depth is None:
            start = [zero] * len(places)
        else:
            start = [f.load(y, place, lanes) for place in places]
            if first is not None:
                start = [f.select(first, zero, value) for value in start]
        sums = contract(f, start, a, rows, b, columns, [Axis(depth, a_step, b_row)], spec.unroll)
        for place, total in zip(places, sums, strict=True):
            f.store(total, y, place)

    def depth_block(row_low: Index, row_high: Index, low: Index, depth: Index) -> None:
        first = None
        if not spec.accumulate and spec.block_depth is not None:
            first = f.let(BOOL, f"icmp eq i64 {f.index(low).text}, 0")

        def group(number: Value, _: list[Value]) -> None:
            def tiles(row: Value, _: list[Value]) -> None:
                one_tile(row, number, low, depth, first)

            f.loop(row_low, row_high, tiles, step=tile.rows)

        f.loop(0, panels, group, step=tile.panels)

    def row_block(row_low: Index, row_high: Index) -> None:
        if spec.block_depth is None:
            depth_block(row_low, row_high, 0, k)
            return
        size = spec.block_depth

        def blocks(low: Value, _: list[Value]) -> None:
            depth_block(row_low, row_high, low, f.min(size, f.sub(k, low)))

        f.loop(0, k, blocks, step=size)

    if spec.block_rows is None:
        row_block(0, m)
        return
    # Whole tiles, so that no row is in two blocks.
    height = -(-spec.block_rows // tile.rows) * tile.rows

    def some_rows(low: Value, _: list[Value]) -> None:
        row_block(low, f.min(f.add(low, height), m))

    f.loop(0, m, some_rows, step=height)
