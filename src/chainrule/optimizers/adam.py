"""Adam."""

from __future__ import annotations

from typing import Any, Unpack

from chainrule import ops
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor, tensor
from chainrule.graph.variable import Variable
from chainrule.optimizers.optimizer import Optimizer
from chainrule.optimizers.options import OptimizerOptions, in_unit_interval
from chainrule.optimizers.schedules import Schedule

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Steps scaled by running moments of the gradient.

    At step t: ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g**2``,
    ``w -= rate * sqrt(1 - b2**t) / (1 - b1**t) * m / (sqrt(v) + epsilon)``.

    The corrections are computed in float64.  This is Keras's placing of epsilon; PyTorch adds it to the
    corrected root.

    Args:
        learning_rate: 0.001 by default.
        beta_1, beta_2: decay of the moments, in [0, 1).
        epsilon: keeps the quotient finite.
        options: as every optimizer's; see `CommonOptions`.

    Source: Kingma and Ba, ICLR 2015 (the form before section 2.1).

    >>> import chainrule as cr
    >>> cr.optimizers.Adam().get_config()["beta_2"]
    0.999
    """

    slots = ("m", "v")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = in_unit_interval(beta_1, "Adam: beta_1")
        self.beta_2 = in_unit_interval(beta_2, "Adam: beta_2")
        if not epsilon >= 0:
            raise ConfigError(f"Adam: epsilon must not be negative, got {epsilon!r}")
        self.epsilon = float(epsilon)

    def get_config(self) -> dict[str, Any]:
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own}

    def update(self, variable: Variable, gradient: Tensor, slots: dict[str, Variable], rate: Tensor) -> None:
        m = slots["m"] * self.beta_1 + gradient * (1 - self.beta_1)
        v = slots["v"] * self.beta_2 + gradient * gradient * (1 - self.beta_2)
        slots["m"].assign(m)
        slots["v"].assign(v)
        variable.assign(variable - rate * m / (ops.sqrt(v) + self.epsilon))

    def effective_rate(self, rate: Tensor, count: Tensor) -> Tensor:
        first = 1 - tensor(self.beta_1, "float64") ** count
        second = 1 - tensor(self.beta_2, "float64") ** count
        return rate * ops.sqrt(second) / first


class AdamW(Adam):
    """`Adam` with decoupled weight decay: before each update ``w -= rate * weight_decay * w``.

    Args:
        learning_rate, beta_1, beta_2, epsilon: as `Adam`.
        options: as every optimizer's; `weight_decay` is 0.004 by default, as in Keras (PyTorch's default is 0.01).

    Source: Loshchilov and Hutter, ICLR 2019.

    >>> import chainrule as cr
    >>> cr.optimizers.AdamW(1e-3, weight_decay=0.01).options.weight_decay
    0.01
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        if "weight_decay" not in options:
            options["weight_decay"] = 0.004
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight_decay": self.options.weight_decay}
