"""The input gradient: the gradient convolved with turned weights, one product for each phase of the stride."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.convolution.problem import Pair, Problem, takes
from chainrule.engines.native.convolution.samples import by_sample, each_sample
from chainrule.engines.native.convolution.staging import Staged, staged_bytes
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.kernels import RANGE, Context, Scratch, call, rounded
from chainrule.engines.native.maps import MapCopy, emit_map_copy
from chainrule.engines.native.products.convolution import ConvolutionRows, emit_convolution_rows
from chainrule.engines.native.products.packing import InputGradientPanels, emit_pack_input_gradient
from chainrule.engines.native.request import Request
from chainrule.graph.tensor import Node
from chainrule.plan.expr import Storage
from chainrule.plan.plan import Kernel

__all__ = ["input_gradient", "takes_input_gradient"]


def takes_input_gradient(node: Node, form: Mapping[str, Any]) -> bool:
    """Whether an input gradient is one for the generator: along each axis no stride or no dilation."""
    return takes(node, form) and all(s == 1 or d == 1 for s, d in zip(form["stride"], form["dilation"], strict=True))


def input_gradient(request: Request) -> Sequence[Kernel]:
    """Pack the turned weights, phase by phase of the stride, then convolve the gradient sample by sample."""
    problem = Problem.of(request)
    phases = _phases(problem)
    g, weights = request.operands
    size = sum(phase.packed_size(problem) for phase in phases)
    packed = request.temporary("weights", max(1, size))
    return [
        request.packing(_PackTurned(problem, phases), weights, packed, problem.input_panels.count),
        by_sample(request, _InputGradient(problem, phases), (g, packed), problem.samples),
    ]


# -- phases -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Phase:
    """The pixels ``(first + t * stride)`` of the input: each is touched by the same taps.

    Attributes:
        first: the first pixel, (vertical, horizontal).
        count: pixels each way.
        taps: taps each way that touch them.
        last_tap: the largest such tap, which comes first when turned.
        start: the row and column of the gradient that the first pixel's first turned tap meets; may lie outside.
    """

    first: Pair
    count: Pair
    taps: Pair
    last_tap: Pair
    start: Pair

    def packed_size(self, problem: Problem) -> int:
        """Elements of its packed weights; 0 if no tap touches its pixels."""
        return self.taps[0] * self.taps[1] * problem.outputs * problem.input_panels.width


def _phases(problem: Problem) -> tuple[_Phase, ...]:
    vertical, horizontal = (_axis_phases(problem, axis) for axis in (0, 1))
    return tuple(_Phase(*zip(a, b, strict=True)) for a in vertical for b in horizontal)


def _axis_phases(problem: Problem, axis: int) -> list[tuple[int, int, int, int, int]]:
    """(first, count, taps, last tap, start) of each phase along an axis that has pixels."""
    stride, dilation, taps = problem.stride[axis], problem.dilation[axis], problem.taps[axis]
    size, pad = problem.image[axis], problem.pads[axis][0]
    result = []
    for first in range(min(stride, size)):
        count = -(-(size - first) // stride)
        lowest = (first + pad) % stride
        number = max(0, -(-(taps - lowest) // stride))
        last = lowest + stride * (number - 1)
        start = (first + pad - last * dilation) // stride if number else 0
        result.append((first, count, number, last, start))
    return result


# -- kernels ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PackTurned:
    problem: Problem
    phases: tuple[_Phase, ...]

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Copy HWIO weights, turned and transposed, into one set of panels for each phase."""
        problem = self.problem
        natural, packed = buffers[kernel.reads[0]], buffers[kernel.writes[0]]
        place = 0
        for number, phase in enumerate(self.phases):
            if not phase.packed_size(problem):
                continue
            name = f"{kernel.name}.panels{number}"
            spec = InputGradientPanels(
                problem.type,
                problem.taps,
                problem.channels,
                problem.outputs,
                phase.last_tap,
                phase.taps,
                problem.stride,
            )
            emit_pack_input_gradient(context.module, name, spec)
            call(f, name, natural, f.at(packed, place), *RANGE)
            place += phase.packed_size(problem)


