"""Activation functions: relu and its relatives, gelu, silu, softplus, sigmoid, tanh.

All are elementwise and keep a NaN.  At the kink of the piecewise ones, x = 0, the slope of the left branch is
taken: ReLU'(0) = 0 is a chosen subgradient, since the derivative does not exist there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, Case, case, convention
from chainrule.graph.lowering import Elementwise
from chainrule.graph.op import Array, Op, Spec, Trait, per_element, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor, lift
from chainrule.ops._rules import broadcast, require_float, same_shape
from chainrule.ops.broadcast import unbroadcast
from chainrule.ops.comparison import where
from chainrule.ops.exponential import ERF, erf, exp

__all__ = [
    "elu",
    "gelu",
    "leaky_relu",
    "prelu",
    "relu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
]

_GELU_TANH = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715


def relu(x: Any) -> Tensor:
    """Rectified linear unit ``y = x if x > 0 else 0``; NaN stays NaN.

    Gradient: ``dx = dy if x > 0 else 0``, so 0 at 0.  Source: Nair and Hinton, ICML 2010.

    >>> import chainrule as cr
    >>> cr.ops.relu(cr.tensor([-1.0, 2.0])).numpy().tolist()
    [0.0, 2.0]
    """
    return apply(RELU, as_tensor(x))


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Tensor:
    """``y = x if x > 0 else negative_slope * x``.

    Gradient: ``dx = dy if x > 0 else negative_slope * dy``, so the slope at 0.
    Source: Maas, Hannun and Ng, ICML 2013.

    >>> import chainrule as cr
    >>> cr.ops.leaky_relu(cr.tensor([-1.0, 2.0]), 0.5).numpy().tolist()
    [-0.5, 2.0]
    """
    return apply(LEAKY_RELU, as_tensor(x), negative_slope=float(negative_slope))


def prelu(x: Any, slope: Any) -> Tensor:
    """Leaky ReLU with a learned slope that broadcasts to x: ``y = x if x > 0 else slope * x``.

    Gradients: ``dx = dy if x > 0 else slope * dy``; ``dslope = 0 if x > 0 else x * dy``, summed to its shape.
    Source: He, Zhang, Ren and Sun, ICCV 2015.

    >>> import chainrule as cr
    >>> cr.ops.prelu(cr.tensor([-1.0, 2.0]), cr.tensor(0.25)).numpy().tolist()
    [-0.25, 2.0]
    """
    return apply(PRELU, *lift(x, slope))


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """Exponential linear unit ``y = x if x > 0 else alpha * (exp(x) - 1)``.

    Gradient: ``dx = dy if x > 0 else dy * (y + alpha)``.  Source: Clevert, Unterthiner and Hochreiter, ICLR 2016.

    >>> import chainrule as cr
    >>> cr.ops.elu(cr.tensor([0.0, 2.0])).numpy().tolist()
    [0.0, 2.0]
    """
    return apply(ELU, as_tensor(x), alpha=float(alpha))


def gelu(x: Any, approximate: bool = False) -> Tensor:
    """Gaussian error linear unit ``y = x * Phi(x)``, Phi being the standard normal distribution function.

    With ``approximate=True``: ``y = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x**3)))``.
    Gradient: ``dx = dy * (Phi(x) + x * phi(x))``, or the derivative of the approximation.
    Source: Hendrycks and Gimpel, 2016.

    >>> import chainrule as cr
    >>> cr.ops.gelu(cr.tensor([0.0])).numpy().tolist()
    [0.0]
    """
    return apply(GELU, as_tensor(x), approximate=bool(approximate))


def silu(x: Any) -> Tensor:
    """Sigmoid linear unit (swish) ``y = x * sigmoid(x)``.

    Gradient: ``dx = dy * s * (1 + x * (1 - s))`` with ``s = sigmoid(x)``.  Source: Hendrycks and Gimpel, 2016.

    >>> import chainrule as cr
    >>> cr.ops.silu(cr.tensor([0.0])).numpy().tolist()
    [0.0]
    """
    return apply(SILU, as_tensor(x))


def softplus(x: Any) -> Tensor:
    """``y = log(1 + exp(x))``, computed without overflow.  Gradient: ``dx = dy * sigmoid(x)``.

    >>> import chainrule as cr
    >>> round(cr.ops.softplus(cr.tensor([0.0])).item(), 4)
    0.6931
    """
    return apply(SOFTPLUS, as_tensor(x))


def sigmoid(x: Any) -> Tensor:
    """Logistic function ``y = 1 / (1 + exp(-x))``, computed without overflow.  Gradient: ``dx = dy * y * (1 - y)``.

    >>> import chainrule as cr
    >>> cr.ops.sigmoid(cr.tensor([0.0])).numpy().tolist()
    [0.5]
    """
    return apply(SIGMOID, as_tensor(x))


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent.  Gradient: ``dx = dy * (1 - y**2)``.

    >>> import chainrule as cr
    >>> cr.ops.tanh(cr.tensor([0.0])).numpy().tolist()
    [0.0]
    """
    return apply(TANH, as_tensor(x))


