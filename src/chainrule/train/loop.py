"""The three jobs of a model: training, evaluation and prediction over data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.augment.base import Augmentation
from chainrule.checks import check_at_least, check_positive
from chainrule.engines import Stop
from chainrule.errors import ConfigError
from chainrule.graph.dims import BATCH
from chainrule.graph.op import Array, Spec
from chainrule.graph.trace import trace
from chainrule.train.callback import Callback, History
from chainrule.train.feed import Arrays, Feed, Stream, batch_spec
from chainrule.train.fitting import Fitting, Position
from chainrule.train.interrupt import interruptible
from chainrule.train.plans import Plans, planned_size
from chainrule.train.progress import progress_for
from chainrule.train.step import Objective
from chainrule.train.steps import AccumulatedSteps, PlainSteps, Steps
from chainrule.train.targets import prepared_inputs, prepared_targets, prepared_weights

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["FitOptions", "Trainer"]


@dataclass(frozen=True)
class FitOptions:
    """The arguments of `Model.fit` beside the data; see there."""

    batch_size: int
    epochs: int
    verbose: str | int
    callbacks: Sequence[Callback]
    validation_split: float
    validation_data: Any
    shuffle: bool
    class_weight: Mapping[int, float] | None
    sample_weight: Any
    initial_epoch: int
    steps_per_epoch: int | None
    validation_batch_size: int | None
    validation_freq: int
    workers: int
    augment: Sequence[Augmentation]

    def check(self) -> None:
        """Refuse what no training can have.

        Raises:
            ConfigError: naming the argument.
        """
        for name in ("batch_size", "epochs", "validation_freq", "workers"):
            check_positive(getattr(self, name), name)
        for name in ("steps_per_epoch", "validation_batch_size"):
            if getattr(self, name) is not None:
                check_positive(getattr(self, name), name)
        check_at_least(self.initial_epoch, 0, "initial_epoch")


class Trainer:
    """Runs a model's graphs over data.

    Args:
        model: the model.
        objective: loss, metrics and optimizer; None for a model that only predicts.
    """

    def __init__(self, model: Model, objective: Objective | None) -> None:
        self.model = model
        self._objective = objective
        self._plans = Plans(model, objective)
        self._shuffles = 0

    @property
    def objective(self) -> Objective:
        assert self._objective is not None, "the model refuses to train before compile"
        return self._objective

    # -- the three jobs -----------------------------------------------------------------------------------

    def fit(self, x: Any, y: Any, options: FitOptions) -> History:
        """See `Model.fit`."""
        options.check()
        feed, held_out = self._feeds(x, y, options)
        steps = self._steps(feed, options)
        history = History()
        chain = [history, *options.callbacks, *progress_for(options.verbose)]
        self.model.stop_training = False
        with interruptible() as interrupt:
            fitting = Fitting(
                self.model,
                feed,
                steps,
                epochs=options.epochs,
                position=Position(options.initial_epoch, 0, self._shuffles),
                chain=chain,
                validate=self._validation(held_out, options, interrupt),
                shuffle=options.shuffle,
                steps_per_epoch=options.steps_per_epoch,
                stop=interrupt,
            )
            self._begin(fitting, options)
            try:
                fitting.run()
            finally:
                history.interrupted = interrupt.requested
                self._shuffles = fitting.position.shuffles + bool(fitting.position.batches)
                fitting.call("on_train_end")
        return history

    def evaluate(self, x: Any, y: Any, batch_size: int, sample_weight: Any = None) -> dict[str, float]:
        """See `Model.evaluate`."""
        check_positive(batch_size, "batch_size")
        return self._evaluate(self._arrays(x, y, sample_weight, "x", "y"), batch_size, Stop())

    def predict(self, x: Any, batch_size: int) -> Array:
        """See `Model.predict`."""
        check_positive(batch_size, "batch_size")
        x = prepared_inputs(x, "x")
        self.model.ensure_built(x)
        run = self._plans.of("predict", {"x": batch_spec(x)}, planned_size(batch_size, len(x)))
        parts = [run(x[rows]) for rows in _batches(len(x), batch_size)]
        if isinstance(parts[0], tuple):
            raise ConfigError(f"predict takes models with one output; {self.model.name!r} has several")
        return np.concatenate(parts)

    # -- parts of them ------------------------------------------------------------------------------------

    def _begin(self, fitting: Fitting, options: FitOptions) -> None:
        for callback in fitting.chain:
            callback.model, callback.fitting = self.model, fitting
            callback.params = {
                "epochs": options.epochs,
                "steps": fitting.batches,
                "samples": min(fitting.feed.count, fitting.batches * options.batch_size),
                "batch_size": options.batch_size,
            }
        fitting.call("on_train_begin")
        for callback in fitting.chain:
            callback.resume()

    def _steps(self, feed: Feed, options: FitOptions) -> Steps:
        optimizer, batch_size = self.objective.optimizer, options.batch_size
        planned, augment = planned_size(batch_size, feed.count), options.augment
        if optimizer.options.accumulated == 1:
            return PlainSteps(self._plans.of("step", feed.specs, planned, augment), optimizer, batch_size)
        accumulate = self._plans.of("accumulate", feed.specs, planned, augment)
        return AccumulatedSteps(accumulate, self._plans.of("update", {}, 1), optimizer, batch_size)

    def _validation(
        self, held_out: Feed | None, options: FitOptions, stop: Stop
    ) -> Callable[[int], dict[str, float] | None]:
        size = options.validation_batch_size or options.batch_size

        def validate(epoch: int) -> dict[str, float] | None:
            if held_out is None or (epoch + 1) % options.validation_freq:
                return None
            found = self._evaluate(held_out, size, stop)
            return None if stop.requested else found

        return validate

    def _evaluate(self, feed: Feed, batch_size: int, stop: Stop) -> dict[str, float]:
        run = self._plans.of("evaluate", feed.specs, planned_size(batch_size, feed.count))
        trackers = self.objective.trackers()
        for tracker in trackers:
            tracker.reset_state()
        for chunk in feed.chunks(np.arange(feed.count), batch_size):
            run.run_steps(chunk.data, chunk.rows, batch_size, {}, stop)
            if stop.requested:
                break
        return {tracker.name: tracker.result() for tracker in trackers if tracker.is_scalar}

    # -- data ---------------------------------------------------------------------------------------------

    def _feeds(self, x: Any, y: Any, options: FitOptions) -> tuple[Feed, Feed | None]:
        """The samples to train on, and those that were held out."""
        data = self._feed(x, y, options.sample_weight, "x", "y", options)
        held_out: Feed | None = None
        if options.validation_data is None:
            data, held_out = data.split(options.validation_split)
        elif options.validation_split:
            raise ConfigError("give validation_split or validation_data, not both")
        else:
            held_out = self._held_out(options.validation_data, options)
        return data.numbered() if options.augment else data, held_out

    def _held_out(self, data: Any, options: FitOptions) -> Feed:
        plain = replace(options, class_weight=None)
        if is_source(data):
            return self._feed(data, None, None, "validation x", "validation y", plain)
        if not isinstance(data, tuple | list) or len(data) not in (2, 3):
            raise ConfigError("validation_data is a source, a pair (x, y), or (x, y, sample_weight)")
        x, y, *weight = data
        return self._feed(x, y, weight[0] if weight else None, "validation x", "validation y", plain)

    def _feed(self, x: Any, y: Any, weight: Any, x_name: str, y_name: str, options: FitOptions) -> Arrays | Stream:
        if not is_source(x):
            return self._arrays(x, y, weight, x_name, y_name, options.class_weight)
        if y is not None:
            raise ConfigError(f"{y_name}: a source brings its own labels; leave {y_name} out")
        self.model.ensure_built(np.empty((0, *x.shape), x.dtype))
        labels = self._beside(x.labels, x, weight, y_name, options.class_weight)
        return Stream(x, labels, options.workers, self.objective.optimizer.options.accumulated)

    def _arrays(
        self, x: Any, y: Any, weight: Any, x_name: str, y_name: str, by_class: Mapping[int, float] | None = None
    ) -> Arrays:
        x = prepared_inputs(x, x_name)
        self.model.ensure_built(x)
        data = {"x": x, **self._beside(y, x, weight, y_name, by_class)}
        # An engine reads rows; here they are put in order once, not at every call that it gets.
        return Arrays({name: np.ascontiguousarray(array) for name, array in data.items()})

    def _beside(self, y: Any, x: Any, weight: Any, name: str, by_class: Mapping[int, float] | None) -> dict[str, Array]:
        """The inputs beside x: labels, and weights where samples are weighted."""
        spec = Spec((BATCH, *x.shape[1:]) if isinstance(x, np.ndarray) else (BATCH, *x.shape), x.dtype)
        labels = prepared_targets(y, x, self._output(spec).shape, self.objective.loss, name)
        weights = prepared_weights(weight, by_class, labels, self.objective.loss)
        return {"y": labels} if weights is None else {"y": labels, "sample_weight": weights}

    def _output(self, spec: Spec) -> Spec:
        graph = trace(lambda batch: self.model(batch), spec, name="predict")
        if len(graph.outputs) != 1:
            raise ConfigError(f"fit trains models with one output; {self.model.name!r} has several")
        return next(iter(graph.outputs.values())).spec


def is_source(x: Any) -> bool:
    """Whether samples are read by number; data sets' readers are imported only where they are used."""
    if isinstance(x, np.ndarray | list | tuple):
        return False
    from chainrule.data.source import Source

    return isinstance(x, Source)


def _batches(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
