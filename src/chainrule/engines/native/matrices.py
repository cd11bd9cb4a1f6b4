"""Matrix products as kernels: operands packed into panels, rows or panels shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.ir import Buffer, Function, Index, Value
from chainrule.engines.native.kernels import RANGE, Context, Scratch, call, each_unit, rounded
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.products.matrix import MatrixProduct, emit_matrix_product
from chainrule.engines.native.products.packing import Panels, emit_pack_panels, emit_pack_panels_transposed
from chainrule.engines.native.types import BOOL, Type, type_of
from chainrule.graph.dims import Dim, Size, bind_size
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Storage
from chainrule.plan.lower import Names
from chainrule.plan.plan import Kernel, Product

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


@dataclass(frozen=True)
class _Problem:
    """``y[m][j] = sum over l of a[m][l] * b[l][j]`` with the transposes taken away."""

    type: Type
    rows: Size
    depth: Size
    columns: int
    transpose_a: bool
    transpose_b: bool

    def panels(self, panel: int) -> int:
        return -(-self.columns // panel)

    def strides(self, depth: int) -> tuple[int, int]:
        """From one row of a to the next, and from one step of the sum to the next."""
        if not self.transpose_a:
            return depth, 1
        assert isinstance(self.rows, int)
        return 1, self.rows


def _problem(node: Node, form: Mapping[str, Any]) -> _Problem | None:
    a, b = (item.spec for item in node.inputs)
    rows, depth = reversed(a.shape) if form["transpose_a"] else a.shape
    columns = b.shape[0] if form["transpose_b"] else b.shape[1]
    inner = a.shape[1]
    if not isinstance(columns, int) or isinstance(inner, Dim) or isinstance(b.shape[1], Dim):
        return None
    if 0 in (rows, depth, columns):
        return None
    return _Problem(type_of(a.dtype), rows, depth, columns, form["transpose_a"], form["transpose_b"])


def takes(node: Node, form: Mapping[str, Any]) -> bool:
    """Whether the strides of the problem are known while planning."""
    return _problem(node, form) is not None


def product(
    node: Node,
    form: Mapping[str, Any],
    operands: tuple[Storage, ...],
    result: Storage,
    batch: int,
    names: Names,
    panel: int,
) -> Sequence[Kernel]:
    """The kernels of a matrix product."""
    problem = _problem(node, form)
    assert problem is not None
    rows = bind_size(problem.rows, batch)
    if isinstance(problem.depth, int) and rows <= 4 * problem.columns:
        return _by_columns(problem, node, operands, result, rows, names, panel)
    return _by_rows(problem, node, operands, result, batch, names, panel)


def _by_rows(
    problem: _Problem,
    node: Node,
    operands: tuple[Storage, ...],
    result: Storage,
    batch: int,
    names: Names,
    panel: int,
) -> Sequence[Kernel]:
    """Pack b once, then share out the rows of a: for results with many rows, such as weight gradients."""
    a, b = operands
    panels = problem.panels(panel)
    depth = bind_size(problem.depth, batch)
    wide = panels * panel
    packed = Storage(names("packed"), result.dtype, wide * depth)
    whole = problem.columns == wide
    target = result if whole else Storage(names("product"), result.dtype, problem.rows * wide)
    chunk = min(ROWS_PER_UNIT, max(6, -(-bind_size(problem.rows, batch) // 8)))
    pack = Product(_Pack(problem, panel, depth), (b,), packed)
    multiply = Product(_MultiplyRows(problem, panel, depth, chunk), (a, packed), target)
    where = f"{node.where}, packing"
    kernels = [
        Kernel(names(f"{node.op.name}_pack"), pack, panels, 1, (b,), (packed,), where),
        Kernel(names(node.op.name), multiply, problem.rows, chunk, (a, packed), (target,), node.where),
    ]
    if not whole:
        kernels.append(names.add_matrices(target, 1, 0, wide, result, problem.rows, problem.columns, node))
    return kernels


def _by_columns(
    problem: _Problem,
    node: Node,
    operands: tuple[Storage, ...],
    result: Storage,
    rows: int,
    names: Names,
    panel: int,
) -> Sequence[Kernel]:
    """Share out panels of columns and stretches of the sum; each packs its part of b just before use."""
    panels = problem.panels(panel)
    depth = problem.depth
    assert isinstance(depth, int)
    group = 1 if problem.transpose_b else min(PANELS_TOGETHER, panels)
    groups = -(-panels // group)
    parts = max(1, min(MOST_PARTS // groups, depth // LEAST_DEPTH))
    stretch = -(-depth // parts)
    parts = -(-depth // stretch)
    wide = panels * panel
    direct = parts == 1 and problem.columns == wide
    target = result if direct else Storage(names("product"), result.dtype, parts * rows * wide)
    part = _MultiplyColumns(problem, panel, depth, group, parts, stretch, rows)
    kernels = [
        Kernel(names(node.op.name), Product(part, operands, target), groups * parts, 1, operands, (target,), node.where)
    ]
    if not direct:
        size = rows * wide
        kernels.append(names.add_matrices(target, parts, size, wide, result, problem.rows, problem.columns, node))
    return kernels


@dataclass(frozen=True)
class _Pack:
    problem: _Problem
    panel: int
    depth: int

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Copy b into panels."""
        module, problem = context.module, self.problem
        natural, packed = (buffers[s] for s in (kernel.reads[0], kernel.writes[0]))
        stride = self.depth if problem.transpose_b else problem.columns
        spec = Panels(problem.type, problem.columns, stride, self.depth * self.panel)
        name = f"{kernel.name}.panels"
        (emit_pack_panels_transposed if problem.transpose_b else emit_pack_panels)(module, name, spec)
        rows = size_value(f, problem.depth, batch)
        call(f, name, natural, packed, rows, *RANGE)


