"""Exponential, logarithm, square root and the error function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.graph.cases import Arg, case
from chainrule.graph.lowering import Elementwise
from chainrule.graph.op import Array, Op, Trait, per_element, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor
from chainrule.ops._rules import same_shape

__all__ = ["erf", "exp", "log", "sqrt"]


def exp(x: Any) -> Tensor:
    """``y = e**x``.  Gradient: ``dx = dy * y``.

    >>> import chainrule as cr
    >>> cr.ops.exp(cr.tensor([0.0])).numpy().tolist()
    [1.0]
    """
    return apply(EXP, as_tensor(x))


def log(x: Any) -> Tensor:
    """Natural logarithm; -inf at 0 and NaN below.  Gradient: ``dx = dy / x``.

    >>> import chainrule as cr
    >>> cr.ops.log(cr.tensor([1.0])).numpy().tolist()
    [0.0]
    """
    return apply(LOG, as_tensor(x))


def sqrt(x: Any) -> Tensor:
    """Square root; NaN below 0.  Gradient: ``dx = dy / (2 y)``, infinite at 0.

    >>> import chainrule as cr
    >>> cr.ops.sqrt(cr.tensor([9.0])).numpy().tolist()
    [3.0]
    """
    return apply(SQRT, as_tensor(x))


def erf(x: Any) -> Tensor:
    """Error function ``2/sqrt(pi) * integral of exp(-t**2) from 0 to x``.

    Gradient: ``dx = dy * 2/sqrt(pi) * exp(-x**2)``.

    >>> import chainrule as cr
    >>> cr.ops.erf(cr.tensor([0.0])).numpy().tolist()
    [0.0]
    """
    return apply(ERF, as_tensor(x))


_erf_elements = np.frompyfunc(math.erf, 1, 1)


def _erf_reference(x: Array) -> Array:
    return np.asarray(_erf_elements(x.astype(np.float64)), dtype=np.float64).astype(x.dtype)


def _exp_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (g * node.outputs[0],)


def _log_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (g / node.inputs[0],)


def _sqrt_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (g / (node.outputs[0] * 2),)


def _erf_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    (x,) = node.inputs
    return (g * (exp(-(x * x)) * (2 / math.sqrt(math.pi))),)


def _exp_element(k: Any, x: Any) -> Any:
    return k.exp(x)


def _log_element(k: Any, x: Any) -> Any:
    return k.log(x)


def _sqrt_element(k: Any, x: Any) -> Any:
    return k.sqrt(x)


def _erf_element(k: Any, x: Any) -> Any:
    return k.erf(x)


def _unary(name: str, function: Any, reference: Any, element: Any, vjp: Any, flops: int, arg: Arg) -> Op:
    return register(
        Op(
            name,
            function,
            same_shape,
            reference,
            vjp,
            per_element(flops),
            traits=frozenset({Trait.ELEMENTWISE}),
            cases=(case(arg),),
            lowering=(Elementwise(element, cheap=False),),
        )
    )


EXP = _unary("exp", exp, np.exp, _exp_element, _exp_vjp, 10, Arg((2, 3)))
LOG = _unary("log", log, np.log, _log_element, _log_vjp, 10, Arg((2, 3), 0.3, 3.0))
SQRT = _unary("sqrt", sqrt, np.sqrt, _sqrt_element, _sqrt_vjp, 1, Arg((2, 3), 0.3, 3.0))
ERF = _unary("erf", erf, _erf_reference, _erf_element, _erf_vjp, 20, Arg((2, 3)))
