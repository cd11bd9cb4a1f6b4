"""How formulas are written: one floating-point type, constants among the operands, twice the precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.types import Type

__all__ = ["Code", "Pair", "mul_add"]


Pair: TypeAlias = tuple[Value, Value]
"""A number as the sum of two, the second of which is at most about one rounding error of the first."""


def mul_add(f: Function, a: Value, b: Value, c: Value) -> Value:
    """``a * b + c``: fused where the processor can, because elsewhere the fused form is a library call."""
    if f.module.has_fma:
        return f.fma(a, b, c)
    return f.binary("fadd", f.binary("fmul", a, b), c)


class Code:
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
