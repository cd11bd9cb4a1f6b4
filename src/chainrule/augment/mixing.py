"""Augmentations that mix samples with their neighbours in the batch, and labels with them."""

from __future__ import annotations

import math

import numpy as np

from chainrule import ops
from chainrule.augment.base import Augmentation, Key, Labels
from chainrule.augment.geometry import each
from chainrule.errors import ConfigError
from chainrule.graph.op import Array
from chainrule.graph.tensor import Tensor, tensor

__all__ = ["MixUp"]

_KNOTS = 1025  # of the table that turns even draws into those of a beta distribution


class MixUp(Augmentation):
    """Blends each sample with the next of its batch: ``share * x[i] + (1 - share) * x[i + 1]``.

    The loss of the blend is that of both labels by their shares, whatever the loss.  Shares are drawn from a beta
    distribution, and the larger one stays with the sample itself.

    Args:
        alpha: both parameters of the distribution: near 0 blends little, 1 is even.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz, ICLR 2018.

    >>> MixUp(0.2)
    MixUp(alpha=0.2)
    """

    def __init__(self, alpha: float = 0.2) -> None:
        if not 0 < alpha <= 100:
            raise ConfigError(f"MixUp: alpha lies in (0, 100], got {alpha!r}")
        self.alpha = float(alpha)

    def change(self, x: Tensor, key: Key) -> Tensor:
        return self.apply(x, [], key)[0]

    def apply(self, x: Tensor, labels: Labels, key: Key) -> tuple[Tensor, Labels]:
        share = self._shares(key.uniform())
        own = each(share)
        mixed = x * own + _next(x) * (1 - own)
        flat = ops.squeeze(share, -1)
        parts: Labels = []
        for y, weight in labels:
            parts.append((y, flat if weight is None else weight * flat))
            parts.append((_next(y), (1 - flat) if weight is None else _next(weight) * (1 - flat)))
        return mixed, parts

    def _shares(self, even: Tensor) -> Tensor:
        table = _beta_quantiles(self.alpha)
        place = even * float(_KNOTS - 1)
        low = ops.cast(place, "int32")
        rest = place - ops.cast(low, "float32")
        knots = tensor(table.astype(np.float32))
        share = ops.gather(knots, low) * (1 - rest) + ops.gather(knots, low + tensor(np.array(1, np.int32))) * rest
        return ops.maximum(share, 1 - share)


def _next(x: Tensor) -> Tensor:
    """Each sample's neighbour; the last one's is the first."""
    number = ops.arange(x.shape[0]) + tensor(np.array(1, np.int32))
    first = ops.equal(number, ops.cast(ops.element_count(ops.cast(number, "float64")), "int32"))
    return ops.gather(x, ops.where(first, tensor(np.array(0, np.int32)), number))


def _beta_quantiles(alpha: float) -> Array:
    """Quantiles of the symmetric beta distribution at even steps from 0 to 1, to about 1e-4.

    The density is integrated in ``t``, ``x = sin(t)**2``, where it is ``sin(2 t)**(2 alpha - 1)`` and has its poles
    (for a small alpha) at the ends; there the integral over the first cell is known.
    """
    cells = 1 << 16
    edges = np.linspace(0, math.pi / 4, cells + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    mass = np.sin(2 * middles) ** (2 * alpha - 1)
    mass[0] = (2 * edges[1]) ** (2 * alpha) / (4 * alpha * edges[1])
    lower = np.concatenate([[0.0], np.cumsum(mass)])
    lower /= 2 * lower[-1]
    half = np.interp(np.linspace(0, 0.5, (_KNOTS + 1) // 2), lower, np.sin(edges) ** 2)
    return np.append(np.concatenate([half, 1 - half[-2::-1]]), 1.0)