def _sigmoid_reference(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    result: Array = np.where(x < 0, small, x.dtype.type(1)) / (1 + small)
    return result


def _gelu_reference(x: Array, *, approximate: bool) -> Array:
    if approximate:
        inner: Array = np.tanh(_GELU_TANH * (x + _GELU_CUBIC * (x * x * x)))
    else:
        (inner,) = ERF.evaluate([x / math.sqrt(2)], {})
    result: Array = 0.5 * x * (1 + inner)
    return result


def _relu_reference(x: Array) -> Array:
    return np.where(x < 0, x.dtype.type(0), x)


def _leaky_relu_reference(x: Array, *, negative_slope: float) -> Array:
    return np.where(x > 0, x, negative_slope * x)


def _prelu_reference(x: Array, slope: Array) -> Array:
    return np.where(x > 0, x, slope * x)


def _elu_reference(x: Array, *, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _silu_reference(x: Array) -> Array:
    return x * _sigmoid_reference(x)


def _softplus_reference(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _prelu_spec(x: Spec, slope: Spec) -> Spec:
    require_float(x, slope)
    result = broadcast(x, slope)
    if result.shape != x.shape:
        raise ShapeError(f"the slope {slope} does not broadcast to the input {x}")
    return result


def _relu_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (where(node.outputs[0] <= 0, 0, g),)


def _leaky_relu_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (where(node.inputs[0] > 0, g, g * node.attrs["negative_slope"]),)


def _prelu_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    x, slope = node.inputs
    return where(x > 0, g, g * slope), unbroadcast(where(x > 0, 0, g * x), slope)


def _elu_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (where(node.inputs[0] > 0, g, g * (node.outputs[0] + node.attrs["alpha"])),)


def _gelu_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    (x,) = node.inputs
    if node.attrs["approximate"]:
        t = tanh((x + x * x * x * _GELU_CUBIC) * _GELU_TANH)
        slope = (x * x * (3 * _GELU_CUBIC) + 1) * _GELU_TANH
        return (g * ((t + 1) * 0.5 + x * (1 - t * t) * slope * 0.5),)
    distribution = (erf(x * (1 / math.sqrt(2))) + 1) * 0.5
    density = exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return (g * (distribution + x * density),)


def _silu_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    (x,) = node.inputs
    s = sigmoid(x)
    return (g * (s * (x * (1 - s) + 1)),)


def _softplus_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (g * sigmoid(node.inputs[0]),)


def _sigmoid_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    y = node.outputs[0]
    return (g * (y * (1 - y)),)


def _tanh_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    y = node.outputs[0]
    return (g * (1 - y * y),)


def _relu_element(k: Any, x: Any) -> Any:
    return k.select(x < 0, 0, x)


def _leaky_relu_element(k: Any, x: Any, *, negative_slope: float) -> Any:
    return k.select(x > 0, x, negative_slope * x)


def _prelu_element(k: Any, x: Any, slope: Any) -> Any:
    return k.select(x > 0, x, slope * x)


def _elu_element(k: Any, x: Any, *, alpha: float) -> Any:
    return k.select(x > 0, x, alpha * k.call("expm1", k.minimum(x, 0)))


def _gelu_element(k: Any, x: Any, *, approximate: bool) -> Any:
    if approximate:
        inner = k.tanh(_GELU_TANH * (x + _GELU_CUBIC * (x * x * x)))
    else:
        inner = k.erf(x / math.sqrt(2))
    return 0.5 * x * (1 + inner)


def _silu_element(k: Any, x: Any) -> Any:
    return x * _sigmoid_element(k, x)


def _softplus_element(k: Any, x: Any) -> Any:
    return k.maximum(x, 0) + k.call("log1p", k.exp(-k.abs(x)))


def _sigmoid_element(k: Any, x: Any) -> Any:
    small = k.exp(-k.abs(x))
    return k.select(x < 0, small, 1) / (1 + small)


def _tanh_element(k: Any, x: Any) -> Any:
    return k.tanh(x)


_ELEMENTWISE = frozenset({Trait.ELEMENTWISE})
_OFF_KINK = Arg((2, 5), avoid=(0.0,))
_KINK = [-1.0, 0.0, 2.0]

RELU = register(
    Op(
        "relu",
        relu,
        same_shape,
        _relu_reference,
        _relu_vjp,
        per_element(1),
        traits=_ELEMENTWISE,
        cases=(case(_OFF_KINK), case(Arg((1, 2, 2, 3), avoid=(0.0,)))),
        conventions=(convention("relu: the gradient at 0 is 0", [_KINK], [3.0] * 3, [[0.0, 0.0, 3.0]]),),
        lowering=(Elementwise(_relu_element),),
    )
)
LEAKY_RELU = register(
    Op(
        "leaky_relu",
        leaky_relu,
        same_shape,
        _leaky_relu_reference,
        _leaky_relu_vjp,
        per_element(2),
        traits=_ELEMENTWISE,
        cases=(case(_OFF_KINK, negative_slope=0.2), case(_OFF_KINK, negative_slope=0.0)),
        conventions=(
            convention(
                "leaky_relu: the gradient at 0 is negative_slope",
                [_KINK],
                [4.0] * 3,
                [[1.0, 1.0, 4.0]],
                negative_slope=0.25,
            ),
        ),
        lowering=(Elementwise(_leaky_relu_element),),
    )
)
PRELU = register(
    Op(
        "prelu",
        prelu,
        _prelu_spec,
        _prelu_reference,
        _prelu_vjp,
        per_element(2),
        traits=_ELEMENTWISE,
        cases=(case(_OFF_KINK, (5,)), case(Arg((2, 3, 3, 2), avoid=(0.0,)), (1, 1, 2))),
        conventions=(
            convention(
                "prelu: at 0 the gradient of x is the slope and that of the slope is 0",
                [_KINK, 0.25],
                [4.0] * 3,
                [[1.0, 1.0, 4.0], -4.0],
            ),
        ),
        lowering=(Elementwise(_prelu_element),),
    )
)
ELU = register(
    Op(
        "elu",
        elu,
        same_shape,
        _elu_reference,
        _elu_vjp,
        per_element(12),
        traits=_ELEMENTWISE,
        cases=(case(_OFF_KINK, alpha=1.0), case(_OFF_KINK, alpha=0.5)),
        conventions=(convention("elu: the gradient at 0 is alpha", [[0.0, 2.0]], [1.0] * 2, [[0.5, 1.0]], alpha=0.5),),
        lowering=(Elementwise(_elu_element, cheap=False),),
    )
)


def _smooth_cases(**attrs: Any) -> tuple[Case, ...]:
    return case((2, 5), **attrs), case(Arg((3,), -6.0, 6.0), **attrs)


def _smooth(
    name: str, function: Any, reference: Any, element: Any, vjp: Any, flops: int, cases: tuple[Case, ...]
) -> Op:
    return register(
        Op(
            name,
            function,
            same_shape,
            reference,
            vjp,
            per_element(flops),
            traits=_ELEMENTWISE,
            cases=cases,
            lowering=(Elementwise(element, cheap=False),),
        )
    )


_GELU_CASES = _smooth_cases(approximate=False) + _smooth_cases(approximate=True)

GELU = _smooth("gelu", gelu, _gelu_reference, _gelu_element, _gelu_vjp, 24, _GELU_CASES)
SILU = _smooth("silu", silu, _silu_reference, _silu_element, _silu_vjp, 13, _smooth_cases())
SOFTPLUS = _smooth("softplus", softplus, _softplus_reference, _softplus_element, _softplus_vjp, 20, _smooth_cases())
SIGMOID = _smooth("sigmoid", sigmoid, _sigmoid_reference, _sigmoid_element, _sigmoid_vjp, 12, _smooth_cases())
TANH = _smooth("tanh", tanh, np.tanh, _tanh_element, _tanh_vjp, 12, _smooth_cases())
