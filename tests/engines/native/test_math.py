"""The native engine's own mathematics: accuracy, special values, the same bits for every number of lanes."""

from __future__ import annotations

import ctypes
import math
import platform
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chainrule.engines.native import math as native_math
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.math import tables
from chainrule.engines.native.types import I32, I64, Type, type_of
from tools import derive_polynomials as exact

pytestmark = pytest.mark.slow  # many small compilations; the quick part has the registry and whole networks

llvm = pytest.importorskip("llvmlite.binding")

FLOATS = (np.float32, np.float64)
LANES = (1, 4, 8)
NAMES = tuple(sorted(native_math.FUNCTIONS))
UNARY = tuple(name for name in NAMES if name != "power")
MOST_ULP = 2.0

Array = NDArray[Any]
inf, nan = math.inf, math.nan


# --- Compiling -------------------------------------------------------------------------------------------


def module_text(
    name: str,
    type: Type,
    *,
    fma: bool = True,
    inline: bool = False,
    exponent: float | None = None,
    flush: bool = False,
) -> str:
    """A module with ``kernel(x, y, out, n)``, which applies a function to n elements.

    With `flush` an x86 processor takes denormal numbers for zeros meanwhile.
    """
    module = Module()
    module.has_fma = fma
    f = Function(module, "kernel", [("ptr", "x"), ("ptr", "y"), ("ptr", "out"), ("i64", "n")])
    count = Value("%n", I64)
    x, y, out = (Buffer(f"%{pointer}", type.scalar, count, pointer) for pointer in ("x", "y", "out"))
    options = {"inline": True} if inline else {}

    def body(i: Value, _: list[Value]) -> None:
        arguments = [f.load(x, i, type.lanes)]
        if name == "power":
            arguments.append(f.load(y, i, type.lanes) if exponent is None else f.constant(exponent, type))
        f.store(native_math.FUNCTIONS[name](f, *arguments, **options), out, i)

    if flush:
        set_control(f, 0x9FC0)
    f.loop(0, count, body, step=type.lanes)
    if flush:
        set_control(f, 0x1F80)
    return module.text()


def set_control(f: Function, word: int) -> None:
    """Set MXCSR, the control word of x86's vector unit."""
    f.module.declare("llvm.x86.sse.ldmxcsr", "void (ptr)")
    place = f.scratch(I32, 1, "control")
    f.store(f.constant(word, I32), place, 0)
    f.call_void("llvm.x86.sse.ldmxcsr", f"ptr {place.pointer}")


def parsed(text: str) -> Any:
    module = llvm.parse_assembly(text)
    module.verify()
    return module


