"""Keras through `fit` on arrays, on the backend that KERAS_BACKEND names."""

from __future__ import annotations

import os
import time
from typing import Any

import keras

from benchmarks.protocol import Setting, serve
from benchmarks.workers.common import FitJob

__all__ = ["JOB", "KerasJob", "limit_threads"]

TOGETHER = 16
"""Steps of one call into the backend, in the variant ``together``."""


def limit_threads(threads: int) -> None:
    """TensorFlow's own thread pools; JAX has none but the processors that the process is bound to."""
    if os.environ.get("KERAS_BACKEND") == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


class EpochClock:
    """The seconds of the epoch itself, without what `fit` does before and after: the reading that favours Keras."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.callback = keras.callbacks.LambdaCallback(on_epoch_begin=self._begin, on_epoch_end=self._end)

    def _begin(self, epoch: int, logs: Any = None) -> None:
        self.seconds = -time.perf_counter()

    def _end(self, epoch: int, logs: Any = None) -> None:
        self.seconds += time.perf_counter()


class KerasJob(FitJob):
    """One model and its data, a variant of `peers.KERAS_FORMS`; a run is the epoch inside of a call of `fit`."""

    framework = keras

    def __init__(self, setting: Setting, variant: str = "") -> None:
        limit_threads(setting.threads)
        super().__init__(setting, variant)

    def compiling(self, variant: str) -> dict[str, Any]:
        return {"steps_per_execution": TOGETHER} if variant == "together" else {}

    def run(self) -> float:
        clock = EpochClock()
        self._model.fit(self._x, self._y, batch_size=self._batch, epochs=1, verbose=0, callbacks=[clock.callback])
        return clock.seconds


JOB = KerasJob

if __name__ == "__main__":
    serve(JOB)
