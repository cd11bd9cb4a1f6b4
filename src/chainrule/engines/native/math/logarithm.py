"""log and log1p."""

from __future__ import annotations

import math

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.math import tables
from chainrule.engines.native.math.code import Code
from chainrule.engines.native.math.outlined import Outlined

__all__ = ["exponent_and_mantissa", "log", "log1p"]


def exponent_and_mantissa(c: Code, x: Value, denormals: bool) -> tuple[Value, Value]:
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


def _log_near_one(c: Code, e: Value, t: Value, extra: Value | None = None) -> Value:
    """``e*log(2) + log(1 + t) + extra``."""
    high_log2, low_log2 = tables.LOG2[c.type.bits]
    half_square = c.mul(c.mul(t, 0.5), t)
    small = c.mul(e, low_log2)
    if extra is not None:
        small = c.add(small, extra)
    if c.type.bits == 32:
        small = c.fma(c.mul(c.mul(t, t), t), c.polynomial(t, tables.LOG), small)
    else:
        # With s = t/(2 + t): log(1 + t) = log((1 + s)/(1 - s)) = 2*s + s*w, and 2*s = t - t*t/2 + s*t*t/2.
        s = c.div(t, c.add(t, 2.0))
        z = c.mul(s, s)
        small = c.fma(s, c.fma(z, c.polynomial(z, tables.ATANH), half_square), small)
    return c.fma(e, high_log2, c.add(t, c.sub(small, half_square)))


def _log_at_ends(c: Code, x: Value, inner: Value, zero: float) -> Value:
    """The logarithm where the formula does not hold: at and below its zero argument, at infinity, for NaN."""
    result = c.select(c.compare("olt", x, math.inf), inner, x)
    result = c.select(c.compare("oeq", x, zero), -math.inf, result)
    return c.select(c.compare("olt", x, zero), math.nan, result)


def _log(f: Function, x: Value) -> Value:
    c = Code(f, x.type)
    e, m = exponent_and_mantissa(c, x, denormals=True)
    return _log_at_ends(c, x, _log_near_one(c, e, c.sub(m, 1.0)), 0.0)


def _log1p(f: Function, x: Value) -> Value:
    c = Code(f, x.type)
    y = c.add(x, 1.0)
    # What the sum y lost, relative to y: log(1 + x) = log(y) + lost/y.
    lost = c.select(c.compare("olt", x, 1.0), c.sub(x, c.sub(y, 1.0)), c.sub(1.0, c.sub(y, x)))
    e, m = exponent_and_mantissa(c, y, denormals=False)
    result = _log_at_ends(c, x, _log_near_one(c, e, c.sub(m, 1.0), c.div(lost, y)), -1.0)
    return c.select(c.compare("olt", c.abs(x), 2.0 ** -(c.mantissa + 2)), x, result)


log = Outlined("log", _log)
log1p = Outlined("log1p", _log1p)
