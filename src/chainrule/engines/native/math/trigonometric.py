"""sin and cos of any angle."""

from __future__ import annotations

import math

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.math import tables
from chainrule.engines.native.math.angles import LARGE_ANGLE, large_angle, small_angle, small_angle_of_float32
from chainrule.engines.native.math.code import Code
from chainrule.engines.native.math.outlined import Outlined
from chainrule.engines.native.types import F64, I64, Type

__all__ = ["cos", "sin"]


def _sin(f: Function, x: Value) -> Value:
    c = Code(f, x.type)
    # Below this bound the sine is x; it keeps the sign of a zero.
    tiny = c.compare("olt", c.abs(x), 2.0**-13 if x.type.bits == 32 else 2.0**-27)
    return c.select(tiny, x, _sine(f, x, 0))


def _cos(f: Function, x: Value) -> Value:
    return _sine(f, x, 1)


def _sine(f: Function, x: Value, quarters: int) -> Value:
    """The sine of x and so many quarter turns."""
    c = Code(f, F64.of(x.type.lanes))
    if x.type.bits == 64:
        n, high, low = small_angle(c, x)
        return _with_large_angles(c, x, _sine_in_quarter(c, n, high, low, quarters), quarters)
    wide = f.let(c.type, f"fpext {x} to {c.type.llvm}")
    n, high = small_angle_of_float32(c, wide)
    result = _with_large_angles(c, wide, _sine_in_quarter(c, n, high, None, quarters), quarters)
    return f.let(x.type, f"fptrunc {result} to {x.type.llvm}")


def _sine_in_quarter(c: Code, n: Value, high: Value, low: Value | None, quarters: int) -> Value:
    """The sine of ``high + low`` and ``n + quarters`` quarter turns; without `low`, to float32's precision."""
    z = c.mul(high, high)
    half = c.mul(z, 0.5)
    if low is None:
        sine = c.fma(c.mul(high, z), c.polynomial(z, tables.SIN_OF_FLOAT32), high)
        cosine = c.fma(c.mul(z, z), c.polynomial(z, tables.COS_OF_FLOAT32), c.sub(1.0, half))
    else:
        # sin(a + b) = sin(a) + b*(1 - a*a/2), cos(a + b) = cos(a) - a*b for a small b.
        correction = c.fma(c.negative(half), low, low)
        sine = c.add(high, c.fma(c.mul(high, z), c.polynomial(z, tables.SIN), correction))
        main = c.sub(1.0, half)
        lost = c.sub(c.sub(1.0, main), half)
        correction = c.sub(lost, c.mul(high, low))
        cosine = c.add(main, c.fma(c.mul(z, z), c.polynomial(z, tables.COS), correction))
    if quarters:
        n = c.integer_binary("add", n, quarters)
    is_cosine = c.f.compare("ne", c.integer_binary("and", n, 1), c.integer(0))
    sign = c.integer_binary("shl", c.integer_binary("and", n, 2), c.type.bits - 2)
    return c.from_bits(c.integer_binary("xor", c.bits(c.select(is_cosine, cosine, sine)), sign))


def _with_large_angles(c: Code, x: Value, result: Value, quarters: int) -> Value:
    """The result, with the lanes of large angles computed one by one; NaN for infinities and NaN."""
    f, lanes = c.f, c.type.lanes
    size = c.abs(x)
    finite = c.compare("olt", size, math.inf)
    large = c.both(finite, c.compare("oge", size, LARGE_ANGLE))
    result = c.select(finite, result, math.nan)
    if lanes > 1:
        mask = Type("i", lanes)
        packed = f.let(mask, f"bitcast {large} to {mask.llvm}")
        some = f.compare("ne", packed, f.constant(0, mask))
    else:
        some = large
    inside, after, before = f.fresh_label("large"), f.fresh_label("angles"), f.block
    f.emit(f"br {some}, label %{inside}, label %{after}")
    f.label(inside)
    symbol = _large_sine(f)
    angles, sines = f.scratch(F64, lanes, "angles"), f.scratch(F64, lanes, "sines")
    f.store(x, angles, 0)
    f.store(result, sines, 0)

    def one_lane(lane: Value, _: list[Value]) -> None:
        angle = f.load(angles, lane)
        own_size = f.intrinsic("fabs", F64, angle)
        is_finite = f.compare("olt", own_size, f.constant(math.inf, F64))
        is_large = f.compare("oge", own_size, f.constant(LARGE_ANGLE, F64))
        replace = f.binary("and", is_finite, is_large)
        f.when(replace, lambda: f.store(f.call(symbol, F64, angle, Value(str(quarters), I64)), sines, lane))

    f.loop(0, lanes, one_lane)
    replaced, end = f.load(sines, 0, lanes), f.block
    f.emit(f"br label %{after}")
    f.label(after)
    return f.let(c.type, f"phi {c.type.llvm} [{result.text}, %{before}], [{replaced.text}, %{end}]")


def _large_sine(f: Function) -> str:
    """The symbol of the sine of a large float64 and so many quarter turns; emitted on first use."""
    symbol = "chainrule_large_sine"
    if symbol not in f.module.functions:
        g = Function(f.module, symbol, [("double", "x"), ("i64", "quarters")], result="double", internal=True)
        c = Code(g, F64)
        n, high, low = large_angle(c, Value("%x", F64))
        result = _sine_in_quarter(c, g.binary("add", n, Value("%quarters", I64)), high, low, 0)
        g.emit(f"ret {result}")
    return symbol


sin = Outlined("sin", _sin)
cos = Outlined("cos", _cos)
