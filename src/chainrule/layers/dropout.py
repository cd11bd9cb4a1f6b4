"""Dropout as a layer."""

from __future__ import annotations

from typing import Any

from chainrule import ops
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor
from chainrule.layers.layer import Layer
from chainrule.random import draw

__all__ = ["Dropout"]


class Dropout(Layer):
    """Set a random part of the elements to 0 in training, scale the rest by ``1 / (1 - rate)``.

    The mask depends on the seed, the step, the sample's place in the batch and this layer's path, and on
    nothing else: not on threads, not on other layers.

    Args:
        rate: probability of 0, in [0, 1).

    >>> import chainrule as cr
    >>> cr.layers.Dropout(0.5)(cr.tensor([[1.0, 1.0]])).numpy().tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ConfigError(f"layer {self.path!r}: rate must lie in [0, 1), got {rate!r}")
        self.rate = float(rate)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        if not training or self.rate == 0:
            return x
        return ops.dropout(x, self.rate, **draw("dropout"))
