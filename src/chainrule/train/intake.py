"""What a user gives as data, checked against the model and made into supplies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.checks import check_positive
from chainrule.errors import ConfigError, DataError
from chainrule.graph.dims import BATCH, Shape
from chainrule.graph.op import Array, Spec
from chainrule.graph.trace import trace
from chainrule.train.feed import Arrays, Stream
from chainrule.train.options import BATCH_SIZE, WORKERS, FitOptions
from chainrule.train.step import Objective
from chainrule.train.supply import Numbered, Supply
from chainrule.train.targets import prepared_inputs, prepared_targets, prepared_weights

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Intake"]


class Intake:
    """Makes supplies: of arrays, sources, iterables of batches.

    Args:
        model: built by the first samples, if it was not before.
        objective: whose loss says what labels are; None where there are none, for predictions.

    All methods raise ConfigError, DataError, ShapeError or DTypeError, naming what does not fit.
    """

    def __init__(self, model: Model, objective: Objective | None) -> None:
        self.model = model
        self._objective = objective

    @property
    def objective(self) -> Objective:
        assert self._objective is not None, "the model refuses to train before compile"
        return self._objective

    def training(self, x: Any, y: Any, options: FitOptions) -> tuple[Supply, Supply | None]:
        """The samples to train on, and those that were held out."""
        if options.validation_data is not None and options.validation_split:
            raise ConfigError("give validation_split or validation_data, not both")
        if _is_iterable(x, y):
            return self._train_batches(x, y, options), self._held_out(options)
        data = self._feed(x, y, options.sample_weight, "x", "y", options)
        kept, split_off = data.split(options.validation_split)
        kept = self._weighted(kept, options.class_weight)  # what is held out is not weighted, as with validation_data
        size = options.batch_size or BATCH_SIZE
        supply = Numbered(
            kept.numbered() if options.augment else kept,
            size,
            shuffle=options.shuffle,
            steps_per_epoch=options.steps_per_epoch,
        )
        if split_off is None:
            return supply, self._held_out(options)
        return supply, Numbered(
            split_off,
            options.validation_batch_size or size,
            shuffle=False,
            steps_per_epoch=options.validation_steps,
        )

    def evaluation(self, x: Any, y: Any, weight: Any, batch_size: int | None, steps: int | None) -> Supply:
        """The samples to evaluate."""
        _check_sizes(batch_size, steps)
        if _is_iterable(x, y):
            return self._batches(x, y, weight, "x", steps, batch_size)
        feed = self._feed(x, y, weight, "x", "y")
        return Numbered(feed, batch_size or BATCH_SIZE, shuffle=False, steps_per_epoch=steps)

    def prediction(self, x: Any, batch_size: int | None, steps: int | None) -> Supply:
        """The samples to predict for, alone."""
        _check_sizes(batch_size, steps)
        if _is_iterable(x, None) and not isinstance(x, list | tuple):
            from chainrule.train.batches import Batches

            def prepare(item: Any) -> Mapping[str, Array]:
                samples = prepared_inputs(item[0] if isinstance(item, list | tuple) else item, "x")
                self.model.ensure_built(samples)
                return {"x": samples}

            return Batches(x, prepare, steps=steps, batch_size=batch_size)
        feed: Arrays | Stream
        if _is_source(x):
            self.model.ensure_built(np.empty((0, *x.shape), x.dtype))
            feed = Stream(x, {}, WORKERS)
        else:
            x = prepared_inputs(x, "x")
            self.model.ensure_built(x)
            feed = Arrays({"x": x})
        return Numbered(feed, batch_size or BATCH_SIZE, shuffle=False, steps_per_epoch=steps)

    # -- parts of them ------------------------------------------------------------------------------------

    def _held_out(self, options: FitOptions) -> Supply | None:
        """The samples of `validation_data`."""
        data, steps = options.validation_data, options.validation_steps
        if data is None:
            return None
        size = options.validation_batch_size or options.batch_size
        x_name, y_name = "validation x", "validation y"
        if _is_source(data):
            feed = self._feed(data, None, None, x_name, y_name, options)
        elif _is_iterable(data, None):
            often = options.validation_freq
            evaluations = options.epochs // often - options.initial_epoch // often
            _check_once(data, evaluations, steps, "validation_data", "validation_steps")
            return self._batches(
                data, None, None, "validation_data", steps, options.validation_batch_size, epoch=options.initial_epoch
            )
        elif not isinstance(data, tuple | list) or len(data) not in (2, 3):
            raise ConfigError(
                "validation_data is a source, a pair (x, y), or (x, y, sample_weight), or an iterable of such batches"
            )
        else:
            x, y, *weight = data
            feed = self._feed(x, y, weight[0] if weight else None, x_name, y_name, options)
        return Numbered(feed, size or BATCH_SIZE, shuffle=False, steps_per_epoch=steps)

    def _train_batches(self, x: Any, y: Any, options: FitOptions) -> Supply:
        from chainrule.train.batches import refuse_beside

        refuse_beside(validation_split=options.validation_split)
        steps = options.steps_per_epoch
        _check_once(x, len(range(options.initial_epoch, options.epochs)), steps, "x", "steps_per_epoch")
        return self._batches(
            x,
            y,
            options.sample_weight,
            "x",
            steps,
            options.batch_size,
            epoch=options.initial_epoch,
            by_class=options.class_weight,
            group=self.objective.optimizer.options.accumulated,
            numbered=bool(options.augment),
        )

    def _batches(
        self,
        x: Any,
        y: Any,
        weight: Any,
        name: str,
        steps: int | None,
        batch_size: int | None,
        *,
        by_class: Mapping[int, float] | None = None,
        **settings: Any,
    ) -> Supply:
        """An iterable's batches of samples and labels."""
        from chainrule.train.batches import Batches, pair, refuse_beside

        refuse_beside(y=y, sample_weight=weight)
        outputs: dict[Spec, Shape] = {}

        def prepare(item: Any) -> Mapping[str, Array]:
            x, y, weight = pair(item)
            return self._arrays(x, y, weight, "x", "y", by_class, outputs)

        return Batches(x, prepare, name=name, steps=steps, batch_size=batch_size, **settings)

    def _feed(
        self, x: Any, y: Any, weight: Any, x_name: str, y_name: str, options: FitOptions | None = None
    ) -> Arrays | Stream:
        if not _is_source(x):
            data = self._arrays(x, y, weight, x_name, y_name)
            # An engine reads rows; here they are put in order once, not at every call that it gets.
            return Arrays({name: np.ascontiguousarray(array) for name, array in data.items()})
        if y is not None:
            raise ConfigError(f"{y_name}: a source brings its own labels; leave {y_name} out")
        self.model.ensure_built(np.empty((0, *x.shape), x.dtype))
        labels = self._beside(x.labels, x, weight, y_name, None)
        workers = WORKERS if options is None else options.workers
        return Stream(x, labels, workers, self.objective.optimizer.options.accumulated)

    def _weighted(self, feed: Arrays | Stream, by_class: Mapping[int, float] | None) -> Arrays | Stream:
        """A feed whose samples count besides what those of their class do."""
        labels, given = feed.column("y"), feed.column("sample_weight")
        if by_class is None or labels is None:
            return feed
        output = self._output(feed.specs["x"]).shape
        weights = prepared_weights(given, by_class, labels, output, self.objective.loss)
        return feed if weights is None else feed.joined("sample_weight", weights)

    def _arrays(
        self,
        x: Any,
        y: Any,
        weight: Any,
        x_name: str,
        y_name: str,
        by_class: Mapping[int, float] | None = None,
        outputs: dict[Spec, Shape] | None = None,
    ) -> dict[str, Array]:
        x = prepared_inputs(x, x_name)
        self.model.ensure_built(x)
        return {"x": x, **self._beside(y, x, weight, y_name, by_class, outputs)}

    def _beside(
        self,
        y: Any,
        x: Any,
        weight: Any,
        name: str,
        by_class: Mapping[int, float] | None,
        outputs: dict[Spec, Shape] | None = None,
    ) -> dict[str, Array]:
        """The inputs beside x: labels, and weights where samples are weighted; `outputs` keeps what was found out."""
        if y is None:
            raise DataError(f"{name} is missing; expected a label or target for each sample")
        spec = Spec((BATCH, *x.shape[1:]) if isinstance(x, np.ndarray) else (BATCH, *x.shape), x.dtype)
        known = {} if outputs is None else outputs
        if spec not in known:
            known[spec] = self._output(spec).shape
        labels = prepared_targets(y, x, known[spec], self.objective.loss, name)
        weights = prepared_weights(weight, by_class, labels, known[spec], self.objective.loss)
        return {"y": labels} if weights is None else {"y": labels, "sample_weight": weights}

    def _output(self, spec: Spec) -> Spec:
        graph = trace(lambda batch: self.model(batch), spec, name="predict")
        if len(graph.outputs) != 1:
            raise ConfigError(f"fit trains models with one output; {self.model.name!r} has several")
        return next(iter(graph.outputs.values())).spec


def _is_source(x: Any) -> bool:
    """Whether samples are read by number; data sets' readers are imported only where they are used."""
    if isinstance(x, np.ndarray | list | tuple):
        return False
    from chainrule.data.source import Source

    return isinstance(x, Source)


def _is_iterable(x: Any, y: Any) -> bool:
    """Whether x is an iterable of batches; see `origins.is_batches`."""
    if isinstance(x, np.ndarray) or _is_source(x):
        return False
    from chainrule.train.origins import is_batches

    return is_batches(x, y)


def _check_once(x: Any, epochs: int, steps: int | None, name: str, steps_name: str) -> None:
    """Refuse a generator where it would have to be run through several times."""
    from chainrule.train.origins import is_once

    if is_once(x) and steps is None and epochs > 1:
        raise ConfigError(
            f"{name}: a generator can be run through only once, and {epochs} epochs need it each time; give "
            f"{steps_name}, or a function that makes a generator for each epoch"
        )


def _check_sizes(batch_size: int | None, steps: int | None) -> None:
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None:
            check_positive(value, name)
