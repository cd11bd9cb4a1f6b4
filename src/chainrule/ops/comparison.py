"""Comparisons, logic, and `where`.

A comparison with NaN is False (except ``!=``), as IEEE 754 says.  Comparisons are piecewise constant: their
gradient is zero, by registration and not by accident.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.errors import DTypeError
from chainrule.graph.cases import Arg, case
from chainrule.graph.lowering import Elementwise
from chainrule.graph.op import Op, Spec, Trait, per_element, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor, lift
from chainrule.ops._rules import broadcast, broadcast_shapes, one_dtype
from chainrule.ops.broadcast import unbroadcast

__all__ = [
    "equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "not_equal",
    "where",
]


def equal(a: Any, b: Any) -> Tensor:
    """``a == b`` as bool.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) == 2).numpy().tolist()
    [False, True]
    """
    return apply(EQUAL, *lift(a, b))


def not_equal(a: Any, b: Any) -> Tensor:
    """``a != b`` as bool; True where either is NaN.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) != 2).numpy().tolist()
    [True, False]
    """
    return apply(NOT_EQUAL, *lift(a, b))


def less(a: Any, b: Any) -> Tensor:
    """``a < b`` as bool.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) < 2).numpy().tolist()
    [True, False]
    """
    return apply(LESS, *lift(a, b))


def less_equal(a: Any, b: Any) -> Tensor:
    """``a <= b`` as bool.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) <= 2).numpy().tolist()
    [True, True]
    """
    return apply(LESS_EQUAL, *lift(a, b))


def greater(a: Any, b: Any) -> Tensor:
    """``a > b`` as bool.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) > 2).numpy().tolist()
    [False, False]
    """
    return apply(GREATER, *lift(a, b))


def greater_equal(a: Any, b: Any) -> Tensor:
    """``a >= b`` as bool.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) >= 2).numpy().tolist()
    [False, True]
    """
    return apply(GREATER_EQUAL, *lift(a, b))


def logical_and(a: Any, b: Any) -> Tensor:
    """``a and b`` of bool tensors.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([True, False]) & cr.tensor([False, False])).numpy().tolist()
    [False, False]
    """
    return apply(LOGICAL_AND, *lift(a, b))


def logical_or(a: Any, b: Any) -> Tensor:
    """``a or b`` of bool tensors.  Gradient: zero.

    >>> import chainrule as cr
    >>> (cr.tensor([True, False]) | cr.tensor([False, False])).numpy().tolist()
    [True, False]
    """
    return apply(LOGICAL_OR, *lift(a, b))


def logical_not(x: Any) -> Tensor:
    """``not x`` of a bool tensor.  Gradient: zero.

    >>> import chainrule as cr
    >>> (~cr.tensor([True, False])).numpy().tolist()
    [False, True]
    """
    return apply(LOGICAL_NOT, as_tensor(x))


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """``y = a`` where the condition holds, else ``b``; all three broadcast.

    Gradients: ``da = dy`` where the condition holds, else 0; ``db`` the other way round.  The branch that
    was not taken gets exactly 0, also when it is NaN or infinite there.

    Raises:
        DTypeError: the condition is not bool, or `a` and `b` differ in dtype.

    >>> import chainrule as cr
    >>> x = cr.tensor([-1.0, 2.0])
    >>> cr.ops.where(x > 0, x, 0).numpy().tolist()
    [0.0, 2.0]
    """
    a, b = lift(a, b)
    return apply(WHERE, as_tensor(condition), a, b)


def _comparison_spec(a: Spec, b: Spec) -> Spec:
    return broadcast(a, b).with_dtype("bool")


def _logical_spec(*specs: Spec) -> Spec:
    for spec in specs:
        if spec.dtype != np.dtype(bool):
            raise DTypeError(f"expected a bool tensor, got {spec}")
    return broadcast(*specs)


def _where_spec(condition: Spec, a: Spec, b: Spec) -> Spec:
    _logical_spec(condition)
    return Spec(broadcast_shapes(condition.shape, a.shape, b.shape), one_dtype(a, b))


def _where_vjp(node: Node, g: Tensor) -> tuple[None, Tensor, Tensor]:
    condition, a, b = node.inputs
    return None, unbroadcast(where(condition, g, 0), a), unbroadcast(where(condition, 0, g), b)


def _equal_element(k: Any, a: Any, b: Any) -> Any:
    return a.equals(b)


def _not_equal_element(k: Any, a: Any, b: Any) -> Any:
    return a.differs(b)


def _less_element(k: Any, a: Any, b: Any) -> Any:
    return a < b


def _less_equal_element(k: Any, a: Any, b: Any) -> Any:
    return a <= b


def _greater_element(k: Any, a: Any, b: Any) -> Any:
    return a > b


def _greater_equal_element(k: Any, a: Any, b: Any) -> Any:
    return a >= b


def _and_element(k: Any, a: Any, b: Any) -> Any:
    return a & b


def _or_element(k: Any, a: Any, b: Any) -> Any:
    return a | b


def _not_element(k: Any, x: Any) -> Any:
    return ~x


def _where_element(k: Any, condition: Any, a: Any, b: Any) -> Any:
    return k.select(condition, a, b)


_ELEMENTWISE = frozenset({Trait.ELEMENTWISE})
_PAIRS = (
    case((2, 3), (2, 3)),
    case(np.array([1.0, 2.0, np.nan]), np.array([1.0, 1.0, 1.0]), name="ties and NaN"),
    case(Arg((2, 3), 0, 2, "int32"), Arg((3,), 0, 2, "int32"), name="integers"),
)
_BOOLS = (case(Arg((2, 3), dtype="bool"), Arg((3,), dtype="bool")),)


def _comparison(name: str, function: Any, reference: Any, element: Any) -> Op:
    return register(
        Op(
            name,
            function,
            _comparison_spec,
            reference,
            "zero",
            per_element(1),
            traits=_ELEMENTWISE,
            cases=_PAIRS,
            lowering=(Elementwise(element),),
        )
    )


def _logical(name: str, function: Any, reference: Any, element: Any, cases: Any) -> Op:
    return register(
        Op(
            name,
            function,
            _logical_spec,
            reference,
            "zero",
            per_element(1),
            traits=_ELEMENTWISE,
            cases=cases,
            lowering=(Elementwise(element),),
        )
    )


EQUAL = _comparison("equal", equal, np.equal, _equal_element)
NOT_EQUAL = _comparison("not_equal", not_equal, np.not_equal, _not_equal_element)
LESS = _comparison("less", less, np.less, _less_element)
LESS_EQUAL = _comparison("less_equal", less_equal, np.less_equal, _less_equal_element)
GREATER = _comparison("greater", greater, np.greater, _greater_element)
GREATER_EQUAL = _comparison("greater_equal", greater_equal, np.greater_equal, _greater_equal_element)
LOGICAL_AND = _logical("logical_and", logical_and, np.logical_and, _and_element, _BOOLS)
LOGICAL_OR = _logical("logical_or", logical_or, np.logical_or, _or_element, _BOOLS)
LOGICAL_NOT = _logical("logical_not", logical_not, np.logical_not, _not_element, (case(Arg((2, 3), dtype="bool")),))
WHERE = register(
    Op(
        "where",
        where,
        _where_spec,
        np.where,
        _where_vjp,
        per_element(1),
        traits=_ELEMENTWISE,
        cases=(
            case(Arg((2, 3), dtype="bool"), (2, 3), (2, 3)),
            case(Arg((3,), dtype="bool"), (2, 3), ()),
            case(Arg((2, 1), dtype="bool"), (), (3,)),
        ),
        lowering=(Elementwise(_where_element),),
    )
)
