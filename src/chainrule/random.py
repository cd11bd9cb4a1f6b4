"""Random numbers for users and layers, and the one seed that fixes everything.

A draw is named, never counted globally: its stream is made of the layer's path, the kind of draw and the
occurrence within that layer; see `ops.random`.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from chainrule.errors import ConfigError, TraceError
from chainrule.graph.dims import Size
from chainrule.graph.tensor import Tensor, as_tensor, current_layer, tensor
from chainrule.graph.variable import tracing_state
from chainrule.ops.random import random_normal, random_permutation, random_uniform

__all__ = ["Words", "draw", "get_seed", "key_scope", "normal", "permutation", "set_seed", "uniform", "words"]


class Words(NamedTuple):
    """The run-time part of a random key: seed, time (step or epoch) and the first row's global number."""

    seed: Tensor
    time: Tensor
    first_row: Tensor


def words(seed: int, time: int = 0, first_row: int = 0) -> Words:
    """A key from Python integers.

    Raises:
        ConfigError: the seed is not an integer of 64 bits.
    """
    _check_seed(seed)
    halves = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    return Words(tensor(halves), tensor(np.array(time, np.uint32)), tensor(np.array(first_row, np.uint32)))


def _check_seed(seed: Any) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ConfigError(f"a seed is an integer from 0 to 2**64 - 1, got {seed!r}")


class _Scope:
    """A key, and how often each name was drawn under it."""

    def __init__(self, key: Words) -> None:
        self.key = key
        self.counts: Counter[str] = Counter()

    def stream(self, kind: str) -> int:
        name = f"{current_layer()}/{kind}"
        self.counts[name] += 1
        return zlib.crc32(f"{name}#{self.counts[name] - 1}".encode())


class _Global:
    """The process-wide seed and the scope of draws outside any other."""

    seed = 0
    scope = _Scope(words(0))


_SCOPE: ContextVar[_Scope | None] = ContextVar("random_scope", default=None)


def set_seed(seed: int) -> None:
    """Fix every random number that follows: initial weights, order of samples, dropout, your own draws.

    The seed is 0 until this is called, so a program without it also repeats.  Draws are named by layer and model
    position, so two models of one architecture made under one seed start equal: for an ensemble set a seed for each.

    Raises:
        ConfigError: the seed is not an integer of 64 bits.

    >>> import chainrule as cr
    >>> cr.set_seed(1)
    >>> first = cr.random.uniform((2,)).numpy()
    >>> cr.set_seed(1)
    >>> bool((cr.random.uniform((2,)).numpy() == first).all())
    True
    >>> cr.set_seed(0)
    """
    _check_seed(seed)
    _Global.seed = int(seed)
    _Global.scope = _Scope(words(int(seed)))


def occurrence(name: str) -> int:
    """How often this name was asked for since the seed was set, outside any key scope."""
    _Global.scope.counts[name] += 1
    return _Global.scope.counts[name] - 1


def get_seed() -> int:
    """The seed in force."""
    return _Global.seed


@contextmanager
def key_scope(seed: Any, time: Any, first_row: Any = None) -> Iterator[None]:
    """Draws inside use this key; needed inside a trace, where the key is a run-time input.

    Args:
        seed: uint32 tensor of two words.
        time: uint32 scalar tensor: the step or the epoch.
        first_row: uint32 scalar tensor; 0 by default.
    """
    row = tensor(np.array(0, np.uint32)) if first_row is None else as_tensor(first_row)
    token = _SCOPE.set(_Scope(Words(as_tensor(seed), as_tensor(time), row)))
    try:
        yield
    finally:
        _SCOPE.reset(token)


def draw(kind: str) -> dict[str, Any]:
    """Key and stream of the next draw of this kind in the running layer, as keyword arguments.

    Raises:
        TraceError: inside a trace without a `key_scope`, where the draw would become a constant.
    """
    scope = _SCOPE.get()
    if scope is None:
        if tracing_state.get() is not None:
            raise TraceError(
                f"a random {kind} inside a traced function needs a run-time key, or every run would draw the "
                "same; wrap it in cr.random.key_scope(seed, time) with inputs of the traced function"
            )
        scope = _Global.scope
    return {**scope.key._asdict(), "stream": scope.stream(kind)}


def uniform(shape: Sequence[Size], low: float = 0.0, high: float = 1.0, dtype: str = "float32") -> Tensor:
    """Uniform numbers in [low, high).

    >>> import chainrule as cr
    >>> cr.random.uniform((2, 3)).shape
    (2, 3)
    """
    unit = random_uniform(shape=tuple(shape), dtype=dtype, **draw("uniform"))
    return unit if (low, high) == (0.0, 1.0) else unit * (high - low) + low


def normal(shape: Sequence[Size], mean: float = 0.0, stddev: float = 1.0, dtype: str = "float32") -> Tensor:
    """Normal numbers.

    >>> import chainrule as cr
    >>> cr.random.normal((2, 3)).shape
    (2, 3)
    """
    unit = random_normal(shape=tuple(shape), dtype=dtype, **draw("normal"))
    return unit if (mean, stddev) == (0.0, 1.0) else unit * stddev + mean


def permutation(size: Size) -> Tensor:
    """A random order of 0..size-1 (int32).

    >>> import chainrule as cr
    >>> sorted(cr.random.permutation(3).numpy().tolist())
    [0, 1, 2]
    """
    return random_permutation(size=size, **draw("permutation"))
