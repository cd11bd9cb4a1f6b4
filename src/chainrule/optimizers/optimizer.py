"""What all optimizers share: a learning rate, a step counter, and slots beside each parameter.

An update is written with ops and runs eagerly or inside a traced step alike.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np

from chainrule import ops
from chainrule.errors import ConfigError, GradientError
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Tensor, as_tensor, no_grad, tensor
from chainrule.graph.variable import Variable
from chainrule.optimizers.options import CommonOptions, OptimizerOptions
from chainrule.optimizers.schedules import Schedule, described, get_schedule

__all__ = ["AVERAGE", "Optimizer", "get_optimizer"]

_CLASSES: dict[str, Callable[..., Optimizer]] = {}

AVERAGE = "average"
"""The slot of a weight's running average."""
SUM = "gradient_sum"
"""The slot of a weight's gradients that wait for their update."""


class Optimizer(ABC):
    """Base class: subclasses write `update` and name their `slots`.

    Args:
        learning_rate: step size, or a `Schedule`; a run-time input of a compiled step, so it may change between steps.
        options: decay, clipping, averages, accumulation and rates by layer; see `CommonOptions`.

    Attributes:
        iterations: how many steps were taken.
        options: the checked options.
    """

    slots: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _CLASSES[cls.__name__.lower()] = cls

    def __init__(self, learning_rate: float | Schedule, **options: Unpack[OptimizerOptions]) -> None:
        kind = type(self).__name__
        self.learning_rate = get_schedule(learning_rate)
        self.options = CommonOptions.checked(kind, options)
        self.iterations = Variable(np.array(0, np.uint32), name=f"{kind.lower()}/iterations", trainable=False)
        self._served: weakref.ref[object] | None = None
        self._slots: dict[int, dict[str, Variable]] = {}

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self._learning_rate if self.schedule is None else self.schedule(int(self.iterations.data))

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self.schedule: Schedule | None = value if isinstance(value, Schedule) else None
        if self.schedule is not None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not value >= 0:
            raise ConfigError(
                f"{type(self).__name__}: a learning rate is a number >= 0 or a schedule of them, got {value!r}"
            )
        self._learning_rate = float(value)

    def rates(self, first: int, count: int) -> Array:
        """The learning rates of so many steps from a step number on."""
        if self.schedule is None:
            return np.full(count, self._learning_rate)
        return np.asarray(self.schedule.rates(np.arange(first, first + count, dtype=np.float64)), np.float64)

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
        rate = self._learning_rate if self.schedule is None else described(self.schedule)
        return {"learning_rate": rate, **self.options.config()}

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
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is None:
                raise GradientError(f"variable {variable.name!r} has no gradient; leave it out of this step")
        self._check_multipliers(variables)
        base = as_tensor(tensor(self.learning_rate, "float64") if learning_rate is None else learning_rate)
        self.iterations.assign(self.iterations + tensor(np.array(1, np.uint32)))
        count = ops.cast(self.iterations, "float64")
        rate = self.effective_rate(base, count)
        clipped = self.options.clipped([gradient for gradient in gradients if gradient is not None])
        for gradient, variable in zip(clipped, variables, strict=True):
            self._apply_one(variable, gradient, base, rate, count)

    def _apply_one(self, variable: Variable, gradient: Tensor, base: Tensor, rate: Tensor, count: Tensor) -> None:
        options, slots = self.options, self._slots_of(variable)
        factor = options.multiplier(variable.name)
        if factor != 1:
            base, rate = base * factor, rate * factor
        if options.decays(variable.name):
            assert options.weight_decay is not None
            variable.assign(variable - variable * ops.cast(base * options.weight_decay, variable.dtype))
        self.update(variable, gradient, slots, ops.cast(rate, variable.dtype))
        if options.use_ema:
            kept = ops.cast(ops.cast(count > 1, "float64") * options.ema_momentum, variable.dtype)
            slots[AVERAGE].assign(slots[AVERAGE] * kept + variable * (1 - kept))

    def make_slots(self, variables: Sequence[Variable]) -> None:
        """Make the slots of these parameters, which otherwise are made at their first step."""
        for variable in variables:
            self._slots_of(variable)

    def accumulate(self, gradients: Sequence[Tensor], variables: Sequence[Variable]) -> None:
        """Add to the sums of gradients that `apply_accumulated` takes."""
        for gradient, variable in zip(gradients, variables, strict=True):
            total = self._slots_of(variable)[SUM]
            total.assign(total + gradient)

    def apply_accumulated(self, variables: Sequence[Variable], learning_rate: Any = None) -> None:
        """Take one step from the sums of gradients, and begin them anew."""
        sums = [self._slots_of(variable)[SUM] for variable in variables]
        self.apply([total.__tensor__() for total in sums], variables, learning_rate)
        for total in sums:
            total.assign(ops.broadcast_to(tensor(0.0, total.dtype), total.shape))

    def _check_multipliers(self, variables: Sequence[Variable]) -> None:
        for start in self.options.rate_multipliers or {}:
            if not any(v.name == start or v.name.startswith(f"{start}/") for v in variables):
                names = ", ".join(variable.name for variable in variables)
                raise ConfigError(
                    f"{type(self).__name__}: a rate multiplier is for {start!r}, but no weight's name begins so; "
                    f"the weights are {names}"
                )

    def average_of(self, variable: Variable) -> Variable:
        """The running average of a weight.

        Raises:
            ConfigError: the optimizer keeps none.
        """
        if not self.options.use_ema:
            raise ConfigError(f"{type(self).__name__} keeps no averages; make it with use_ema=True")
        return self._slots_of(variable)[AVERAGE]

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
                name: Variable(
                    self._beginning(name, variable),
                    variable.spec,
                    name=f"{kind}/{variable.name}/{name}",
                    trainable=False,
                )
                for name in (*self.slots, *self._common_slots())
            }
        return self._slots[id(variable)]

    def _beginning(self, name: str, variable: Variable) -> Any:
        """What a slot begins with: 0, but for the average of a weight that joins later, such as an unfrozen one."""
        return variable.numpy() if name == AVERAGE and int(self.iterations.data) else _zeros

    def _common_slots(self) -> list[str]:
        return [AVERAGE] * self.options.use_ema + [SUM] * (self.options.accumulated > 1)


def _zeros(spec: Spec) -> Any:
    return np.zeros(spec.shape, spec.dtype)


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
