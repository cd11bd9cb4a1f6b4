"""Augmentations of values: brightness, contrast, saturation, hue, noise, and patches that are blotted out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule import ops
from chainrule.augment.base import Augmentation, Key
from chainrule.augment.geometry import centre_mask, cosine, each, sine, size_of_axis, within_half_a_turn
from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor, tensor

__all__ = ["Cutout", "GaussianNoise", "RandomColour"]

# From red, green and blue to luminance and two chrominances, and back.  Source: ITU-R BT.601.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


class RandomColour(Augmentation):
    """Changes brightness, contrast, saturation and hue of each sample by even draws.

    ``x' = ((x - m) * contrast + m) + brightness``, m being the sample's mean; saturation scales the distance of a
    pixel from its grey, hue turns its chrominance.

    Args:
        brightness: share of the range by which values are moved at most.
        contrast: by which the factor differs from 1 at most.
        saturation: the same for saturation; for pictures of three colours.
        hue: share of a full turn to either side at most; for pictures of three colours.
        value_range: black and white; results are kept within.

    >>> RandomColour(brightness=0.1).brightness
    0.1
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        value_range: tuple[float, float] = (0.0, 255.0),
    ) -> None:
        for name, value in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
            ("hue", hue),
        ):
            if not 0 <= value <= 1:
                raise ConfigError(f"RandomColour: {name} lies in [0, 1], got {value!r}")
        self.brightness, self.contrast = float(brightness), float(contrast)
        self.saturation, self.hue = float(saturation), float(hue)
        self.value_range = (float(value_range[0]), float(value_range[1]))
        if not self.value_range[0] < self.value_range[1]:
            raise ConfigError(f"RandomColour: value_range must rise, got {value_range!r}")

    def change(self, x: Tensor, key: Key) -> Tensor:
        low, high = self.value_range
        if (self.saturation or self.hue) and size_of_axis(x, 3) != 3:
            raise ConfigError(f"RandomColour: saturation and hue need three colours, got {x.spec}")
        if self.hue:
            x = _turned(x, each(key.uniform(-self.hue, self.hue) * (2 * math.pi)))
        if self.saturation:
            grey = _mixed(x, _TO_YIQ[:1])
            x = grey + (x - grey) * each(key.uniform(1 - self.saturation, 1 + self.saturation))
        if self.contrast:
            mean = ops.mean(x, axis=(1, 2, 3), keepdims=True)
            x = mean + (x - mean) * each(key.uniform(1 - self.contrast, 1 + self.contrast))
        if self.brightness:
            x = x + each(key.uniform(-self.brightness, self.brightness) * (high - low))
        return ops.clip(x, low, high)


def _turned(x: Tensor, angle: Tensor) -> Tensor:
    """Chrominance turned by an angle."""
    y, i, q = (_mixed(x, _TO_YIQ[n : n + 1]) for n in range(3))
    angle = within_half_a_turn(angle)
    c, s = cosine(angle), sine(angle)
    turned = ops.concat([y, i * c - q * s, i * s + q * c], axis=-1)
    return _mixed(turned, np.linalg.inv(_TO_YIQ))


def _mixed(x: Tensor, weights: Any) -> Tensor:
    """Each colour of the result as a mixture of those of x."""
    return ops.matmul(x, tensor(np.ascontiguousarray(weights.T, np.float32)))


class GaussianNoise(Augmentation):
    """Adds normal noise to every value.

    Args:
        stddev: its deviation, in the units of the data.

    >>> GaussianNoise(5)
    GaussianNoise(stddev=5.0)
    """

    def __init__(self, stddev: float) -> None:
        if not stddev >= 0:
            raise ConfigError(f"GaussianNoise: stddev must be a number >= 0, got {stddev!r}")
        self.stddev = float(stddev)

    def change(self, x: Tensor, key: Key) -> Tensor:
        return x + key.normal([size_of_axis(x, axis) for axis in (1, 2, 3)]) * self.stddev


class Cutout(Augmentation):
    """Blots out a square of each sample, whose centre lies anywhere in it.

    Args:
        size: pixels of a side.
        fill: the square's value.
        probability: how many samples get one.

    Source: DeVries and Taylor, arXiv:1708.04552, 2017.

    >>> Cutout(8)
    Cutout(size=8, fill=0.0, probability=1.0)
    """

    def __init__(self, size: int, fill: float = 0.0, probability: float = 1.0) -> None:
        if isinstance(size, bool) or not size > 0:
            raise ConfigError(f"Cutout: size must be a positive number of pixels, got {size!r}")
        if not 0 <= probability <= 1:
            raise ConfigError(f"Cutout: probability lies in [0, 1], got {probability!r}")
        self.size, self.fill, self.probability = size, float(fill), float(probability)

    def change(self, x: Tensor, key: Key) -> Tensor:
        inside = centre_mask(x, key.uniform(), key.uniform(), float(self.size))
        chosen = each(key.uniform() < self.probability)
        return ops.where(ops.logical_and(inside, chosen), self.fill, x)
