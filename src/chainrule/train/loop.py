"""The three jobs of a model: training, evaluation and prediction over data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.augment.base import Augmentation
from chainrule.engines import Engine, Stop
from chainrule.errors import ConfigError, DataError
from chainrule.graph.op import Array
from chainrule.train.callback import History
from chainrule.train.fitting import Fitting, Position
from chainrule.train.intake import Intake
from chainrule.train.interrupt import interruptible
from chainrule.train.options import FitOptions
from chainrule.train.plans import Plans
from chainrule.train.progress import progress_for
from chainrule.train.step import Objective
from chainrule.train.steps import AccumulatedSteps, EngineFor, PlainSteps, Steps, runs_of
from chainrule.train.supply import Supply

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Trainer"]


class Trainer:
    """Runs a model's graphs over data.

    Args:
        model: the model.
        objective: loss, metrics and optimizer; None for a model that only predicts.

    Attributes:
        shuffles: epochs that the model was trained, in all calls of `fit`.
    """

    def __init__(self, model: Model, objective: Objective | None) -> None:
        self.model = model
        self._plans, self._intake = Plans(model, objective), Intake(model, objective)
        self.shuffles = 0

    @property
    def objective(self) -> Objective:
        """Loss, metrics and optimizer of a compiled model."""
        return self._intake.objective

    # -- the three jobs -----------------------------------------------------------------------------------

    def fit(self, x: Any, y: Any, options: FitOptions) -> History:
        """See `Model.fit`."""
        options.check()
        supply, held_out = self._intake.training(x, y, options)
        if not self.model.trainable_weights:
            warnings.warn(f"model {self.model.name!r} has no trainable weights: fit learns nothing", stacklevel=3)
        steps = self._steps(supply, options)
        history = History()
        chain = [history, *options.callbacks, *progress_for(options.verbose)]
        self.model.stop_training = False
        with interruptible() as interrupt:
            fitting = Fitting(
                self.model,
                supply,
                steps,
                epochs=options.epochs,
                position=Position(options.initial_epoch, 0, self.shuffles),
                chain=chain,
                validate=self._validation(held_out, options, interrupt),
                stop=interrupt,
                held_out=held_out,
            )
            self._begin(fitting, options, held_out is not None)
            try:
                fitting.run()
            finally:
                history.interrupted, history.signal = interrupt.requested, interrupt.signal
                self.shuffles = fitting.position.shuffles + bool(fitting.position.batches)
                fitting.call("on_train_end", {})
        return history

    def evaluate(
        self, x: Any, y: Any, batch_size: int | None, sample_weight: Any = None, steps: int | None = None
    ) -> dict[str, float]:
        """See `Model.evaluate`."""
        supply = self._intake.evaluation(x, y, sample_weight, batch_size, steps)
        return self._evaluate(supply, Stop(), 0)

    def predict(self, x: Any, batch_size: int | None, steps: int | None = None) -> Array:
        """See `Model.predict`."""
        supply = self._intake.prediction(x, batch_size, steps)
        engine = self._engines("predict", supply)
        parts = []
        for chunk in supply.epoch(Position(0), Stop()):
            for run in runs_of(chunk, supply.batch_size, 0, len(chunk.rows)):
                samples, size = chunk.data["x"], run.size
                rows = (run.rows[start : start + size] for start in range(0, len(run.rows), size))
                parts += [engine(size)(samples[some]) for some in rows]
        if not parts:
            raise DataError("x gives no batches; expected one or more")
        if isinstance(parts[0], tuple):
            raise ConfigError(f"predict takes models with one output; {self.model.name!r} has several")
        return np.concatenate(parts)

    # -- parts of them ------------------------------------------------------------------------------------

    def _begin(self, fitting: Fitting, options: FitOptions, validated: bool) -> None:
        supply = fitting.supply
        fitting.params |= {
            "epochs": options.epochs,
            "steps": supply.batches,
            "samples": math.inf if supply.samples is None else supply.samples,
            "batch_size": supply.batch_size,
            "validation_freq": options.validation_freq if validated else None,
        }
        for callback in fitting.chain:
            callback.model, callback.fitting, callback.params = self.model, fitting, fitting.params
        fitting.call("on_train_begin", {})
        for callback in fitting.chain:
            callback.resume()

    def _steps(self, supply: Supply, options: FitOptions) -> Steps:
        optimizer, batch_size = self.objective.optimizer, supply.batch_size
        if optimizer.options.accumulated == 1:
            return PlainSteps(self._engines("step", supply, options.augment), optimizer, batch_size)
        accumulate = self._engines("accumulate", supply, options.augment)
        return AccumulatedSteps(accumulate, self._plans.of("update", {}, 1), optimizer, batch_size)

    def _engines(self, kind: str, supply: Supply, augment: Sequence[Augmentation] = ()) -> EngineFor:
        """The engine for each size of batch."""
        found: dict[int, Engine] = {}

        def engine(size: int) -> Engine:
            planned = supply.planned(size)
            if planned not in found:
                found[planned] = self._plans.of(kind, supply.specs, planned, augment)
            return found[planned]

        engine(supply.batch_size)  # what cannot be trained is said before anything runs
        return engine

    def _validation(
        self, held_out: Supply | None, options: FitOptions, stop: Stop
    ) -> Callable[[int], dict[str, float] | None]:
        def validate(epoch: int) -> dict[str, float] | None:
            if held_out is None or (epoch + 1) % options.validation_freq:
                return None
            found = self._evaluate(held_out, stop, epoch)
            return None if stop.requested else found

        return validate

    def _evaluate(self, supply: Supply, stop: Stop, epoch: int) -> dict[str, float]:
        engine = self._engines("evaluate", supply)
        trackers = self.objective.trackers()
        for tracker in trackers:
            tracker.reset_state()
        batches = 0
        for chunk in supply.epoch(Position(epoch), stop):
            for run in runs_of(chunk, supply.batch_size, 0, len(chunk.rows)):
                batches += 1
                if not stop.requested:
                    engine(run.size).run_steps(chunk.data, run.rows, run.size, {}, stop)
            if stop.requested:
                break
        if not batches and not stop.requested:
            raise DataError(
                "there are no batches to evaluate; expected one or more (what can be run through only once is used "
                "up: give a function that makes an iterator each time)"
            )
        return {tracker.name: tracker.result() for tracker in trackers if tracker.is_scalar}
