"""The weight gradient: samples summed in groups, the groups added in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chainrule.engines.native.convolution.problem import Problem
from chainrule.engines.native.convolution.samples import SampleGroups, sum_groups
from chainrule.engines.native.convolution.staging import Staged, staged_bytes
from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.kernels import Context, Scratch, call, emit_prologue, rounded
from chainrule.engines.native.maps import MapCopy
from chainrule.engines.native.products.convolution import ConvolutionWeights, emit_convolution_weights
from chainrule.engines.native.request import Request
from chainrule.plan.expr import Storage
from chainrule.plan.plan import Kernel, Product

__all__ = ["kernel_gradient"]

GRADIENT = 1
"""Which operand is the gradient."""


def kernel_gradient(request: Request) -> Sequence[Kernel]:
    """Sum the samples of each group apart, in panels, then add the groups in order."""
    problem = Problem.of(request)
    size = problem.taps_size * problem.output_panels.width
    kernel, sums = sum_groups(request, lambda groups: _KernelGradient(problem, groups), problem.samples, size)
    return [kernel, request.add_panels(sums, problem.taps_size, problem.outputs)]


@dataclass(frozen=True)
class _KernelGradient:
    problem: Problem
    groups: SampleGroups

    @property
    def sample_operands(self) -> Mapping[int, int]:
        """The gradient may be made in private memory."""
        return {GRADIENT: self.problem.y_size}

    @property
    def scratch_bytes(self) -> int:
        """The framed map, the widened gradient, and a gradient that a prologue makes."""
        problem = self.problem
        maps = staged_bytes(problem.framed) + staged_bytes(self._widened)
        return maps + rounded(problem.y_size * problem.type.bytes)

    @property
    def _widened(self) -> MapCopy:
        """The gradient with channels that fill their panels."""
        problem = self.problem
        strides = (problem.y_strides, problem.wide_y_strides)
        zeros = problem.output_panels.width - problem.outputs
        return MapCopy(problem.type, *problem.count, problem.outputs, *strides, zeros=zeros)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Sum over the samples of each group of the range."""
        module, problem = context.module, self.problem
        assert isinstance(kernel.body, Product)
        make = emit_prologue(context, kernel, GRADIENT)
        image_operand, gradient_operand = kernel.body.operands
        x = buffers[image_operand]
        scratch = Scratch()
        frame = Staged(f, scratch, f"{kernel.name}.frame", problem.framed, "frame")
        wide = Staged(f, scratch, f"{kernel.name}.widen", self._widened, "gradient")
        made = None if make is None else scratch.take(f, problem.type, problem.y_size, "made")
        frame.emit(module)
        wide.emit(module)
        name = f"{kernel.name}.weights"
        emit_convolution_weights(module, name, self._product)

        def gradient(n: Value) -> Buffer:
            """The gradient of a sample, where it lies or where the prologue makes it."""
            if make is None or made is None:
                stored = buffers[gradient_operand]
                return f.at(stored, f.mul(n, problem.y_size), problem.y_size)
            make(f, made, n)
            return made

        def add(n: Value, total: Buffer) -> None:
            image = f.at(x, f.mul(n, problem.x_size), problem.x_size)
            g = gradient(n)
            call(f, name, frame.of(f, image), wide.of(f, g), total)

        self.groups.each_sample(f, buffers[kernel.writes[0]], batch, add)

    @property
    def _product(self) -> ConvolutionWeights:
        """The product for one sample."""
        problem = self.problem
        return ConvolutionWeights(
            problem.type,
            problem.channels,
            problem.output_panels.count,
            *problem.count,
            problem.taps,
            *problem.framed.target_strides,
            *self._widened.target_strides,
            stride=problem.stride,
            dilation=problem.dilation,
        )