@dataclass(frozen=True)
class _MultiplyRows:
    problem: _Problem
    panel: int
    depth: int
    chunk: int

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Multiply a range of rows by all panels."""
        problem = self.problem
        a, packed = (buffers[s] for s in kernel.reads)
        y = buffers[kernel.writes[0]]
        rows, depth = size_value(f, problem.rows, batch), size_value(f, problem.depth, batch)
        a_row, a_step = problem.strides(self.depth)
        wide = problem.panels(self.panel) * self.panel
        spec = MatrixProduct(
            problem.type,
            problem.panels(self.panel),
            a_row,
            a_step,
            wide,
            b_panel_stride=self.depth * self.panel,
            block_depth=DEPTH_IN_CACHE if self.depth > 2 * DEPTH_IN_CACHE else None,
            unroll=1,
        )
        name = f"{kernel.name}.product"
        emit_matrix_product(context.module, name, spec)

        def unit(u: Value) -> None:
            first = f.mul(u, self.chunk)
            count = f.min(self.chunk, f.sub(rows, first))
            target = f.at(y, f.mul(first, wide))
            call(f, name, f.at(a, f.mul(first, a_row)), packed, target, count, depth)

        runs = f.let(BOOL, f"icmp sgt i64 {f.index(f.min(rows, depth)).text}, 0")
        f.when(runs, lambda: each_unit(f, unit))


@dataclass(frozen=True)
class _MultiplyColumns:
    """A unit is a group of panels and a stretch of the sum.

    Attributes:
        group: panels of a group.
        parts, stretch: stretches of the sum, and steps of each.
        rows: planned rows.
    """

    problem: _Problem
    panel: int
    depth: int
    group: int
    parts: int
    stretch: int
    rows: int

    @property
    def block(self) -> int:
        """Steps of the sum that are packed at a time: 16 KB with the group's panels."""
        return max(16, DEPTH_IN_CACHE // self.group)

    @property
    def scratch_bytes(self) -> int:
        """The packed part of b."""
        return rounded(self.block * self.group * self.panel * self.problem.type.bytes)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Multiply all rows by a range of (group, stretch)."""
        problem, module = self.problem, context.module
        assert isinstance(kernel.body, Product)
        a, b = (buffers[s] for s in kernel.body.operands)
        y = buffers[kernel.writes[0]]
        packed = Scratch().take(f, problem.type, self.block * self.group * self.panel, "packed")
        rows = size_value(f, problem.rows, batch)
        a_row, a_step = problem.strides(self.depth)
        panels = problem.panels(self.panel)
        wide = panels * self.panel
        plane = self.block * self.panel
        product, pack = f"{kernel.name}.product", f"{kernel.name}.pack"
        spec = MatrixProduct(
            problem.type,
            self.group,
            a_row,
            a_step,
            wide,
            b_panel_stride=plane,
            accumulate=True,
            run_time_panels=self.group > 1,
            unroll=1,
        )
        emit_matrix_product(module, product, spec)
        stride = self.depth if problem.transpose_b else problem.columns
        panel_spec = Panels(problem.type, problem.columns, stride, plane)
        (emit_pack_panels_transposed if problem.transpose_b else emit_pack_panels)(module, pack, panel_spec)
        step = 1 if problem.transpose_b else stride

        def unit(u: Value) -> None:
            number, part = f.div(u, self.parts), f.rem(u, self.parts)
            first_panel = f.mul(number, self.group)
            last_panel = f.min(f.add(first_panel, self.group), panels)
            count = f.sub(last_panel, first_panel)
            column = f.mul(first_panel, self.panel)
            target = f.at(y, f.add(f.mul(part, self.rows * wide), column))
            _clear(f, target, rows, wide, f.mul(count, self.panel), module.lanes(problem.type))
            low = f.mul(part, self.stretch)
            high = f.min(f.add(low, self.stretch), self.depth)

            def block(place: Value, _: list[Value]) -> None:
                steps = f.min(self.block, f.sub(high, place))
                # The packed matrix would begin so far before the scratch that the group's first panel lies there.
                start = f.at(packed, f.sub(0, f.mul(first_panel, plane)))
                call(f, pack, f.at(b, f.mul(place, step)), start, steps, first_panel, last_panel)
                rest = (count,) if self.group > 1 else ()
                call(f, product, f.at(a, f.mul(place, a_step)), packed, target, rows, steps, *rest)

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
