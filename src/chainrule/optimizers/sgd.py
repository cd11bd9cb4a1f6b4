"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, Unpack

from chainrule.graph.tensor import Tensor
from chainrule.graph.variable import Variable
from chainrule.optimizers.optimizer import Optimizer
from chainrule.optimizers.options import OptimizerOptions, in_unit_interval
from chainrule.optimizers.schedules import Schedule

__all__ = ["SGD"]


class SGD(Optimizer):
    """``w -= rate * g``; with momentum m and velocity v: ``v = m v - rate g`` and ``w += v``.

    With Nesterov's momentum ``w += m v - rate g``, v being the new velocity.

    Args:
        learning_rate: 0.01 by default.
        momentum: in [0, 1).
        nesterov: look ahead along the velocity.
        options: as every optimizer's; see `CommonOptions`.

    Source: Sutskever, Martens, Dahl and Hinton, ICML 2013.

    >>> import chainrule as cr
    >>> cr.optimizers.SGD(0.1, momentum=0.9).momentum
    0.9
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = in_unit_interval(momentum, "SGD: momentum")
        self.nesterov = bool(nesterov)
        self.slots = ("velocity",) if self.momentum else ()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}

    def update(self, variable: Variable, gradient: Tensor, slots: dict[str, Variable], rate: Tensor) -> None:
        change = gradient * rate
        if not self.momentum:
            variable.assign(variable - change)
            return
        velocity = slots["velocity"] * self.momentum - change
        slots["velocity"].assign(velocity)
        variable.assign(variable + (velocity * self.momentum - change if self.nesterov else velocity))
