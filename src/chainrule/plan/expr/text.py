"""Expressions as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chainrule.plan.expr.expression import Expr

__all__ = ["text_of"]


_SIGNS = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shift_left": "<<",
    "shift_right": ">>",
    "index_divide": "//",
    "index_modulo": "%",
    "index_product": "*",
}


def text_of(e: Expr, depth: int = 0) -> str:
    """An expression as people write it; what lies too deep is left out."""
    if depth > 12:
        return "..."
    inner = [text_of(a, depth + 1) for a in e.args]
    if e.op == "constant":
        return repr(e.attr)
    if e.op == "variable":
        return str(e.attr.name)
    if e.op == "batch":
        return "N"
    if e.op == "held":
        return f"acc{e.attr[0]}.{e.attr[1]}"
    if e.op == "affine":
        parts = [f"{c}*{t}" if c != 1 else t for t, c in zip(inner, e.attr[1:], strict=True)]
        if e.attr[0] or not parts:
            parts.append(str(e.attr[0]))
        return " + ".join(parts) if len(parts) == 1 else "(" + " + ".join(parts) + ")"
    if e.op == "load":
        return f"{e.attr.name}[{inner[0].strip('()') if e.args[0].op == 'affine' else inner[0]}]"
    if e.op == "fold":
        number, slot, variables, count = e.attr
        box = ", ".join(f"{v.name}<{v.extent}" for v in variables)
        return f"fold[{box}](acc{number}.{slot}: {inner[slot]} -> {inner[count + slot]})"
    if e.op in _SIGNS:
        return f"({inner[0]} {_SIGNS[e.op]} {inner[1]})"
    name = e.attr if e.op == "call" else f"cast.{e.dtype}" if e.op == "cast" else e.op
    return f"{name}({', '.join(inner)})"
