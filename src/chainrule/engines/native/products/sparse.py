"""Convolution gradients behind a max-pool, where each window has one live place per channel.

The gradient comes as the pool's few elements: ``g[PH][PW][K]`` and ``positions[PH][PW][K]``, the place of each in its
window as ``u * window_width + v``.  Only live elements (not zero; NaN is live) are multiplied, a quarter of the dense
work for 2x2 windows and less behind a ReLU.  That is exact for finite weights and maps: what is left out is 0 * w.

``emit_sparse_input_gradient``:
    ``void @f(ptr %g, ptr %positions, ptr %w, ptr %x, ptr %values, ptr %numbers, ptr %counts)``
    ``x`` (overwritten) ``[y + r][x + s][c] = sum over live (y, x, k), r, s of g * w[k][r][s][c]``.  For each pixel and
    place in its window there is a list of the live channels; list by list, one row of taps is added to a run of S*C
    elements of x held in registers.  Filter rows are outermost, so that one row of all filters stays in the cache.

``emit_sparse_weight_gradient``: ``void @f(ptr %x, ptr %g, ptr %positions, ptr %dw, ptr %values, ptr %numbers)``
    ``dw[k][r][s][c] += sum over live (y, x) of g * x[y + r][x + s][c]``: for each channel a list of the live places.

Filters are k-major, ``w[k][r][s*C + c]``.  Stride and dilation are 1, windows lie side by side, and a row of taps
(S*C) is a whole number of vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chainrule.engines.native.ir import Buffer, Function, Index, Module, Value
from chainrule.engines.native.products.tile import multiply_add
from chainrule.engines.native.types import BOOL, I32, I64, Type

__all__ = ["SparseGradient", "emit_sparse_input_gradient", "emit_sparse_weight_gradient"]


@dataclass(frozen=True, slots=True)
class SparseGradient:
    """A convolution whose output is max-pooled.

    Attributes:
        type: scalar float type.
        channels, outputs: C and K.
        kernel: (R, S).
        pooled: (PH, PW).
        window: size and stride of the pool, (vertical, horizontal).
        rows, columns: of the framed input map.
    """

    type: Type
    channels: int
    outputs: int
    kernel: tuple[int, int]
    pooled: tuple[int, int]
    window: tuple[int, int]
    rows: int
    columns: int

    @property
    def run(self) -> int:
        """Elements of one row of taps, S*C."""
        return self.kernel[1] * self.channels

    @property
    def filter_size(self) -> int:
        """Elements of one filter."""
        return self.kernel[0] * self.run

    @property
    def places(self) -> int:
        """Places in a window."""
        return self.window[0] * self.window[1]

    @property
    def pixels(self) -> int:
        """Pixels of the pooled map."""
        return self.pooled[0] * self.pooled[1]

    @property
    def x_size(self) -> int:
        """Elements of the framed input map."""
        return self.rows * self.columns * self.channels

    def lists_size(self) -> int:
        """Elements of the lists of values, and of numbers."""
        return self.pixels * self.places * self.outputs

    def counts_size(self) -> int:
        """Elements of the lengths of the input gradient's lists."""
        return self.pixels * self.places


class _Emitter:
    def __init__(self, module: Module, f: Function, spec: SparseGradient) -> None:
        self.module, self.f, self.spec = module, f, spec
        self.lanes = module.lanes(spec.type)
        self.most = 24 if module.lanes32 >= 16 else 12

    def buffer(self, name: str, type: Type, size: int) -> Buffer:
        return Buffer(f"%{name}", type, size, f"{self.f.name} {name}")

    def blocks(self, body: Callable[[Index, int], None]) -> None:
        """Call ``body(first element, vectors)`` for blocks of a row of taps that fit the registers."""
        vectors = self.spec.run // self.lanes
        whole = vectors // self.most
        width = self.most * self.lanes
        if whole:
            self.f.loop(0, whole * width, lambda i, _: body(i, self.most), step=width)
        if vectors > whole * self.most:
            body(whole * width, vectors - whole * self.most)

    def add_list(
        self,
        target: Buffer,
        place: Index,
        vectors: int,
        low: Index,
        high: Index,
        values: Buffer,
        numbers: Buffer,
        source: Buffer,
        offset: Index,
    ) -> None:
        """``target[place:] += values[t] * source[numbers[t] + offset:]`` for t of a list, the target in registers."""
        f, lanes = self.f, self.lanes
        start = [f.load(target, f.add(place, v * lanes), lanes) for v in range(vectors)]

        def turn(t: Value, sums: list[Value]) -> list[Value]:
            value = f.splat(f.load(values, t), lanes)
            number = f.let(I64, f"zext {f.load(numbers, t)} to i64")
            row = f.add(number, offset)
            return [
                multiply_add(f, value, f.load(source, f.add(row, v * lanes), lanes), sums[v]) for v in range(vectors)
            ]

        for v, total in enumerate(f.loop(low, high, turn, start, guard=True)):
            f.store(total, target, f.add(place, v * lanes))

    def live(self, value: Value) -> Value:
        """1 for a value that is not zero (NaN is not), as an index."""
        alive = self.f.compare("une", value, self.f.constant(0.0, self.spec.type))
        return self.f.let(I64, f"zext {alive} to i64")

    def pixel(self, y: Value, x: Value) -> Index:
        """Number of a pooled pixel."""
        return self.f.add(self.f.mul(y, self.spec.pooled[1]), x)

    def each_pixel(self, body: Callable[[Value, Value], None]) -> None:
        """Call the body for every pooled pixel."""
        f, spec = self.f, self.spec
        f.loop(0, spec.pooled[0], lambda y, _: f.loop(0, spec.pooled[1], lambda x, _: body(y, x)) and None)


