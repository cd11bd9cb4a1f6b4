"""What one element of a tensor is: values, and the memory and loop variables that they are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from chainrule.errors import EngineError
from chainrule.graph.dims import Size
from chainrule.plan.expr.text import text_of

if TYPE_CHECKING:
    from chainrule.plan.expr.rules import Rules

__all__ = ["BOOL", "INDEX", "Expr", "Scalar", "Storage", "Variable"]

INDEX = np.dtype("int64")
BOOL = np.dtype(bool)
Scalar: TypeAlias = "Expr | float | int | bool"


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory that expressions load from and kernels store to.

    Attributes:
        name: unique in a plan.
        dtype: of an element.
        size: number of elements.
    """

    name: str
    dtype: np.dtype[Any]
    size: Size

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """A loop variable that runs from 0 to its extent."""

    name: str
    extent: Size | Expr

    def __repr__(self) -> str:
        return self.name


class Expr:
    """One scalar value.  Arithmetic operators make new expressions.

    Attributes:
        op: what it is: ``constant``, ``variable``, ``batch``, ``affine``, ``load``, ``fold``, or an operation.
        args: operands.
        dtype: NumPy dtype.
        attr: what the operation needs besides, such as a constant's value.
        low, high: bounds of an index, both included; high is None where the batch size decides.
    """

    __slots__ = ("args", "attr", "dtype", "high", "id", "low", "op", "rules")

    def __init__(self, rules: Rules, op: str, args: tuple[Expr, ...], dtype: np.dtype[Any], attr: Any, id: int) -> None:
        self.rules, self.op, self.args, self.dtype, self.attr, self.id = rules, op, args, dtype, attr, id
        self.low: int | None = None
        self.high: int | None = None

    def __hash__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return self is other

    def __bool__(self) -> bool:
        raise EngineError("a lowering rule asked for the truth of an expression; use k.select")

    @property
    def constant(self) -> Any:
        """The value of a constant, else None."""
        if self.op == "constant":
            return self.attr
        if self.op == "affine" and not self.args:
            return self.attr[0]
        return None

    def __add__(self, other: Scalar) -> Expr:
        return self.rules.add(self, other)

    def __radd__(self, other: Scalar) -> Expr:
        return self.rules.add(other, self)

    def __sub__(self, other: Scalar) -> Expr:
        return self.rules.subtract(self, other)

    def __rsub__(self, other: Scalar) -> Expr:
        return self.rules.subtract(other, self)

    def __mul__(self, other: Scalar) -> Expr:
        return self.rules.multiply(self, other)

    def __rmul__(self, other: Scalar) -> Expr:
        return self.rules.multiply(other, self)

    def __truediv__(self, other: Scalar) -> Expr:
        return self.rules.divide(self, other)

    def __rtruediv__(self, other: Scalar) -> Expr:
        return self.rules.divide(other, self)

    def __floordiv__(self, other: int) -> Expr:
        return self.rules.floor_divide(self, other)

    def __mod__(self, other: int) -> Expr:
        return self.rules.modulo(self, other)

    def __neg__(self) -> Expr:
        return self.rules.negative(self)

    def __lt__(self, other: Scalar) -> Expr:
        return self.rules.compare("lt", self, other)

    def __le__(self, other: Scalar) -> Expr:
        return self.rules.compare("le", self, other)

    def __gt__(self, other: Scalar) -> Expr:
        return self.rules.compare("gt", self, other)

    def __ge__(self, other: Scalar) -> Expr:
        return self.rules.compare("ge", self, other)

    def equals(self, other: Scalar) -> Expr:
        """``self == other`` as an expression."""
        return self.rules.compare("eq", self, other)

    def differs(self, other: Scalar) -> Expr:
        """``self != other`` as an expression (true for NaN)."""
        return self.rules.compare("ne", self, other)

    def __and__(self, other: Scalar) -> Expr:
        return self.rules.logical("and", self, self.rules.like(other, self))

    def __or__(self, other: Scalar) -> Expr:
        return self.rules.logical("or", self, self.rules.like(other, self))

    def __xor__(self, other: Scalar) -> Expr:
        return self.rules.operation("xor", self, self.rules.like(other, self))

    def __rshift__(self, other: Scalar) -> Expr:
        return self.rules.operation("shift_right", self, self.rules.like(other, self))

    def __lshift__(self, other: Scalar) -> Expr:
        return self.rules.operation("shift_left", self, self.rules.like(other, self))

    def __invert__(self) -> Expr:
        if self.dtype == BOOL and self.constant is not None:
            return self.rules.constant(not self.constant, BOOL)
        return self.rules.operation("not", self)

    def __repr__(self) -> str:
        return text_of(self)
