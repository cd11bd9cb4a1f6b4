"""Exponentials, logarithms, powers and their relatives as vector code, without a mathematics library.

A function is emitted once per module and type, as an internal function that is called where it is needed; the machine
code of a lane does not depend on how many lanes there are, so a scalar gets the same bits as an element of a vector.

Errors in units in the last place: the largest one found, with or without fused multiply-add, among at least 10**7
float32 and 4 * 10**4 float64 arguments.  The tests hold all of them to 2.

==============  ========  ========
function         float32   float64
==============  ========  ========
exp                 1.01      0.99
expm1               1.31      1.74
log                 0.87      0.78
log1p               0.88      0.77
tanh                1.31      1.28
erf                 1.33      1.33
power               0.51      1.12
sin, cos            0.51      0.77
floor                  0         0
==============  ========  ========

Infinities, signed zeros and NaN are treated as NumPy treats them.  Results and arguments below the smallest normal
number are right where the processor keeps them.  Where it takes them for zeros, so do the functions, except that those
which are their argument near 0 (expm1, log1p, sin) may hand such a number through.  Sine and cosine hold for every
angle; beyond 2**20 a lane takes a slow path of its own.

The polynomials come from `tools/derive_polynomials.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.types import F64, I64, Type

__all__ = [
    "FUNCTIONS",
    "Outlined",
    "cos",
    "erf",
    "exp",
    "expm1",
    "floor",
    "log",
    "log1p",
    "mul_add",
    "power",
    "sin",
    "tanh",
]

# --- Tables, printed by tools/derive_polynomials.py ------------------------------------------------------

# exp(r) = 1 + r + r*r*p(r)
_EXP = {
    32: (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.008368710055947304, 0.0013814489357173443),
    64: (
        0.5000000000000011,
        0.16666666666666413,
        0.04166666666653027,
        0.008333333333494727,
        0.001388888894359794,
        0.00019841269505891377,
        2.480149313357948e-05,
        2.755758706216415e-06,
        2.7630235554790477e-07,
        2.499982493396832e-08,
    ),
}
# the same, for float32 results
_EXP_OF_POWER32 = (
    0.5000000067631432,
    0.16666665870206313,
    0.041666295088309054,
    0.008333496800477515,
    0.0013944650149817894,
    0.00019790473868211758,
)
# log(1 + t) = t - t*t/2 + t*t*t*p(t)
_LOG = (
    0.3333333134651184,
    -0.2500081956386566,
    0.20001225173473358,
    -0.1662335991859436,
    0.14201797544956207,
    -0.13160207867622375,
    0.1276133507490158,
    -0.07634137570858002,
)
# log((1 + s)/(1 - s)) = 2*s + s*z*p(z), z = s*s
_ATANH = (
    0.6666666666666734,
    0.3999999999941634,
    0.28571428742020333,
    0.22222198610452293,
    0.1818356241605712,
    0.15314098676044702,
    0.1479547591066339,
)
# the same, for float32 results
_ATANH_OF_POWER32 = (0.6666666564835056, 0.4000033458245452, 0.28537344685847804, 0.2358150561069201)
# log((1 + s)/(1 - s)) = 2*s + 2/3*s*z + s*z*z*p(z), z = s*s
_ATANH_OF_POWER64 = (
    0.4000000000000225,
    0.2857142857010312,
    0.22222222519311002,
    0.1818178441925835,
    0.15386754982691303,
    0.13256871376071036,
    0.13195839625600775,
)
# tanh(x) = x + x*z*p(z), z = x*x
_TANH = {
    32: (-0.3333328068256378, 0.13331443071365356, -0.053739726543426514, 0.020639128983020782, -0.005705034360289574),
    64: (
        -0.33333333333332854,
        0.13333333333262098,
        -0.05396825393127062,
        0.0218694875761498,
        -0.008863221003306648,
        0.0035919891793405137,
        -0.0014549589078259493,
        0.0005863166443208719,
        -0.00022856443469434403,
        7.714463553170814e-05,
        -1.607270780438541e-05,
    ),
}
# erf(x) = x + x*p(z), z = x*x
_ERF = {
    32: (
        0.12837916612625122,
        -0.3761262595653534,
        0.1128358542919159,
        -0.026853810995817184,
        0.005188327748328447,
        -0.0008010196033865213,
        7.853877468733117e-05,
    ),
    64: (
        0.12837916709551256,
        -0.3761263890318352,
        0.11283791670944185,
        -0.026866170643111496,
        0.005223977606118922,
        -0.0008548325929336301,
        0.00012055293577455848,
        -1.4924712310187378e-05,
        1.6447131641433904e-06,
        -1.6206314084710234e-07,
        1.3710981039400154e-08,
        -7.779468526815651e-10,
    ),
}
# erf(1 + u) = 1 - exp(-p(u))
_ERFC = {
    32: (
        1.8496055603027344,
        2.6389667987823486,
        0.8431175947189331,
        0.04150346666574478,
        -0.009895403869450092,
        0.0018293393077328801,
        -0.0001863672077888623,
    ),
    64: (
        1.8496055099332482,
        2.6389675142347775,
        0.8431072563593311,
        0.041561098026668346,
        -0.010033825195014607,
        0.0019779013100732234,
        -0.00023731679536514804,
        -2.6295388605166385e-05,
        2.7197252426138718e-05,
        -9.669104248126506e-06,
        2.1297476761166426e-06,
        -2.032610934960714e-07,
        -5.881309385398323e-08,
        3.368955812450236e-08,
        -8.596424526668587e-09,
        1.3324908640633098e-09,
        -1.206965142674796e-10,
        4.927986274040988e-12,
    ),
}
# sin(r) = r + r*z*p(z), z = r*r
_SIN = (
    -0.16666666666666632,
    0.00833333333332242,
    -0.00019841269829813982,
    2.755731369417248e-06,
    -2.505075848445469e-08,
    1.5896817929348842e-10,
)
# the same, for float32 results
_SIN_OF_FLOAT32 = (-0.1666666664161607, 0.00833332938492109, -0.00019839334562091746, 2.718309089242291e-06)
# cos(r) = 1 - z/2 + z*z*p(z), z = r*r
_COS = (
    0.0416666666666666,
    -0.0013888888888874136,
    2.4801587289488984e-05,
    -2.755731435431159e-07,
    2.087572354444418e-09,
    -1.135966199980027e-11,
)
# the same, for float32 results
_COS_OF_FLOAT32 = (0.04166666662283327, -0.001388888375361286, 2.479952002501377e-05, -2.7210236951534705e-07)
_LOG2 = {
    32: (0.693145751953125, 1.428606765330187e-06),
    64: (0.6931471805598903, 5.497923018708371e-14),
}
_QUARTER_TURN = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
_QUARTER_TURN_ROUNDED = (1.5707963267948966, 6.123233995736766e-17)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
_TWO_OVER_PI = (
    0xA2F9836E4E441529,
    0xFC2757D1F534DDC0,
    0xDB6295993C439041,
    0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0,
    0x06492EEA09D1921C,
    0xFE1DEB1CB129A73E,
    0xE88235F52EBB4484,
    0xE99C7026B45F7E41,
    0x3991D639835339F4,
    0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F,
    0xEF2F118B5A0A6D1F,
    0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B,
    0x3D0739F78A5292EA,
    0x6BFB5FB11F8D5D08,
    0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)

# From here on the reduction of an angle by whole quarter turns takes more than the four parts of `_QUARTER_TURN`.
_LARGE_ANGLE = 2.0**20

_I128 = Type("i", 128)

Pair: TypeAlias = tuple[Value, Value]
"""A number as the sum of two, the second of which is at most about one rounding error of the first."""


def mul_add(f: Function, a: Value, b: Value, c: Value) -> Value:
    """``a * b + c``: fused where the processor can, because elsewhere the fused form is a library call."""
    if f.module.has_fma:
        return f.fma(a, b, c)
    return f.binary("fadd", f.binary("fmul", a, b), c)


class _Code:
    """Writes formulas for one floating-point type; Python numbers among the operands are constants."""

    def __init__(self, f: Function, type: Type) -> None:
        self.f, self.type = f, type
        self.integers = Type("i", type.bits, type.lanes)
        self.mantissa = 23 if type.bits == 32 else 52
        self.bias = 127 if type.bits == 32 else 1023

    # -- operands ---------------------------------------------------------------------------------------

    def constant(self, value: float | Value) -> Value:
        return value if isinstance(value, Value) else self.f.constant(value, self.type)

    def integer(self, value: int | Value) -> Value:
        return value if isinstance(value, Value) else self.f.constant(value, self.integers)

    def bits(self, x: Value) -> Value:
        return self.f.let(self.integers, f"bitcast {x} to {self.integers.llvm}")

    def from_bits(self, n: Value) -> Value:
        return self.f.let(self.type, f"bitcast {n} to {self.type.llvm}")

    def bits_of(self, value: float) -> int:
        """The bits of a power of two, or of 1.5 times one."""
        fraction, exponent = math.frexp(value)
        return (exponent - 1 + self.bias << self.mantissa) + int((2 * fraction - 1) * 2**self.mantissa)

    # -- arithmetic -------------------------------------------------------------------------------------

    def add(self, a: float | Value, b: float | Value) -> Value:
        return self.f.binary("fadd", self.constant(a), self.constant(b))

    def sub(self, a: float | Value, b: float | Value) -> Value:
        return self.f.binary("fsub", self.constant(a), self.constant(b))

    def mul(self, a: float | Value, b: float | Value) -> Value:
        return self.f.binary("fmul", self.constant(a), self.constant(b))

    def div(self, a: float | Value, b: float | Value) -> Value:
        return self.f.binary("fdiv", self.constant(a), self.constant(b))

    def fma(self, a: float | Value, b: float | Value, c: float | Value) -> Value:
        return mul_add(self.f, self.constant(a), self.constant(b), self.constant(c))

    def abs(self, x: Value) -> Value:
        return self.f.intrinsic("fabs", self.type, x)

    def negative(self, x: Value) -> Value:
        return self.f.let(self.type, f"fneg {x}")

    def with_sign(self, x: Value, sign: Value) -> Value:
        return self.f.intrinsic("copysign", self.type, x, sign)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """Even and odd powers apart: half as long a chain of operations as Horner's rule."""
        square = self.mul(x, x)
        return self.fma(self._horner(square, coefficients[1::2]), x, self._horner(square, coefficients[::2]))

    def _horner(self, x: Value, coefficients: Sequence[float]) -> Value:
        *others, last = coefficients
        total = self.constant(last)
        for coefficient in reversed(others):
            total = self.fma(total, x, coefficient)
        return total

    # -- integers ---------------------------------------------------------------------------------------

    def integer_binary(self, instruction: str, a: int | Value, b: int | Value) -> Value:
        return self.f.binary(instruction, self.integer(a), self.integer(b))

    # -- choices: all comparisons are false for NaN -----------------------------------------------------

    def compare(self, predicate: str, a: Value, b: float | Value) -> Value:
        return self.f.compare(predicate, a, self.constant(b))

    def select(self, condition: Value, a: float | Value, b: float | Value) -> Value:
        return self.f.select(condition, self.constant(a), self.constant(b))

    def at_most(self, x: Value, bound: float) -> Value:
        """The smaller one; NaN stays."""
        return self.select(self.compare("ogt", x, bound), bound, x)

    def at_least(self, x: Value, bound: float) -> Value:
        """The larger one; NaN stays."""
        return self.select(self.compare("olt", x, bound), bound, x)

    def both(self, a: Value, b: Value) -> Value:
        return self.f.binary("and", a, b)

    def negated(self, condition: Value) -> Value:
        return self.f.binary("xor", condition, self.f.constant(1, condition.type))

    # -- twice the precision ----------------------------------------------------------------------------

    def exact_sum(self, a: Value, b: Value) -> Pair:
        """``a + b`` of any two numbers (Knuth)."""
        total = self.add(a, b)
        part = self.sub(total, a)
        return total, self.add(self.sub(a, self.sub(total, part)), self.sub(b, part))

    def ordered_sum(self, a: float | Value, b: Value) -> Pair:
        """``a + b`` where a is 0 or not the smaller one (Dekker)."""
        total = self.add(a, b)
        return total, self.sub(b, self.sub(total, a))

    def exact_product(self, a: Value, b: float | Value) -> Pair:
        """``a * b`` (Dekker, where there is no fused multiply-add)."""
        product = self.mul(a, b)
        if self.f.module.has_fma:
            return product, self.fma(a, b, self.negative(product))
        (a_high, a_low), (b_high, b_low) = self._halves(a), self._halves(self.constant(b))
        rest = self.sub(self.mul(a_high, b_high), product)
        rest = self.add(self.add(rest, self.mul(a_high, b_low)), self.mul(a_low, b_high))
        return product, self.add(rest, self.mul(a_low, b_low))

    def _halves(self, x: Value) -> Pair:
        """A number as a sum of two with half as many bits (Veltkamp)."""
        scaled = self.mul(x, 2.0 ** ((self.mantissa + 2) // 2) + 1)
        high = self.sub(scaled, self.sub(scaled, x))
        return high, self.sub(x, high)


# --- Exponential -----------------------------------------------------------------------------------------


def _exp_rest(c: _Code, x: Value, low: Value | None = None) -> tuple[Value, Value]:
    """``x = n*log(2) + r``: r, and n as an integer.  `low` is added to x late, with its full precision."""
    magic = 1.5 * 2.0**c.mantissa
    shifted = c.fma(x, 1 / math.log(2), magic)
    count = c.sub(shifted, magic)
    high_log2, low_log2 = _LOG2[c.type.bits]
    rest = c.fma(count, -low_log2, c.fma(count, -high_log2, x))
    if low is not None:
        rest = c.add(rest, low)
    return rest, c.integer_binary("sub", c.bits(shifted), c.bits_of(magic))


def _exp_of_rest(c: _Code, r: Value, coefficients: Sequence[float]) -> Value:
    return c.add(c.fma(c.mul(r, r), c.polynomial(r, coefficients), r), 1.0)


def _power_of_two(c: _Code, n: Value) -> Value:
    """``2**n`` of an integer; the result must be a normal number."""
    return c.from_bits(c.integer_binary("shl", c.integer_binary("add", n, c.bias), c.mantissa))


def _scaled(c: _Code, x: Value, n: Value) -> Value:
    """``x * 2**n`` in two steps, of which only the second one can round, overflow or underflow."""
    doubled = c.integer_binary("add", n, 2 * c.bias)
    first = c.integer_binary("lshr", doubled, 1)
    second = c.integer_binary("sub", doubled, first)
    for exponent in (first, second):
        x = c.mul(x, c.from_bits(c.integer_binary("shl", exponent, c.mantissa)))
    return x


def _exp(f: Function, x: Value) -> Value:
    c = _Code(f, x.type)
    # Beyond these bounds the result is infinite or zero, denormal numbers included.
    low, high = (-104.0, 89.0) if x.type.bits == 32 else (-746.0, 710.0)
    r, n = _exp_rest(c, c.at_least(c.at_most(x, high), low))
    return _scaled(c, _exp_of_rest(c, r, _EXP[x.type.bits]), n)


def _expm1(f: Function, x: Value) -> Value:
    c = _Code(f, x.type)
    low, high, tiny = (-30.0, 89.0, 2.0**-25) if x.type.bits == 32 else (-60.0, 710.0, 2.0**-54)
    r, n = _exp_rest(c, c.at_least(c.at_most(x, high), low))
    curved = c.mul(c.mul(r, r), c.polynomial(r, _EXP[x.type.bits]))
    # Half of 2**n, which itself may be too large for the format; times r, less 1/2, it is exact where terms cancel.
    half = _power_of_two(c, c.integer_binary("sub", n, 1))
    result = c.mul(c.fma(half, curved, c.fma(half, r, c.sub(half, 0.5))), 2.0)
    return c.select(c.compare("olt", c.abs(x), tiny), x, result)


# --- Logarithm -------------------------------------------------------------------------------------------


def _exponent_and_mantissa(c: _Code, x: Value, denormals: bool) -> tuple[Value, Value]:
    """``x = 2**e * m`` with m between the roots of 1/2 and 2: e (as a float) and m.

    Args:
        denormals: whether x may lie below the normal numbers.
    """
    lift = c.mantissa + 1
    if denormals:
        small = c.compare("olt", x, 2.0 ** (1 - c.bias))
        x = c.select(small, c.mul(x, 2.0**lift), x)
    bits = c.bits(x)
    # Counting from the root of 1/2 puts the borders between two exponents where m jumps. The excess keeps all
    # integers positive: there is no vector shift of 64-bit integers that keeps the sign.
    root, excess = _HALF_ROOT_BITS[c.type.bits], 2 * c.bias + 2
    half_range = 1 << c.type.bits - 1
    counted = c.integer_binary(
        "add", bits, ((excess << c.mantissa) - root + half_range) % (2 * half_range) - half_range
    )
    raised = c.integer_binary("lshr", counted, c.mantissa)
    # Integers as the last bits of a large float: conversion by an addition, for every vector width.
    large = 2.0**c.mantissa
    e = c.sub(c.from_bits(c.integer_binary("or", raised, c.bits_of(large))), large + excess)
    shift = c.integer_binary("shl", c.integer_binary("sub", raised, excess), c.mantissa)
    m = c.from_bits(c.integer_binary("sub", bits, shift))
    if denormals:
        e = c.select(small, c.sub(e, float(lift)), e)
    return e, m


_HALF_ROOT_BITS = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}
"""The bits of the root of 1/2."""


def _log_near_one(c: _Code, e: Value, t: Value, extra: Value | None = None) -> Value:
    """``e*log(2) + log(1 + t) + extra``."""
    high_log2, low_log2 = _LOG2[c.type.bits]
    half_square = c.mul(c.mul(t, 0.5), t)
    small = c.mul(e, low_log2)
    if extra is not None:
        small = c.add(small, extra)
    if c.type.bits == 32:
        small = c.fma(c.mul(c.mul(t, t), t), c.polynomial(t, _LOG), small)
    else:
        # With s = t/(2 + t): log(1 + t) = log((1 + s)/(1 - s)) = 2*s + s*w, and 2*s = t - t*t/2 + s*t*t/2.
        s = c.div(t, c.add(t, 2.0))
        z = c.mul(s, s)
        small = c.fma(s, c.fma(z, c.polynomial(z, _ATANH), half_square), small)
    return c.fma(e, high_log2, c.add(t, c.sub(small, half_square)))


def _log_at_ends(c: _Code, x: Value, inner: Value, zero: float) -> Value:
    """The logarithm where the formula does not hold: at and below its zero argument, at infinity, for NaN."""
    result = c.select(c.compare("olt", x, math.inf), inner, x)
    result = c.select(c.compare("oeq", x, zero), -math.inf, result)
    return c.select(c.compare("olt", x, zero), math.nan, result)


def _log(f: Function, x: Value) -> Value:
    c = _Code(f, x.type)
    e, m = _exponent_and_mantissa(c, x, denormals=True)
    return _log_at_ends(c, x, _log_near_one(c, e, c.sub(m, 1.0)), 0.0)


def _log1p(f: Function, x: Value) -> Value:
    c = _Code(f, x.type)
    y = c.add(x, 1.0)
    # What the sum y lost, relative to y: log(1 + x) = log(y) + lost/y.
    lost = c.select(c.compare("olt", x, 1.0), c.sub(x, c.sub(y, 1.0)), c.sub(1.0, c.sub(y, x)))
    e, m = _exponent_and_mantissa(c, y, denormals=False)
    result = _log_at_ends(c, x, _log_near_one(c, e, c.sub(m, 1.0), c.div(lost, y)), -1.0)
    return c.select(c.compare("olt", c.abs(x), 2.0 ** -(c.mantissa + 2)), x, result)


# --- Hyperbolic tangent, error function ------------------------------------------------------------------


def _tanh(f: Function, x: Value) -> Value:
    c = _Code(f, x.type)
    size = c.abs(x)
    z = c.mul(x, x)
    inside = c.fma(c.mul(size, z), c.polynomial(z, _TANH[x.type.bits]), size)
    # Beyond this bound the result is 1.
    doubled = c.mul(c.at_most(size, 10.0 if x.type.bits == 32 else 20.0), 2.0)
    r, n = _exp_rest(c, doubled)
    power = c.mul(_exp_of_rest(c, r, _EXP[x.type.bits]), _power_of_two(c, n))
    outside = c.sub(1.0, c.div(2.0, c.add(power, 1.0)))
    return c.with_sign(c.select(c.compare("olt", size, 0.625), inside, outside), x)


def _erf(f: Function, x: Value) -> Value:
    c = _Code(f, x.type)
    size = c.abs(x)
    z = c.mul(x, x)
    inside = c.fma(size, c.polynomial(z, _ERF[x.type.bits]), size)
    # Beyond this bound the result is 1.
    clamped = c.at_most(size, 4.0 if x.type.bits == 32 else 6.0)
    r, n = _exp_rest(c, c.negative(c.polynomial(c.sub(clamped, 1.0), _ERFC[x.type.bits])))
    outside = c.sub(1.0, c.mul(_exp_of_rest(c, r, _EXP[x.type.bits]), _power_of_two(c, n)))
    return c.with_sign(c.select(c.compare("olt", size, 1.0), inside, outside), x)


# --- Power -----------------------------------------------------------------------------------------------


def _power(f: Function, x: Value, y: Value) -> Value:
    c = _Code(f, x.type)
    size = c.abs(x)
    if x.type.bits == 64:
        result = _power_of_positive(c, size, y, _log_pair(c, size), _EXP[64])
    else:
        wide = _Code(f, F64.of(x.type.lanes))
        wide_size, wide_y = (f.let(wide.type, f"fpext {v} to {wide.type.llvm}") for v in (size, y))
        wide_result = _power_of_positive(wide, wide_size, wide_y, (_log_wide(wide, wide_size), None), _EXP_OF_POWER32)
        result = f.let(x.type, f"fptrunc {wide_result} to {x.type.llvm}")
    return _power_specials(c, x, y, result)


def _power_of_positive(
    c: _Code, x: Value, y: Value, log: tuple[Value, Value | None], coefficients: Sequence[float]
) -> Value:
    """``exp(y * log)`` in float64, log being that of x, right at infinities and x = 0, too."""
    high, low = log
    high = c.select(c.compare("olt", x, math.inf), high, x)
    high = c.select(c.compare("oeq", x, 0.0), -math.inf, high)
    # Larger exponents give no other result, and the products of this one are finite.
    y = c.at_least(c.at_most(y, 2.0**68), -(2.0**68))
    bound = 800.0
    if low is None:
        product, rest = c.mul(y, high), None
    else:
        product, rest = c.exact_product(y, high)
        # The rest of an infinite product is NaN.
        rest = c.select(c.compare("ole", c.abs(product), bound), c.fma(y, low, rest), 0.0)
    r, n = _exp_rest(c, c.at_least(c.at_most(product, bound), -bound), rest)
    return _scaled(c, _exp_of_rest(c, r, coefficients), n)


def _log_wide(c: _Code, x: Value) -> Value:
    """The logarithm of a float32 in float64, with half as many bits more than the float32 has."""
    e, m = _exponent_and_mantissa(c, x, denormals=False)
    t = c.sub(m, 1.0)
    s = c.div(t, c.add(t, 2.0))
    z = c.mul(s, s)
    return c.fma(e, math.log(2), c.mul(s, c.fma(z, c.polynomial(z, _ATANH_OF_POWER32), 2.0)))


def _log_pair(c: _Code, x: Value) -> Pair:
    """The logarithm of a positive float64 to about 65 bits: an error in it counts up to 745 times in a power."""
    e, m = _exponent_and_mantissa(c, x, denormals=True)
    # s = t / (2 + t), corrected by what is left of t.
    t = c.sub(m, 1.0)
    below, below_low = c.ordered_sum(2.0, t)
    inverse = c.div(1.0, below)
    s = c.mul(t, inverse)
    product, product_low = c.exact_product(s, below)
    left = c.sub(c.sub(c.sub(t, product), product_low), c.mul(s, below_low))
    s_low = c.mul(left, inverse)
    # log((1 + s)/(1 - s)) = 2*s + cube*factor, cube = s*s*s, factor = 2/3 + z*p(z); p itself needs no second part.
    z, z_low = c.exact_product(s, s)
    z_low = c.fma(c.add(s, s), s_low, z_low)
    factor, factor_low = c.ordered_sum(_TWO_THIRDS[0], c.mul(z, c.polynomial(z, _ATANH_OF_POWER64)))
    factor_low = c.add(factor_low, _TWO_THIRDS[1])
    cube, cube_low = c.exact_product(s, z)
    cube_low = c.add(c.fma(s, z_low, cube_low), c.mul(s_low, z))
    term, term_low = c.exact_product(cube, factor)
    term_low = c.add(c.fma(cube, factor_low, term_low), c.mul(cube_low, factor))
    near, near_low = c.ordered_sum(c.add(s, s), term)
    near_low = c.add(near_low, c.fma(s_low, 2.0, term_low))
    high_log2, low_log2 = _LOG2[64]
    high, low = c.ordered_sum(c.mul(e, high_log2), near)
    return high, c.add(low, c.fma(e, low_log2, near_low))


def _is_integer(c: _Code, size: Value) -> Value:
    """Whether a number without sign is whole; false for NaN."""
    large = 2.0**c.mantissa
    whole = c.compare("oeq", c.sub(c.add(size, large), large), size)
    return c.f.binary("or", whole, c.compare("oge", size, large))


def _power_specials(c: _Code, x: Value, y: Value, result: Value) -> Value:
    """The power of x, given that of ``|x|``: signs, NaN, and the exponents that are no logarithm's business."""
    y_size = c.abs(y)
    whole = _is_integer(c, y_size)
    odd = c.both(whole, c.negated(_is_integer(c, c.mul(y_size, 0.5))))
    sign = c.integer_binary("and", c.bits(x), -(1 << c.type.bits - 1))
    sign = c.f.select(odd, sign, c.integer(0))
    result = c.from_bits(c.integer_binary("xor", c.bits(result), sign))
    finite_negative = c.both(c.compare("olt", x, 0.0), c.compare("ogt", x, -math.inf))
    result = c.select(c.both(finite_negative, c.negated(whole)), math.nan, result)
    # The rule for -0 and -inf to a power that is not whole is that of 0 and inf, so NaN comes from y alone.
    result = c.select(c.compare("uno", y, y), y, result)
    result = c.select(c.compare("oeq", y, 1.0), x, result)
    result = c.select(c.compare("oeq", y, 2.0), c.mul(x, x), result)
    one = c.f.binary("or", c.compare("oeq", y, 0.0), c.compare("oeq", x, 1.0))
    return c.select(one, 1.0, result)


# --- Sine and cosine -------------------------------------------------------------------------------------


def _sin(f: Function, x: Value) -> Value:
    c = _Code(f, x.type)
    # Below this bound the sine is x; it keeps the sign of a zero.
    tiny = c.compare("olt", c.abs(x), 2.0**-13 if x.type.bits == 32 else 2.0**-27)
    return c.select(tiny, x, _sine(f, x, 0))


def _cos(f: Function, x: Value) -> Value:
    return _sine(f, x, 1)


def _sine(f: Function, x: Value, quarters: int) -> Value:
    """The sine of x and so many quarter turns."""
    c = _Code(f, F64.of(x.type.lanes))
    if x.type.bits == 64:
        n, high, low = _small_angle(c, x)
        return _with_large_angles(c, x, _sine_in_quarter(c, n, high, low, quarters), quarters)
    wide = f.let(c.type, f"fpext {x} to {c.type.llvm}")
    n, high = _small_angle_of_float32(c, wide)
    result = _with_large_angles(c, wide, _sine_in_quarter(c, n, high, None, quarters), quarters)
    return f.let(x.type, f"fptrunc {result} to {x.type.llvm}")


def _quarter_turns(c: _Code, x: Value) -> tuple[Value, Value]:
    """The nearest number of quarter turns, as an integer (modulo 4) and as a float."""
    magic = 1.5 * 2.0**c.mantissa
    shifted = c.fma(x, 2 / math.pi, magic)
    return c.bits(shifted), c.sub(shifted, magic)


def _small_angle(c: _Code, x: Value) -> tuple[Value, Value, Value]:
    """``x = n quarter turns + high + low``, for x below `_LARGE_ANGLE`."""
    n, turns = _quarter_turns(c, x)
    first, second, third, fourth = _QUARTER_TURN
    rest = c.fma(turns, -first, x)
    rest, low = c.exact_sum(rest, c.mul(turns, -second))
    rest, lower = c.exact_sum(rest, c.mul(turns, -third))
    low = c.add(low, c.fma(turns, -fourth, lower))
    return n, *c.ordered_sum(rest, low)


def _small_angle_of_float32(c: _Code, x: Value) -> tuple[Value, Value]:
    """``x = n quarter turns + rest``, where x is a float32 below `_LARGE_ANGLE`."""
    n, turns = _quarter_turns(c, x)
    return n, c.fma(turns, -(_QUARTER_TURN[1] + _QUARTER_TURN[2]), c.fma(turns, -_QUARTER_TURN[0], x))


def _sine_in_quarter(c: _Code, n: Value, high: Value, low: Value | None, quarters: int) -> Value:
    """The sine of ``high + low`` and ``n + quarters`` quarter turns; without `low`, to float32's precision."""
    z = c.mul(high, high)
    half = c.mul(z, 0.5)
    if low is None:
        sine = c.fma(c.mul(high, z), c.polynomial(z, _SIN_OF_FLOAT32), high)
        cosine = c.fma(c.mul(z, z), c.polynomial(z, _COS_OF_FLOAT32), c.sub(1.0, half))
    else:
        # sin(a + b) = sin(a) + b*(1 - a*a/2), cos(a + b) = cos(a) - a*b for a small b.
        correction = c.fma(c.negative(half), low, low)
        sine = c.add(high, c.fma(c.mul(high, z), c.polynomial(z, _SIN), correction))
        main = c.sub(1.0, half)
        lost = c.sub(c.sub(1.0, main), half)
        correction = c.sub(lost, c.mul(high, low))
        cosine = c.add(main, c.fma(c.mul(z, z), c.polynomial(z, _COS), correction))
    if quarters:
        n = c.integer_binary("add", n, quarters)
    is_cosine = c.f.compare("ne", c.integer_binary("and", n, 1), c.integer(0))
    sign = c.integer_binary("shl", c.integer_binary("and", n, 2), c.type.bits - 2)
    return c.from_bits(c.integer_binary("xor", c.bits(c.select(is_cosine, cosine, sine)), sign))


def _with_large_angles(c: _Code, x: Value, result: Value, quarters: int) -> Value:
    """The result, with the lanes of large angles computed one by one; NaN for infinities and NaN."""
    f, lanes = c.f, c.type.lanes
    size = c.abs(x)
    finite = c.compare("olt", size, math.inf)
    large = c.both(finite, c.compare("oge", size, _LARGE_ANGLE))
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
        is_large = f.compare("oge", own_size, f.constant(_LARGE_ANGLE, F64))
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
        g = Function(f.module, symbol, [("double", "x"), ("i64", "quarters")], result="internal double")
        c = _Code(g, F64)
        n, high, low = _large_angle(c, Value("%x", F64))
        result = _sine_in_quarter(c, g.binary("add", n, Value("%quarters", I64)), high, low, 0)
        g.emit(f"ret {result}")
    return symbol


def _large_angle(c: _Code, x: Value) -> tuple[Value, Value, Value]:
    """``x = n quarter turns + high + low``, for any finite x from `_LARGE_ANGLE` on (Payne and Hanek).

    ``x = m * 2**e`` with a whole m.  Bits of 2/pi that make multiples of 4 quarter turns of it do not count; the
    next 192 times m give the quarter turns modulo 4 with 190 bits behind the point, of which 126 are used.
    """
    f = c.f
    size = c.bits(c.abs(x))
    e = c.integer_binary("sub", c.integer_binary("lshr", size, 52), 1075)
    m = c.integer_binary("or", c.integer_binary("and", size, (1 << 52) - 1), 1 << 52)
    # A word of zeros stands before the point; the first bit that counts is the (e - 1)-th behind it.
    table = _two_over_pi(f)
    place = c.integer_binary("add", e, 62)
    word, shift = c.integer_binary("lshr", place, 6), c.integer_binary("and", place, 63)
    words = [f.load(table, f.add(word, i)) for i in range(4)]
    first, second, third = (_funnel_left(f, a, b, shift) for a, b in pairwise(words))

    def wide(value: Value) -> Value:
        return f.let(_I128, f"zext {value} to i128")

    def shifted(instruction: str, value: Value, count: int) -> Value:
        return f.binary(instruction, value, f.constant(count, _I128))

    last = f.binary("mul", wide(m), wide(third))
    middle = f.binary("add", f.binary("mul", wide(m), wide(second)), shifted("lshr", last, 64))
    turns = f.binary("add", shifted("shl", f.binary("mul", wide(m), wide(first)), 64), middle)
    # To the nearest quarter turn.
    rounded = shifted("lshr", f.binary("add", turns, f.constant(1 << 125, _I128)), 126)
    rest = f.binary("sub", turns, shifted("shl", rounded, 126))
    n = f.let(I64, f"trunc {rounded} to i64")
    below = f.compare("slt", rest, f.constant(0, _I128))
    rest = f.select(below, f.binary("sub", f.constant(0, _I128), rest), rest)
    part = _fraction_to_pair(c, rest)
    high, low = _product_of_pairs(c, part, _QUARTER_TURN_ROUNDED)
    mirrored = c.compare("olt", x, 0.0)
    n = f.select(mirrored, c.integer_binary("sub", 0, n), n)
    flip = f.binary("xor", mirrored, below)
    return n, f.select(flip, c.negative(high), high), f.select(flip, c.negative(low), low)


def _fraction_to_pair(c: _Code, rest: Value) -> Pair:
    """``rest * 2**-126`` of a positive integer of 128 bits, as 53 bits and the next 53."""
    f = c.f
    f.module.declare("llvm.ctlz.i128", "i128 (i128, i1)")
    zeros = f.let(_I128, f"call i128 @llvm.ctlz.i128({rest}, i1 false)")
    whole = f.binary("shl", rest, zeros)
    count = f.let(I64, f"trunc {zeros} to i64")
    parts: list[Value] = []
    for below in (75, 22):
        bits = f.let(I64, f"trunc {f.binary('lshr', whole, f.constant(below, _I128))} to i64")
        number = f.let(F64, f"sitofp {c.integer_binary('and', bits, (1 << 53) - 1)} to double")
        exponent = c.integer_binary("sub", below - 126, count)
        parts.append(c.mul(number, _power_of_two(c, exponent)))
    return parts[0], parts[1]


def _product_of_pairs(c: _Code, a: Pair, b: tuple[float, float]) -> Pair:
    product, rest = c.exact_product(a[0], b[0])
    rest = c.add(rest, c.add(c.mul(a[0], b[1]), c.mul(a[1], b[0])))
    return c.ordered_sum(product, rest)


def _funnel_left(f: Function, a: Value, b: Value, shift: Value) -> Value:
    """The upper word of two, shifted to the left by less than a word."""
    return f.intrinsic("fshl", I64, a, b, shift)


def _two_over_pi(f: Function) -> Buffer:
    words = [0, *_TWO_OVER_PI]
    # As signed integers, which is how LLVM reads them.
    text = ", ".join(f"i64 {word - (1 << 64) if word >> 63 else word}" for word in words)
    f.module.add_global(f"@chainrule_two_over_pi = internal constant [{len(words)} x i64] [{text}], align 64")
    return Buffer("@chainrule_two_over_pi", I64, len(words), "2/pi")


# --- The public functions --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outlined:
    """A function that modules hold once per type, called where it is used.

    Attributes:
        name: what engines call it.
        body: emits the formula in place.
        arity: how many arguments it takes, all of one floating-point type.
    """

    name: str
    body: Callable[..., Value]
    arity: int = 1

    def __call__(self, f: Function, *arguments: Value, inline: bool = False) -> Value:
        """The function's value.

        Args:
            f: where it is used.
            arguments: scalars or vectors of one floating-point type.
            inline: emit the formula here; worth it only where the call would keep a hot loop's values out of the
                registers.
        """
        if inline:
            return self.body(f, *arguments)
        type = arguments[0].type
        symbol = f"chainrule_{self.name}_{type.suffix}"
        if symbol not in f.module.functions:
            parameters = "xy"[: self.arity]
            g = Function(f.module, symbol, [(type.llvm, p) for p in parameters], result=f"internal {type.llvm}")
            g.emit(f"ret {self.body(g, *(Value(f'%{p}', type) for p in parameters))}")
        return f.call(symbol, type, *arguments)


exp = Outlined("exp", _exp)
expm1 = Outlined("expm1", _expm1)
log = Outlined("log", _log)
log1p = Outlined("log1p", _log1p)
tanh = Outlined("tanh", _tanh)
erf = Outlined("erf", _erf)
sin = Outlined("sin", _sin)
cos = Outlined("cos", _cos)
_general_power = Outlined("power", _power, 2)


def power(f: Function, x: Value, y: Value, *, inline: bool = False) -> Value:
    """``x**y``; the literal exponents 2, 1 and -1 need no power at all."""
    c = _Code(f, x.type)
    if y.text == c.constant(2.0).text:
        return c.mul(x, x)
    if y.text == c.constant(1.0).text:
        return x
    if y.text == c.constant(-1.0).text:
        return c.div(1.0, x)
    return _general_power(f, x, y, inline=inline)


def floor(f: Function, x: Value) -> Value:
    """The largest whole number that is not above x, in place; no instruction beyond the oldest ones is needed."""
    c = _Code(f, x.type)
    size, large = c.abs(x), 2.0**c.mantissa
    nearest = c.with_sign(c.sub(c.add(size, large), large), x)
    below = c.with_sign(c.select(c.compare("ogt", nearest, x), c.sub(nearest, 1.0), nearest), x)
    return c.select(c.compare("olt", size, large), below, x)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "cos": cos,
    "erf": erf,
    "exp": exp,
    "expm1": expm1,
    "floor": floor,
    "log": log,
    "log1p": log1p,
    "power": power,
    "sin": sin,
    "tanh": tanh,
}
"""Each function by its name: ``FUNCTIONS[name](f, *arguments)``."""
