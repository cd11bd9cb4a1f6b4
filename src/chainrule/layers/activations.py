"""Activation functions by name, as layers take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from chainrule import ops
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor

__all__ = ["ActivationLike", "activation_name", "get_activation"]

ActivationLike: TypeAlias = str | Callable[[Tensor], Tensor] | None


def linear(x: Tensor) -> Tensor:
    """The identity: no activation."""
    return x


_NAMED: dict[str, Callable[..., Tensor]] = {
    "linear": linear,
    **{
        function.__name__: function
        for function in (
            ops.elu,
            ops.exp,
            ops.gelu,
            ops.leaky_relu,
            ops.log_softmax,
            ops.relu,
            ops.sigmoid,
            ops.silu,
            ops.softmax,
            ops.softplus,
            ops.tanh,
        )
    },
}


def get_activation(value: ActivationLike) -> Callable[[Tensor], Tensor]:
    """An activation from its name, a function, or None for none.

    Raises:
        ConfigError: no activation has that name.

    >>> get_activation("relu").__name__
    'relu'
    """
    if value is None:
        return linear
    if callable(value):
        return value
    try:
        return _NAMED[value]
    except (KeyError, TypeError):
        raise ConfigError(f"unknown activation {value!r}; expected one of {', '.join(sorted(_NAMED))}") from None


def activation_name(function: Callable[..., Any]) -> str:
    """The name that `get_activation` knows a function by.

    Raises:
        ConfigError: it is a function of the user's own, which a model file cannot hold.
    """
    for name, known in _NAMED.items():
        if known is function:
            return name
    raise ConfigError(
        f"the activation {function!r} is your own function, so it cannot be saved in a model file; "
        "make it a Layer subclass"
    )
