"""chainrule, through its public API only: `Sequential`, `compile`, `fit`, `evaluate`."""

from __future__ import annotations

import time

import chainrule as cr
from benchmarks.protocol import serve
from benchmarks.workers.common import FitJob

__all__ = ["JOB", "ChainruleJob"]


class ChainruleJob(FitJob):
    """One model and its data; a run is a whole call of `fit`, set-up included."""

    framework = cr

    def run(self) -> float:
        start = time.perf_counter()
        self._model.fit(self._x, self._y, batch_size=self._batch, epochs=1, verbose=0)
        return time.perf_counter() - start


JOB = ChainruleJob

if __name__ == "__main__":
    serve(JOB)