def host_machine() -> Any:
    """A new one each time: the engine that gets it owns it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2)


@cache
def host_has_fma() -> bool:
    features = llvm.get_host_cpu_features()
    return bool(features.get("fma", not llvm.get_default_triple().startswith("x86_64")))


@cache
def compiled(text: str) -> tuple[Any, Any]:
    """The kernel, and the engine that keeps it alive."""
    engine = llvm.create_mcjit_compiler(parsed(text), host_machine())
    engine.finalize_object()
    pointer = ctypes.c_void_p
    kind = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, ctypes.c_int64)
    return kind(engine.get_function_address("kernel")), engine


def run(
    name: str, x: Array, y: Array | None = None, *, lanes: int = 8, fma: bool | None = None, **options: Any
) -> Array:
    """A function's values, compiled for a number of lanes."""
    fma = host_has_fma() if fma is None else fma
    text = module_text(name, type_of(x.dtype).of(lanes), fma=fma, **options)
    kernel, _ = compiled(text)
    size = -(-x.size // 8) * 8
    inputs = [np.ones(size, x.dtype) for _ in range(2)]
    for padded, values in zip(inputs, (x, y), strict=True):
        if values is not None:
            padded[: x.size] = values
    out = np.empty(size, x.dtype)
    kernel(*(array.ctypes.data for array in (*inputs, out)), size)
    return out[: x.size]


# --- References ------------------------------------------------------------------------------------------

_EXACT: dict[str, Callable[[Decimal], Decimal]] = {
    "cos": exact.cos,
    "erf": exact.erf,
    "exp": Decimal.exp,
    "expm1": exact.expm1,
    "log": Decimal.ln,
    "log1p": exact.log1p,
    "sin": exact.sin,
    "tanh": exact.tanh,
}


def ulp_errors(name: str, results: Array, x: Array, y: Array | None = None) -> Array:
    """How far finite results are from exact ones, in units in the last place of the results' format."""
    errors = np.empty(x.size)
    smallest, mantissa = np.finfo(x.dtype).smallest_normal, np.finfo(x.dtype).nmant
    largest = Decimal(float(np.finfo(x.dtype).max))
    with localcontext() as context:
        context.prec = 50
        for i, (result, number) in enumerate(zip(results.tolist(), x.tolist(), strict=True)):
            if name == "power":
                assert y is not None
                true = (Decimal(float(y[i])) * Decimal(number).ln()).exp()
            else:
                true = _EXACT[name](Decimal(number))
            exponent = math.frexp(max(abs(float(true)), smallest))[1] - 1 if abs(true) <= largest else 0
            if math.isinf(result):
                # Infinity stands for what rounds to it.
                unit = Decimal(2) ** (np.finfo(x.dtype).maxexp - 1 - int(mantissa))
                errors[i] = 0 if true * (1 if result > 0 else -1) >= largest - unit else inf
            else:
                errors[i] = abs(Decimal(result) - true) / Decimal(2) ** (exponent - int(mantissa))
    return errors


def wide_reference(name: str, x: Array, y: Array | None = None) -> Array:
    """NumPy's float64 result, exact as far as float32 is concerned."""
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        if name == "erf":
            return np.array([math.erf(v) for v in wide.tolist()])
        if name == "power":
            assert y is not None
            return np.power(wide, y.astype(np.float64))
        return np.asarray(getattr(np, name)(wide))


def ulp_errors_of_float32(results: Array, true: Array) -> Array:
    with np.errstate(all="ignore"):
        _, exponents = np.frexp(np.maximum(np.abs(true), float(np.finfo(np.float32).smallest_normal)))
        errors = np.abs(results.astype(np.float64) - true) / np.exp2(exponents - 24.0)
        # Infinity stands for what rounds to it.
        return np.where(np.isinf(results) & (results == true.astype(np.float32)), 0.0, errors)


# --- Arguments -------------------------------------------------------------------------------------------

# Where each function's results are finite and change.
_RANGES: dict[str, dict[int, tuple[float, float]]] = {
    "cos": {32: (-1.1e5, 1.1e5), 64: (-1.1e5, 1.1e5)},
    "erf": {32: (-4.5, 4.5), 64: (-6.5, 6.5)},
    "exp": {32: (-105, 89), 64: (-748, 710)},
    "expm1": {32: (-20, 89), 64: (-40, 710)},
    "floor": {32: (-100, 100), 64: (-100, 100)},
    "log": {32: (0, 10), 64: (0, 10)},
    "log1p": {32: (-1, 10), 64: (-1, 10)},
    "sin": {32: (-1.1e5, 1.1e5), 64: (-1.1e5, 1.1e5)},
    "tanh": {32: (-10, 10), 64: (-21, 21)},
}


def arguments(name: str, dtype: Any, count: int) -> Array:
    """Random numbers: even over the range, over all exponents, near 0, near the first few whole numbers."""
    random = np.random.default_rng(sum(map(ord, name)))
    bits = np.dtype(dtype).itemsize * 8
    low, high = _RANGES[name][bits]
    part = count // 4
    unsigned = f"u{bits // 8}"
    beyond = int(np.array(inf, dtype).view(unsigned))
    everywhere = random.integers(0, beyond, part, dtype=unsigned).view(dtype)
    parts = [
        random.uniform(low, high, part).astype(dtype),
        everywhere * random.choice([-1, 1], part).astype(dtype),
        (random.choice([-1, 1], part) * np.exp2(random.uniform(-30, 3, part))).astype(dtype),
        (random.integers(-3, 4, part) * random.choice([1.0, np.log(2), np.pi / 2], part)).astype(dtype)
        * (1 + random.uniform(-1, 1, part) * 2.0 ** random.integers(-20, 0, part)).astype(dtype),
    ]
    x = np.concatenate(parts)
    if name in ("log", "log1p"):
        x = x[x > (0 if name == "log" else -1)]
    return x


def power_arguments(dtype: Any, count: int) -> tuple[Array, Array]:
    """Bases over all exponents and near 1, with results over the whole range."""
    random = np.random.default_rng(7)
    bits = np.dtype(dtype).itemsize * 8
    half = count // 2
    limit = 87 if bits == 32 else 708
    x = np.concatenate(
        [
            np.exp(random.uniform(-limit, limit, half)).astype(dtype),
            (1 + random.choice([-1, 1], half) * np.exp2(random.uniform(-bits / 3, -1, half))).astype(dtype),
        ]
    )
    x = x[(x > 0) & (x != 1)]
    y = (random.uniform(-limit - 20, limit + 2, x.size) / np.log(x.astype(np.float64))).astype(dtype)
    return x, y


def specials(dtype: Any) -> Array:
    info = np.finfo(dtype)
    numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 0.1, 1e5, 1e7, 2.0**24, 2.0**53, 1e18, inf, nan]
    numbers += [float(v) for v in (info.max, info.smallest_normal, info.smallest_subnormal, info.eps)]
    positive = np.array(numbers, dtype)
    return np.concatenate([positive, -positive])


