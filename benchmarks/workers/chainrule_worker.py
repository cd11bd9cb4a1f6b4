"""chainrule, through its public API only: `Sequential`, `compile`, `fit`, `evaluate`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chainrule as cr
from benchmarks.networks import IMAGE, NETWORKS, Network, first_weights
from benchmarks.protocol import Setting, serve
from benchmarks.workers.common import CHECK_STEPS, EPSILON, LEARNING_RATE, load

__all__ = ["ChainruleJob", "build"]


def build(network: Network, weights: list[NDArray[np.float32]] | None = None) -> Any:
    """The compiled model, with those weights if there are any, else with chainrule's own."""
    kinds: dict[str, Any] = {
        "conv": lambda layer: cr.layers.Conv2D(layer.units, 3, activation="relu" if layer.relu else None),
        "pool": lambda layer: cr.layers.MaxPooling2D(2),
        "flatten": lambda layer: cr.layers.Flatten(),
        "dense": lambda layer: cr.layers.Dense(layer.units, activation="relu" if layer.relu else None),
    }
    model = cr.Sequential([cr.Input(IMAGE), *(kinds[layer.kind](layer) for layer in network.layers)])
    if weights is not None:
        model.set_weights(weights)
    model.compile(
        optimizer=cr.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON),
        loss=cr.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


class ChainruleJob:
    """One model and its data; a run is a whole call of `fit`, set-up included."""

    def __init__(self, setting: Setting, variant: str = "") -> None:
        network = NETWORKS[setting.network]
        self._batch = setting.batch
        self._x, self._y = load(setting)
        self._model = build(network, first_weights(network))

    def check(self) -> list[float]:
        before = self.loss()
        self._train(CHECK_STEPS)
        return [before, self.loss()]

    def first_step(self) -> None:
        self._train(1)

    def run(self) -> float:
        start = time.perf_counter()
        self._model.fit(self._x, self._y, batch_size=self._batch, epochs=1, verbose=0)
        return time.perf_counter() - start

    def _train(self, steps: int) -> None:
        some = slice(0, steps * self._batch)
        self._model.fit(self._x[some], self._y[some], batch_size=self._batch, shuffle=False, verbose=0)

    def loss(self) -> float:
        return float(self._model.evaluate(self._x[: self._batch], self._y[: self._batch], batch_size=self._batch))


if __name__ == "__main__":
    serve(ChainruleJob)
