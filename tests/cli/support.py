"""Helpers of the tests of the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Printed:
    """The exit status of a command, and what it printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Printed]

SHORT = ("--test-fraction", "0.85", "--epochs", "1", "--verbose", "0")
"""Nine training steps on the digits."""


def shapes_images(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """8-bit images of 8x8: class 0 is bright above, class 1 below, class 2 on the left."""
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % 3
    images = random.integers(0, 60, (samples, 8, 8))
    images[labels == 0, :4] += 190
    images[labels == 1, 4:] += 190
    images[labels == 2, :, :4] += 190
    return images.astype(np.uint8), labels


def idx_bytes(array: np.ndarray) -> bytes:
    """An 8-bit array in the idx format."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()