@dataclass(frozen=True)
class _InputGradient:
    problem: Problem
    phases: tuple[_Phase, ...]

    @property
    def scratch_bytes(self) -> int:
        """The framed gradient, and a phase's pixels whose channels fill their panels."""
        area = self._area * self.problem.type.bytes
        return staged_bytes(self._framed) + (rounded(area) if area else 0)

    @property
    def _framed(self) -> MapCopy:
        """The gradient with as many zeros around it as some phase reaches (or crops nothing)."""
        problem = self.problem
        (top, bottom), (left, right) = (self._reach(axis) for axis in (0, 1))
        k = problem.outputs
        row = (left + problem.count[1] + right) * k
        return MapCopy(problem.type, *problem.count, k, problem.y_strides, (row, k), (top, bottom, left, right))

    def _reach(self, axis: int) -> Pair:
        """How far the phases reach before the gradient's first pixel and beyond its last one."""
        phases = [p for p in self.phases if p.taps[0] and p.taps[1]]
        starts = [p.start[axis] for p in phases]
        ends = [p.start[axis] + p.count[axis] - 1 + (p.taps[axis] - 1) * self._step(axis) for p in phases]
        last = self.problem.count[axis] - 1
        return max(0, -min(starts, default=0)), max(0, max(ends, default=0) - last)

    def _step(self, axis: int) -> int:
        """How far apart a phase's taps meet the gradient: the dilation, which is 1 where there is a stride."""
        return self.problem.dilation[axis] if self.problem.stride[axis] == 1 else 1

    @property
    def _area(self) -> int:
        """Elements of the largest phase's pixels with channels that fill their panels; 0 if they do as they are."""
        pixels = max(p.count[0] * p.count[1] for p in self.phases)
        return 0 if self.problem.input_panels.whole else pixels * self.problem.input_panels.width

    @property
    def _x_strides(self) -> Pair:
        """From one row and one pixel of a phase to the next, in the input map."""
        row, pixel = self.problem.x_strides
        return self.problem.stride[0] * row, self.problem.stride[1] * pixel

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Convolve a range of samples, phase by phase."""
        module, problem = context.module, self.problem
        scratch = Scratch()
        frame = Staged(f, scratch, f"{kernel.name}.frame", self._framed, "frame")
        frame.emit(module)
        area = scratch.take(f, problem.type, self._area, "rows") if self._area else None
        names = [f"{kernel.name}.phase{number}" for number in range(len(self.phases))]
        for phase, name in zip(self.phases, names, strict=True):
            self._emit_product(module, name, phase)
        g, packed = (buffers[s] for s in kernel.reads)
        x = buffers[kernel.writes[0]]

        def sample(n: Value) -> None:
            source = f.at(g, f.mul(n, problem.y_size), problem.y_size)
            target = f.at(x, f.mul(n, problem.x_size), problem.x_size)
            source = frame.of(f, source)
            place = 0
            for phase, name in zip(self.phases, names, strict=True):
                row, pixel = problem.x_strides
                pixels = f.at(target, phase.first[0] * row + phase.first[1] * pixel)
                size = phase.packed_size(problem)
                if not size:
                    self._emit_zeros(f, phase, pixels)
                    continue
                weights = f.at(packed, place, size)
                call(f, name, f.at(source, self._start(phase)), weights, pixels if area is None else area)
                if area is not None:
                    call(f, f"{name}.narrow", area, pixels)
                place += size

        each_sample(f, kernel, batch, sample)

    def _start(self, phase: _Phase) -> int:
        """Where the phase begins in the framed gradient."""
        top, _, left, _ = self._framed.frame
        row, pixel = self._framed.target_strides
        return (phase.start[0] + top) * row + (phase.start[1] + left) * pixel

    def _emit_product(self, module: Module, name: str, phase: _Phase) -> None:
        """Add a phase's product, and what brings its pixels to their place, unless no tap touches them."""
        problem = self.problem
        if not phase.packed_size(problem):
            return
        wide = (phase.count[1] * problem.input_panels.width, problem.input_panels.width)
        spec = ConvolutionRows(
            problem.type,
            problem.outputs,
            problem.input_panels.count,
            *phase.count,
            phase.taps,
            *self._framed.target_strides,
            *(self._x_strides if self.problem.input_panels.whole else wide),
            dilation=(self._step(0), self._step(1)),
        )
        emit_convolution_rows(module, name, spec)
        if not self.problem.input_panels.whole:
            narrow = MapCopy(problem.type, *phase.count, problem.channels, wide, self._x_strides)
            emit_map_copy(module, f"{name}.narrow", narrow)

    def _emit_zeros(self, f: Function, phase: _Phase, pixels: Buffer) -> None:
        """Write zeros to pixels that no tap touches."""
        row_stride, pixel_stride = self._x_strides
        zero = f.constant(0.0, self.problem.type)

        def row(i: Value, _: list[Value]) -> None:
            def pixel(j: Value, _: list[Value]) -> None:
                at = f.add(f.mul(i, row_stride), f.mul(j, pixel_stride))
                f.loop(0, self.problem.channels, lambda c, _: f.store(zero, pixels, f.add(at, c)))

            f.loop(0, phase.count[1], pixel)

        f.loop(0, phase.count[0], row)
