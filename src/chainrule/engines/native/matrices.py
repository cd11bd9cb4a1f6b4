"""Matrix products as kernels: operands packed into panels, rows or panels shared out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.ir import Buffer, Function, Index, Value
from chainrule.engines.native.kernels import Context, Scratch, call, each_unit, rounded
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.products.matrix import MatrixProduct, emit_matrix_product
from chainrule.engines.native.products.packing import Panels
from chainrule.engines.native.products.tile import RUN_TIME, InPanels, default_tile
from chainrule.engines.native.request import PackPanels, Parts, Request, packer
from chainrule.engines.native.types import BOOL, Type, type_of
from chainrule.graph.dims import Dim, Size
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Storage
from chainrule.plan.plan import Kernel

__all__ = ["product", "takes"]

ROWS_PER_UNIT = 48
"""Rows of the result in one unit of work, where rows are shared out."""
PANELS_TOGETHER = 4
"""Panels of b that are packed together, so that its rows are read in longer runs."""
MOST_PARTS = 16
"""The units that a product of few columns is cut into, by cutting the sum."""
LEAST_DEPTH = 256
"""Steps of the sum in one part, at least."""
DEPTH_IN_CACHE = 256
"""Steps of the sum whose panel (16 KB) stays in the first cache."""


def takes(node: Node, form: Mapping[str, Any]) -> bool:
    """Whether the strides of the problem are known while planning, and no axis is empty."""
    a, b = (item.shape for item in node.inputs)
    axes = _axes(node, form)
    return not any(isinstance(size, Dim) for size in (a[1], b[1], axes[2])) and 0 not in axes


def product(request: Request) -> Sequence[Kernel]:
    """The kernels of a matrix product."""
    problem = _Problem.of(request)
    if isinstance(problem.depth, int) and problem.planned_rows <= 4 * problem.columns.size:
        return _by_columns(problem, request)
    return _by_rows(problem, request)


def _axes(node: Node, form: Mapping[str, Any]) -> tuple[Size, Size, Size]:
    """Rows of the result, steps of the sum, columns of the result."""
    a, b = (item.shape for item in node.inputs)
    rows, depth = reversed(a) if form["transpose_a"] else a
    return rows, depth, b[0] if form["transpose_b"] else b[1]


@dataclass(frozen=True)
class _Problem:
    """``y[m][j] = sum over l of a[m][l] * b[l][j]`` with the transposes taken away.

    Attributes:
        type: scalar type.
        rows, depth: rows of y and steps of the sum, at run time.
        planned_rows, planned_depth: the same at the planned batch size.
        columns: of y, in panels.
        transpose_b: whether the rows of b as it lies are columns of the product.
        b_stride: from one row of b to the next as it lies.
        a_strides: from one row of a to the next, and from one step of the sum to the next.
    """

    type: Type
    rows: Size
    depth: Size
    planned_rows: int
    planned_depth: int
    columns: InPanels
    transpose_b: bool
    b_stride: int
    a_strides: tuple[int, int]

    @staticmethod
    def of(request: Request) -> _Problem:
        """The problem that is asked about."""
        planned, form = request.maker.planned, request.form
        rows, depth, columns = _axes(request.node, form)
        a_stride, b_stride = (item.shape[1] for item in request.node.inputs)
        assert isinstance(columns, int)
        assert isinstance(a_stride, int)
        assert isinstance(b_stride, int)
        return _Problem(
            type_of(request.result.dtype),
            rows,
            depth,
            planned(rows),
            planned(depth),
            InPanels(columns, request.panel),
            form["transpose_b"],
            b_stride,
            (1, a_stride) if form["transpose_a"] else (a_stride, 1),
        )

    def packed(self, steps: int) -> Panels:
        """b in panels of so many steps of the sum."""
        return Panels(self.type, self.columns.size, self.b_stride, steps * self.columns.panel)

    def multiplier(
        self, context: Context, kernel: Kernel, panels: int, steps: int, **options: Any
    ) -> Callable[[Function, Buffer, Buffer, Buffer, Index, Index, Index], None]:
        """A function ``multiply(f, a, b, y, rows, depth, panels)`` for at most so many panels of b.

        Each panel is packed in so many steps of the sum.  All strides but those of 1 are parameters, so that products
        of many sizes share one function.
        """
        strides = [1 if stride == 1 else RUN_TIME for stride in self.a_strides]
        given = [stride for stride in self.a_strides if stride != 1]
        tile = default_tile(context.module, panels)
        spec = MatrixProduct(
            self.type,
            tile.panels,
            strides[0],
            strides[1],
            RUN_TIME,
            b_panel_stride=RUN_TIME,
            run_time_panels=True,
            tile=tile,
            unroll=1,
            **options,
        )
        name = context.function(kernel, "multiply", spec, emit_matrix_product)
        given += [self.columns.width, steps * self.columns.panel]

        def multiply(f: Function, a: Buffer, b: Buffer, y: Buffer, rows: Index, depth: Index, panels: Index) -> None:
            call(f, name, a, b, y, rows, depth, panels, *given)

        return multiply


# -- rows shared out ----------------------------------------------------------------------------------------


def _by_rows(problem: _Problem, request: Request) -> Sequence[Kernel]:
    """Pack b once, then share out the rows of a: for results with many rows, such as weight gradients."""
    a, b = request.operands
    depth, wide = problem.planned_depth, problem.columns.width
    packed = request.temporary("packed", wide * depth)
    target = request.result if problem.columns.whole else request.temporary("product", problem.rows * wide)
    pack = PackPanels(problem.packed(depth), problem.depth, problem.transpose_b)
    chunk = min(ROWS_PER_UNIT, max(6, -(-problem.planned_rows // 8)))
    kernels = [
        request.packing(pack, b, packed, problem.columns.count),
        request.product(_MultiplyRows(problem), (a, packed), target, problem.rows, chunk),
    ]
    if not problem.columns.whole:
        kernels.append(request.add_rows(Parts(target), wide, problem.rows, problem.columns.size))
    return kernels


@dataclass(frozen=True)
class _MultiplyRows:
    problem: _Problem

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Multiply a range of rows by all panels."""
        problem = self.problem
        a, packed = (buffers[s] for s in kernel.reads)
        y = buffers[kernel.writes[0]]
        rows, depth = size_value(f, problem.rows, batch), size_value(f, problem.depth, batch)
        panels = problem.columns.count
        block = DEPTH_IN_CACHE if problem.planned_depth > 2 * DEPTH_IN_CACHE else None
        multiply = problem.multiplier(context, kernel, panels, problem.planned_depth, block_depth=block)

        wide = problem.columns.width

        def rows_of(u: Value) -> tuple[Index, Index, Buffer]:
            first = f.mul(u, kernel.chunk)
            return first, f.min(kernel.chunk, f.sub(rows, first)), f.at(y, f.mul(first, wide))

        def unit(u: Value) -> None:
            first, count, target = rows_of(u)
            multiply(f, f.at(a, f.mul(first, problem.a_strides[0])), packed, target, count, depth, panels)

        def blank(u: Value) -> None:
            _, count, target = rows_of(u)
            _clear(f, target, count, wide, wide, context.module.lanes(problem.type))

        runs = f.let(BOOL, f"icmp sgt i64 {f.index(f.min(rows, depth)).text}, 0")
        f.when(runs, lambda: each_unit(f, unit))
        if isinstance(problem.depth, Dim):
            empty = f.let(BOOL, f"icmp sle i64 {f.index(depth).text}, 0")
            f.when(empty, lambda: each_unit(f, blank))


