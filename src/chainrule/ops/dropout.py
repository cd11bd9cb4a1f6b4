"""Dropout: a random mask times the input, the mask being a value of the graph."""

from __future__ import annotations

from typing import Any

from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor, as_tensor
from chainrule.ops.comparison import where
from chainrule.ops.random import random_bernoulli

__all__ = ["dropout"]


def dropout(x: Any, rate: float, *, seed: Any, time: Any, first_row: Any, stream: int) -> Tensor:
    """Set elements to 0 with probability `rate`, scale the rest: ``y = x * mask / (1 - rate)``.

    The mask is a node of its own (`random_bernoulli`), so the gradient ``dx = dy * mask / (1 - rate)`` reuses
    it, and the expectation of y is x.

    Args:
        x: float tensor.
        rate: in [0, 1).
        seed, time, first_row, stream: the key, as in `random_bits`.

    Raises:
        ConfigError: the rate is outside [0, 1).

    Source: Srivastava et al., JMLR 2014.

    >>> import chainrule as cr
    >>> y = cr.ops.dropout(cr.tensor([[1.0] * 8]), 0.5, stream=0, **cr.random.words(0)._asdict())
    >>> sorted(set(y.numpy().ravel().tolist()))
    [0.0, 2.0]
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"a dropout rate lies in [0, 1), got {rate}")
    values = as_tensor(x)
    if rate == 0:
        return values
    mask = random_bernoulli(seed, time, first_row, shape=values.shape, stream=stream, probability=1 - rate)
    return where(mask, values * (1 / (1 - rate)), 0)
