"""What a family of generators receives, a contraction to be computed, and the kernels that they all make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.ir import Buffer, Function, Index, Value
from chainrule.engines.native.kernels import RANGE, Context, Part, call
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.products.packing import Panels, emit_pack_panels, emit_pack_panels_transposed
from chainrule.engines.native.products.tile import panel_width
from chainrule.graph.dims import Size
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Expr, Rules, Storage
from chainrule.plan.maker import KernelMaker
from chainrule.plan.nest import Store
from chainrule.plan.plan import Kernel, Product

__all__ = ["PackPanels", "Parts", "Request", "packer"]


@dataclass(frozen=True)
class Parts:
    """Partial results that lie one after the other and are added in order.

    Attributes:
        storage: where they lie.
        count: how many there are.
        size: elements of each; of no account where there is one.
    """

    storage: Storage
    count: int = 1
    size: int = 0

    def total(self, k: Rules, place: Expr) -> Expr:
        """The sum of the parts' elements at a place."""

        def step(u: tuple[Expr, ...], held: tuple[Expr, ...]) -> tuple[Expr, ...]:
            return (held[0] + k.load(self.storage, u[0] * self.size + place),)

        if self.count == 1:
            return k.load(self.storage, place)
        return k.fold([self.count], (k.constant(0, self.storage.dtype),), step)[0]


@dataclass(frozen=True)
class Request:
    """A contraction to be computed.

    Attributes:
        node: the op.
        form: the problem in the generator's terms, as the op's `Contraction` gives it.
        operands: what is read.
        result: what is written.
        maker: makes names, memory and nests, and knows the planned batch size.
        panel: columns or channels in one panel.
        placing: the node that placed an operand which is read as elements and positions.
    """

    node: Node
    form: Mapping[str, Any]
    operands: tuple[Storage, ...]
    result: Storage
    maker: KernelMaker
    panel: int
    placing: Node | None = None

    # -- memory between kernels -----------------------------------------------------------------------------

    def temporary(self, name: str, size: Size) -> Storage:
        """Memory for elements of the result's type."""
        return self.maker.temporary(name, self.result.dtype, size)

    def parts(self, name: str, count: int, size: int) -> Parts:
        """Memory for partial results."""
        return Parts(self.temporary(name, count * size), count, size)

    # -- written kernels ------------------------------------------------------------------------------------

    def product(
        self, part: Part, operands: tuple[Storage, ...], target: Storage, extent: Size, chunk: int = 1
    ) -> Kernel:
        """The kernel of the product itself."""
        name = self.maker.unique(self.node.op.name)
        return Kernel(name, Product(part, operands, target), extent, chunk, operands, (target,), self.node.where)

    def packing(self, part: Part, source: Storage, packed: Storage, panels: int) -> Kernel:
        """A kernel that packs an operand; a unit is a panel."""
        name, where = self.maker.unique(f"{self.node.op.name}_pack"), f"{self.node.where}, packing"
        return Kernel(name, Product(part, (source,), packed), panels, 1, (source,), (packed,), where)

    # -- nests around products ------------------------------------------------------------------------------

    def add_rows(self, parts: Parts, stride: int, rows: Size, columns: int) -> Kernel:
        """The result is the sum of matrices ``[rows][columns]``, from one row to the next `stride`."""
        i, j = self._indices(rows, columns)
        return self._sum(parts, (i, j), i * stride + j, self.result, i * columns + j)

    def add_panels(self, parts: Parts, rows: int, columns: int) -> Kernel:
        """The result ``[rows][columns]`` is the sum of packed matrices."""
        if columns % self.panel == 0:
            # Panel by panel, so that what lies together is read and written together.
            p, (i, j) = self.maker.rules.variable("p", columns // self.panel), self._indices(rows, self.panel)
            place, target = p * (rows * self.panel) + i * self.panel + j, i * columns + p * self.panel + j
            return self._sum(parts, (p, i, j), place, self.result, target)
        i, j = self._indices(rows, columns)
        place = (j // self.panel) * (rows * self.panel) + i * self.panel + j % self.panel
        return self._sum(parts, (i, j), place, self.result, i * columns + j)

    def add_transposed(self, parts: Parts, rows: int, columns: int, result: Storage | None = None) -> Kernel:
        """The result, or another storage, ``[columns][rows]`` is the transposed sum of matrices ``[rows][columns]``."""
        i, j = self._indices(rows, columns)
        return self._sum(parts, (i, j), i * columns + j, result or self.result, j * rows + i)

    def _indices(self, rows: Size, columns: int) -> tuple[Expr, Expr]:
        return self.maker.rules.variable("i", rows), self.maker.rules.variable("j", columns)

    def _sum(self, parts: Parts, axes: tuple[Expr, ...], place: Expr, result: Storage, target: Expr) -> Kernel:
        """For all indices: ``result[target]`` is the sum of ``part[place]``."""
        total = parts.total(self.maker.rules, place)
        return self.maker.nest([self.node], axes, [Store(result, target, total)])


@dataclass(frozen=True)
class PackPanels:
    """Copies a matrix, or its transpose, into panels.

    Attributes:
        panels: the matrix.
        rows: of the packed matrix.
        transposed: whether its columns are the rows of what is read.
    """

    panels: Panels
    rows: Size
    transposed: bool = False

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Copy a range of panels."""
        natural, packed = buffers[kernel.reads[0]], buffers[kernel.writes[0]]
        rows = size_value(f, self.rows, batch)
        pack = packer(context, kernel, self.panels, self.transposed)
        pack(f, natural, packed, rows, *RANGE)


def packer(
    context: Context, kernel: Kernel, panels: Panels, transposed: bool
) -> Callable[[Function, Buffer, Buffer, Index, Index, Index], None]:
    """A function that packs a matrix, or its transpose: ``pack(f, natural, packed, rows, first panel, last panel)``.

    It is shared by all matrices that end alike in their last panel.
    """
    panel = panel_width(context.module, panels.type)
    emit = emit_pack_panels_transposed if transposed else emit_pack_panels
    name = context.function(kernel, "pack", panels.common(panel), emit)

    def pack(f: Function, natural: Buffer, packed: Buffer, rows: Index, low: Index, high: Index) -> None:
        packed_stride = f.mul(rows, panel) if panels.packed_stride is None else panels.packed_stride
        call(f, name, natural, packed, rows, low, high, panels.columns, panels.stride, packed_stride)

    return pack
