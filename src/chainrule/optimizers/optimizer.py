"""What all optimizers share: a learning rate, a step counter, and slots beside each parameter.

An update is written with ops and runs eagerly or inside a traced step alike.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule import ops
from chainrule.errors import ConfigError, GradientError
from chainrule.graph.op import Spec
from chainrule.graph.tensor import Tensor, as_tensor, no_grad, tensor
from chainrule.graph.variable import Variable

__all__ = ["Optimizer", "get_optimizer"]

_CLASSES: dict[str, Callable[..., Optimizer]] = {}


class Optimizer(ABC):
    """Base class: subclasses write `update` and name their `slots`.

    Args:
        learning_rate: step size; a run-time input of a compiled step, so it may change between steps.

    Attributes:
        iterations: how many steps were taken.
    """

    slots: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _CLASSES[cls.__name__.lower()] = cls

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.iterations = Variable(
            np.array(0, np.uint32), name=f"{type(self).__name__.lower()}/iterations", trainable=False
        )
        self._served: weakref.ref[object] | None = None
        self._slots: dict[int, dict[str, Variable]] = {}

    @property
    def learning_rate(self) -> float:
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not value >= 0:
            raise ConfigError(f"{type(self).__name__}: a learning rate is a number >= 0, got {value!r}")
        self._learning_rate = float(value)

    def serve(self, model: object) -> None:
        """Belong to one model: two would share the step counter.

        Raises:
            ConfigError: this optimizer serves another model.
        """
        served = None if self._served is None else self._served()
        if served is not None and served is not model:
            raise ConfigError(f"this {type(self).__name__} serves another model; make one optimizer for each model")
        self._served = weakref.ref(model)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"learning_rate": self.learning_rate}

    def variables(self) -> list[Variable]:
        """The step counter and every slot made so far."""
        return [self.iterations, *(slot for slots in self._slots.values() for slot in slots.values())]

    @abstractmethod
    def update(self, variable: Variable, gradient: Tensor, slots: dict[str, Variable], rate: Tensor) -> None:
        """Assign the variable and its slots their next values.

        Args:
            variable: the parameter.
            gradient: its gradient.
            slots: its slots by name.
            rate: what `effective_rate` gave, a scalar of the variable's dtype.
        """

    def effective_rate(self, rate: Tensor, count: Tensor) -> Tensor:
        """The step size of step number `count` (from 1); both are float64 scalars, computed once a step."""
        return rate

    def apply(
        self, gradients: Sequence[Tensor | None], variables: Sequence[Variable], learning_rate: Any = None
    ) -> None:
        """Take one step: update every variable by its gradient, and count the step."""
        if len(gradients) != len(variables):
            raise GradientError(f"{len(gradients)} gradients for {len(variables)} variables")
        rate = as_tensor(tensor(self.learning_rate, "float64") if learning_rate is None else learning_rate)
        self.iterations.assign(self.iterations + tensor(np.array(1, np.uint32)))
        rate = self.effective_rate(rate, ops.cast(self.iterations, "float64"))
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is None:
                raise GradientError(f"variable {variable.name!r} has no gradient; leave it out of this step")
            self.update(variable, gradient, self._slots_of(variable), ops.cast(rate, variable.dtype))

    def step(self, parameters: Sequence[Variable]) -> None:
        """Take one step from the gradients that `backward` left in the parameters.

        Raises:
            GradientError: no parameter has a gradient.

        >>> import chainrule as cr
        >>> w = cr.Variable([1.0], name="w")
        >>> (w * 3).sum().backward()
        >>> cr.optimizers.SGD(0.1).step([w])
        >>> round(w.numpy()[0].item(), 4)
        0.7
        """
        pairs = [(p.grad, p) for p in parameters if p.grad is not None]
        if not pairs:
            raise GradientError("step(): no parameter has a gradient; call loss.backward() first")
        with no_grad():
            self.apply([g for g, _ in pairs], [p for _, p in pairs])

    def zero_grad(self, parameters: Sequence[Variable]) -> None:
        """Forget the parameters' gradients; `backward` adds to what is there."""
        for parameter in parameters:
            parameter.grad = None

    def _slots_of(self, variable: Variable) -> dict[str, Variable]:
        if id(variable) not in self._slots:
            kind = type(self).__name__.lower()
            self._slots[id(variable)] = {
                name: Variable(_zeros, variable.spec, name=f"{kind}/{variable.name}/{name}", trainable=False)
                for name in self.slots
            }
        return self._slots[id(variable)]


def _zeros(spec: Spec) -> Any:
    return np.zeros(spec.shape, spec.dtype)


def in_unit_interval(value: Any, what: str) -> float:
    """A decay rate.

    Raises:
        ConfigError: outside [0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{what} lies in [0, 1), got {value!r}")
    return float(value)


def get_optimizer(value: Any) -> Optimizer:
    """An optimizer from its name, its configuration, or itself.

    Raises:
        ConfigError: no optimizer has that name.

    >>> get_optimizer("adam").learning_rate
    0.001
    """
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, type) and issubclass(value, Optimizer):
        value = value.__name__
    if isinstance(value, str) and value.lower() in _CLASSES:
        return _CLASSES[value.lower()]()
    if isinstance(value, dict) and str(value.get("class")).lower() in _CLASSES:
        return _CLASSES[value["class"].lower()](**value["config"])
    raise ConfigError(f"unknown optimizer {value!r}; expected one of {', '.join(sorted(_CLASSES))}, or an Optimizer")
