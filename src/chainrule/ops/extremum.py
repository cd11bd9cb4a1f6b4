"""Minimum, maximum, clip, absolute value and sign.  None of them swallows a NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, case, convention
from chainrule.graph.lowering import Elementwise
from chainrule.graph.op import Array, Op, Spec, Trait, per_element, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor, lift
from chainrule.ops._rules import broadcast, require_float, same_shape
from chainrule.ops.broadcast import unbroadcast
from chainrule.ops.comparison import where

__all__ = ["abs", "clip", "maximum", "minimum", "sign"]


def maximum(a: Any, b: Any) -> Tensor:
    """``y = max(a, b)``, elementwise; NaN if either is NaN.

    Gradient: all of dy to the larger operand; at a tie to `a`, the first.

    >>> import chainrule as cr
    >>> cr.ops.maximum(cr.tensor([1.0, -2.0]), 0).numpy().tolist()
    [1.0, 0.0]
    """
    return apply(MAXIMUM, *lift(a, b))


def minimum(a: Any, b: Any) -> Tensor:
    """``y = min(a, b)``, elementwise; NaN if either is NaN.

    Gradient: all of dy to the smaller operand; at a tie to `a`, the first.

    >>> import chainrule as cr
    >>> cr.ops.minimum(cr.tensor([1.0, -2.0]), 0).numpy().tolist()
    [0.0, -2.0]
    """
    return apply(MINIMUM, *lift(a, b))


def clip(x: Any, low: float, high: float) -> Tensor:
    """``y = min(max(x, low), high)``.

    Gradient: dy where ``low <= x <= high``, borders included, else 0.  A NaN stays NaN.

    Raises:
        ShapeError: `low` is above `high`.

    >>> import chainrule as cr
    >>> cr.ops.clip(cr.tensor([-3.0, 0.5, 3.0]), 0, 1).numpy().tolist()
    [0.0, 0.5, 1.0]
    """
    return apply(CLIP, as_tensor(x), low=float(low), high=float(high))


def abs(x: Any) -> Tensor:
    """``y = |x|``.  Gradient: ``dx = dy * sign(x)``, so 0 at 0.

    >>> import chainrule as cr
    >>> cr.ops.abs(cr.tensor([-3.0, 2.0])).numpy().tolist()
    [3.0, 2.0]
    """
    return apply(ABS, as_tensor(x))


def sign(x: Any) -> Tensor:
    """-1, 0 or 1 by the sign of x; NaN stays NaN.  Gradient: zero.

    >>> import chainrule as cr
    >>> cr.ops.sign(cr.tensor([-3.0, 0.0, 2.0])).numpy().tolist()
    [-1.0, 0.0, 1.0]
    """
    return apply(SIGN, as_tensor(x))


def _float_broadcast(a: Spec, b: Spec) -> Spec:
    require_float(a, b)
    return broadcast(a, b)


def _clip_spec(x: Spec, *, low: float, high: float) -> Spec:
    if not low <= high:
        raise ShapeError(f"the interval [{low}, {high}] is empty; expected low <= high")
    return same_shape(x)


def _clip_reference(x: Array, *, low: float, high: float) -> Array:
    result: Array = np.clip(x, low, high)
    return result


def _maximum_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = node.inputs
    second = b > a
    return unbroadcast(where(second, 0, g), a), unbroadcast(where(second, g, 0), b)


def _minimum_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = node.inputs
    second = b < a
    return unbroadcast(where(second, 0, g), a), unbroadcast(where(second, g, 0), b)


def _clip_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    (x,) = node.inputs
    outside = (x < node.attrs["low"]) | (x > node.attrs["high"])
    return (where(outside, 0, g),)


def _abs_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (g * sign(node.inputs[0]),)


def _maximum_element(k: Any, a: Any, b: Any) -> Any:
    return k.maximum(a, b)


def _minimum_element(k: Any, a: Any, b: Any) -> Any:
    return k.minimum(a, b)


def _clip_element(k: Any, x: Any, *, low: float, high: float) -> Any:
    return k.minimum(k.maximum(x, low), high)


def _abs_element(k: Any, x: Any) -> Any:
    return k.abs(x)


def _sign_element(k: Any, x: Any) -> Any:
    return k.select(x > 0, 1, k.select(x < 0, -1, k.select(x.equals(0), 0, x)))  # a NaN is none of the three


_ELEMENTWISE = frozenset({Trait.ELEMENTWISE})
_OFF_ZERO = Arg((2, 3), avoid=(0.0,))
_APART = (
    case(Arg((2, 3), -2.0, 0.0), Arg((2, 3), 0.1, 2.0)),
    case(Arg((3,), -2.0, 2.0, avoid=(0.5,)), np.array(0.5)),
    case(np.array([[1.0], [-1.0]]), Arg((2, 3), -2.0, 2.0, avoid=(-1.0, 1.0))),
)

MAXIMUM = register(
    Op(
        "maximum",
        maximum,
        _float_broadcast,
        np.maximum,
        _maximum_vjp,
        per_element(1),
        traits=_ELEMENTWISE,
        cases=_APART,
        conventions=(
            convention(
                "maximum: a tie goes to the first operand",
                [[1.0, 2.0], [1.0, 3.0]],
                [5.0, 7.0],
                [[5.0, 0.0], [0.0, 7.0]],
            ),
        ),
        lowering=(Elementwise(_maximum_element),),
    )
)
MINIMUM = register(
    Op(
        "minimum",
        minimum,
        _float_broadcast,
        np.minimum,
        _minimum_vjp,
        per_element(1),
        traits=_ELEMENTWISE,
        cases=_APART,
        conventions=(
            convention(
                "minimum: a tie goes to the first operand",
                [[1.0, 4.0], [1.0, 3.0]],
                [5.0, 7.0],
                [[5.0, 0.0], [0.0, 7.0]],
            ),
        ),
        lowering=(Elementwise(_minimum_element),),
    )
)
CLIP = register(
    Op(
        "clip",
        clip,
        _clip_spec,
        _clip_reference,
        _clip_vjp,
        per_element(2),
        traits=_ELEMENTWISE,
        cases=(case(Arg((2, 5), avoid=(-0.5, 1.0)), low=-0.5, high=1.0),),
        conventions=(
            convention(
                "clip: the gradient passes at both borders",
                [[-1.0, 0.0, 0.5, 1.0, 2.0]],
                [2.0] * 5,
                [[0.0, 2.0, 2.0, 2.0, 0.0]],
                low=0.0,
                high=1.0,
            ),
        ),
        lowering=(Elementwise(_clip_element),),
    )
)
ABS = register(
    Op(
        "abs",
        abs,
        same_shape,
        np.abs,
        _abs_vjp,
        per_element(1),
        traits=_ELEMENTWISE,
        cases=(case(_OFF_ZERO),),
        conventions=(convention("abs: the gradient at 0 is 0", [[-2.0, 0.0, 3.0]], [1.0] * 3, [[-1.0, 0.0, 1.0]]),),
        lowering=(Elementwise(_abs_element),),
    )
)
SIGN = register(
    Op(
        "sign",
        sign,
        same_shape,
        np.sign,
        "zero",
        per_element(1),
        traits=_ELEMENTWISE,
        cases=(case(_OFF_ZERO),),
        lowering=(Elementwise(_sign_element),),
    )
)
