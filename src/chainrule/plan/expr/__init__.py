"""Scalar expressions: what one element of a tensor is, as a graph without repetition.

Lowering rules of ops are written in this language (see `graph.lowering`); the planner joins the expressions of
neighbouring ops, so fusion is substitution.  Equal expressions are one object, which is common-subexpression
elimination by construction.
"""

from chainrule.plan.expr.expression import Expr, Storage, Variable
from chainrule.plan.expr.point import Point
from chainrule.plan.expr.rules import Rules
from chainrule.plan.expr.traverse import free_variables, substitute, walk

__all__ = ["Expr", "Point", "Rules", "Storage", "Variable", "free_variables", "substitute", "walk"]
