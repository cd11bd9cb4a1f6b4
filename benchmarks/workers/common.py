"""What the workers share: the data, the settings that all frameworks must agree on, and jobs with Keras' words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.networks import IMAGE, NETWORKS, Network, first_weights, images
from benchmarks.protocol import Job, Setting

__all__ = ["EPSILON", "LEARNING_RATE", "FitJob", "load", "sequential"]

LEARNING_RATE = 0.001
EPSILON = 1e-7
"""Adam's; the frameworks' defaults differ."""


def load(setting: Setting) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The samples of one measured epoch: ``x (steps * batch, 28, 28, 1)`` in 0..1, ``y (steps * batch,)``."""
    samples = setting.steps * setting.batch
    if not setting.data:
        return images(samples)
    import chainrule as cr

    found = cr.data.mnist(Path(setting.data))
    x = np.asarray(found.x_train[:samples], np.float32).reshape(-1, 28, 28, 1) / np.float32(255)
    return x, np.asarray(found.y_train[:samples], np.int64)


def sequential(framework: Any, network: Network, weights: list[NDArray[np.float32]] | None, **compiling: Any) -> Any:
    """The compiled model in Keras' words, which chainrule takes too; its losses are means over samples, from logits.

    Args:
        framework: the module of Keras or chainrule.
        network: its layers.
        weights: those that the training begins with; None leaves them to the framework.
        compiling: further arguments of `compile`.
    """
    layers = framework.layers
    kinds: dict[str, Any] = {
        "conv": lambda layer: layers.Conv2D(layer.units, 3, activation="relu" if layer.relu else None),
        "pool": lambda layer: layers.MaxPooling2D(2),
        "flatten": lambda layer: layers.Flatten(),
        "dense": lambda layer: layers.Dense(layer.units, activation="relu" if layer.relu else None),
    }
    model = framework.Sequential([framework.Input(IMAGE), *(kinds[layer.kind](layer) for layer in network.layers)])
    if weights is not None:
        model.set_weights(weights)
    model.compile(
        optimizer=framework.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON),
        loss=framework.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compiling,
    )
    return model


class FitJob(Job):
    """A model that is trained by `fit` on arrays, and the data of one measured epoch.

    Attributes:
        framework: the module of Keras or chainrule.
    """

    framework: Any

    def __init__(self, setting: Setting, variant: str = "") -> None:
        network = NETWORKS[setting.network]
        self._batch = setting.batch
        self._x, self._y = load(setting)
        self._model = sequential(self.framework, network, first_weights(network), **self.compiling(variant))

    def compiling(self, variant: str) -> dict[str, Any]:
        """The arguments of `compile` that make the variant."""
        return {}

    def first_steps(self, count: int) -> None:
        some = slice(0, count * self._batch)
        self._model.fit(self._x[some], self._y[some], batch_size=self._batch, shuffle=False, verbose=0)

    def loss(self) -> float:
        found = self._model.evaluate(self._x[: self._batch], self._y[: self._batch], batch_size=self._batch, verbose=0)
        return float(found)
