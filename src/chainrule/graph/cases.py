"""How an op states its test inputs: cases with random inputs, and conventions at kinks and ties.

The cases stand in the op's own room; one harness runs all of them on every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Arg", "Case", "Convention", "case", "convention"]


@dataclass(frozen=True)
class Arg:
    """A random input: uniform in [low, high], kept away from the points where the op has a kink.

    Args:
        shape: shape of the array.
        low, high: range of the values.
        dtype: ``"float"`` is float32 or float64, as the harness chooses; others are taken literally.
        avoid: values that no element may come closer to than `gap`.
        distinct: no two elements may be closer than `gap` (for maxima and sorting).
    """

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: str = "float"
    avoid: tuple[float, ...] = ()
    distinct: bool = False
    gap: float = 0.01

    @property
    def is_float(self) -> bool:
        return self.dtype in ("float", "float32", "float64")

    def draw(self, rng: np.random.Generator, float_dtype: str) -> NDArray[Any]:
        """One array of this description."""
        if self.dtype == "bool":
            return rng.integers(0, 2, self.shape).astype(bool)
        if not self.is_float:
            return rng.integers(int(self.low), int(self.high) + 1, self.shape).astype(self.dtype)
        values = self._spread(rng) if self.distinct else rng.uniform(self.low, self.high, self.shape)
        for point in self.avoid:
            close = np.abs(values - point) < self.gap
            values = np.where(close, point + np.where(values < point, -2, 2) * self.gap, values)
        return np.asarray(values, dtype=float_dtype if self.dtype == "float" else self.dtype)

    def _spread(self, rng: np.random.Generator) -> NDArray[Any]:
        count = int(np.prod(self.shape))
        ranks = rng.permutation(count) + rng.uniform(0.2, 0.8, count)
        return (self.low + (self.high - self.low) * ranks / count).reshape(self.shape)


CaseInput: TypeAlias = "Arg | NDArray[Any]"


@dataclass(frozen=True)
class Case:
    """One set of inputs and attributes for an op; `batched` when axis 0 of every input is the batch."""

    inputs: tuple[CaseInput, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def draw(self, rng: np.random.Generator, float_dtype: str) -> list[NDArray[Any]]:
        """The inputs as arrays."""
        return [
            item.draw(rng, float_dtype) if isinstance(item, Arg) else _cast(item, float_dtype) for item in self.inputs
        ]


@dataclass(frozen=True)
class Convention:
    """The exact gradient at a kink or tie, where differences cannot say what it is.

    Args:
        says: the convention in words, as docs/conventions.md lists it.
        inputs: the exact inputs.
        cotangent: the cotangent of the first output.
        gradients: the expected gradient of every input; None where there is none.
        attrs: the op's attributes.
    """

    says: str
    inputs: tuple[NDArray[Any], ...]
    cotangent: NDArray[Any]
    gradients: tuple[NDArray[Any] | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


def _cast(values: NDArray[Any], float_dtype: str) -> NDArray[Any]:
    return values.astype(float_dtype) if values.dtype.kind == "f" else values


def case(*inputs: Arg | tuple[int, ...] | NDArray[Any], name: str = "", **attrs: Any) -> Case:
    """A `Case`; a plain shape stands for ``Arg(shape)``."""
    args = tuple(Arg(item) if isinstance(item, tuple) else item for item in inputs)
    return Case(args, attrs, name)


def convention(
    says: str, inputs: list[ArrayLike], cotangent: ArrayLike, gradients: list[ArrayLike | None], **attrs: Any
) -> Convention:
    """A `Convention` from lists."""

    def array(values: ArrayLike) -> NDArray[Any]:
        return np.asarray(values)

    return Convention(
        says,
        tuple(array(item) for item in inputs),
        array(cotangent),
        tuple(None if item is None else array(item) for item in gradients),
        attrs,
    )
