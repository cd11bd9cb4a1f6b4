"""Softmax and its logarithm over one axis, shifted by the maximum so that nothing overflows."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, case
from chainrule.graph.dims import format_shape
from chainrule.graph.lowering import Composed
from chainrule.graph.op import Array, Op, Spec, Trait, per_element, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor
from chainrule.ops._rules import normalise_axis, require_float
from chainrule.ops.exponential import exp, log
from chainrule.ops.reduce import max, sum

__all__ = ["log_softmax", "softmax"]


def softmax(x: Any, axis: int = -1) -> Tensor:
    """``y_i = exp(x_i) / sum_j exp(x_j)`` along an axis.

    Gradient: ``dx = y * (dy - sum_j dy_j * y_j)``.

    Raises:
        ShapeError: the axis is empty or does not exist.

    >>> import chainrule as cr
    >>> cr.ops.softmax(cr.tensor([0.0, 0.0])).numpy().tolist()
    [0.5, 0.5]
    """
    x = as_tensor(x)
    return apply(SOFTMAX, x, axis=normalise_axis(axis, x.ndim))


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """``y_i = x_i - log(sum_j exp(x_j))`` along an axis.

    Gradient: ``dx = dy - softmax(x) * sum_j dy_j``.

    >>> import chainrule as cr
    >>> round(cr.ops.log_softmax(cr.tensor([0.0, 0.0])).numpy()[0].item(), 4)
    -0.6931
    """
    x = as_tensor(x)
    return apply(LOG_SOFTMAX, x, axis=normalise_axis(axis, x.ndim))


def _spec(x: Spec, *, axis: int) -> Spec:
    require_float(x)
    if x.shape[axis] == 0:
        raise ShapeError(f"axis {axis} of {format_shape(x.shape)} is empty")
    return x


def _softmax_reference(x: Array, *, axis: int) -> Array:
    powers = np.exp(x - np.max(x, axis=axis, keepdims=True))
    result: Array = powers / np.sum(powers, axis=axis, keepdims=True)
    return result


def _log_softmax_reference(x: Array, *, axis: int) -> Array:
    shifted = x - np.max(x, axis=axis, keepdims=True)
    result: Array = shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
    return result


def _softmax_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    y = node.outputs[0]
    return (y * (g - sum(g * y, node.attrs["axis"], keepdims=True)),)


def _log_softmax_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    axis = node.attrs["axis"]
    return (g - exp(node.outputs[0]) * sum(g, axis, keepdims=True),)


def _softmax_composed(x: Tensor, *, axis: int) -> Tensor:
    powers = exp(x - max(x, axis, keepdims=True))
    return powers / sum(powers, axis, keepdims=True)


def _log_softmax_composed(x: Tensor, *, axis: int) -> Tensor:
    shifted = x - max(x, axis, keepdims=True)
    return shifted - log(sum(exp(shifted), axis, keepdims=True))


_TRAITS = frozenset({Trait.REDUCTION})
_CASES = (
    case((2, 4), axis=1),
    case((3, 2, 2), axis=0),
    case(Arg((2, 3), -30.0, 30.0), axis=1, name="large logits"),
)

SOFTMAX = register(
    Op(
        "softmax",
        softmax,
        _spec,
        _softmax_reference,
        _softmax_vjp,
        per_element(14),
        traits=_TRAITS,
        cases=_CASES,
        lowering=(Composed(_softmax_composed),),
    )
)
LOG_SOFTMAX = register(
    Op(
        "log_softmax",
        log_softmax,
        _spec,
        _log_softmax_reference,
        _log_softmax_vjp,
        per_element(14),
        traits=_TRAITS,
        cases=_CASES,
        lowering=(Composed(_log_softmax_composed),),
    )
)
