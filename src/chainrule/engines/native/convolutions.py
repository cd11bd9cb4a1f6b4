"""Convolutions as kernels: forward, input gradient, weight gradient, each sample by sample.

What a product cannot take as it lies is copied to the thread's private memory first: maps into a frame of zeros
(padding), gradients with channels that do not fill their panels.  An epilogue, the ops that follow a convolution, runs
on blocks of rows while they are still in the first cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.kernels import (
    RANGE,
    Context,
    Scratch,
    call,
    each_unit,
    emit_epilogue,
    emit_prologue,
    rounded,
)
from chainrule.engines.native.maps import MapCopy, emit_map_copy
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.products.convolution import (
    ConvolutionRows,
    ConvolutionWeights,
    emit_convolution_rows,
    emit_convolution_weights,
)
from chainrule.engines.native.products.packing import (
    InputGradientPanels,
    Panels,
    emit_pack_input_gradient,
    emit_pack_panels,
)
from chainrule.engines.native.types import Type, type_of
from chainrule.graph.dims import Size, bind_size
from chainrule.graph.tensor import Node
from chainrule.plan.epilogue import RowMap
from chainrule.plan.expr import Storage
from chainrule.plan.lower import Names
from chainrule.plan.nest import axis_size
from chainrule.plan.plan import Epilogue, Kernel, Product

__all__ = ["forward", "input_gradient", "kernel_gradient", "takes"]

Pair: TypeAlias = tuple[int, int]

UNITS = 32
"""A batch is cut into about so many units, if it has as many samples."""
GROUPS = 16
"""Weight gradients are summed in about so many groups of samples, which are then added in order."""
PARTIAL_BYTES = 1 << 25
"""Partial weight gradients of one layer take no more memory than this, if two groups fit at all."""


@dataclass(frozen=True)
class _Problem:
    """A convolution without groups.

    Attributes:
        type: scalar type.
        samples: batch axis.
        image, taps, count, stride, dilation: (vertical, horizontal).
        pads: ((top, bottom), (left, right)).
        channels, outputs: C and K.
        panel: channels per panel.
    """

    type: Type
    samples: Size
    image: Pair
    taps: Pair
    count: Pair
    stride: Pair
    dilation: Pair
    pads: tuple[Pair, Pair]
    channels: int
    outputs: int
    panel: int

    @property
    def x_size(self) -> int:
        """Elements of one input map."""
        return self.image[0] * self.image[1] * self.channels

    @property
    def y_size(self) -> int:
        """Elements of one output map."""
        return self.count[0] * self.count[1] * self.outputs

    @property
    def taps_size(self) -> int:
        """Rows of the packed weights."""
        return self.taps[0] * self.taps[1] * self.channels

    @property
    def output_panels(self) -> int:
        return -(-self.outputs // self.panel)

    @property
    def input_panels(self) -> int:
        return -(-self.channels // self.panel)


def takes(generator: str, form: Mapping[str, Any]) -> bool:
    """Whether the generators have this problem: no empty axes; strided input gradients without dilation."""
    sizes = (*form["taps"], *form["image"], *form["count"], form["channels"], form["outputs"])
    if form["groups"] != 1 or not all(isinstance(size, int) and size > 0 for size in sizes):
        return False
    if generator == "convolution_input_gradient":
        return all(s == 1 or d == 1 for s, d in zip(form["stride"], form["dilation"], strict=True))
    return True


def _problem(node: Node, form: Mapping[str, Any], panel: int) -> _Problem:
    samples = node.inputs[0].shape[0]
    names = ("image", "taps", "count", "stride", "dilation", "pads", "channels", "outputs")
    facts = {name: form[name] for name in names}
    return _Problem(type=type_of(node.specs[0].dtype), samples=samples, panel=panel, **facts)


def _chunk(problem: _Problem, batch: int, units: int) -> int:
    """Samples of one unit of work."""
    return max(1, -(-bind_size(problem.samples, batch) // units))


# -- forward ------------------------------------------------------------------------------------------------


def forward(
    node: Node,
    form: Mapping[str, Any],
    operands: tuple[Storage, ...],
    result: Storage,
    batch: int,
    names: Names,
    panel: int,
) -> Sequence[Kernel]:
    """Pack the weights, then convolve sample by sample."""
    problem = _problem(node, form, panel)
    x, weights = operands
    packed = Storage(names("weights"), result.dtype, problem.output_panels * problem.taps_size * panel)
    pack = _PackWeights(problem)
    rows = _Forward(problem, _chunk(problem, batch, UNITS))
    return [
        Kernel(
            names(f"{node.op.name}_pack"),
            Product(pack, (weights,), packed),
            problem.output_panels,
            1,
            (weights,),
            (packed,),
            f"{node.where}, packing",
        ),
        Kernel(
            names(node.op.name),
            Product(rows, (x, packed), result),
            problem.samples,
            rows.chunk,
            (x, packed),
            (result,),
            node.where,
        ),
    ]


@dataclass(frozen=True)
class _PackWeights:
    problem: _Problem

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Copy HWIO weights into panels."""
        module = context.module
        problem = self.problem
        natural, packed = buffers[kernel.reads[0]], buffers[kernel.writes[0]]
        name = f"{kernel.name}.panels"
        emit_pack_panels(module, name, Panels(problem.type, problem.outputs, problem.outputs))
        call(f, name, natural, packed, problem.taps_size, *RANGE)


