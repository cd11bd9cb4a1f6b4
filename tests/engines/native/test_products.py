"""Products against float64 NumPy: odd shapes, strides and tails, in both precisions, with every access checked."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chainrule.engines.native.ir import Buffer, Function, Module
from chainrule.engines.native.jit import (
    Library,
    NativeFunction,
    Target,
    compile_object,
    emit_assembly,
    has_fma,
    host_target,
)
from chainrule.engines.native.products import (
    RUN_TIME,
    ConvolutionRows,
    ConvolutionWeights,
    InputGradientPanels,
    MatrixProduct,
    Panels,
    Tile,
    emit_convolution_rows,
    emit_convolution_weights,
    emit_matrix_product,
    emit_pack_input_gradient,
    emit_pack_panels,
    emit_pack_panels_transposed,
    panel_width,
)
from chainrule.engines.native.types import F32, F64, I64, Type

pytestmark = pytest.mark.slow  # many small compilations; the quick part has the registry and whole networks

TYPES = [pytest.param(F32, id="float32"), pytest.param(F64, id="float64")]
TOLERANCE = {F32: 1e-5, F64: 1e-12}
AVX512 = Target("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2,+fma")
NEON = Target("aarch64-unknown-linux-gnu", "generic", "+neon")

GUARD = 32
"""Elements after each operand that no function may touch."""


class Bench:
    """One compiled function and its operands; every access is checked where `checked`."""

    def __init__(self, emit: Callable[[Module, str, Any], None], spec: Any, checked: bool = True, lanes32: int = 8):
        self.module = Module(lanes32, checked)
        self.dtype = np.dtype(np.float32 if spec.type == F32 else np.float64)
        self.panel = panel_width(self.module, spec.type)
        self.module.has_fma = has_fma(host_target())
        emit(self.module, "f", spec)
        names = ["f"]
        if checked:
            accessor = Function(self.module, "stray", [], result="i64")
            accessor.emit(f"ret i64 {accessor.load(Buffer('@chainrule_stray', I64, 4, 'stray'), 0).text}")
            names.append("stray")
        self._library = Library([compile_object(self.module.text())], names)
        self._names = names

    def __call__(self, *arguments: np.ndarray | int) -> None:
        kinds = [ctypes.c_int64 if isinstance(a, int) else ctypes.c_void_p for a in arguments]
        function: NativeFunction = self._library.function("f", None, *kinds)
        function(*(a if isinstance(a, int) else a.ctypes.data for a in arguments))
        if "stray" in self._names:
            number = self._library.function("stray", ctypes.c_int64)()
            assert number == 0, self.module.sites[number - 1]

    def array(self, content: Any) -> np.ndarray:
        """A flat operand, with a guard of NaN behind it."""
        flat = np.ravel(content).astype(self.dtype)
        return np.concatenate([flat, np.full(GUARD, np.nan, self.dtype)])

    def blank(self, size: int) -> np.ndarray:
        return np.full(size + GUARD, np.nan, self.dtype)


def close(got: np.ndarray, expected: np.ndarray, type: Type) -> None:
    assert not np.isnan(got).any()
    scale = np.abs(expected).max() or 1.0
    assert np.abs(got - expected).max() / scale < TOLERANCE[type]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Random values that float32 holds exactly."""
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return values.astype(np.float64)


def padded(matrix: np.ndarray, panel: int) -> np.ndarray:
    """Zeros behind the last axis, up to a whole number of panels."""
    missing = -matrix.shape[-1] % panel
    return np.concatenate([matrix, np.zeros((*matrix.shape[:-1], missing))], axis=-1)


def packed(matrix: np.ndarray, panel: int) -> np.ndarray:
    """``[rows][columns]`` to ``[panel][rows][PANEL]``."""
    wide = padded(matrix, panel)
    return wide.reshape(wide.shape[0], -1, panel).transpose(1, 0, 2)


def unpacked(panels: np.ndarray, columns: int) -> np.ndarray:
    """``[panel][rows][PANEL]`` to ``[rows][columns]``."""
    return panels.transpose(1, 0, 2).reshape(panels.shape[1], -1)[:, :columns]


