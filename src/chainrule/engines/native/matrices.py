"""Matrix products as kernels: operands packed into panels, rows or panels shared out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.kernels import RANGE, Context, call, each_unit
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
    a, b = operands
    panels = problem.panels(panel)
    depth = bind_size(problem.depth, batch)
    packed = Storage(names("packed"), result.dtype, panels * depth * panel)
    whole = problem.columns % panel == 0
    target = result if whole else Storage(names("product"), result.dtype, problem.rows * (panels * panel))
    rows = bind_size(problem.rows, batch)
    by_rows = rows >= problem.columns or panels < 4
    chunk = min(ROWS_PER_UNIT, max(6, -(-rows // 8))) if by_rows else 1
    pack = _Pack(problem, panel, depth)
    multiply = _Multiply(problem, panel, depth, panels * panel, by_rows, chunk)
    kernels = [
        Kernel(
            names(f"{node.op.name}_pack"),
            Product(pack, (b,), packed),
            panels,
            1,
            (b,),
            (packed,),
            f"{node.where}, packing",
        ),
        Kernel(
            names(node.op.name),
            Product(multiply, (a, packed), target),
            problem.rows if by_rows else panels,
            chunk,
            (a, packed),
            (target,),
            node.where,
        ),
    ]
    if not whole:
        kernels.append(names.copy_columns(target, panels * panel, result, problem.rows, problem.columns, node))
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
        module = context.module
        problem = self.problem
        natural, packed = (buffers[s] for s in (kernel.reads[0], kernel.writes[0]))
        stride = self.depth if problem.transpose_b else problem.columns
        spec = Panels(problem.type, problem.columns, stride, self.depth * self.panel)
        name = f"{kernel.name}.panels"
        (emit_pack_panels_transposed if problem.transpose_b else emit_pack_panels)(module, name, spec)
        rows = size_value(f, problem.depth, batch)
        call(f, name, natural, packed, rows, *RANGE)


@dataclass(frozen=True)
class _Multiply:
    problem: _Problem
    panel: int
    depth: int
    row_stride: int
    by_rows: bool
    chunk: int

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Multiply a range of rows by all panels, or all rows by a range of panels."""
        module = context.module
        problem = self.problem
        a, packed = (buffers[s] for s in kernel.reads)
        y = buffers[kernel.writes[0]]
        rows, depth = size_value(f, problem.rows, batch), size_value(f, problem.depth, batch)
        static_rows = problem.rows if isinstance(problem.rows, int) else 0
        a_row, a_step = (1, static_rows) if problem.transpose_a else (self.depth, 1)
        spec = MatrixProduct(
            problem.type,
            problem.panels(self.panel) if self.by_rows else 1,
            a_row,
            a_step,
            self.row_stride,
            b_panel_stride=self.depth * self.panel,
            block_depth=DEPTH_IN_CACHE if self.depth > 2 * DEPTH_IN_CACHE else None,
            unroll=2,
        )
        name = f"{kernel.name}.product"
        emit_matrix_product(module, name, spec)

        def unit(u: Value) -> None:
            if self.by_rows:
                first = f.mul(u, self.chunk)
                count = f.min(self.chunk, f.sub(rows, first))
                call(
                    f, name, f.at(a, f.mul(first, a_row)), packed, f.at(y, f.mul(first, self.row_stride)), count, depth
                )
            else:
                column = f.mul(u, self.panel)
                call(f, name, a, f.at(packed, f.mul(u, self.depth * self.panel)), f.at(y, column), rows, depth)

        runs = f.let(BOOL, f"icmp sgt i64 {f.index(f.min(rows, depth)).text}, 0")
        f.when(runs, lambda: each_unit(f, unit))
