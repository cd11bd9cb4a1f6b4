"""Gradients of functions: `grad`, `value_and_grad` and `vjp`, which nest to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chainrule.autodiff.backward import gradients
from chainrule.errors import GradientError
from chainrule.graph.operators import call_op
from chainrule.graph.tensor import Tensor, as_tensor, recording, tensor

__all__ = ["grad", "value_and_grad", "vjp"]


def vjp(function: Callable[..., Tensor], *inputs: Any) -> tuple[Tensor, Callable[[Any], tuple[Tensor, ...]]]:
    """The value of a function, and the map from a cotangent of it to cotangents of the inputs.

    >>> import chainrule as cr
    >>> y, pull_back = cr.vjp(lambda x: x * x, cr.tensor([1.0, 2.0]))
    >>> pull_back(cr.tensor([1.0, 10.0]))[0].numpy().tolist()
    [2.0, 40.0]
    """
    variables = [_fresh(value) for value in inputs]
    with recording(True):
        output = _result(function(*variables))

    def pull_back(cotangent: Any) -> tuple[Tensor, ...]:
        found = gradients(output, variables, [as_tensor(cotangent, output)])
        return tuple(_or_zero(g, x) for g, x in zip(found, variables, strict=True))

    return output, pull_back


def value_and_grad(
    function: Callable[..., Tensor], argnums: int | Sequence[int] = 0
) -> Callable[..., tuple[Tensor, Any]]:
    """A function that gives ``(value, gradient)`` of a scalar function.

    Args:
        function: takes tensors, returns a scalar tensor.
        argnums: the argument to differentiate by; a sequence gives a tuple of gradients.

    >>> import chainrule as cr
    >>> value, slope = cr.value_and_grad(lambda x: x**3)(2.0)
    >>> value.item(), slope.item()
    (8.0, 12.0)
    """
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def differentiated(*args: Any) -> tuple[Tensor, Any]:
        if any(not -len(args) <= number < len(args) for number in numbers):
            raise GradientError(f"argnums={argnums} for a function called with {len(args)} arguments")
        values = list(args)
        for number in numbers:
            values[number] = _fresh(values[number])
        with recording(True):
            output = _result(function(*values))
        variables = [values[number] for number in numbers]
        found = gradients(output, variables)
        result = tuple(_or_zero(g, x) for g, x in zip(found, variables, strict=True))
        return output, result[0] if isinstance(argnums, int) else result

    return differentiated


def grad(function: Callable[..., Tensor], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The gradient of a scalar function, as a function; apply it twice for the second derivative.

    Args: as `value_and_grad`.

    >>> import chainrule as cr
    >>> cr.grad(cr.grad(lambda x: x**3))(2.0).item()
    12.0
    """
    both = value_and_grad(function, argnums)

    def gradient(*args: Any) -> Any:
        return both(*args)[1]

    return gradient


def _result(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise GradientError(
            f"a function to be differentiated must return a tensor; it returned {type(output).__name__}"
        )
    return output


def _fresh(value: Any) -> Tensor:
    """A tensor with an identity of its own, so that nested gradients do not mix their variables."""
    given = as_tensor(value)
    if not given.spec.is_float:
        raise GradientError(f"only float tensors have gradients; got {given.spec}")
    if given.requires_grad:
        return call_op("identity", given)
    return tensor(given, requires_grad=True)


def _or_zero(gradient: Tensor | None, variable: Tensor) -> Tensor:
    if gradient is not None:
        return gradient
    zero = tensor(0, variable.dtype)
    if variable.node is not None and variable.node.graph is not None:
        zero = variable.node.graph.constant(zero)
    return call_op("broadcast_to", zero, variable.shape)
