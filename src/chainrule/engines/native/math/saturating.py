"""tanh and erf: a polynomial near 0, and further out 1 less an exponential."""

from __future__ import annotations

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.math import tables
from chainrule.engines.native.math.code import Code
from chainrule.engines.native.math.exponential import exp_of_rest, exp_rest, power_of_two
from chainrule.engines.native.math.outlined import Outlined

__all__ = ["erf", "tanh"]


def _tanh(f: Function, x: Value) -> Value:
    c = Code(f, x.type)
    size = c.abs(x)
    z = c.mul(x, x)
    inside = c.fma(c.mul(size, z), c.polynomial(z, tables.TANH[x.type.bits]), size)
    # Beyond this bound the result is 1.
    doubled = c.mul(c.at_most(size, 10.0 if x.type.bits == 32 else 20.0), 2.0)
    r, n = exp_rest(c, doubled)
    power = c.mul(exp_of_rest(c, r, tables.EXP[x.type.bits]), power_of_two(c, n))
    outside = c.sub(1.0, c.div(2.0, c.add(power, 1.0)))
    return c.with_sign(c.select(c.compare("olt", size, 0.625), inside, outside), x)


def _erf(f: Function, x: Value) -> Value:
    c = Code(f, x.type)
    size = c.abs(x)
    z = c.mul(x, x)
    inside = c.fma(size, c.polynomial(z, tables.ERF[x.type.bits]), size)
    # Beyond this bound the result is 1.
    clamped = c.at_most(size, 4.0 if x.type.bits == 32 else 6.0)
    r, n = exp_rest(c, c.negative(c.polynomial(c.sub(clamped, 1.0), tables.ERFC[x.type.bits])))
    outside = c.sub(1.0, c.mul(exp_of_rest(c, r, tables.EXP[x.type.bits]), power_of_two(c, n)))
    return c.with_sign(c.select(c.compare("olt", size, 1.0), inside, outside), x)


tanh = Outlined("tanh", _tanh)
erf = Outlined("erf", _erf)
