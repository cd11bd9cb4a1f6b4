"""RMSprop."""

from __future__ import annotations

from typing import Any, Unpack

from chainrule import ops
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor
from chainrule.graph.variable import Variable
from chainrule.optimizers.optimizer import Optimizer
from chainrule.optimizers.options import OptimizerOptions, in_unit_interval
from chainrule.optimizers.schedules import Schedule

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """Steps divided by a running root mean square of the gradient.

    ``v = rho v + (1 - rho) g**2`` and ``w -= rate * g / sqrt(v + epsilon)``; with a momentum m that quotient
    is added to a velocity, ``u = m u + rate * g / sqrt(v + epsilon)``, and ``w -= u``.

    Args:
        learning_rate: 0.001 by default.
        rho: decay of the mean square, in [0, 1).
        momentum: in [0, 1).
        epsilon: keeps the quotient finite.
        options: as every optimizer's; see `CommonOptions`.

    Source: Tieleman and Hinton, Coursera lecture 6.5, 2012.

    >>> import chainrule as cr
    >>> cr.optimizers.RMSprop().get_config()["rho"]
    0.9
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = in_unit_interval(rho, "RMSprop: rho")
        self.momentum = in_unit_interval(momentum, "RMSprop: momentum")
        self.slots = ("v", "velocity") if self.momentum else ("v",)
        if not epsilon >= 0:
            raise ConfigError(f"RMSprop: epsilon must not be negative, got {epsilon!r}")
        self.epsilon = float(epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon}

    def update(self, variable: Variable, gradient: Tensor, slots: dict[str, Variable], rate: Tensor) -> None:
        v = slots["v"] * self.rho + gradient * gradient * (1 - self.rho)
        slots["v"].assign(v)
        change = rate * gradient / ops.sqrt(v + self.epsilon)
        if self.momentum:
            change = slots["velocity"] * self.momentum + change
            slots["velocity"].assign(change)
        variable.assign(variable - change)
