"""Penalties on weights that are added to the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from chainrule import ops
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor, as_tensor

__all__ = ["L1", "L1L2", "L2", "Regularizer", "RegularizerLike", "get_regularizer", "regularizer_config"]


class Regularizer(ABC):
    """Base class of the penalties that a layer takes: called with a weight, gives a scalar.

    Any function of a tensor serves as well, but a model file can hold these classes only.
    """

    @abstractmethod
    def __call__(self, weight: Any) -> Tensor:
        """The penalty for a weight."""


@dataclass(frozen=True)
class L1L2(Regularizer):
    """``l1 * sum(|w|) + l2 * sum(w**2)``; at 0 the gradient of ``|w|`` is 0.

    Weight decay as PyTorch's SGD has it is `l2` of half its size, since the gradient of ``l2 w**2`` is ``2 l2 w``.

    Args:
        l1, l2: factors, not negative.

    >>> import chainrule as cr
    >>> cr.regularizers.L1L2(1.0, 0.5)(cr.tensor([2.0, -2.0])).item()
    8.0
    """

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ConfigError(f"{type(self).__name__}: {name} must be a number >= 0, got {value!r}")

    def __call__(self, weight: Any) -> Tensor:
        w = as_tensor(weight)
        parts = []
        if self.l1:
            parts.append(ops.sum(ops.abs(w)) * self.l1)
        if self.l2:
            parts.append(ops.sum(w * w) * self.l2)
        return sum(parts[1:], start=parts[0]) if parts else ops.sum(w * 0.0)


def L1(l1: float = 0.01) -> L1L2:
    """``l1 * sum(|w|)``.

    >>> L1(0.5)
    L1L2(l1=0.5, l2=0.0)
    """
    return L1L2(l1, 0.0)


def L2(l2: float = 0.01) -> L1L2:
    """``l2 * sum(w**2)``.

    >>> L2(0.5)
    L1L2(l1=0.0, l2=0.5)
    """
    return L1L2(0.0, l2)


RegularizerLike: TypeAlias = "str | dict[str, Any] | Callable[[Any], Tensor] | None"

_NAMED: dict[str, Callable[[], L1L2]] = {"l1": L1, "l2": L2, "l1_l2": lambda: L1L2(0.01, 0.01)}


def get_regularizer(value: RegularizerLike) -> Callable[[Any], Tensor] | None:
    """A penalty from its name, its configuration, a function of a weight, or None for none.

    Raises:
        ConfigError: no penalty has that name.

    >>> get_regularizer("l2")
    L1L2(l1=0.0, l2=0.01)
    """
    if value is None:
        return None
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]()
    if isinstance(value, dict) and value.get("class") == "L1L2":
        return L1L2(**value["config"])
    if callable(value):
        return value
    raise ConfigError(f"unknown regularizer {value!r}; expected one of {', '.join(sorted(_NAMED))}, or a function")


def regularizer_config(value: Any) -> dict[str, Any]:
    """What `get_regularizer` needs to make the same penalty again."""
    if type(value) is not L1L2:
        raise ConfigError(f"the regularizer {value!r} is your own, so it cannot be saved in a model file")
    return {"class": "L1L2", "config": asdict(value)}
