"""Expressions from the operands up: what they hold, what they depend on, and with parts of them replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chainrule.plan.expr.expression import INDEX, Expr
from chainrule.plan.expr.rules import Rules

__all__ = ["free_variables", "substitute", "walk"]


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every expression below the roots, operands first, each once."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.args) if child not in seen)


def free_variables(root: Expr, known: dict[Expr, frozenset[Any]]) -> frozenset[Any]:
    """The loop variables (and accumulators) that an expression depends on, those of its own folds left out."""
    if root in known:
        return known[root]
    for node in walk(root):
        if node in known:
            continue
        if node.op == "variable" or node.op == "held":
            known[node] = frozenset((node.attr,))
        else:
            found = frozenset().union(*(known[child] for child in node.args))
            if node.op == "fold":
                number, _, variables, count = node.attr
                found = found - set(variables) - {(number, slot) for slot in range(count)}
            known[node] = found
    return known[root]


def substitute(root: Expr, replaced: Mapping[Expr, Expr], known: dict[Expr, Expr]) -> Expr:
    """The expression with atoms (variables, mostly) replaced by others."""
    rules = root.rules
    for node in walk(root):
        if node in known:
            continue
        if node in replaced:
            known[node] = replaced[node]
        elif node.op == "affine":
            total = rules.constant(node.attr[0], INDEX)
            for atom, coefficient in zip(node.args, node.attr[1:], strict=True):
                total = total + known[atom] * coefficient
            known[node] = total
        elif not node.args:
            known[node] = node
        else:
            known[node] = _again(rules, node, tuple(known[child] for child in node.args))
    return known[root]


def _again(rules: Rules, node: Expr, args: tuple[Expr, ...]) -> Expr:
    if args == node.args:
        return node
    if node.op == "index_divide":
        return rules.floor_divide(*args)
    if node.op == "index_modulo":
        return rules.modulo(*args)
    if node.op == "index_product":
        return rules.multiply(*args)
    if node.op == "index_minimum":
        return rules.smaller(*args)
    if node.op in ("lt", "le", "gt", "ge", "eq", "ne"):
        return rules.compare(node.op, *args)
    if node.op in ("and", "or"):
        return rules.logical(node.op, *args)
    if node.op == "not":
        return ~args[0]
    if node.op == "select":
        return rules.select(*args)
    if node.op == "guard":
        return rules.guard(*args)
    return rules.make(node.op, args, node.dtype, node.attr)