def windows(x: np.ndarray, spec: Any) -> np.ndarray:
    """``[rows][width][R][S][C]`` views of a map ``[height][width][C]``."""
    (sy, sx), (dy, dx) = spec.stride, spec.dilation
    return np.stack(
        [
            np.stack(
                [
                    x[r * dy : r * dy + (spec.rows - 1) * sy + 1 : sy, s * dx : s * dx + (spec.width - 1) * sx + 1 : sx]
                    for s in range(spec.kernel[1])
                ],
                axis=2,
            )
            for r in range(spec.kernel[0])
        ],
        axis=2,
    )


def input_shape(rows: int, width: int, spec: dict[str, Any]) -> tuple[int, int]:
    (r, s), (sy, sx), (dy, dx) = spec["kernel"], spec.get("stride", (1, 1)), spec.get("dilation", (1, 1))
    return (rows - 1) * sy + (r - 1) * dy + 1, (width - 1) * sx + (s - 1) * dx + 1


CONVOLUTIONS = [
    # rows, width, C, K, extra elements per pixel of x, the rest
    (1, 1, 1, 1, 0, {"kernel": (1, 1)}),
    (1, 1, 3, 5, 0, {"kernel": (3, 3)}),
    (2, 7, 1, 17, 0, {"kernel": (3, 3)}),
    (4, 13, 1, 32, 0, {"kernel": (5, 5)}),
    (3, 5, 3, 16, 0, {"kernel": (7, 7), "stride": (2, 2)}),
    (3, 11, 17, 33, 0, {"kernel": (3, 3)}),
    (2, 6, 16, 16, 0, {"kernel": (3, 3)}),
    (5, 5, 33, 17, 0, {"kernel": (2, 3), "stride": (3, 2)}),
    (3, 4, 5, 3, 2, {"kernel": (3, 3), "dilation": (2, 3)}),
    (2, 9, 1, 5, 0, {"kernel": (1, 9), "dilation": (1, 2)}),
    (2, 9, 1, 5, 0, {"kernel": (1, 19), "dilation": (1, 2)}),
    (3, 13, 17, 1, 0, {"kernel": (1, 1), "stride": (2, 3)}),
    (2, 3, 8, 33, 8, {"kernel": (3, 3), "stride": (1, 2), "dilation": (3, 1)}),
]


