"""One operation on operands that are in registers, in every lane."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.engines.native import math
from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.types import Type
from chainrule.errors import EngineError
from chainrule.plan.expr import Expr

__all__ = ["emit_operation"]

_ARITHMETIC = {"add": "add", "subtract": "sub", "multiply": "mul"}
_PLAIN = {"divide": "fdiv", "and": "and", "or": "or", "xor": "xor", "shift_left": "shl"}
_FLOAT_RELATION = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_INT_RELATION = {"lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}


def emit_operation(f: Function, e: Expr, type: Type, args: Sequence[Value]) -> Value:
    """The value of an expression, given those of its operands.

    Args:
        f: the function under construction.
        e: an operation that touches no memory and has no loop of its own.
        type: of the result.
        args: the operands.

    Raises:
        EngineError: there is no such operation.
    """
    instruction = _instruction(e.op, type)
    if instruction is not None:
        return f.binary(instruction, *args)
    if e.op in _FLOAT_RELATION:
        return f.compare(_relation(e.op, args[0].type), *args)
    if e.op == "select":
        return f.select(*args)
    if e.op == "fma":
        return math.mul_add(f, *args)
    if e.op == "call":
        return math.FUNCTIONS[e.attr](f, *args)
    if e.op == "cast":
        return _cast(f, args[0], type)
    return _unary(f, e.op, type, args[0])


def _instruction(op: str, type: Type) -> str | None:
    """The instruction of an operation that is one, of two operands."""
    if op in _ARITHMETIC:
        return ("f" if type.is_float else "") + _ARITHMETIC[op]
    if op == "shift_right":
        return "ashr" if type.kind == "i" else "lshr"
    return _PLAIN.get(op)


def _relation(op: str, operand: Type) -> str:
    if operand.is_float:
        return _FLOAT_RELATION[op]
    if op in ("eq", "ne"):
        return op
    return ("s" if operand.kind == "i" else "u") + _INT_RELATION[op]


def _unary(f: Function, op: str, type: Type, x: Value) -> Value:
    if op == "negative":
        return f.let(type, f"fneg {x}") if type.is_float else f.binary("sub", f.constant(0, type), x)
    if op == "not":
        return f.binary("xor", x, f.constant(1 if type.kind == "b" else -1, type))
    if op == "sqrt":
        return f.intrinsic("sqrt", type, x)
    if op == "abs":
        return _absolute(f, type, x)
    if op == "bits":
        return f.let(type, f"bitcast {x} to {type.llvm}")
    raise EngineError(f"the native engine knows no operation {op!r}")


def _absolute(f: Function, type: Type, x: Value) -> Value:
    if type.is_float:
        return f.intrinsic("fabs", type, x)
    if type.kind != "i":
        return x
    symbol = f"llvm.abs.{type.suffix}"
    f.module.declare(symbol, f"{type.llvm} ({type.llvm}, i1)")
    return f.let(type, f"call {type.llvm} @{symbol}({x}, i1 false)")


def _cast(f: Function, x: Value, to: Type) -> Value:
    of = x.type
    if to.kind == "b":
        return f.compare("une" if of.is_float else "ne", x, f.constant(0, of))
    if of.kind == "b":
        return f.let(to, f"{'uitofp' if to.is_float else 'zext'} {x} to {to.llvm}")
    if of.is_float and to.is_float:
        word = "fpext" if to.bits > of.bits else "fptrunc"
    elif of.is_float:
        return _to_integer(f, x, to)
    elif to.is_float:
        word = "uitofp" if of.kind == "u" else "sitofp"
    elif to.bits == of.bits:
        return Value(x.text, to)
    else:
        word = "trunc" if to.bits < of.bits else "zext" if of.kind == "u" else "sext"
    return f.let(to, f"{word} {x} to {to.llvm}")


def _to_integer(f: Function, x: Value, to: Type) -> Value:
    """Towards zero; values that do not fit saturate, NaN gives 0 (NumPy leaves both undefined)."""
    word = "fptosi" if to.kind == "i" else "fptoui"
    symbol = f"llvm.{word}.sat.{to.suffix}.{x.type.suffix}"
    f.module.declare(symbol, f"{to.llvm} ({x.type.llvm})")
    return f.let(to, f"call {to.llvm} @{symbol}({x})")
