"""Angles as whole quarter turns and a rest: what sine and cosine are computed from."""

from __future__ import annotations

import math
from itertools import pairwise

from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.math import tables
from chainrule.engines.native.math.code import Code, Pair
from chainrule.engines.native.math.exponential import power_of_two
from chainrule.engines.native.types import F64, I64, Type

__all__ = ["LARGE_ANGLE", "large_angle", "small_angle", "small_angle_of_float32"]


LARGE_ANGLE = 2.0**20
"""From here on the reduction by whole quarter turns takes more than the four parts of `tables.QUARTER_TURN`."""

_I128 = Type("i", 128)


def _quarter_turns(c: Code, x: Value) -> tuple[Value, Value]:
    """The nearest number of quarter turns, as an integer (modulo 4) and as a float."""
    magic = 1.5 * 2.0**c.mantissa
    shifted = c.fma(x, 2 / math.pi, magic)
    return c.bits(shifted), c.sub(shifted, magic)


def small_angle(c: Code, x: Value) -> tuple[Value, Value, Value]:
    """``x = n quarter turns + high + low``, for x below `LARGE_ANGLE`."""
    n, turns = _quarter_turns(c, x)
    first, second, third, fourth = tables.QUARTER_TURN
    rest = c.fma(turns, -first, x)
    rest, low = c.exact_sum(rest, c.mul(turns, -second))
    rest, lower = c.exact_sum(rest, c.mul(turns, -third))
    low = c.add(low, c.fma(turns, -fourth, lower))
    return n, *c.ordered_sum(rest, low)


def small_angle_of_float32(c: Code, x: Value) -> tuple[Value, Value]:
    """``x = n quarter turns + rest``, where x is a float32 below `LARGE_ANGLE`."""
    n, turns = _quarter_turns(c, x)
    return n, c.fma(turns, -(tables.QUARTER_TURN[1] + tables.QUARTER_TURN[2]), c.fma(turns, -tables.QUARTER_TURN[0], x))


def large_angle(c: Code, x: Value) -> tuple[Value, Value, Value]:
    """``x = n quarter turns + high + low``, for any finite x from `LARGE_ANGLE` on (Payne and Hanek).

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
    high, low = _product_of_pairs(c, part, tables.QUARTER_TURN_ROUNDED)
    mirrored = c.compare("olt", x, 0.0)
    n = f.select(mirrored, c.integer_binary("sub", 0, n), n)
    flip = f.binary("xor", mirrored, below)
    return n, f.select(flip, c.negative(high), high), f.select(flip, c.negative(low), low)


def _fraction_to_pair(c: Code, rest: Value) -> Pair:
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
        parts.append(c.mul(number, power_of_two(c, exponent)))
    return parts[0], parts[1]


def _product_of_pairs(c: Code, a: Pair, b: tuple[float, float]) -> Pair:
    product, rest = c.exact_product(a[0], b[0])
    rest = c.add(rest, c.add(c.mul(a[0], b[1]), c.mul(a[1], b[0])))
    return c.ordered_sum(product, rest)


def _funnel_left(f: Function, a: Value, b: Value, shift: Value) -> Value:
    """The upper word of two, shifted to the left by less than a word."""
    return f.intrinsic("fshl", I64, a, b, shift)


def _two_over_pi(f: Function) -> Buffer:
    words = [0, *tables.TWO_OVER_PI]
    # As signed integers, which is how LLVM reads them.
    text = ", ".join(f"i64 {word - (1 << 64) if word >> 63 else word}" for word in words)
    f.module.add_global(f"@chainrule_two_over_pi = internal constant [{len(words)} x i64] [{text}], align 64")
    return Buffer("@chainrule_two_over_pi", I64, len(words), "2/pi")