@dataclass(frozen=True)
class _Forward:
    problem: _Problem
    chunk: int

    @property
    def row_map(self) -> RowMap:
        """How the result lies, for an epilogue."""
        problem = self.problem
        wide = problem.output_panels * problem.panel
        return RowMap(problem.samples, *problem.count, problem.outputs, wide)

    @property
    def _padded(self) -> bool:
        return any(map(any, self.problem.pads))

    @property
    def _whole(self) -> bool:
        return self.problem.outputs % self.problem.panel == 0

    @property
    def _frame(self) -> MapCopy:
        problem = self.problem
        (top, bottom), (left, right) = problem.pads
        width = problem.image[1] + left + right
        c = problem.channels
        return MapCopy(
            problem.type,
            *problem.image,
            c,
            (problem.image[1] * c, c),
            (width * c, c),
            (top, bottom, left, right),
        )

    @property
    def scratch_bytes(self) -> int:
        """The framed map, and rows whose channels fill their panels or which an epilogue consumes."""
        problem = self.problem
        size = rounded(self._frame.target_size() * problem.type.bytes) if self._padded else 0
        wide = problem.output_panels * problem.panel
        return size + rounded(problem.count[0] * problem.count[1] * wide * problem.type.bytes)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Convolve a range of samples, all rows of each at once or, for an epilogue, block by block."""
        module, problem = context.module, self.problem
        assert isinstance(kernel.body, Product)
        epilogue = kernel.body.epilogue
        x, packed = (buffers[s] for s in kernel.body.operands)
        scratch = Scratch()
        frame = scratch.take(f, problem.type, self._frame.target_size(), "frame") if self._padded else None
        rows, columns = problem.count[0] if epilogue is None else epilogue.count, problem.count[1]
        wide = problem.output_panels * problem.panel
        direct = self._whole and epilogue is None
        area = None if direct else scratch.take(f, problem.type, rows * columns * wide, "rows")
        row = (problem.image[1] + sum(problem.pads[1])) * problem.channels
        spec = ConvolutionRows(
            problem.type,
            problem.channels,
            problem.output_panels,
            rows,
            columns,
            problem.taps,
            row,
            problem.channels,
            columns * wide,
            wide,
            problem.stride,
            problem.dilation,
        )
        name = f"{kernel.name}.rows"
        emit_convolution_rows(module, name, spec)
        if frame is not None:
            emit_map_copy(module, f"{kernel.name}.frame", self._frame)
        if epilogue is not None:
            emit_epilogue(context, kernel, f"{kernel.name}.epilogue")
        elif area is not None:
            emit_map_copy(module, f"{kernel.name}.narrow", _narrow(problem.type, rows, columns, problem.outputs, wide))

        def sample(n: Value) -> None:
            source = f.at(x, f.mul(n, problem.x_size), problem.x_size)
            if frame is not None:
                call(f, f"{kernel.name}.frame", source, frame)
                source = frame
            if epilogue is None:
                y = buffers[kernel.writes[0]]
                target = f.at(y, f.mul(n, problem.y_size), problem.y_size)
                call(f, name, source, packed, target if area is None else area)
                if area is not None:
                    call(f, f"{kernel.name}.narrow", area, target)
                return
            blocks(epilogue, source, n)

        def blocks(epilogue: Epilogue, source: Buffer, n: Value) -> None:
            height = axis_size(epilogue.nest.axes[1])
            assert isinstance(height, int)
            assert area is not None
            stride = problem.stride[0] * row

            def block(p: Value, _: list[Value]) -> None:
                first = f.add(f.mul(p, epilogue.step * stride), epilogue.first * stride)
                call(f, name, f.at(source, first), packed, area)
                places = f"i64 {n.text}, i64 {p.text}"
                f.call_void(f"{kernel.name}.epilogue", f"ptr %table, i64 %n, ptr {area.pointer}, {places}")

            f.loop(0, height, block)

        _each_sample(f, problem, self.chunk, batch, sample)


def _narrow(type: Type, rows: int, columns: int, channels: int, wide: int) -> MapCopy:
    """Out of padded channels."""
    return MapCopy(type, rows, columns, channels, (columns * wide, wide), (columns * channels, channels))


def _each_sample(f: Function, problem: _Problem, chunk: int, batch: Value, body: Callable[[Value], None]) -> None:
    """Run the body for every sample of the kernel's units."""
    low, high = RANGE
    first = f.mul(low, chunk)
    last = f.min(f.mul(high, chunk), size_value(f, problem.samples, batch))
    f.loop(first, last, lambda n, _: body(n))


