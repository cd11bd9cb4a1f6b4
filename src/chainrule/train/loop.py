"""The loop: batches in an order fixed by seed and epoch, one graph run for each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.checks import check_positive
from chainrule.engines import Engine, Stop, executable
from chainrule.errors import ConfigError, DataError
from chainrule.graph.dims import BATCH
from chainrule.graph.graph import Graph
from chainrule.graph.op import Array, Spec
from chainrule.graph.trace import trace
from chainrule.ops.random import random_permutation
from chainrule.random import get_seed, words
from chainrule.train.callbacks import Callback, History, longest_interval
from chainrule.train.interrupt import interruptible
from chainrule.train.progress import progress_for
from chainrule.train.step import Objective, evaluation_graph, prediction_graph, step_graph
from chainrule.train.targets import prepared_inputs, prepared_targets

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Trainer"]

_SMALLEST_PLAN = 32
_MOST_KEPT = 8  # executables, each with its arena; others are taken from the cache again
_SHUFFLE_STREAM = 0x5487F1E5
"""The random stream of the order of samples; layers' streams are hashes of their paths."""


class Trainer:
    """Runs a model's graphs over data; keeps one executable for each kind of input.

    Args:
        model: the model.
        objective: loss, metrics and optimizer; None for a model that only predicts.
    """

    def __init__(self, model: Model, objective: Objective | None) -> None:
        self.model = model
        self._objective = objective
        self._executables: dict[tuple[Any, ...], Engine] = {}
        self._epochs_seen = 0

    @property
    def objective(self) -> Objective:
        assert self._objective is not None, "the model refuses to train before compile"
        return self._objective

    # -- the three jobs -----------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int,
        epochs: int,
        verbose: str | int,
        callbacks: list[Callback],
        validation_split: float,
        validation_data: tuple[Any, Any] | None,
        shuffle: bool,
    ) -> History:
        """See `Model.fit`."""
        check_positive(batch_size, "batch_size")
        check_positive(epochs, "epochs")
        x, y = self._checked(x, y, "x", "y")
        held_out = self._held_out(validation_data)
        if held_out is None:
            x, y, held_out = _split(x, y, validation_split)
        elif validation_split:
            raise ConfigError("give validation_split or validation_data, not both")
        history = History()
        chain = [history, *callbacks, *progress_for(verbose)]
        run = self._executable("step", x, y, batch_size)
        steps = -(-len(x) // batch_size)
        for callback in chain:
            callback.model = self.model
            callback.params = {"epochs": epochs, "steps": steps, "samples": len(x), "batch_size": batch_size}
        self.model.stop_training = False
        with interruptible() as interrupt:
            _call(chain, "on_train_begin")
            try:
                for epoch in range(epochs):
                    order = self._order(len(x), shuffle)
                    self._epoch(epoch, run, x, y, order, batch_size, held_out, chain, interrupt)
                    if interrupt.requested or self.model.stop_training:
                        break
            finally:
                history.interrupted = interrupt.requested
                _call(chain, "on_train_end")
        return history

    def evaluate(self, x: Any, y: Any, batch_size: int) -> dict[str, float]:
        """See `Model.evaluate`."""
        check_positive(batch_size, "batch_size")
        x, y = self._checked(x, y, "x", "y")
        return self._evaluate(x, y, batch_size, Stop())

    def predict(self, x: Any, batch_size: int) -> Array:
        """See `Model.predict`."""
        check_positive(batch_size, "batch_size")
        x = prepared_inputs(x, "x")
        self.model.ensure_built(x)
        run = self._executable("predict", x, None, batch_size)
        parts = [run(x[rows]) for rows in _batches(np.arange(len(x)), batch_size)]
        if isinstance(parts[0], tuple):
            raise ConfigError(f"predict takes models with one output; {self.model.name!r} has several")
        return np.concatenate(parts)

    # -- an epoch -----------------------------------------------------------------------------------------

    def _epoch(
        self,
        epoch: int,
        run: Engine,
        x: Array,
        y: Array,
        order: Array,
        batch_size: int,
        held_out: tuple[Array, Array] | None,
        chain: Sequence[Callback],
        interrupt: Stop,
    ) -> None:
        self._reset()
        _call(chain, "on_epoch_begin", epoch)
        self._steps(run, x, y, order, batch_size, chain, interrupt)
        self._epochs_seen += 1
        logs = self._results()
        if held_out is not None and not interrupt.requested:
            found = self._evaluate(*held_out, batch_size, interrupt)
            if not interrupt.requested:
                logs.update({f"val_{name}": value for name, value in found.items()})
        _call(chain, "on_epoch_end", epoch, logs)

    def _steps(
        self,
        run: Engine,
        x: Array,
        y: Array,
        order: Array,
        batch_size: int,
        chain: Sequence[Callback],
        interrupt: Stop,
    ) -> None:
        """All steps of an epoch, as many in one call as the callbacks leave room for."""
        seed, _, first_row = (item.data for item in words(get_seed()))
        starts = np.arange(0, len(order), batch_size)
        counts = np.minimum(batch_size, len(order) - starts).astype(np.float64)
        interval = longest_interval(chain)
        step, together = 0, 1 if math.isfinite(interval) else len(starts)
        while step < len(starts) and not interrupt.requested:
            _call(chain, "on_train_batch_begin", step)
            scalars = {
                "learning_rate": np.asarray(self.objective.optimizer.learning_rate, np.float64),
                "seed": seed,
                "first_row": first_row,
                "count": counts[step : step + together],
            }
            began = time.perf_counter()
            rows = order[step * batch_size : (step + together) * batch_size]
            done = run.run_steps({"x": x, "y": y}, rows, batch_size, scalars, interrupt)
            step += done
            if 0 < interval < math.inf:
                fitting = interval * done / max(time.perf_counter() - began, 1e-9)
                together = max(1, min(2 * together, int(fitting)))
            if done:
                _call(chain, "on_train_batch_end", step - 1, self._results())

    def _order(self, count: int, shuffle: bool) -> Array:
        if not shuffle:
            return np.arange(count)
        key = words(get_seed(), time=self._epochs_seen)
        return random_permutation(*key, size=count, stream=_SHUFFLE_STREAM).data

    def _evaluate(self, x: Array, y: Array, batch_size: int, stop: Stop) -> dict[str, float]:
        run = self._executable("evaluate", x, y, batch_size)
        self._reset()
        run.run_steps({"x": x, "y": y}, np.arange(len(x)), batch_size, {}, stop)
        return self._results()

    def _reset(self) -> None:
        for tracker in self.objective.trackers():
            tracker.reset_state()

    def _results(self) -> dict[str, float]:
        return {tracker.name: tracker.result() for tracker in self.objective.trackers()}

    # -- data and graphs ----------------------------------------------------------------------------------

    def _checked(self, x: Any, y: Any, x_name: str, y_name: str) -> tuple[Array, Array]:
        x = prepared_inputs(x, x_name)
        self.model.ensure_built(x)
        output = self._output(x)
        y = prepared_targets(y, x, output.shape, self.objective.loss, y_name)
        # An engine reads rows; here they are put in order once, not at every call that it gets.
        return np.ascontiguousarray(x), np.ascontiguousarray(y)

    def _held_out(self, data: Any) -> tuple[Array, Array] | None:
        if data is None:
            return None
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ConfigError("validation_data is a pair (x, y)")
        x, y = data
        return self._checked(x, y, "validation x", "validation y")

    def _output(self, x: Array) -> Spec:
        graph = trace(lambda batch: self.model(batch), _spec(x), name="predict")
        if len(graph.outputs) != 1:
            raise ConfigError(f"fit trains models with one output; {self.model.name!r} has several")
        return next(iter(graph.outputs.values())).spec

    def _executable(self, kind: str, x: Array, y: Array | None, batch_size: int) -> Engine:
        frozen = tuple(weight.trainable for weight in self.model.weights)
        planned = _planned(batch_size, len(x))
        key = (kind, _spec(x), None if y is None else _spec(y), frozen, planned)
        found = self._executables.pop(key, None)
        if found is None:
            gathered = ("x",) if y is None else ("x", "y")
            found = executable(self._graph(kind, x, y), self.model.engine, gathered=gathered, batch_size=planned)
        self._executables[key] = found  # the last one is the one used last
        while len(self._executables) > _MOST_KEPT:
            del self._executables[next(iter(self._executables))]
        return found

    def _graph(self, kind: str, x: Array, y: Array | None) -> Graph:
        if kind == "predict":
            return prediction_graph(self.model, _spec(x))
        assert y is not None
        build = step_graph if kind == "step" else evaluation_graph
        return build(self.model, self.objective, _spec(x), _spec(y))


def _planned(batch_size: int, samples: int) -> int:
    """The batch size to plan for.

    It follows from the call alone, not from calls before it, and so do the bits of what is computed.  Fewer samples
    than a batch need no plan for all of it; numbers of samples that differ little share one.
    """
    return min(batch_size, max(_SMALLEST_PLAN, 1 << (samples - 1).bit_length()))


def _spec(array: Array) -> Spec:
    return Spec((BATCH, *array.shape[1:]), array.dtype)


def _batches(order: Array, size: int) -> Iterator[Array]:
    return (order[start : start + size] for start in range(0, len(order), size))


def _split(x: Array, y: Array, fraction: float) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """The data without its last part, and that part."""
    if not 0 <= fraction < 1:
        raise ConfigError(f"validation_split lies in [0, 1), got {fraction!r}")
    if not fraction:
        return x, y, None
    kept = int(len(x) * (1 - fraction))
    if not 0 < kept < len(x):
        raise DataError(f"validation_split={fraction} of {len(x)} samples leaves an empty part")
    return x[:kept], y[:kept], (x[kept:], y[kept:])


def _call(chain: Sequence[Callback], event: str, *args: Any) -> None:
    for callback in chain:
        getattr(callback, event)(*args)
