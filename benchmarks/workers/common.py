"""What the workers share: the data, and the loss that all frameworks must agree on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import images
from benchmarks.protocol import Setting

__all__ = ["CHECK_STEPS", "EPSILON", "LEARNING_RATE", "load"]

LEARNING_RATE = 0.001
EPSILON = 1e-7
"""Adam's; the frameworks' defaults differ."""

CHECK_STEPS = 3
"""Steps in order, without shuffling, after which the frameworks' losses are compared."""


def load(setting: Setting) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The samples of one measured epoch: ``x (steps * batch, 28, 28, 1)`` in 0..1, ``y (steps * batch,)``."""
    samples = setting.steps * setting.batch
    if not setting.data:
        return images(samples)
    import chainrule as cr

    found = cr.data.mnist(Path(setting.data))
    x = np.asarray(found.x_train[:samples], np.float32).reshape(-1, 28, 28, 1) / np.float32(255)
    return x, np.asarray(found.y_train[:samples], np.int64)