# -- input gradient -----------------------------------------------------------------------------------------


def input_gradient(
    node: Node,
    form: Mapping[str, Any],
    operands: tuple[Storage, ...],
    result: Storage,
    batch: int,
    names: Names,
    panel: int,
) -> Sequence[Kernel]:
    """Pack the turned weights, phase by phase of the stride, then convolve the gradient sample by sample."""
    problem = _problem(node, form, panel)
    g, weights = operands
    phases = _phases(problem)
    size = sum(phase.packed_size(problem) for phase in phases)
    packed = Storage(names("weights"), result.dtype, max(1, size))
    pack = _PackTurned(problem, tuple(phases))
    rows = _InputGradient(problem, tuple(phases), _chunk(problem, batch, UNITS))
    return [
        Kernel(
            names(f"{node.op.name}_pack"),
            Product(pack, (weights,), packed),
            problem.input_panels,
            1,
            (weights,),
            (packed,),
            f"{node.where}, packing",
        ),
        Kernel(
            names(node.op.name),
            Product(rows, (g, packed), result),
            problem.samples,
            rows.chunk,
            (g, packed),
            (result,),
            node.where,
        ),
    ]


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

    def packed_size(self, problem: _Problem) -> int:
        return problem.input_panels * self.taps[0] * self.taps[1] * problem.outputs * problem.panel


def _phases(problem: _Problem) -> list[_Phase]:
    axes = [_axis_phases(problem, axis) for axis in (0, 1)]
    found = []
    for a in axes[0]:
        for b in axes[1]:
            columns = [(u, v) for u, v in zip(a, b, strict=True)]
            found.append(_Phase(*columns))
    return found


def _axis_phases(problem: _Problem, axis: int) -> list[tuple[int, int, int, int, int]]:
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