# -- columns and the sum shared out -------------------------------------------------------------------------


def _by_columns(problem: _Problem, request: Request) -> Sequence[Kernel]:
    """Share out panels of columns and stretches of the sum; each packs its part of b just before use."""
    group = 1 if problem.transpose_b else min(PANELS_TOGETHER, problem.columns.count)
    groups = -(-problem.columns.count // group)
    most = max(1, min(MOST_PARTS // groups, problem.planned_depth // LEAST_DEPTH))
    stretch = -(-problem.planned_depth // most)
    count = -(-problem.planned_depth // stretch)
    part = _MultiplyColumns(problem, group, count, stretch)
    if count == 1 and problem.columns.whole:
        return [request.product(part, request.operands, request.result, groups)]
    wide = problem.columns.width
    parts = request.parts("product", count, problem.planned_rows * wide)
    return [
        request.product(part, request.operands, parts.storage, groups * count),
        request.add_rows(parts, wide, problem.rows, problem.columns.size),
    ]


@dataclass(frozen=True)
class _MultiplyColumns:
    """A unit is a group of panels and a stretch of the sum.

    Attributes:
        group: panels of a group.
        parts, stretch: stretches of the sum, and steps of each.
    """

    problem: _Problem
    group: int
    parts: int
    stretch: int

    @property
    def block(self) -> int:
        """Steps of the sum that are packed at a time: 16 KB with the group's panels."""
        return max(16, DEPTH_IN_CACHE // self.group)

    @property
    def packed_size(self) -> int:
        """Elements of the packed part of b."""
        return self.block * self.group * self.problem.columns.panel

    @property
    def scratch_bytes(self) -> int:
        """The packed part of b."""
        return rounded(self.packed_size * self.problem.type.bytes)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Multiply all rows by a range of (group, stretch)."""
        problem, module = self.problem, context.module
        a, b = (buffers[s] for s in kernel.reads)
        y = buffers[kernel.writes[0]]
        packed = Scratch().take(f, problem.type, self.packed_size, "packed")
        rows = size_value(f, problem.rows, batch)
        a_step, b_step = problem.a_strides[1], 1 if problem.transpose_b else problem.b_stride
        wide, plane = problem.columns.width, self.block * problem.columns.panel
        multiply = problem.multiplier(context, kernel, self.group, self.block, accumulate=True)
        pack = packer(context, kernel, problem.packed(self.block), problem.transpose_b)

        def unit(u: Value) -> None:
            number, part = f.div(u, self.parts), f.rem(u, self.parts)
            first_panel = f.mul(number, self.group)
            last_panel = f.min(f.add(first_panel, self.group), problem.columns.count)
            count = f.sub(last_panel, first_panel)
            column = f.mul(first_panel, problem.columns.panel)
            target = f.at(y, f.add(f.mul(part, problem.planned_rows * wide), column))
            _clear(f, target, rows, wide, f.mul(count, problem.columns.panel), module.lanes(problem.type))
            low = f.mul(part, self.stretch)
            high = f.min(f.add(low, self.stretch), problem.planned_depth)

            def block(place: Value, _: list[Value]) -> None:
                steps = f.min(self.block, f.sub(high, place))
                # The packed matrix would begin so far before the scratch that the group's first panel lies there.
                start = f.at(packed, f.sub(0, f.mul(first_panel, plane)))
                pack(f, f.at(b, f.mul(place, b_step)), start, steps, first_panel, last_panel)
                multiply(f, f.at(a, f.mul(place, a_step)), packed, target, rows, steps, count)

            f.loop(low, high, block, step=self.block)

        runs = f.let(BOOL, f"icmp sgt i64 {f.index(rows).text}, 0")
        f.when(runs, lambda: each_unit(f, unit))


def _clear(f: Function, y: Buffer, rows: Index, stride: int, width: Index, lanes: int) -> None:
    """Write zeros to a block of rows, each a whole number of vectors."""
    zero = f.constant(0.0, y.type.of(lanes))

    def row(i: Value, _: list[Value]) -> None:
        start = f.mul(i, stride)
        f.loop(0, width, lambda j, _: f.store(zero, y, f.add(start, j)), step=lanes)

    f.loop(0, rows, row)
