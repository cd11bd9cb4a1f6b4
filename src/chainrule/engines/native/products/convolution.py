"""Convolution of one sample, and its weight gradient.

Three functions, all for one sample and its valid (caller-padded) map, NHWC with any row and pixel stride:

``ConvolutionRows``: ``void @f(ptr %x, ptr %w, ptr %y[, i64 %rows][, i64 %r_low, i64 %r_high])``
    ``y[i][j][k] = sum over r, s, c of x[i*sy + r*dy][j*sx + s*dx][c] * w[r][s][c][k]``, overwriting y.  w is packed
    ``[panel][R][S*C][PANEL]`` (`packing.emit_pack_panels` on HWIO).  `run_time_rows` adds ``%rows`` (at least 1, at
    most the description's rows).  `clipped` adds a range of filter rows: only those are summed, and x then points at
    the input row of filter row ``%r_low`` of the first output row, so that rows of padding need neither exist nor
    cost time; w always points at filter row 0.  An empty range writes zeros.

``ConvolutionWeights``: ``void @f(ptr %x, ptr %g, ptr %dw[, i64 %rows])``
    ``dw[r][s][c][k] += sum over i, j of x[i*sy + r*dy][j*sx + s*dx][c] * g[i][j][k]`` over the output rows of the call,
    dw in panels like w, or with other strides (natural HWIO where K is a whole number of panels).  g is read fastest
    in panels too, ``[panel][rows][columns][PANEL]``: the pixels of one panel of a natural g lie in few cache sets.

The input gradient is `ConvolutionRows` on g, its weights packed by `packing.emit_pack_input_gradient`.  A strided one
is one such product per phase (i mod sy, j mod sx), each with its own taps, writing every sy-th row and sx-th pixel
through y's strides.

Order of summation: r, s, c for the convolution; i, j for the gradients, a call continuing where dw stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from chainrule.engines.native.ir import Buffer, Function, Index, Module, Value
from chainrule.engines.native.products.tile import (
    Axis,
    Tile,
    contract,
    default_tile,
    equal_width,
    merged,
    panel_width,
    vectors,
)
from chainrule.engines.native.types import I64, Type

__all__ = [
    "ConvolutionRows",
    "ConvolutionWeights",
    "emit_convolution_rows",
    "emit_convolution_weights",
]

Pair: TypeAlias = tuple[int, int]

FLATTEN_STEPS = 96
"""Sums at least so long pay for tiles that run across row ends, whose pixels need an address each."""

SHORT_RUN = 9
"""Runs of S*C taps up to this are written out, with a shorter tile: of the peak, 63 -> 69 % at 3x3 and C=1, 85 -> 88 %
at C=3 (Zen 3).  With the full tile LLVM spills: 52 and 75 %."""
WHOLE_BYTES = 196 * 64
"""Gradients of which one panel is no larger are summed in one block."""
BLOCK_BYTES = 128 * 64
"""Larger ones are summed in blocks of rows with about so much of one panel.  Of the peak, 56x56x64 and 28x28x128 then
reach 93 and 91 % with g in panels (natural g: 89, 74 %), in one block 55 and 66 % (47, 55 %).  14x14x256 is one block:
88 % (72 %).  7x7x512 reaches 67 to 71 % only (61 %): its dw, 9 MB, goes through memory for each sample."""


@dataclass(frozen=True, slots=True)
class _Windows:
    """The windows of one sample's map, one for each output pixel.

    Attributes:
        type: scalar float type.
        channels: C, input channels read at each pixel.
        panels: panels of output channels.
        rows, width: output rows (the most of one call) and output columns.
        kernel, stride, dilation: (vertical, horizontal).
        x_row_stride, x_pixel_stride: in elements.
        run_time_rows: whether the number of rows is a parameter.
        tile: register tile; the machine's if None.
        unroll: steps of the innermost loop per turn, at most.
    """

    type: Type
    channels: int
    panels: int
    rows: int
    width: int
    kernel: Pair
    x_row_stride: int
    x_pixel_stride: int
    stride: Pair = field(default=(1, 1), kw_only=True)
    dilation: Pair = field(default=(1, 1), kw_only=True)
    run_time_rows: bool = field(default=False, kw_only=True)
    tile: Tile | None = field(default=None, kw_only=True)
    unroll: int = field(default=1, kw_only=True)

    @property
    def taps(self) -> int:
        """Rows of the weights, R*S*C."""
        return self.kernel[0] * self.kernel[1] * self.channels

    def x_size(self) -> int:
        """Elements of x that a call reaches, from its pointer on."""
        (sy, sx), (dy, dx) = self.stride, self.dilation
        row, pixel = self.x_row_stride, self.x_pixel_stride
        counts = (self.rows, self.kernel[0], self.width, self.kernel[1])
        return _reach(counts, (sy * row, dy * row, sx * pixel, dx * pixel), self.channels)


@dataclass(frozen=True, slots=True)
class ConvolutionRows(_Windows):
    """Rows of a valid convolution of one sample; see the module for the function's signature.

    Attributes:
        y_row_stride, y_pixel_stride: in elements.
        y_panel_stride: from one panel of y to the next; one panel if None.
        w_row_stride: from one packed row of weights to the next; one panel if None.
        w_panel_stride: from one panel of weights to the next; packed if None.
        clipped: whether the range of filter rows is a parameter.
    """

    y_row_stride: int
    y_pixel_stride: int
    y_panel_stride: int | None = None
    w_row_stride: int | None = None
    w_panel_stride: int | None = None
    clipped: bool = False

    def w_size(self, panel: int) -> int:
        """Elements of w that a call reaches, for panels of so many channels."""
        row = self.w_row_stride or panel
        return _reach((self.panels, self.taps), (self.w_panel_stride or self.taps * row, row), panel)

    def y_size(self, panel: int) -> int:
        """Elements of y that a call reaches, for panels of so many channels."""
        strides = (self.y_panel_stride or panel, self.y_row_stride, self.y_pixel_stride)
        return _reach((self.panels, self.rows, self.width), strides, panel)


@dataclass(frozen=True, slots=True)
class ConvolutionWeights(_Windows):
    """One sample's contribution to the weight gradient; see the module for the function's signature.

    Attributes:
        g_row_stride, g_pixel_stride: in elements.
        g_panel_stride: from one panel of g to the next; one panel if None.
        dw_row_stride: from one row (r, s, c) of dw to the next; one panel if None.
        dw_panel_stride: from one panel of dw to the next; packed if None.
        block_rows: output rows summed at a time for all taps, so that their x and g stay in the caches; chosen by
            the size of g if None.
    """

    g_row_stride: int
    g_pixel_stride: int
    g_panel_stride: int | None = None
    dw_row_stride: int | None = None
    dw_panel_stride: int | None = None
    block_rows: int | None = None

    def g_size(self, panel: int) -> int:
        """Elements of g that a call reaches, for panels of so many channels."""
        strides = (self.g_panel_stride or panel, self.g_row_stride, self.g_pixel_stride)
        return _reach((self.panels, self.rows, self.width), strides, panel)

    def dw_size(self, panel: int) -> int:
        """Elements of dw that a call reaches, for panels of so many channels."""
        row = self.dw_row_stride or panel
        return _reach((self.panels, self.taps), (self.dw_panel_stride or self.taps * row, row), panel)


def _reach(counts: Sequence[int], strides: Sequence[int], run: int) -> int:
    """Elements from the first to the last of nested loops under these strides, which read runs of so many."""
    return sum((count - 1) * stride for count, stride in zip(counts, strides, strict=True)) + run


def emit_convolution_rows(module: Module, name: str, spec: ConvolutionRows) -> None:
    """Add a `ConvolutionRows` function to a module."""
    lanes, panel = module.lanes(spec.type), panel_width(module, spec.type)
    parameters = [("ptr", "x"), ("ptr", "w"), ("ptr", "y")]
    parameters += [("i64", "rows")] * spec.run_time_rows
    parameters += [("i64", "r_low"), ("i64", "r_high")] * spec.clipped
    f = Function(module, name, parameters)
    x = Buffer("%x", spec.type, spec.x_size(), f"{name} x")
    w = Buffer("%w", spec.type, spec.w_size(panel), f"{name} w")
    y = Buffer("%y", spec.type, spec.y_size(panel), f"{name} y")
    rows: Index = Value("%rows", I64) if spec.run_time_rows else spec.rows
    w_row = spec.w_row_stride or panel
    first: Index = 0
    filter_rows: Index = spec.kernel[0]
    if spec.clipped:
        first, filter_rows = Value("%r_low", I64), f.sub(Value("%r_high", I64), Value("%r_low", I64))
    axes = [
        Axis(filter_rows, spec.dilation[0] * spec.x_row_stride, spec.kernel[1] * spec.channels * w_row),
        Axis(spec.kernel[1], spec.dilation[1] * spec.x_pixel_stride, spec.channels * w_row),
        Axis(spec.channels, 1, w_row),
    ]
    skipped = f.mul(first, axes[0].b)
    tile, straight = _rows_tile(module, spec, merged(axes))

    def group(low: Index) -> None:
        numbers = _panel_numbers(f, low, tile.panels, spec.panels)
        weights = [f.add(skipped, f.mul(n, spec.w_panel_stride or spec.taps * w_row)) for n in numbers]
        outputs = [f.mul(n, spec.y_panel_stride or panel) for n in numbers]
        columns = vectors(f, weights, lanes)

        def pixels(places: Sequence[tuple[Index, Index]]) -> None:
            at_x = [
                f.add(f.mul(i, spec.stride[0] * spec.x_row_stride), f.mul(j, spec.stride[1] * spec.x_pixel_stride))
                for i, j in places
            ]
            start = [f.constant(0.0, spec.type.of(lanes))] * (len(places) * len(columns))
            sums = contract(f, start, x, at_x, w, columns, axes, spec.unroll, straight)
            for p, (i, j) in enumerate(places):
                at_y = f.add(f.mul(i, spec.y_row_stride), f.mul(j, spec.y_pixel_stride))
                for v, output in enumerate(vectors(f, outputs, lanes)):
                    f.store(sums[p * len(columns) + v], y, f.add(at_y, output))

        _pixel_tiles(f, spec, rows, tile.rows, pixels)

    _panel_groups(f, spec.panels, tile.panels, group)


def emit_convolution_weights(module: Module, name: str, spec: ConvolutionWeights) -> None:
    """Add a `ConvolutionWeights` function to a module."""
    lanes, panel = module.lanes(spec.type), panel_width(module, spec.type)
    tile = spec.tile or default_tile(module, spec.panels)
    f = Function(module, name, [("ptr", "x"), ("ptr", "g"), ("ptr", "dw"), *[("i64", "rows")] * spec.run_time_rows])
    x = Buffer("%x", spec.type, spec.x_size(), f"{name} x")
    g = Buffer("%g", spec.type, spec.g_size(panel), f"{name} g")
    dw = Buffer("%dw", spec.type, spec.dw_size(panel), f"{name} dw")
    all_rows: Index = Value("%rows", I64) if spec.run_time_rows else spec.rows
    dw_row = spec.dw_row_stride or panel
    step_y, step_x = spec.stride[0] * spec.x_row_stride, spec.stride[1] * spec.x_pixel_stride
    width = equal_width(spec.taps, tile.rows)

    def block(first_row: Index, rows: Index) -> None:
        axes = [Axis(rows, step_y, spec.g_row_stride), Axis(spec.width, step_x, spec.g_pixel_stride)]
        at_x, at_g = f.mul(first_row, step_y), f.mul(first_row, spec.g_row_stride)

        def group(low: Index) -> None:
            numbers = _panel_numbers(f, low, tile.panels, spec.panels)
            inputs = [f.add(at_g, f.mul(n, spec.g_panel_stride or panel)) for n in numbers]
            outputs = [f.mul(n, spec.dw_panel_stride or spec.taps * dw_row) for n in numbers]
            columns = vectors(f, inputs, lanes)

            def taps(low: Index) -> None:
                # Where the last tile runs over, it repeats the last tap: all its loads precede all its stores.
                chosen = [_clamped(f, low, i, width, spec.taps) for i in range(width)]
                reached = [f.add(at_x, offset) for offset in _tap_offsets(f, spec, chosen, width)]
                places = [f.add(f.mul(tap, dw_row), v) for tap in chosen for v in vectors(f, outputs, lanes)]
                sums = [f.load(dw, place, lanes) for place in places]
                sums = contract(f, sums, x, reached, g, columns, axes, spec.unroll)
                for place, total in zip(places, sums, strict=True):
                    f.store(total, dw, place)

            _steps(f, spec.taps, width, taps)

        _panel_groups(f, spec.panels, tile.panels, group)

    size = spec.block_rows or _block_rows(spec, panel * spec.type.bytes)
    if size >= spec.rows:
        block(0, all_rows)
    else:

        def some(i: Value, _: list[Value]) -> None:
            block(i, f.min(size, f.sub(all_rows, i)))

        f.loop(0, all_rows, some, step=size)


def _block_rows(spec: ConvolutionWeights, panel_bytes: int) -> int:
    """How many rows to sum at a time."""
    row_bytes = spec.width * panel_bytes
    return spec.rows if spec.rows * row_bytes <= WHOLE_BYTES else max(1, BLOCK_BYTES // row_bytes)


def _rows_tile(module: Module, spec: ConvolutionRows, axes: Sequence[Axis]) -> tuple[Tile, int]:
    """The register tile, and how many taps are written out at most."""
    run = axes[-1].count if axes else 1
    tile = spec.tile or default_tile(module, spec.panels)
    if not isinstance(run, int) or run > SHORT_RUN:
        return tile, 1
    return spec.tile or Tile(tile.rows - 1, tile.panels), run


def _steps(f: Function, count: Index, step: int, body: Callable[[Index], None]) -> None:
    """``for i in range(0, count, step): body(i)``; a single turn needs no loop."""
    if isinstance(count, int) and count <= step:
        body(0)
        return

    def turn(i: Value, _: list[Value]) -> None:
        body(i)

    f.loop(0, count, turn, step=step)


def _panel_groups(f: Function, panels: int, at_once: int, body: Callable[[Index], None]) -> None:
    _steps(f, panels, at_once, body)


def _panel_numbers(f: Function, low: Index, at_once: int, panels: int) -> list[Index]:
    """The panels of one tile; where it runs over, the last panel again, with the same values."""
    return [_clamped(f, low, i, at_once, panels) for i in range(min(at_once, panels))]


def _clamped(f: Function, low: Index, i: int, step: int, count: int) -> Index:
    """``min(low + i, count - 1)``, where the steps do not divide the count."""
    place = f.add(low, i)
    return place if count % step == 0 else f.min(place, count - 1)


def _pixel_tiles(
    f: Function,
    spec: ConvolutionRows,
    rows: Index,
    widest: int,
    body: Callable[[Sequence[tuple[Index, Index]]], None],
) -> None:
    """Run `body` on tiles of (output row, output column), which cover all and may repeat some."""
    flat = equal_width(spec.rows * spec.width, widest)
    width = equal_width(spec.width, widest)
    flat_work = -(-spec.rows * spec.width // flat) * flat
    if spec.taps >= FLATTEN_STEPS and flat_work < spec.rows * -(-spec.width // width) * width:
        pixels = f.mul(rows, spec.width)

        def across(low: Index) -> None:
            last = f.sub(pixels, 1)
            chosen = [f.min(f.add(low, i), last) for i in range(flat)]
            body([(f.div(p, spec.width), f.rem(p, spec.width)) for p in chosen])

        _steps(f, pixels, flat, across)
        return

    def one_row(i: Value, _: list[Value]) -> None:
        def columns(low: Index) -> None:
            start = low if spec.width % width == 0 else f.min(low, spec.width - width)
            body([(i, f.add(start, p)) for p in range(width)])

        _steps(f, spec.width, width, columns)

    f.loop(0, rows, one_row)


def _tap_offsets(f: Function, spec: ConvolutionWeights, taps: Sequence[Index], width: int) -> list[Index]:
    """Where in x the taps (r, s, c), counted in one, lie from the pixel of the first one."""
    height_step, width_step = spec.dilation[0] * spec.x_row_stride, spec.dilation[1] * spec.x_pixel_stride

    def offset(tap: Index) -> Index:
        channel, pixel = f.rem(tap, spec.channels), f.div(tap, spec.channels)
        r, s = f.div(pixel, spec.kernel[1]), f.rem(pixel, spec.kernel[1])
        return f.add(channel, f.add(f.mul(r, height_step), f.mul(s, width_step)))

    run = spec.channels * (spec.kernel[1] if width_step == spec.channels else 1)
    if run % width == 0:
        first = offset(taps[0])
        return [f.add(first, i) for i in range(width)]
    return [offset(tap) for tap in taps]
