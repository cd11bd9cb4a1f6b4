"""Whole numbers, without an instruction for them."""

from __future__ import annotations

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.math.code import Code

__all__ = ["floor", "is_integer"]


def floor(f: Function, x: Value) -> Value:
    """The largest whole number that is not above x, in place; no instruction beyond the oldest ones is needed."""
    c = Code(f, x.type)
    size, large = c.abs(x), 2.0**c.mantissa
    nearest = c.with_sign(c.sub(c.add(size, large), large), x)
    below = c.with_sign(c.select(c.compare("ogt", nearest, x), c.sub(nearest, 1.0), nearest), x)
    return c.select(c.compare("olt", size, large), below, x)


def is_integer(c: Code, size: Value) -> Value:
    """Whether a number without sign is whole; false for NaN."""
    large = 2.0**c.mantissa
    whole = c.compare("oeq", c.sub(c.add(size, large), large), size)
    return c.f.binary("or", whole, c.compare("oge", size, large))