@dataclass(frozen=True)
class _PackTurned:
    problem: _Problem
    phases: tuple[_Phase, ...]

    scratch_bytes = 0

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Copy HWIO weights, turned and transposed, into one set of panels for each phase."""
        module = context.module
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
            emit_pack_input_gradient(module, name, spec)
            call(f, name, natural, f.at(packed, place), *RANGE)
            place += phase.packed_size(problem)


@dataclass(frozen=True)
class _InputGradient:
    problem: _Problem
    phases: tuple[_Phase, ...]
    chunk: int

    @property
    def _frame(self) -> MapCopy:
        """The gradient with as many zeros around it as some phase reaches (or crops nothing)."""
        problem = self.problem
        sides: list[int] = []
        for axis in (0, 1):
            reach = [p for p in self.phases if p.taps[0] and p.taps[1]]
            before = max((-p.start[axis] for p in reach), default=0)
            after = max(
                (p.start[axis] + p.count[axis] - 1 + (p.taps[axis] - 1) * self._step(axis) for p in reach), default=0
            )
            sides += [max(0, before), max(0, after - (problem.count[axis] - 1))]
        top, bottom, left, right = sides
        k = problem.outputs
        row = (problem.count[1] + left + right) * k
        return MapCopy(problem.type, *problem.count, k, (problem.count[1] * k, k), (row, k), (top, bottom, left, right))

    def _step(self, axis: int) -> int:
        """How far apart a phase's taps meet the gradient: the dilation, which is 1 where there is a stride."""
        return self.problem.dilation[axis] if self.problem.stride[axis] == 1 else 1

    @property
    def _wide(self) -> int:
        return self.problem.input_panels * self.problem.panel

    @property
    def _whole(self) -> bool:
        return self.problem.channels == self._wide

    def _area(self) -> int:
        return 0 if self._whole else max(p.count[0] * p.count[1] for p in self.phases) * self._wide

    @property
    def scratch_bytes(self) -> int:
        """The framed gradient, and a phase's pixels whose channels fill their panels."""
        item = self.problem.type.bytes
        return rounded(self._frame.target_size() * item) + (rounded(self._area() * item) if self._area() else 0)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Convolve a range of samples, phase by phase."""
        module = context.module
        problem = self.problem
        g, packed = (buffers[s] for s in kernel.reads)
        x = buffers[kernel.writes[0]]
        scratch = Scratch()
        copy = self._frame
        frame = scratch.take(f, problem.type, copy.target_size(), "frame") if any(copy.frame) else None
        if frame is not None:
            emit_map_copy(module, f"{kernel.name}.frame", copy)
        area = scratch.take(f, problem.type, self._area(), "rows") if self._area() else None
        steps = [self._emit_phase(module, f"{kernel.name}.phase{i}", p, copy) for i, p in enumerate(self.phases)]

        def sample(n: Value) -> None:
            source = f.at(g, f.mul(n, problem.y_size), problem.y_size)
            target = f.at(x, f.mul(n, problem.x_size), problem.x_size)
            if frame is not None:
                call(f, f"{kernel.name}.frame", source, frame)
                source = frame
            place = 0
            for phase, (start, first, name) in zip(self.phases, steps, strict=True):
                pixels = f.at(target, first)
                if name is None:
                    _clear_phase(module, f, f"{kernel.name}.zero{first}", problem, phase, pixels)
                    continue
                weights = f.at(packed, place, phase.packed_size(problem))
                call(f, name, f.at(source, start), weights, pixels if area is None else area)
                if area is not None:
                    call(f, f"{name}.narrow", area, pixels)
                place += phase.packed_size(problem)

        _each_sample(f, problem, self.chunk, batch, sample)

    def _emit_phase(self, module: Module, name: str, phase: _Phase, copy: MapCopy) -> tuple[int, int, str | None]:
        """Where the phase begins in the framed gradient and in the result, and its function (None: no tap)."""
        problem = self.problem
        c = problem.channels
        first = (phase.first[0] * problem.image[1] + phase.first[1]) * c
        if not phase.packed_size(problem):
            return 0, first, None
        top, _, left, _ = copy.frame
        row, pixel = copy.target_strides
        start = (phase.start[0] + top) * row + (phase.start[1] + left) * pixel
        strides = (problem.stride[0] * problem.image[1] * c, problem.stride[1] * c)
        wide = (phase.count[1] * self._wide, self._wide)
        y_row, y_pixel = strides if self._whole else wide
        spec = ConvolutionRows(
            problem.type,
            problem.outputs,
            problem.input_panels,
            *phase.count,
            phase.taps,
            row,
            pixel,
            y_row,
            y_pixel,
            (1, 1),
            (self._step(0), self._step(1)),
        )
        emit_convolution_rows(module, name, spec)
        if not self._whole:
            emit_map_copy(module, f"{name}.narrow", MapCopy(problem.type, *phase.count, c, wide, strides))
        return start, first, name


def _clear_phase(module: Module, f: Function, name: str, problem: _Problem, phase: _Phase, pixels: Buffer) -> None:
    """Write zeros to pixels that no tap touches."""
    strides = (problem.stride[0] * problem.image[1] * problem.channels, problem.stride[1] * problem.channels)
    zero = f.constant(0.0, problem.type)

    def row(i: Value, _: list[Value]) -> None:
        def pixel(j: Value, _: list[Value]) -> None:
            at = f.add(f.mul(i, strides[0]), f.mul(j, strides[1]))
            f.loop(0, problem.channels, lambda c, _: f.store(zero, pixels, f.add(at, c)))

        f.loop(0, phase.count[1], pixel)

    f.loop(0, phase.count[0], row)


# -- weight gradient ----------------------------------------------------------------------------------------


def kernel_gradient(
    node: Node,
    form: Mapping[str, Any],
    operands: tuple[Storage, ...],
    result: Storage,
    batch: int,
    names: Names,
    panel: int,
) -> Sequence[Kernel]:
    """Sum the samples of each group apart, then add the groups in order."""
    problem = _problem(node, form, panel)
    x, g = operands
    size = problem.output_panels * problem.taps_size * panel
    samples = max(1, bind_size(problem.samples, batch))
    groups = max(1, min(GROUPS, samples, PARTIAL_BYTES // (size * problem.type.bytes)))
    chunk = -(-samples // groups)
    groups = -(-samples // chunk)
    partial = Storage(names("partial"), result.dtype, groups * size)
    part = _KernelGradient(problem, chunk)
    kernel = Kernel(names(node.op.name), Product(part, (x, g), partial), groups, 1, (x, g), (partial,), node.where)
    rows = problem.taps_size
    return [kernel, names.add_parts(partial, groups, size, result, rows, problem.outputs, panel, node)]


@dataclass(frozen=True)
class _KernelGradient:
    problem: _Problem
    chunk: int

    @property
    def _frame(self) -> MapCopy:
        return _Forward(self.problem, 1)._frame

    @property
    def _wide(self) -> MapCopy:
        """The gradient with channels that fill their panels."""
        problem = self.problem
        k, wide = problem.outputs, problem.output_panels * problem.panel
        columns = problem.count[1]
        return MapCopy(problem.type, *problem.count, k, (columns * k, k), (columns * wide, wide), zeros=wide - k)

    @property
    def sample_operands(self) -> Mapping[int, int]:
        """The gradient may be made in private memory."""
        return {1: self.problem.y_size}

    @property
    def scratch_bytes(self) -> int:
        """The framed map, the widened gradient, and a gradient that a prologue makes."""
        item = self.problem.type.bytes
        maps = rounded(self._frame.target_size() * item) + rounded(self._wide.target_size() * item)
        return maps + rounded(self.problem.y_size * item)

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Sum over the samples of each group of the range."""
        module = context.module
        problem = self.problem
        assert isinstance(kernel.body, Product)
        make = emit_prologue(context, kernel, 1)
        image_operand, gradient_operand = kernel.body.operands
        x = buffers[image_operand]
        partial = buffers[kernel.writes[0]]
        scratch = Scratch()
        copy, widen = self._frame, self._wide
        frame = scratch.take(f, problem.type, copy.target_size(), "frame") if any(copy.frame) else None
        wide = scratch.take(f, problem.type, widen.target_size(), "gradient") if widen.zeros else None
        made = scratch.take(f, problem.type, problem.y_size, "made") if make is not None else None
        if frame is not None:
            emit_map_copy(module, f"{kernel.name}.frame", copy)
        if wide is not None:
            emit_map_copy(module, f"{kernel.name}.widen", widen)
        name = f"{kernel.name}.weights"
        spec = ConvolutionWeights(
            problem.type,
            problem.channels,
            problem.output_panels,
            *problem.count,
            problem.taps,
            *copy.target_strides,
            *widen.target_strides,
            problem.stride,
            problem.dilation,
        )
        emit_convolution_weights(module, name, spec)
        size = problem.output_panels * problem.taps_size * problem.panel
        samples = size_value(f, problem.samples, batch)
        lanes = module.lanes(problem.type)
        zero = f.constant(0.0, problem.type.of(lanes))

        def unit(u: Value) -> None:
            target = f.at(partial, f.mul(u, size), size)
            f.loop(0, size, lambda i, _: f.store(zero, target, i), step=lanes)
            first = f.mul(u, self.chunk)

            def sample(n: Value, _: list[Value]) -> None:
                image = f.at(x, f.mul(n, problem.x_size), problem.x_size)
                if make is None or made is None:
                    stored = buffers[gradient_operand]
                    gradient = f.at(stored, f.mul(n, problem.y_size), problem.y_size)
                else:
                    make(f, made, n)
                    gradient = made
                if frame is not None:
                    call(f, f"{kernel.name}.frame", image, frame)
                    image = frame
                if wide is not None:
                    call(f, f"{kernel.name}.widen", gradient, wide)
                    gradient = wide
                call(f, name, image, gradient, target)

            f.loop(first, f.min(f.add(first, self.chunk), samples), sample)

        each_unit(f, unit)
