"""Powers of any base and exponent: a logarithm with room to spare, and what no logarithm knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.math import tables
from chainrule.engines.native.math.code import Code, Pair
from chainrule.engines.native.math.exponential import exp_of_rest, exp_rest, scaled
from chainrule.engines.native.math.logarithm import exponent_and_mantissa
from chainrule.engines.native.math.outlined import Outlined
from chainrule.engines.native.math.rounding import is_integer
from chainrule.engines.native.types import F64

__all__ = ["power"]


def _power(f: Function, x: Value, y: Value) -> Value:
    c = Code(f, x.type)
    size = c.abs(x)
    if x.type.bits == 64:
        result = _power_of_positive(c, size, y, _log_pair(c, size), tables.EXP[64])
    else:
        wide = Code(f, F64.of(x.type.lanes))
        wide_size, wide_y = (f.let(wide.type, f"fpext {v} to {wide.type.llvm}") for v in (size, y))
        wide_result = _power_of_positive(
            wide, wide_size, wide_y, (_log_wide(wide, wide_size), None), tables.EXP_OF_POWER32
        )
        result = f.let(x.type, f"fptrunc {wide_result} to {x.type.llvm}")
    return _power_specials(c, x, y, result)


def _power_of_positive(
    c: Code, x: Value, y: Value, log: tuple[Value, Value | None], coefficients: Sequence[float]
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
    r, n = exp_rest(c, c.at_least(c.at_most(product, bound), -bound), rest)
    return scaled(c, exp_of_rest(c, r, coefficients), n)


def _log_wide(c: Code, x: Value) -> Value:
    """The logarithm of a float32 in float64, with half as many bits more than the float32 has."""
    e, m = exponent_and_mantissa(c, x, denormals=False)
    t = c.sub(m, 1.0)
    s = c.div(t, c.add(t, 2.0))
    z = c.mul(s, s)
    return c.fma(e, math.log(2), c.mul(s, c.fma(z, c.polynomial(z, tables.ATANH_OF_POWER32), 2.0)))


def _log_pair(c: Code, x: Value) -> Pair:
    """The logarithm of a positive float64 to about 65 bits: an error in it counts up to 745 times in a power."""
    e, m = exponent_and_mantissa(c, x, denormals=True)
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
    factor, factor_low = c.ordered_sum(tables.TWO_THIRDS[0], c.mul(z, c.polynomial(z, tables.ATANH_OF_POWER64)))
    factor_low = c.add(factor_low, tables.TWO_THIRDS[1])
    cube, cube_low = c.exact_product(s, z)
    cube_low = c.add(c.fma(s, z_low, cube_low), c.mul(s_low, z))
    term, term_low = c.exact_product(cube, factor)
    term_low = c.add(c.fma(cube, factor_low, term_low), c.mul(cube_low, factor))
    near, near_low = c.ordered_sum(c.add(s, s), term)
    near_low = c.add(near_low, c.fma(s_low, 2.0, term_low))
    high_log2, low_log2 = tables.LOG2[64]
    high, low = c.ordered_sum(c.mul(e, high_log2), near)
    return high, c.add(low, c.fma(e, low_log2, near_low))


def _power_specials(c: Code, x: Value, y: Value, result: Value) -> Value:
    """The power of x, given that of ``|x|``: signs, NaN, and the exponents that are no logarithm's business."""
    y_size = c.abs(y)
    whole = is_integer(c, y_size)
    odd = c.both(whole, c.negated(is_integer(c, c.mul(y_size, 0.5))))
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


_general_power = Outlined("power", _power, 2)


def power(f: Function, x: Value, y: Value, *, inline: bool = False) -> Value:
    """``x**y``; the literal exponents 2, 1 and -1 need no power at all."""
    c = Code(f, x.type)
    if y.text == c.constant(2.0).text:
        return c.mul(x, x)
    if y.text == c.constant(1.0).text:
        return x
    if y.text == c.constant(-1.0).text:
        return c.div(1.0, x)
    return _general_power(f, x, y, inline=inline)