def emit_sparse_input_gradient(module: Module, name: str, spec: SparseGradient) -> None:
    """Add the input gradient's function to a module."""
    pointers = ("g", "positions", "w", "x", "values", "numbers", "counts")
    f = Function(module, name, [("ptr", pointer) for pointer in pointers], internal=True)
    e = _Emitter(module, f, spec)
    count = spec.pixels * spec.outputs
    g, positions = e.buffer("g", spec.type, count), e.buffer("positions", I32, count)
    w, x = e.buffer("w", spec.type, spec.outputs * spec.filter_size), e.buffer("x", spec.type, spec.x_size)
    values, numbers = e.buffer("values", spec.type, spec.lists_size()), e.buffer("numbers", I32, spec.lists_size())
    counts = e.buffer("counts", I64, spec.counts_size())
    lists = spec.places * spec.outputs

    def collect(py: Value, px: Value) -> None:
        pixel = e.pixel(py, px)
        for place in range(spec.places):
            f.store(Value("0", I64), counts, f.add(f.mul(pixel, spec.places), place))

        def channel(k: Value, _: list[Value]) -> None:
            at = f.add(f.mul(pixel, spec.outputs), k)
            value = f.load(g, at)
            place = f.let(I64, f"zext {f.load(positions, at)} to i64")
            slot = f.add(f.mul(pixel, spec.places), place)
            length = f.load(counts, slot)
            entry = f.add(f.add(f.mul(pixel, lists), f.mul(place, spec.outputs)), length)
            f.store(value, values, entry)
            number = f.let(I32, f"trunc i64 {f.index(f.mul(k, spec.filter_size)).text} to i32")
            f.store(number, numbers, entry)
            after = f.add(length, e.live(value))
            assert isinstance(after, Value)
            f.store(f.index(after) if after.plus else after, counts, slot)

        f.loop(0, spec.outputs, channel)

    zero = f.constant(0.0, spec.type)
    whole = spec.x_size // e.lanes * e.lanes
    f.loop(0, whole, lambda i, _: f.store(f.splat(zero, e.lanes), x, i), step=e.lanes)
    f.loop(whole, spec.x_size, lambda i, _: f.store(zero, x, i))
    e.each_pixel(collect)

    def row(r: Value, _: list[Value]) -> None:
        def spread(py: Value, px: Value) -> None:
            pixel = e.pixel(py, px)

            def place(q: Value, _: list[Value]) -> None:
                u, v = f.div(q, spec.window[1]), f.rem(q, spec.window[1])
                y = f.add(f.add(f.mul(py, spec.window[0]), u), r)
                column = f.add(f.mul(px, spec.window[1]), v)
                target = f.mul(f.add(f.mul(y, spec.columns), column), spec.channels)
                length = f.load(counts, f.add(f.mul(pixel, spec.places), q))
                low = f.add(f.mul(pixel, lists), f.mul(q, spec.outputs))
                high = f.add(low, length)

                def run(first: Index, vectors: int) -> None:
                    offset = f.add(f.mul(r, spec.run), first)
                    e.add_list(x, f.add(target, first), vectors, low, high, values, numbers, w, offset)

                some = f.let(BOOL, f"icmp ne i64 {length.text}, 0")
                f.when(some, lambda: e.blocks(run))

            f.loop(0, spec.places, place)

        e.each_pixel(spread)

    f.loop(0, spec.kernel[0], row)


def emit_sparse_weight_gradient(module: Module, name: str, spec: SparseGradient) -> None:
    """Add the weight gradient's function to a module."""
    pointers = ("x", "g", "positions", "dw", "values", "numbers")
    f = Function(module, name, [("ptr", pointer) for pointer in pointers], internal=True)
    e = _Emitter(module, f, spec)
    count = spec.pixels * spec.outputs
    x = e.buffer("x", spec.type, spec.x_size)
    g, positions = e.buffer("g", spec.type, count), e.buffer("positions", I32, count)
    dw = e.buffer("dw", spec.type, spec.outputs * spec.filter_size)
    values, numbers = e.buffer("values", spec.type, spec.pixels), e.buffer("numbers", I32, spec.pixels)

    def channel(k: Value, _: list[Value]) -> None:
        def line(py: Value, outer: list[Value]) -> list[Value]:
            def pixel(px: Value, inner: list[Value]) -> list[Value]:
                (length,) = inner
                at = f.add(f.mul(e.pixel(py, px), spec.outputs), k)
                value = f.load(g, at)
                place = f.let(I64, f"zext {f.load(positions, at)} to i64")
                u, v = f.div(place, spec.window[1]), f.rem(place, spec.window[1])
                y = f.add(f.mul(py, spec.window[0]), u)
                column = f.add(f.mul(px, spec.window[1]), v)
                start = f.mul(f.add(f.mul(y, spec.columns), column), spec.channels)
                f.store(value, values, length)
                f.store(f.let(I32, f"trunc i64 {f.index(start).text} to i32"), numbers, length)
                after = f.add(length, e.live(value))
                return [f.index(after)]

            return f.loop(0, spec.pooled[1], pixel, outer)

        (length,) = f.loop(0, spec.pooled[0], line, [Value("0", I64)])

        def row(r: Value, _: list[Value]) -> None:
            target = f.add(f.mul(k, spec.filter_size), f.mul(r, spec.run))

            def run(first: Index, vectors: int) -> None:
                offset = f.add(f.mul(r, spec.columns * spec.channels), first)
                e.add_list(dw, f.add(target, first), vectors, 0, length, values, numbers, x, offset)

            e.blocks(run)

        f.loop(0, spec.kernel[0], row)

    f.loop(0, spec.outputs, channel)