# --- Accuracy --------------------------------------------------------------------------------------------


with_and_without_fma = pytest.mark.parametrize("fma", [True, False])
every_function = pytest.mark.parametrize("name", [name for name in UNARY if name != "floor"])


def assert_accurate(errors: Array, *arguments: Array) -> None:
    worst = np.argmax(errors)
    assert errors[worst] <= MOST_ULP, [argument[worst] for argument in arguments]


@with_and_without_fma
@every_function
def test_float32_is_accurate(name: str, fma: bool) -> None:
    x = arguments(name, np.float32, 40_000)
    if name in ("sin", "cos"):
        # NumPy's own float64 reduction of huge angles is not held against us; float64 is tested there exactly.
        x = x[np.abs(x) < 1e9]
    assert_accurate(ulp_errors_of_float32(run(name, x, fma=fma and host_has_fma()), wide_reference(name, x)), x)


@with_and_without_fma
@every_function
def test_float64_is_accurate(name: str, fma: bool) -> None:
    x = arguments(name, np.float64, 800)
    if name in ("exp", "expm1"):
        x = x[np.abs(x) < 2000]
    assert_accurate(ulp_errors(name, run(name, x, fma=fma and host_has_fma()), x), x)


@with_and_without_fma
def test_powers_are_accurate(fma: bool) -> None:
    fma = fma and host_has_fma()
    x, y = power_arguments(np.float32, 40_000)
    assert_accurate(ulp_errors_of_float32(run("power", x, y, fma=fma), wide_reference("power", x, y)), x, y)
    x, y = power_arguments(np.float64, 1200)
    x, y = np.append(x, [0.999, 1.0001]), np.append(y, [10000.0, 1e6])
    assert_accurate(ulp_errors("power", run("power", x, y, fma=fma), x, y), x, y)


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_angles_of_every_size(name: str) -> None:
    # Next to multiples of a quarter turn all parts of its expansion count; the last ones before the slow path.
    near = [float(k * exact.pi(40) / 2) for k in range(667_400, 667_500)]
    # 6381956970095103 * 2**797 is the float64 closest to a multiple of a quarter turn among all of them.
    numbers = [*near, 1e22, 6381956970095103 * 2.0**797, 2.0**20, np.nextafter(2.0**20, 0), 1.7e308, 1e6 * math.pi]
    numbers += [np.float64(np.float32(k * math.pi / 2)) for k in (1, 1e3, 1e6, 1e12, 1e30)]
    x = np.array([*numbers, *(-v for v in numbers)])
    assert np.max(ulp_errors(name, run(name, x), x)) <= MOST_ULP
    narrow = x[np.abs(x) < 3e38].astype(np.float32)
    true = np.array([float(_EXACT[name](Decimal(float(v)))) for v in narrow])
    assert np.max(ulp_errors_of_float32(run(name, narrow), true)) <= MOST_ULP


@pytest.mark.parametrize("dtype", FLOATS)
def test_floor_is_exact(dtype: Any) -> None:
    x = np.concatenate([arguments("floor", dtype, 4000), np.arange(-50, 50).astype(dtype) / 4, specials(dtype)])
    assert_same(run("floor", x), np.floor(x))


# --- Special values --------------------------------------------------------------------------------------


