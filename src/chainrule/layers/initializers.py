"""Initial weights: Glorot, He, LeCun, and plain distributions, each drawn from a key of its own.

With ``fan_in`` and ``fan_out`` the number of inputs and outputs of one unit (for a convolution: channels
times the kernel's area), the variance of the weights is ``scale / n``: Glorot ``n = (fan_in + fan_out) / 2``,
He ``scale = 2, n = fan_in``, LeCun ``n = fan_in``.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from chainrule.errors import ConfigError
from chainrule.graph.op import Array, Spec
from chainrule.ops.random import random_normal, random_uniform
from chainrule.random import words

__all__ = [
    "Constant",
    "Initializer",
    "RandomNormal",
    "RandomUniform",
    "VarianceScaling",
    "get_initializer",
    "initializer_config",
]

_TRUNCATED_DEVIATION = 0.87962566103423978
"""Standard deviation of a standard normal number that is kept within two deviations."""


@dataclass(frozen=True)
class Initializer(ABC):
    """Makes a variable's first value; subclasses say how."""

    @abstractmethod
    def __call__(self, spec: Spec, seed: int, stream: str) -> Array:
        """The value for a spec; equal seeds and stream names give equal bits."""


@dataclass(frozen=True)
class Constant(Initializer):
    """Every element is `value`.

    >>> Constant(2.0)(Spec((2,), np.dtype("float32")), 0, "w").tolist()
    [2.0, 2.0]
    """

    value: float = 0.0

    def __call__(self, spec: Spec, seed: int, stream: str) -> Array:
        return np.full(spec.shape, self.value, spec.dtype)


@dataclass(frozen=True)
class RandomUniform(Initializer):
    """Uniform numbers in [minval, maxval)."""

    minval: float = -0.05
    maxval: float = 0.05

    def __call__(self, spec: Spec, seed: int, stream: str) -> Array:
        return (_uniform(spec, seed, stream) * (self.maxval - self.minval) + self.minval).astype(spec.dtype)


@dataclass(frozen=True)
class RandomNormal(Initializer):
    """Normal numbers."""

    mean: float = 0.0
    stddev: float = 0.05

    def __call__(self, spec: Spec, seed: int, stream: str) -> Array:
        return (_normal(spec, seed, stream, 0) * self.stddev + self.mean).astype(spec.dtype)


@dataclass(frozen=True)
class VarianceScaling(Initializer):
    """Numbers of variance ``scale / n``.

    Args:
        scale: see above.
        mode: n is ``"fan_in"``, ``"fan_out"`` or their mean ``"fan_avg"``.
        distribution: ``"uniform"``, or ``"truncated_normal"``: kept within two standard deviations.

    Source: Glorot and Bengio, AISTATS 2010; He, Zhang, Ren and Sun, ICCV 2015; LeCun et al., 1998.

    >>> weights = VarianceScaling(2.0, "fan_in")(Spec((1000, 10), np.dtype("float32")), 0, "w")
    >>> round(float(weights.var()) * 1000, 1)
    2.0
    """

    scale: float = 1.0
    mode: str = "fan_in"
    distribution: str = "truncated_normal"

    def __post_init__(self) -> None:
        if self.mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ConfigError(f"mode must be 'fan_in', 'fan_out' or 'fan_avg', got {self.mode!r}")
        if self.distribution not in ("uniform", "truncated_normal"):
            raise ConfigError(f"distribution must be 'uniform' or 'truncated_normal', got {self.distribution!r}")

    def __call__(self, spec: Spec, seed: int, stream: str) -> Array:
        fan_in, fan_out = fans(tuple(int(size) for size in spec.shape))
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(n, 1.0)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return ((_uniform(spec, seed, stream) * 2 - 1) * limit).astype(spec.dtype)
        deviation = math.sqrt(variance) / _TRUNCATED_DEVIATION
        return (_truncated_normal(spec, seed, stream) * deviation).astype(spec.dtype)


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inputs and outputs of one unit for a weight of this shape.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        size = shape[0] if shape else 1
        return size, size
    area = math.prod(shape[:-2])
    return shape[-2] * area, shape[-1] * area


def _uniform(spec: Spec, seed: int, stream: str) -> Array:
    key = words(seed)
    return random_uniform(*key, shape=spec.shape, stream=_number(stream), dtype=spec.dtype.name).data


def _normal(spec: Spec, seed: int, stream: str, attempt: int) -> Array:
    key = words(seed, time=attempt)
    return random_normal(*key, shape=spec.shape, stream=_number(stream), dtype=spec.dtype.name).data


def _truncated_normal(spec: Spec, seed: int, stream: str) -> Array:
    """Normal numbers within two deviations: each element's first draw that is."""
    values = _normal(spec, seed, stream, 0).copy()
    attempt = 0
    while (far := np.abs(values) > 2).any():
        attempt += 1
        values[far] = _normal(spec, seed, stream, attempt)[far]
    return values


def _number(stream: str) -> int:
    return zlib.crc32(f"initial/{stream}".encode())


_NAMED: dict[str, Callable[[], Initializer]] = {
    "zeros": Constant,
    "ones": lambda: Constant(1.0),
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "glorot_uniform": lambda: VarianceScaling(1.0, "fan_avg", "uniform"),
    "glorot_normal": lambda: VarianceScaling(1.0, "fan_avg"),
    "he_uniform": lambda: VarianceScaling(2.0, "fan_in", "uniform"),
    "he_normal": lambda: VarianceScaling(2.0, "fan_in"),
    "lecun_uniform": lambda: VarianceScaling(1.0, "fan_in", "uniform"),
    "lecun_normal": lambda: VarianceScaling(1.0, "fan_in"),
}
_CLASSES: dict[str, Callable[..., Initializer]] = {
    kind.__name__: kind for kind in (Constant, RandomUniform, RandomNormal, VarianceScaling)
}

InitializerLike: TypeAlias = str | dict[str, Any] | Initializer


def get_initializer(value: InitializerLike) -> Initializer:
    """An initializer from its name, its configuration, or itself.

    Raises:
        ConfigError: no initializer has that name.

    >>> get_initializer("he_normal")
    VarianceScaling(scale=2.0, mode='fan_in', distribution='truncated_normal')
    """
    if isinstance(value, Initializer):
        return value
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]()
    if isinstance(value, dict) and value.get("class") in _CLASSES:
        return _CLASSES[value["class"]](**value["config"])
    raise ConfigError(f"unknown initializer {value!r}; expected one of {', '.join(sorted(_NAMED))}")


def initializer_config(value: Initializer) -> dict[str, Any]:
    """What `get_initializer` needs to make the same initializer again."""
    if type(value).__name__ not in _CLASSES:
        raise ConfigError(f"the initializer {value!r} is your own, so it cannot be saved in a model file")
    return {"class": type(value).__name__, "config": asdict(value)}
