"""Keras through `fit` on arrays, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import os
import time
from typing import Any

import keras  # type: ignore[import-not-found, unused-ignore]

from benchmarks.networks import IMAGE, NETWORKS, Network, first_weights
from benchmarks.protocol import Setting, serve
from benchmarks.workers.common import CHECK_STEPS, EPSILON, LEARNING_RATE, load

__all__ = ["KerasJob", "limit_threads"]


def limit_threads(threads: int) -> None:
    """TensorFlow's own thread pools; JAX has none but the processors that the process is bound to."""
    if os.environ.get("KERAS_BACKEND") == "tensorflow":
        import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def build(network: Network) -> Any:
    """The compiled model with the common first weights; its losses are means over samples, from logits."""
    kinds: dict[str, Any] = {
        "conv": lambda layer: keras.layers.Conv2D(layer.units, 3, activation="relu" if layer.relu else None),
        "pool": lambda layer: keras.layers.MaxPooling2D(2),
        "flatten": lambda layer: keras.layers.Flatten(),
        "dense": lambda layer: keras.layers.Dense(layer.units, activation="relu" if layer.relu else None),
    }
    model = keras.Sequential([keras.Input(IMAGE), *(kinds[layer.kind](layer) for layer in network.layers)])
    model.set_weights(first_weights(network))
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


class EpochClock(keras.callbacks.Callback):  # type: ignore[misc, unused-ignore]
    """The seconds of the epoch itself, without what `fit` does before and after: the reading that favours Keras."""

    seconds = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.seconds = -time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds += time.perf_counter()


class KerasJob:
    """One model and its data."""

    def __init__(self, setting: Setting, variant: str = "") -> None:
        limit_threads(setting.threads)
        self._batch = setting.batch
        self._x, self._y = load(setting)
        self._model = build(NETWORKS[setting.network])

    def check(self) -> list[float]:
        before = self.loss()
        self._train(CHECK_STEPS)
        return [before, self.loss()]

    def first_step(self) -> None:
        self._train(1)

    def run(self) -> float:
        clock = EpochClock()
        self._model.fit(self._x, self._y, batch_size=self._batch, epochs=1, verbose=0, callbacks=[clock])
        return clock.seconds

    def _train(self, steps: int) -> None:
        some = slice(0, steps * self._batch)
        self._model.fit(self._x[some], self._y[some], batch_size=self._batch, shuffle=False, verbose=0)

    def loss(self) -> float:
        found = self._model.evaluate(self._x[: self._batch], self._y[: self._batch], batch_size=self._batch, verbose=0)
        return float(found)


if __name__ == "__main__":
    serve(KerasJob)