def assert_same(found: Array, expected: Array) -> None:
    """Equal numbers with equal signs, zeros included; NaN for NaN."""
    np.testing.assert_array_equal(found, expected)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[known]), np.signbit(expected[known]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_special_values(name: str, dtype: Any) -> None:
    table: list[tuple[float, float]] = {
        "exp": [(-inf, 0), (inf, inf), (0, 1), (-0.0, 1), (1e4, inf), (-1e4, 0)],
        "expm1": [(-inf, -1), (inf, inf), (0, 0), (-0.0, -0.0), (1e4, inf), (-1e4, -1)],
        "log": [(-inf, nan), (inf, inf), (0, -inf), (-0.0, -inf), (-1, nan), (1, 0)],
        "log1p": [(-inf, nan), (inf, inf), (0, 0), (-0.0, -0.0), (-1, -inf), (-2, nan)],
        "tanh": [(-inf, -1), (inf, 1), (0, 0), (-0.0, -0.0), (50, 1), (-50, -1)],
        "erf": [(-inf, -1), (inf, 1), (0, 0), (-0.0, -0.0), (50, 1), (-50, -1)],
        "sin": [(-inf, nan), (inf, nan), (0, 0), (-0.0, -0.0)],
        "cos": [(-inf, nan), (inf, nan), (0, 1), (-0.0, 1)],
        "floor": [(-inf, -inf), (inf, inf), (0, 0), (-0.0, -0.0), (0.5, 0), (-0.5, -1)],
    }[name]
    x, expected = np.array([*table, (nan, nan)], dtype).T
    for lanes in LANES:
        assert_same(run(name, x, lanes=lanes), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_special_powers(dtype: Any) -> None:
    values = specials(dtype)
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    ends = np.isnan(expected) | np.isinf(expected) | (expected == 0) | (np.abs(expected) == 1)
    found = run("power", x, y)
    assert_same(found[ends], expected[ends])
    np.testing.assert_allclose(found, expected, rtol=4 * float(np.finfo(dtype).eps))
    assert_same(np.sign(found), np.sign(expected))


@pytest.mark.parametrize("exponent", [-1.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("dtype", FLOATS)
def test_literal_exponents(dtype: Any, exponent: float) -> None:
    x = np.append(np.linspace(-3, 3, 50).astype(dtype), specials(dtype))
    with np.errstate(all="ignore"):
        expected = np.power(x, dtype(exponent))
    found = run("power", x, exponent=exponent)
    np.testing.assert_allclose(found, expected, rtol=2 * float(np.finfo(dtype).eps), atol=0)
    calls = "@chainrule_power" in module_text("power", type_of(dtype).of(4), exponent=exponent)
    assert calls == (exponent == 3.0)


# --- Code ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_lanes_and_place_do_not_change_bits(name: str, dtype: Any) -> None:
    if name == "power":
        x, y = power_arguments(dtype, 2000)
        x, y = np.append(x, specials(dtype)), np.append(y, specials(dtype)[::-1])
    else:
        x, y = np.append(arguments(name, dtype, 2000), specials(dtype)), None
    results = [run(name, x, y, lanes=lanes) for lanes in LANES]
    if name != "floor":
        results.append(run(name, x, y, inline=True))
    bits = f"u{np.dtype(dtype).itemsize}"
    known = ~np.isnan(results[0])
    for result in results[1:]:
        np.testing.assert_array_equal(np.isnan(result), ~known)
        np.testing.assert_array_equal(result[known].view(bits), results[0][known].view(bits))


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="sets x86's control word")
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_flushed_denormals_change_nothing_else(name: str, dtype: Any) -> None:
    x, y = power_arguments(dtype, 2000) if name == "power" else (arguments(name, dtype, 2000), None)
    kept, flushed = run(name, x, y), run(name, x, y, flush=True)
    smallest = np.finfo(dtype).smallest_normal
    # erf(x) = x + p*x near 0: without fused multiply-add, p*x is flushed a little earlier than the result.
    normal = (np.abs(x) >= 16 * smallest) & (np.abs(kept) >= smallest)
    np.testing.assert_array_equal(flushed[normal], kept[normal])
    # A function that is its argument near 0 may hand a denormal number through.
    denormal = np.full(8, np.finfo(dtype).smallest_subnormal)
    found = run(name, denormal, denormal, flush=True)
    assert_same(np.where(found == denormal, 0, found), run(name, 0 * denormal, 0 * denormal))


def test_a_function_is_emitted_once_per_type() -> None:
    module = Module()
    f = Function(module, "user", [("float", "x")], result="float")
    once = native_math.exp(f, Value("%x", type_of(np.float32)))
    f.emit(f"ret {native_math.exp(f, once)}")
    assert module.text().count("define internal float @chainrule_exp_f32(") == 1
    assert module.text().count("call float @chainrule_exp_f32(") == 2


@pytest.mark.parametrize(
    ("triple", "cpu", "fma"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64", False),
        ("x86_64-unknown-linux-gnu", "haswell", True),
        ("aarch64-unknown-linux-gnu", "generic", True),
    ],
)
def test_no_library_is_called(triple: str, cpu: str, fma: bool) -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=2)
    for name in NAMES:
        for dtype in FLOATS:
            text = machine.emit_assembly(parsed(module_text(name, type_of(dtype).of(4), fma=fma)))
            called = set(re.findall(r"^\s+(?:call|jmp|bl|b)q?\s+([A-Za-z_]\w*)", text, re.MULTILINE))
            assert all(symbol.startswith("chainrule_") for symbol in called), (name, called)


def test_tables_are_those_of_the_derivation() -> None:
    for key, numbers in exact.derive().items():
        name, _, bits = key.partition("[")
        table = getattr(tables, name)
        assert (table[int(bits.rstrip("]"))] if bits else table) == numbers, key
    assert exact.two_over_pi(len(tables.TWO_OVER_PI)) == list(tables.TWO_OVER_PI)
