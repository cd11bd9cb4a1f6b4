"""The convolution itself: weights packed once, then samples convolved, with what follows done on blocks of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chainrule.engines.native.convolution.problem import Problem
from chainrule.engines.native.convolution.samples import by_sample, each_sample
from chainrule.engines.native.convolution.staging import Staged, staged_bytes
from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.kernels import Context, Scratch, call, emit_epilogue, rounded
from chainrule.engines.native.maps import MapCopy, emit_map_copy
from chainrule.engines.native.products.convolution import ConvolutionRows, emit_convolution_rows
from chainrule.engines.native.products.packing import Panels
from chainrule.engines.native.request import PackPanels, Request
from chainrule.plan.epilogue import RowMap
from chainrule.plan.expr import Storage
from chainrule.plan.nest import axis_size
from chainrule.plan.plan import Epilogue, Kernel, Product

__all__ = ["forward"]


def forward(request: Request) -> Sequence[Kernel]:
    """Pack the weights, then convolve sample by sample."""
    problem = Problem.of(request)
    x, weights = request.operands
    packed = request.temporary("weights", problem.taps_size * problem.output_panels.width)
    pack = PackPanels(Panels(problem.type, problem.outputs, problem.outputs), problem.taps_size)
    return [
        request.packing(pack, weights, packed, problem.output_panels.count),
        by_sample(request, _Forward(problem), (x, packed), problem.samples),
    ]


@dataclass(frozen=True)
class _Forward:
    problem: Problem

    @property
    def row_map(self) -> RowMap:
        """How the result lies, for an epilogue."""
        problem = self.problem
        return RowMap(problem.samples, *problem.count, problem.outputs, problem.output_panels.width)

    @property
    def scratch_bytes(self) -> int:
        """The framed map, and rows whose channels fill their panels or which an epilogue consumes."""
        problem = self.problem
        rows = problem.count[0] * problem.wide_y_strides[0]
        return staged_bytes(problem.framed) + rounded(rows * problem.type.bytes)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Convolve a range of samples, all rows of each at once or, for an epilogue, block by block."""
        module, problem = context.module, self.problem
        assert isinstance(kernel.body, Product)
        epilogue = kernel.body.epilogue
        x, packed = (buffers[s] for s in kernel.body.operands)
        scratch = Scratch()
        frame = Staged(f, scratch, f"{kernel.name}.frame", problem.framed, "frame")
        rows = problem.count[0] if epilogue is None else epilogue.count
        direct = epilogue is None and problem.output_panels.whole
        area = None if direct else scratch.take(f, problem.type, rows * problem.wide_y_strides[0], "rows")
        emit_convolution_rows(module, f"{kernel.name}.rows", self._product(rows))
        frame.emit(module)
        if epilogue is not None:
            emit_epilogue(context, kernel, f"{kernel.name}.epilogue")
        elif area is not None:
            strides = (problem.wide_y_strides, problem.y_strides)
            narrow = MapCopy(problem.type, *problem.count, problem.outputs, *strides)
            emit_map_copy(module, f"{kernel.name}.narrow", narrow)

        def sample(n: Value) -> None:
            source = frame.of(f, f.at(x, f.mul(n, problem.x_size), problem.x_size))
            if epilogue is not None and area is not None:
                self._emit_blocks(f, kernel.name, epilogue, n, (source, packed, area))
                return
            y = f.at(buffers[kernel.writes[0]], f.mul(n, problem.y_size), problem.y_size)
            call(f, f"{kernel.name}.rows", source, packed, y if area is None else area)
            if area is not None:
                call(f, f"{kernel.name}.narrow", area, y)

        each_sample(f, kernel, batch, sample)

    def _product(self, rows: int) -> ConvolutionRows:
        """The product for so many rows."""
        problem = self.problem
        return ConvolutionRows(
            problem.type,
            problem.channels,
            problem.output_panels.count,
            rows,
            problem.count[1],
            problem.taps,
            *problem.framed.target_strides,
            *problem.wide_y_strides,
            stride=problem.stride,
            dilation=problem.dilation,
        )

    def _emit_blocks(
        self, f: Function, name: str, epilogue: Epilogue, n: Value, buffers: tuple[Buffer, Buffer, Buffer]
    ) -> None:
        """Convolve the block of rows that one row of the epilogue needs, run the epilogue on it, and go on.

        Args:
            f: the kernel's function.
            name: the kernel's name.
            epilogue: what consumes the blocks.
            n: the sample.
            buffers: its framed map, the packed weights and the block.
        """
        x, packed, area = buffers
        height = axis_size(epilogue.nest.axes[1])
        assert isinstance(height, int)
        stride = self.problem.stride[0] * self.problem.framed.target_strides[0]

        def block(p: Value, _: list[Value]) -> None:
            first = f.add(f.mul(p, epilogue.step * stride), epilogue.first * stride)
            call(f, f"{name}.rows", f.at(x, first), packed, area)
            f.call_void(f"{name}.epilogue", f"ptr %table, i64 %n, ptr {area.pointer}, i64 {n.text}, i64 {p.text}")

        f.loop(0, height, block)
