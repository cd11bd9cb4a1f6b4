"""Speed of the native engine's products, one thread: GF/s and share of the FMA peak measured in the same run.

Run from the repository's root: ``PYTHONPATH=src python benchmarks/kernels.py [part of a name ...] [--rounds N]``.
Times are the thread's processor time, which leaves out waiting for a core that others use, though not what they do to
the caches and the clock.  Kernels take turns, and the peak is timed right before and after each: rates are medians over
rounds, shares medians of the shares within a round, with their range.  Rounds in which the peak itself moved are left
out, and how many were kept is printed.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.jit import Library, compile_object, host_target
from chainrule.engines.native.peak import emit_multiply_adds, host_module
from chainrule.engines.native.products import (
    ConvolutionRows,
    ConvolutionWeights,
    MatrixProduct,
    Panels,
    default_tile,
    emit_convolution_rows,
    emit_convolution_weights,
    emit_matrix_product,
    emit_pack_panels,
    emit_pack_panels_transposed,
    panel_width,
)
from chainrule.engines.native.types import F32, F64, Type

MINIMUM_SECONDS = 0.004
"""One timing runs a kernel as often as fills this."""

Bound: TypeAlias = "Callable[[str], Callable[..., Callable[[], None]]]"
"""Gives a compiled function by its name; that takes operands and gives what runs it on them."""

DISTURBED = 0.05
"""A round counts only if the peak before and after the kernel agree to this: otherwise something else ran."""


@dataclass
class Case:
    """A kernel with its operands: how to run it once, and the floating-point operations of that."""

    name: str
    flops: float
    run: Callable[[], None]


class Builder:
    """Collects functions, then compiles them together and hands out cases."""

    def __init__(self) -> None:
        self.module = host_module()
        self.pending: list[tuple[str, float, Callable[[Bound], Callable[[], None]]]] = []

    def add(self, name: str, flops: float, make: Callable[[Bound], Callable[[], None]]) -> None:
        self.pending.append((name, flops, make))

    def cases(self) -> list[Case]:
        names = list(self.module.functions)
        started = time.perf_counter()
        library = Library([compile_object(self.module.text())], names)
        print(f"{len(names)} functions compiled in {1e3 * (time.perf_counter() - started):.0f} ms")

        def function(symbol: str) -> Callable[..., Callable[[], None]]:
            def bound(*arguments: np.ndarray | int) -> Callable[[], None]:
                kinds = [ctypes.c_int64 if isinstance(a, int) else ctypes.c_void_p for a in arguments]
                native = library.function(symbol, None, *kinds)
                # Addresses are looked up once: that takes microseconds, as long as the smallest kernels.
                values = [a if isinstance(a, int) else a.ctypes.data for a in arguments]

                def run(keep: tuple[np.ndarray | int, ...] = arguments) -> None:
                    native(*values)

                return run

            return bound

        return [Case(name, flops, make(function)) for name, flops, make in self.pending]


def aligned(*shape: int, type: Type, seed: int = 0) -> np.ndarray:
    """Random values that begin at a cache line."""
    dtype = np.dtype(np.float32 if type == F32 else np.float64)
    size = int(np.prod(shape))
    raw = np.zeros(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    result = raw[start : start + size * dtype.itemsize].view(dtype).reshape(shape)
    result[...] = np.random.default_rng(seed).normal(size=shape)
    return result


def peak(builder: Builder, type: Type) -> None:
    """Independent multiply-adds in registers."""
    turns, chains, name = 200000, 12, f"peak_{type}"
    emit_multiply_adds(builder.module, name, type, chains)

    def make(function: Bound) -> Callable[[], None]:
        operand = aligned(1024, type=type)
        operand[...] = 0.5
        return function(name)(operand, turns)

    builder.add(f"peak {type}", 2 * builder.module.lanes(type) * chains * turns, make)


def convolutions(
    builder: Builder,
    label: str,
    size: int,
    channels: int,
    outputs: int,
    type: Type = F32,
    kernel: int = 3,
    stride: int = 1,
) -> None:
    """Forward and weight gradient of a square map; g and y in whole panels."""
    panel = panel_width(builder.module, type)
    panels = -(-outputs // panel)
    count = (size - kernel) // stride + 1
    wide = panels * panel
    flops = 2.0 * count * count * outputs * channels * kernel * kernel
    symbol = f"rows_{label}".replace(" ", "_").replace("->", "_").replace("=", "_").replace(",", "_")
    common = (type, channels, panels, count, count, (kernel, kernel), size * channels, channels, count * wide, wide)
    forward = ConvolutionRows(*common, stride=(stride, stride))
    emit_convolution_rows(builder.module, symbol, forward)
    natural = ConvolutionWeights(*common, stride=(stride, stride))
    emit_convolution_weights(builder.module, f"{symbol}_weights", natural)
    in_panels = replace(natural, g_row_stride=count * panel, g_pixel_stride=panel, g_panel_stride=count * count * panel)
    emit_convolution_weights(builder.module, f"{symbol}_weights_panels", in_panels)
    x, w, y = (
        aligned(n, type=type, seed=i)
        for i, n in enumerate((forward.x_size(), forward.w_size(panel), forward.y_size(panel)))
    )
    dw = aligned(natural.dw_size(panel), type=type)
    builder.add(f"convolution {label}, rows", flops, lambda function: function(symbol)(x, w, y))
    builder.add(
        f"convolution {label}, weights, natural g", flops, lambda function: function(f"{symbol}_weights")(x, y, dw)
    )
    builder.add(
        f"convolution {label}, weights, g in panels",
        flops,
        lambda function: function(f"{symbol}_weights_panels")(x, y, dw),
    )


PACKED_PANELS, PACKED_ROWS = 4, 64
"""How much of w is packed at a time: 16 KB."""


def dense(builder: Builder, batch: int, inputs: int, outputs: int, type: Type = F32) -> None:
    """The three products of a dense layer, from packed operands, from natural ones, and with packing included."""
    panel = panel_width(builder.module, type)
    label = f"{batch}x{inputs}->{outputs} {type}"
    flops = 2.0 * batch * inputs * outputs
    x, w, y = (
        aligned(*s, type=type, seed=i) for i, s in enumerate(((batch, inputs), (inputs, outputs), (batch, outputs)))
    )
    packed, packed_t = aligned(inputs * outputs, type=type), aligned(inputs * outputs, type=type)
    scratch = aligned(max(inputs, outputs) * panel, type=type)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    packed_y = aligned(batch * outputs, type=type)
    depth = 256
    tag = f"dense_{batch}_{inputs}_{outputs}_{type}"
    module = builder.module

    def product(name: str, **spec: Any) -> str:
        emit_matrix_product(module, f"{tag}_{name}", MatrixProduct(type, **spec))
        return f"{tag}_{name}"

    out_panels, in_panels = outputs // panel, inputs // panel
    of_x = {"a_row_stride": inputs, "a_step": 1, "y_row_stride": outputs, "likely_rows": batch}
    forward = product("y", panels=out_panels, block_depth=depth, **of_x)
    builder.add(f"y = x w {label}, packed w", flops, lambda function: function(forward)(x, packed, y, batch, inputs))
    in_rows = {"b_row_stride": outputs, "b_panel_stride": panel, "unroll": 1}
    natural = product("yn", panels=out_panels, block_depth=depth, **in_rows, **of_x)
    builder.add(f"y = x w {label}, natural w", flops, lambda function: function(natural)(x, w, y, batch, inputs))

    # A unit of work packs some panels of a part of w into scratch in the first cache and uses them at once.
    f = Function(module, f"{tag}_packing", [("ptr", "x"), ("ptr", "w"), ("ptr", "y"), ("ptr", "s")])
    few = product("y1", panels=PACKED_PANELS, accumulate=True, **of_x)
    emit_pack_panels(module, f"{tag}_pack", Panels(type, PACKED_PANELS * panel, outputs))
    bx, bw = Buffer("%x", type, x.size, "x"), Buffer("%w", type, w.size, "w")
    by, bs = Buffer("%y", type, y.size, "y"), Buffer("%s", type, scratch.size, "s")

    def forward_panels(p: Value, _: list[Value]) -> None:
        def forward_part(low: Value, _: list[Value]) -> None:
            rows = f.index(f.min(PACKED_ROWS, f.sub(inputs, low)))
            source = f.at(bw, f.add(f.mul(low, outputs), f.mul(p, panel))).pointer
            f.call_void(f"{tag}_pack", f"ptr {source}, ptr {bs.pointer}, {rows}, i64 0, i64 {PACKED_PANELS}")
            left, right = f.at(bx, low).pointer, f.at(by, f.mul(p, panel)).pointer
            f.call_void(few, f"ptr {left}, ptr {bs.pointer}, ptr {right}, i64 {batch}, {rows}")

        f.loop(0, inputs, forward_part, step=PACKED_ROWS)

    f.loop(0, out_panels, forward_panels, step=PACKED_PANELS)
    builder.add(f"y = x w {label}, packing", flops, lambda function: function(f"{tag}_packing")(x, w, y, scratch))

    of_dy = {"a_row_stride": outputs, "a_step": 1, "y_row_stride": inputs, "likely_rows": batch}
    backward = product("dx", panels=in_panels, **of_dy)
    builder.add(
        f"dx = dy wT {label}, packed wT", flops, lambda function: function(backward)(y, packed_t, dx, batch, outputs)
    )
    single = product("dx1", panels=1, **of_dy)
    emit_pack_panels_transposed(module, f"{tag}_packt", Panels(type, panel, outputs))
    g = Function(module, f"{tag}_packingt", [("ptr", "y"), ("ptr", "w"), ("ptr", "x"), ("ptr", "s")])

    def backward_panel(p: Value, _: list[Value]) -> None:
        source = g.at(bw, g.mul(p, panel * outputs)).pointer
        g.call_void(f"{tag}_packt", f"ptr {source}, ptr {bs.pointer}, i64 {outputs}, i64 0, i64 1")
        right = g.at(bx, g.mul(p, panel)).pointer
        g.call_void(single, f"ptr %y, ptr {bs.pointer}, ptr {right}, i64 {batch}, i64 {outputs}")

    g.loop(0, in_panels, backward_panel)
    builder.add(f"dx = dy wT {label}, packing", flops, lambda function: function(f"{tag}_packingt")(y, w, dx, scratch))

    gradient = product("dw", panels=out_panels, a_row_stride=1, a_step=inputs, y_row_stride=outputs, block_rows=24)
    builder.add(
        f"dw = xT dy {label}, dy packed", flops, lambda function: function(gradient)(x, packed_y, dw, inputs, batch)
    )
    tall = 24
    block = product("dw1", panels=out_panels, a_row_stride=1, a_step=tall, y_row_stride=outputs)
    emit_pack_panels(module, f"{tag}_packx", Panels(type, inputs, inputs, width=tall))
    h = Function(module, f"{tag}_packingx", [("ptr", "x"), ("ptr", "y"), ("ptr", "w"), ("ptr", "s")])

    def gradient_block(i: Value, _: list[Value]) -> None:
        low = h.mul(i, tall)
        rows = h.index(h.min(tall, h.sub(inputs, low)))
        # The packing function counts from panel 0 on: scratch holds one panel only.
        before = h.index(h.mul(i, -tall * batch))
        place = h.at(Buffer("%s", type, 0, "s"), before).pointer
        following = h.index(h.add(i, 1))
        h.call_void(f"{tag}_packx", f"ptr %x, ptr {place}, i64 {batch}, {i}, {following}")
        target = h.at(bw, h.mul(low, outputs)).pointer
        h.call_void(block, f"ptr %s, ptr %y, ptr {target}, {rows}, i64 {batch}")

    h.loop(0, -(-inputs // tall), gradient_block)
    builder.add(
        f"dw = xT dy {label}, packing x", flops, lambda function: function(f"{tag}_packingx")(x, packed_y, dw, scratch)
    )


def timed(case: Case, runs: int) -> float:
    """Seconds of processor time per run."""
    started = time.thread_time()
    for _ in range(runs):
        case.run()
    return (time.thread_time() - started) / runs


def report(cases: list[Case], rounds: int) -> None:
    """Print every case's rate, and its share of its type's peak: the median over rounds of shares within a round."""
    peaks = {case.name.split()[1]: case for case in cases if case.name.startswith("peak")}
    runs = {case.name: max(1, round(MINIMUM_SECONDS / min(timed(case, 1) for _ in range(3)))) for case in cases}
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    shares: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            top = peaks["f64" if "f64" in case.name else "f32"]
            before, spent, after = timed(top, 1), timed(case, runs[case.name]), timed(top, 1)
            if abs(before - after) > DISTURBED * min(before, after):
                continue
            times[case.name].append(spent)
            # The clock moves: the peak is that of the same moment.
            shares[case.name].append(case.flops / spent / (top.flops / ((before + after) / 2)))
    for case in cases:
        quiet = len(times[case.name])
        if not quiet:
            print(f"{case.name:52s} no quiet round of {rounds}")
            continue
        best, middle = min(times[case.name]), statistics.median(times[case.name])
        print(
            f"{case.name:52s} best {1e3 * best:8.3f}  median {1e3 * middle:8.3f} ms  "
            f"{case.flops / middle / 1e9:6.1f} GF/s  {100 * statistics.median(shares[case.name]):4.0f} % "
            f"({100 * min(shares[case.name]):.0f} to {100 * max(shares[case.name]):.0f}), {quiet} of {rounds} rounds"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the native engine's products on one thread.")
    parser.add_argument("names", nargs="*", help="only kernels whose names contain one of these")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    builder = Builder()
    for type in (F32, F64):
        peak(builder, type)
    convolutions(builder, "13x13x32->64", 13, 32, 64)
    convolutions(builder, "13x13x32->64 f64", 13, 32, 64, F64)
    convolutions(builder, "28x28x1->32", 28, 1, 32)
    convolutions(builder, "28x28x1->32 5x5", 28, 1, 32, kernel=5)
    convolutions(builder, "10x10x64->64", 10, 64, 64)
    convolutions(builder, "34x34x16->16", 34, 16, 16)
    convolutions(builder, "58x58x64->64", 58, 64, 64)
    convolutions(builder, "229x229x3->64 7x7 by 2", 229, 3, 64, kernel=7, stride=2)
    for batch in (32, 128):
        for inputs in (1600, 5408):
            dense(builder, batch, inputs, 128)
    tile = default_tile(builder.module, 8)
    print(f"{host_target().cpu}, {builder.module.lanes32} lanes, tile {tile.rows} x {tile.panels} panels")
    cases = builder.cases()
    wanted = [c for c in cases if c.name.startswith("peak") or any(n in c.name for n in arguments.names or [""])]
    report(wanted, arguments.rounds)


if __name__ == "__main__":
    main()