def convolution(case: tuple[Any, ...], type: Type, lanes32: int = 8, **more: Any) -> tuple[ConvolutionRows, Any, Any]:
    """The description of a case, its input map and its kernel."""
    rows, width, channels, outputs, extra, rest = case
    height, across = input_shape(rows, width, rest)
    panel = panel_width(Module(lanes32), type)
    panels = -(-outputs // panel)
    pixel, y_pixel = channels + extra, panels * panel
    spec = ConvolutionRows(
        type, channels, panels, rows, width, x_row_stride=across * pixel, x_pixel_stride=pixel,
        y_row_stride=width * y_pixel, y_pixel_stride=y_pixel, **rest, **more,
    )  # fmt: skip
    return spec, normal(height, across, pixel), normal(*rest["kernel"], channels, outputs, seed=1)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_rows(case: tuple[Any, ...], type: Type) -> None:
    spec, x, kernel = convolution(case, type)
    bench = Bench(emit_convolution_rows, spec)
    y = bench.blank(spec.y_size(bench.panel))
    bench(bench.array(x), bench.array(packed(kernel.reshape(-1, case[3]), bench.panel)), y)
    got = y[:-GUARD].reshape(spec.rows, spec.width, -1)
    expected = np.einsum("yxrsc,rsck->yxk", windows(x[..., : spec.channels], spec), kernel)
    close(got[..., : case[3]], expected, type)
    assert not got[..., case[3] :].any()
    assert np.isnan(y[-GUARD:]).all()


@pytest.mark.parametrize("case", [CONVOLUTIONS[2], CONVOLUTIONS[5]], ids=str)
def test_rows_and_filter_rows_at_run_time(case: tuple[Any, ...]) -> None:
    spec, x, kernel = convolution(case, F32, run_time_rows=True, clipped=True)
    bench = Bench(emit_convolution_rows, spec)
    weights = bench.array(packed(kernel.reshape(-1, case[3]), bench.panel))
    for rows in range(1, spec.rows + 1):
        for low, high in ((0, 3), (1, 3), (0, 2), (1, 2), (2, 2)):
            y = bench.blank(spec.y_size(bench.panel))
            bench(bench.array(x[low:]), weights, y, rows, low, high)
            written = rows * spec.y_row_stride
            got = y[:written].reshape(rows, spec.width, -1)[..., : case[3]]
            close(got, np.einsum("yxrsc,rsck->yxk", windows(x, spec)[:rows, :, low:high], kernel[low:high]), F32)
            assert np.isnan(y[written:]).all()


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("block_rows", [None, 2])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution_weights(case: tuple[Any, ...], block_rows: int | None, type: Type) -> None:
    rows_spec, x, _ = convolution(case, type)
    spec = weights_of(rows_spec, block_rows=block_rows)
    bench = Bench(emit_convolution_weights, spec)
    g, start = normal(spec.rows, spec.width, case[3], seed=2), normal(spec.taps, case[3], seed=3)
    dw = bench.array(packed(start, bench.panel))
    bench(bench.array(x), bench.array(padded(g, bench.panel)), dw)
    got = unpacked(dw[:-GUARD].reshape(spec.panels, spec.taps, bench.panel), case[3])
    expected = np.einsum("yxrsc,yxk->rsck", windows(x[..., : spec.channels], spec), g)
    close(got, start + expected.reshape(spec.taps, -1), type)
    assert np.isnan(dw[-GUARD:]).all()


def weights_of(spec: ConvolutionRows, **more: Any) -> ConvolutionWeights:
    """The weight gradient of a convolution, g laid out like y."""
    return ConvolutionWeights(
        spec.type, spec.channels, spec.panels, spec.rows, spec.width, spec.kernel, spec.x_row_stride,
        spec.x_pixel_stride, spec.y_row_stride, spec.y_pixel_stride, stride=spec.stride, dilation=spec.dilation, **more,
    )  # fmt: skip


def test_weight_gradient_of_some_rows_in_natural_order() -> None:
    case = (4, 5, 3, 32, 0, {"kernel": (3, 3)})
    rows_spec, x, _ = convolution(case, F32)
    spec = weights_of(rows_spec, block_rows=2, run_time_rows=True, dw_row_stride=32, dw_panel_stride=16)
    bench = Bench(emit_convolution_weights, spec)
    g = normal(4, 5, 32, seed=2)
    dw = bench.array(np.zeros((27, 32)))
    bench(bench.array(x), bench.array(g), dw, 3)
    expected = np.einsum("yxrsc,yxk->rsck", windows(x, spec)[:3], g[:3])
    close(dw[:-GUARD].reshape(3, 3, 3, 32), expected, F32)


MATRICES = [
    # columns, k, the rest
    (1, 1, {}),
    (17, 5, {}),
    (33, 40, {"block_depth": 16}),
    (33, 40, {"block_depth": 16, "block_rows": 12}),
    (16, 33, {"accumulate": True}),
    (48, 33, {"accumulate": True, "block_depth": 8, "unroll": 4}),
    (33, 64, {"unroll": 4, "block_depth": 20}),
    (33, 40, {"tile": Tile(1, 4)}),
    (50, 40, {"tile": Tile(2, 2), "block_depth": 16}),
    (50, 40, {"likely_rows": 1}),
    (50, 40, {"likely_rows": 3}),
    (50, 40, {"likely_rows": 33, "unroll": 3, "block_depth": 16}),
]


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("case", MATRICES, ids=str)
@pytest.mark.parametrize("order", ["natural", "transposed"])
def test_matrix_product(case: tuple[int, int, dict[str, Any]], order: str, type: Type) -> None:
    columns, k, rest = case
    panel = panel_width(Module(8), type)
    panels = -(-columns // panel)
    tall = 40
    strides = {"natural": (k, 1), "transposed": (1, tall)}[order]
    spec = MatrixProduct(type, panels, *strides, panels * panel, **rest)
    bench = Bench(emit_matrix_product, spec)
    right = normal(k, columns, seed=1)
    for m in (1, 2, 5, 6, 7, 33):
        left, start = normal(m, k), normal(m, panels * panel, seed=2)
        a = np.zeros((k, tall))
        a[:, :m] = left.T
        y = bench.array(start)
        bench(bench.array(left if order == "natural" else a), bench.array(packed(right, panel)), y, m, k)
        expected = padded(left @ right, panel) + (start if spec.accumulate else 0)
        close(y[:-GUARD].reshape(m, -1), expected, type)
        assert np.isnan(y[-GUARD:]).all()


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("strides", [(RUN_TIME, 1), (1, RUN_TIME), (RUN_TIME, RUN_TIME)], ids=str)
def test_one_function_serves_matrices_of_many_strides(strides: tuple[Any, Any], type: Type) -> None:
    spec = MatrixProduct(
        type, 1, *strides, RUN_TIME, b_panel_stride=RUN_TIME, run_time_panels=True, accumulate=True, unroll=1
    )
    bench = Bench(emit_matrix_product, spec)
    for m, k, columns in ((1, 1, 1), (7, 5, 17), (13, 40, 50)):
        panels = -(-columns // bench.panel)
        left, right, start = normal(m, k), normal(k, columns, seed=1), normal(m, panels * bench.panel, seed=2)
        natural = strides != (1, RUN_TIME)
        y = bench.array(start)
        given = [
            stride for stride, kind in zip((k, 1) if natural else (1, m), strides, strict=True) if kind is RUN_TIME
        ]
        places = (*given, panels * bench.panel, k * bench.panel)
        a = bench.array(left if natural else left.T)
        bench(a, bench.array(packed(right, bench.panel)), y, m, k, panels, *places)
        close(y[:-GUARD].reshape(m, -1), padded(left @ right, bench.panel) + start, type)
        assert np.isnan(y[-GUARD:]).all()


def test_matrix_product_of_row_major_operands() -> None:
    m, k, columns = 13, 9, 48
    spec = MatrixProduct(
        F32, 3, k, 1, columns, b_row_stride=columns, b_panel_stride=16, run_time_panels=True, block_depth=4
    )
    bench = Bench(emit_matrix_product, spec)
    left, right = normal(m, k), normal(k, columns, seed=1)
    y = bench.array(np.zeros((m, columns)))
    bench(bench.array(left), bench.array(right), y, m, k, 2)
    got = y[:-GUARD].reshape(m, columns)
    close(got[:, :32], (left @ right)[:, :32], F32)
    assert not got[:, 32:].any()


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("rows", [1, 5, 16, 27])
@pytest.mark.parametrize("columns", [1, 3, 5, 16, 17, 33])
def test_packing(rows: int, columns: int, type: Type) -> None:
    matrix = normal(rows, columns)
    for emit, natural in ((emit_pack_panels, matrix), (emit_pack_panels_transposed, matrix.T)):
        bench = Bench(emit, Panels(type, columns, natural.shape[1]))
        expected = packed(matrix, bench.panel)
        target = bench.blank(expected.size)
        for panel in range(len(expected)):
            bench(bench.array(natural), target, rows, panel, panel + 1)
        np.testing.assert_array_equal(target[:-GUARD].reshape(expected.shape), expected)
        assert np.isnan(target[-GUARD:]).all()


@pytest.mark.parametrize("type", TYPES)
def test_one_function_packs_all_matrices_that_end_alike(type: Type) -> None:
    panel = panel_width(Module(8), type)
    for rest in (0, 1, panel - 1):
        sizes = [whole * panel + rest for whole in (1, 2, 5)]
        (common,) = {Panels(type, columns, columns).common(panel) for columns in sizes}
        plain, turned = Bench(emit_pack_panels, common), Bench(emit_pack_panels_transposed, common)
        for columns in sizes:
            matrix = normal(9, columns)
            expected = packed(matrix, panel)
            for bench, natural in ((plain, matrix), (turned, matrix.T)):
                target = bench.blank(expected.size)
                stride = natural.shape[1]
                bench(bench.array(natural), target, 9, 0, len(expected), columns, stride, 9 * panel)
                np.testing.assert_array_equal(target[:-GUARD].reshape(expected.shape), expected)
                assert np.isnan(target[-GUARD:]).all()


def test_packing_in_panels_of_another_width() -> None:
    matrix = normal(7, 40)
    bench = Bench(emit_pack_panels, Panels(F32, 40, 40, width=24))
    target = bench.blank(2 * 7 * 24)
    bench(bench.array(matrix), target, 7, 0, 2)
    np.testing.assert_array_equal(target[:-GUARD].reshape(2, 7, 24), packed(matrix, 24))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(("channels", "outputs"), [(1, 1), (3, 5), (16, 33), (33, 17)])
def test_packing_for_the_input_gradient(channels: int, outputs: int, type: Type) -> None:
    kernel = normal(5, 3, channels, outputs)
    for part in ({}, {"first": (3, 2), "count": (2, 2), "step": (2, 1)}):
        spec = InputGradientPanels(type, (5, 3), channels, outputs, **part)
        bench = Bench(emit_pack_input_gradient, spec)
        chosen = kernel[3::-2, 2:0:-1][:2] if part else kernel[::-1, ::-1]
        expected = packed(chosen.transpose(0, 1, 3, 2).reshape(-1, channels), bench.panel)
        target = bench.blank(spec.packed_size(bench.panel))
        assert expected.size == spec.packed_size(bench.panel)
        bench(bench.array(kernel), target, 0, len(expected))
        np.testing.assert_array_equal(target[:-GUARD].reshape(expected.shape), expected)


@pytest.mark.parametrize("type", TYPES)
def test_input_gradient_is_a_clipped_convolution(type: Type) -> None:
    """dx of a 3x3 convolution: g padded in its width only, flipped weights, filter rows clipped at both ends."""
    height, width, channels, outputs = 5, 6, 3, 17
    panel = panel_width(Module(8), type)
    kernel, g = normal(3, 3, channels, outputs), normal(height, width, outputs, seed=1)
    x_panels = -(-channels // panel)
    wide = np.pad(g, ((0, 0), (2, 2), (0, 0)))
    spec = ConvolutionRows(
        type, outputs, x_panels, 1, width + 2, (3, 3), x_row_stride=(width + 4) * outputs, x_pixel_stride=outputs,
        y_row_stride=0, y_pixel_stride=x_panels * panel, clipped=True,
    )  # fmt: skip
    bench = Bench(emit_convolution_rows, spec)
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, channels)
    weights = bench.array(packed(flipped, panel))
    expected = np.zeros((height + 2, width + 2, channels))
    for r in range(3):
        for s in range(3):
            expected[r : r + height, s : s + width] += g @ kernel[r, s].T
    for row in range(height + 2):
        low, high = max(0, 2 - row), min(3, height + 2 - row)
        y = bench.blank(spec.y_size(panel))
        bench(bench.array(wide[row + low - 2 :]), weights, y, low, high)
        close(y[:-GUARD].reshape(width + 2, -1)[:, :channels], expected[row], type)


@pytest.mark.parametrize("lanes32", [4, 8, 16])
def test_tiles_change_no_bit(lanes32: int) -> None:
    # LLVM splits vectors that the machine does not have.
    case = (3, 11, 17, 70, 0, {"kernel": (3, 3)})
    base, x, kernel = convolution(case, F32, lanes32)
    g = normal(3, 11, 70, seed=2)
    found = set()
    for tile in (None, Tile(1), Tile(4), Tile(5), Tile(3, 2), Tile(2, 3)):
        for unroll in (1, 3):
            bench = Bench(emit_convolution_rows, replace(base, tile=tile, unroll=unroll), False, lanes32)
            y = bench.blank(base.y_size(bench.panel))
            bench(bench.array(x), bench.array(packed(kernel.reshape(-1, 70), bench.panel)), y)
            spec = weights_of(base, tile=tile, unroll=unroll, block_rows=2)
            bench = Bench(emit_convolution_weights, spec, False, lanes32)
            dw = bench.array(np.zeros(spec.dw_size(bench.panel)))
            bench(bench.array(x), bench.array(padded(g, bench.panel)), dw)
            found.add((y.tobytes(), dw.tobytes()))
    assert len(found) == 1


def test_matrix_blocks_change_no_bit() -> None:
    left, right = normal(33, 70), normal(70, 48, seed=1)
    found = set()
    for blocks in ({}, {"block_depth": 16}, {"block_rows": 7, "block_depth": 10}, {"tile": Tile(1, 4)}, {"unroll": 4}):
        bench = Bench(emit_matrix_product, MatrixProduct(F32, 3, 70, 1, 48, **blocks), False)
        y = bench.blank(33 * 48)
        bench(bench.array(left), bench.array(packed(right, bench.panel)), y, 33, 70)
        found.add(y.tobytes())
    assert len(found) == 1


def representative(type: Type, lanes32: int) -> dict[str, tuple[Callable[[Module, str, Any], None], Any]]:
    """Descriptions of every kind of product loop."""
    shapes = {
        "deep": (11, 11, 32, 64, 0, {"kernel": (3, 3)}),
        "first": (26, 26, 1, 32, 0, {"kernel": (3, 3)}),
        "image": (20, 112, 3, 64, 0, {"kernel": (7, 7), "stride": (2, 2)}),
        "dilated": (9, 9, 16, 16, 0, {"kernel": (3, 3), "dilation": (2, 2)}),
        "large": (56, 56, 64, 64, 0, {"kernel": (3, 3)}),
    }
    found: dict[str, tuple[Callable[[Module, str, Any], None], Any]] = {}
    for name, case in shapes.items():
        spec, _, _ = convolution(case, type, lanes32)
        found[f"{name}_rows"] = (emit_convolution_rows, spec)
        found[f"{name}_clipped"] = (emit_convolution_rows, replace(spec, clipped=True, run_time_rows=True))
        found[f"{name}_weights"] = (emit_convolution_weights, weights_of(spec))
    found["matrix"] = (emit_matrix_product, MatrixProduct(type, 8, 1600, 1, 128, block_depth=256))
    found["matrix_transposed"] = (emit_matrix_product, MatrixProduct(type, 8, 1, 1600, 128, block_rows=24, unroll=4))
    for rows in range(1, 8):
        found[f"matrix_of_{rows}_rows"] = (emit_matrix_product, MatrixProduct(type, 8, 1600, 1, 128, likely_rows=rows))
    return found


def product_loops(assembly: str, is_x86: bool) -> list[str]:
    """The bodies of all innermost loops that multiply and add: from a label to a jump back to it."""
    multiply = "vfmadd" if is_x86 else "fmla"
    lines = [line.split("#" if is_x86 else "//")[0].rstrip() for line in assembly.splitlines()]
    labels = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    loops = []
    for end, line in enumerate(lines):
        jump = re.match(r"\s+(?:j\w+|b\.\w+|cbn?z\s+\w+,|tbn?z\s+.*,)\s+(\S+)$", line)
        start = labels.get(jump[1], len(lines)) if jump else len(lines)
        if start < end and not any(other.endswith(":") for other in lines[start + 1 : end]):
            body = "\n".join(lines[start : end + 1])
            if multiply in body:
                loops.append(body)
    return loops


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(
    ("target", "lanes32"),
    [pytest.param(None, 8, id="host"), pytest.param(AVX512, 16, id="avx512"), pytest.param(NEON, 4, id="neon")],
)
def test_product_loops_touch_no_stack(target: Target | None, lanes32: int, type: Type) -> None:
    target = target or host_target()
    if target.lanes32 != lanes32:
        pytest.skip("this machine's vectors have another length")
    module = Module(lanes32)
    for name, (emit, spec) in representative(type, lanes32).items():
        emit(module, name, spec)
    assembly = emit_assembly(module.text(), target)
    assert "%rsp, %rbp" not in assembly, "frames are reached through another register"
    loops = product_loops(assembly, target.is_x86)
    assert len(loops) >= len(module.functions)
    for body in loops:
        assert not re.search(r"%rsp|\[sp", body), body


def test_without_fused_multiply_add() -> None:
    spec, _, _ = convolution(CONVOLUTIONS[5], F64)
    module = Module(8)
    module.has_fma = False
    emit_convolution_rows(module, "f", spec)
    assert "llvm.fma" not in module.text()
    assert "fmul <4 x double>" in module.text()


def test_the_checked_build_notices_a_stray_access() -> None:
    strides: dict[str, Any] = {"x_row_stride": 3, "x_pixel_stride": 1, "y_row_stride": 48, "y_pixel_stride": 16}
    bench = Bench(emit_convolution_rows, ConvolutionRows(F32, 1, 1, 2, 3, (1, 1), **strides, run_time_rows=True))
    operands = bench.array(normal(3, 3)), bench.array(normal(16)), bench.blank(3 * 48)
    bench(*operands, 2)
    with pytest.raises(AssertionError, match="store of f y"):
        bench(*operands, 3)
