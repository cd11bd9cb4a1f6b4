"""exp and expm1, and the pieces that other functions make exponentials of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.math import tables
from chainrule.engines.native.math.code import Code
from chainrule.engines.native.math.outlined import Outlined

__all__ = ["exp", "exp_of_rest", "exp_rest", "expm1", "power_of_two", "scaled"]


def exp_rest(c: Code, x: Value, low: Value | None = None) -> tuple[Value, Value]:
    """``x = n*log(2) + r``: r, and n as an integer.  `low` is added to x late, with its full precision."""
    magic = 1.5 * 2.0**c.mantissa
    shifted = c.fma(x, 1 / math.log(2), magic)
    count = c.sub(shifted, magic)
    high_log2, low_log2 = tables.LOG2[c.type.bits]
    rest = c.fma(count, -low_log2, c.fma(count, -high_log2, x))
    if low is not None:
        rest = c.add(rest, low)
    return rest, c.integer_binary("sub", c.bits(shifted), c.bits_of(magic))


def exp_of_rest(c: Code, r: Value, coefficients: Sequence[float]) -> Value:
    """``exp(r)`` of what `exp_rest` leaves; the coefficients are for the result's precision."""
    return c.add(c.fma(c.mul(r, r), c.polynomial(r, coefficients), r), 1.0)


def power_of_two(c: Code, n: Value) -> Value:
    """``2**n`` of an integer; the result must be a normal number."""
    return c.from_bits(c.integer_binary("shl", c.integer_binary("add", n, c.bias), c.mantissa))


def scaled(c: Code, x: Value, n: Value) -> Value:
    """``x * 2**n`` in two steps, of which only the second one can round, overflow or underflow."""
    doubled = c.integer_binary("add", n, 2 * c.bias)
    first = c.integer_binary("lshr", doubled, 1)
    second = c.integer_binary("sub", doubled, first)
    for exponent in (first, second):
        x = c.mul(x, c.from_bits(c.integer_binary("shl", exponent, c.mantissa)))
    return x


def _exp(f: Function, x: Value) -> Value:
    c = Code(f, x.type)
    # Beyond these bounds the result is infinite or zero, denormal numbers included.
    low, high = (-104.0, 89.0) if x.type.bits == 32 else (-746.0, 710.0)
    r, n = exp_rest(c, c.at_least(c.at_most(x, high), low))
    return scaled(c, exp_of_rest(c, r, tables.EXP[x.type.bits]), n)


def _expm1(f: Function, x: Value) -> Value:
    c = Code(f, x.type)
    low, high, tiny = (-30.0, 89.0, 2.0**-25) if x.type.bits == 32 else (-60.0, 710.0, 2.0**-54)
    r, n = exp_rest(c, c.at_least(c.at_most(x, high), low))
    curved = c.mul(c.mul(r, r), c.polynomial(r, tables.EXP[x.type.bits]))
    # Half of 2**n, which itself may be too large for the format; times r, less 1/2, it is exact where terms cancel.
    half = power_of_two(c, c.integer_binary("sub", n, 1))
    result = c.mul(c.fma(half, curved, c.fma(half, r, c.sub(half, 0.5))), 2.0)
    return c.select(c.compare("olt", c.abs(x), tiny), x, result)


exp = Outlined("exp", _exp)
expm1 = Outlined("expm1", _expm1)
