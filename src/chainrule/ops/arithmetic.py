"""Broadcasting arithmetic: add, subtract, multiply, divide, negative, power.

Shapes broadcast as in NumPy; both operands have one dtype, and a Python number takes the tensor's.
The gradient of an operand that was broadcast is summed back to its shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.errors import DTypeError
from chainrule.graph.cases import Arg, case, convention
from chainrule.graph.lowering import Elementwise
from chainrule.graph.op import Array, Op, Spec, Trait, per_element, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor, lift
from chainrule.ops._rules import broadcast, require_float, same_shape
from chainrule.ops.broadcast import unbroadcast

__all__ = ["add", "divide", "multiply", "negative", "power", "subtract"]


def add(a: Any, b: Any) -> Tensor:
    """``y = a + b``.  Gradients: ``da = dy``, ``db = dy``.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) + 1).numpy().tolist()
    [2.0, 3.0]
    """
    return apply(ADD, *lift(a, b))


def subtract(a: Any, b: Any) -> Tensor:
    """``y = a - b``.  Gradients: ``da = dy``, ``db = -dy``.

    >>> import chainrule as cr
    >>> (1 - cr.tensor([1.0, 2.0])).numpy().tolist()
    [0.0, -1.0]
    """
    return apply(SUBTRACT, *lift(a, b))


def multiply(a: Any, b: Any) -> Tensor:
    """``y = a * b``, elementwise.  Gradients: ``da = dy * b``, ``db = dy * a``.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) * 3).numpy().tolist()
    [3.0, 6.0]
    """
    return apply(MULTIPLY, *lift(a, b))


def divide(a: Any, b: Any) -> Tensor:
    """``y = a / b`` of float tensors.  Gradients: ``da = dy / b``, ``db = -dy * y / b``.

    >>> import chainrule as cr
    >>> (cr.tensor([1.0, 2.0]) / 2).numpy().tolist()
    [0.5, 1.0]
    """
    return apply(DIVIDE, *lift(a, b))


def negative(x: Any) -> Tensor:
    """``y = -x``.  Gradient: ``dx = -dy``.

    >>> import chainrule as cr
    >>> (-cr.tensor([1.0, -2.0])).numpy().tolist()
    [-1.0, 2.0]
    """
    return apply(NEGATIVE, as_tensor(x))


def power(a: Any, b: Any) -> Tensor:
    """``y = a ** b`` of float tensors.

    Gradients: ``da = dy * b * a**(b-1)``, and 0 where b is 0; ``db = dy * y * log(a)``, and 0 where a is 0.
    A negative base with a fractional exponent gives NaN.

    >>> import chainrule as cr
    >>> (cr.tensor([2.0, 3.0]) ** 2).numpy().tolist()
    [4.0, 9.0]
    """
    return apply(POWER, *lift(a, b))


def _number_broadcast(a: Spec, b: Spec) -> Spec:
    result = broadcast(a, b)
    if result.dtype == np.dtype(bool):
        raise DTypeError("bool tensors have no arithmetic; use & and |, or .astype('int32') first")
    return result


def _float_broadcast(a: Spec, b: Spec) -> Spec:
    require_float(a, b)
    return broadcast(a, b)


def _add_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = node.inputs
    return unbroadcast(g, a), unbroadcast(g, b)


def _subtract_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = node.inputs
    return unbroadcast(g, a), unbroadcast(-g, b)


def _multiply_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = node.inputs
    return unbroadcast(g * b, a), unbroadcast(g * a, b)


def _divide_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = node.inputs
    scaled = g / b
    return unbroadcast(scaled, a), unbroadcast(-scaled * node.outputs[0], b)


def _negative_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (-g,)


def _power_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    from chainrule.ops.comparison import where
    from chainrule.ops.exponential import log

    a, b = node.inputs
    slope = where(b == 0, 0, b * power(a, where(b == 0, 1, b - 1)))
    growth = where(a == 0, 0, node.outputs[0] * log(where(a == 0, 1, a)))
    return unbroadcast(g * slope, a), unbroadcast(g * growth, b)


def _power_reference(a: Array, b: Array) -> Array:
    result: Array = np.power(a, b)
    return result


def _divide_reference(a: Array, b: Array) -> Array:
    result: Array = np.divide(a, b)
    return result


def _add_element(k: Any, a: Any, b: Any) -> Any:
    return a + b


def _subtract_element(k: Any, a: Any, b: Any) -> Any:
    return a - b


def _multiply_element(k: Any, a: Any, b: Any) -> Any:
    return a * b


def _divide_element(k: Any, a: Any, b: Any) -> Any:
    return a / b


def _negative_element(k: Any, x: Any) -> Any:
    return -x


def _power_element(k: Any, a: Any, b: Any) -> Any:
    return k.call("power", a, b)


_ELEMENTWISE = frozenset({Trait.ELEMENTWISE})
_BILINEAR = frozenset({Trait.ELEMENTWISE, Trait.LINEAR})
_BROADCASTS = (case((2, 3), (2, 3)), case((2, 3), (3,)), case((2, 1, 3), (4, 1)), case((), (2, 2)))
_POSITIVE = Arg((2, 3), low=0.3, high=2.0)
_NONZERO = Arg((3,), low=-2.0, high=2.0, avoid=(0.0,), gap=0.25)

ADD = register(
    Op(
        "add",
        add,
        _number_broadcast,
        np.add,
        _add_vjp,
        per_element(1),
        traits=_ELEMENTWISE,
        cases=_BROADCASTS,
        lowering=(Elementwise(_add_element),),
    )
)
SUBTRACT = register(
    Op(
        "subtract",
        subtract,
        _number_broadcast,
        np.subtract,
        _subtract_vjp,
        per_element(1),
        traits=_ELEMENTWISE,
        cases=_BROADCASTS,
        lowering=(Elementwise(_subtract_element),),
    )
)
MULTIPLY = register(
    Op(
        "multiply",
        multiply,
        _number_broadcast,
        np.multiply,
        _multiply_vjp,
        per_element(1),
        traits=_BILINEAR,
        cases=_BROADCASTS,
        lowering=(Elementwise(_multiply_element),),
    )
)
DIVIDE = register(
    Op(
        "divide",
        divide,
        _float_broadcast,
        _divide_reference,
        _divide_vjp,
        per_element(1),
        traits=_BILINEAR,
        cases=(case((2, 3), _NONZERO), case((3,), Arg((2, 3), low=0.5, high=2.0))),
        lowering=(Elementwise(_divide_element),),
    )
)
NEGATIVE = register(
    Op(
        "negative",
        negative,
        same_shape,
        np.negative,
        _negative_vjp,
        per_element(1),
        traits=_BILINEAR,
        cases=(case((2, 3)), case(())),
        lowering=(Elementwise(_negative_element),),
    )
)
POWER = register(
    Op(
        "power",
        power,
        _float_broadcast,
        _power_reference,
        _power_vjp,
        per_element(20),
        traits=_ELEMENTWISE,
        cases=(case(_POSITIVE, (2, 3)), case(_POSITIVE, (3,)), case(_POSITIVE, ())),
        conventions=(
            convention(
                "power: d(a**b)/da is 0 where b is 0, and d(a**b)/db is 0 where a is 0",
                [[0.0, 2.0, 0.0], [0.0, 0.0, 2.0]],
                [1.0, 1.0, 1.0],
                [[0.0, 0.0, 0.0], [0.0, np.log(2.0), 0.0]],
            ),
        ),
        lowering=(Elementwise(_power_element, cheap=False),),
    )
)
