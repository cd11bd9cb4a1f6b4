"""The training step as graphs: forward, loss, backward and update, with state in and state out.

The step has two entries.  `grad` gives the gradients (and moves running statistics and metrics); `apply` takes
gradients and updates.  Between them gradients can be summed over micro-batches or hosts, because the loss is a
sum divided by a count given at run time.  `step` is both in one graph.  `accumulate` and `update` are the two entries
with the sums kept in variables.

Every graph takes ``sample_weight`` after ``y`` where samples are weighted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from chainrule import ops
from chainrule.augment.base import Augmentation, Labels, augmented
from chainrule.autodiff import gradients
from chainrule.errors import ConfigError, GradientError, ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.graph import Graph
from chainrule.graph.op import Spec
from chainrule.graph.tensor import Tensor, scope, tensor
from chainrule.graph.trace import trace
from chainrule.graph.variable import Variable
from chainrule.layers.layer import training_mode
from chainrule.losses import Loss
from chainrule.metrics.metric import LossMean, Totals
from chainrule.optimizers import Optimizer
from chainrule.random import key_scope

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = [
    "Objective",
    "accumulation_graph",
    "apply_graph",
    "evaluation_graph",
    "gradient_graph",
    "prediction_graph",
    "step_graph",
    "update_graph",
]

_SCALAR = Spec((), np.dtype("float64"))
_SEED = Spec((2,), np.dtype("uint32"))
_ROW = Spec((), np.dtype("uint32"))


@dataclass(frozen=True)
class Objective:
    """What a model is trained for: its loss, metrics, and the optimizer that follows the gradients.

    Attributes:
        loss: what is minimised.
        metrics: what is counted besides, every sample once.
        optimizer: what follows the gradients.
        loss_mean: the mean loss so far.
        weighted_metrics: what is counted besides, every sample by its weight.
    """

    loss: Loss
    metrics: tuple[Totals, ...]
    optimizer: Optimizer
    loss_mean: LossMean
    weighted_metrics: tuple[Totals, ...] = ()

    def losses(self, y: Tensor, prediction: Tensor) -> Tensor:
        """One loss for each sample.

        Raises:
            ShapeError: the loss gave another shape, which would scale the gradient wrongly.
        """
        losses = self.loss.call(y, prediction)
        if losses.shape != prediction.shape[:1]:
            raise ShapeError(
                f"the loss {self.loss.name!r} gave {losses.spec}; expected one number for each sample, "
                f"{format_shape(prediction.shape[:1])}: take the mean over the other axes, not over the batch"
            )
        return losses

    @property
    def first_bad_step(self) -> int:
        """The epoch's first step whose loss was not finite, counted from 1 over the training; 0 if there is none."""
        return self.loss_mean.first_bad_step

    def trackers(self) -> tuple[Totals, ...]:
        """The mean loss and every metric."""
        return (self.loss_mean, *self.metrics, *self.weighted_metrics)


def step_graph(
    model: Model,
    objective: Objective,
    x: Spec,
    y: Spec,
    *,
    weighted: bool = False,
    augment: Sequence[Augmentation] = (),
) -> Graph:
    """One whole training step.

    Inputs: ``x, y, learning_rate, seed, first_row, count``, and ``epoch`` with augmentations; output: the loss.
    """

    def step(batch: _Batch, learning_rate: Any, *key: Any) -> Tensor:
        loss, found = _loss_and_gradients(model, objective, batch, augment, *key)
        _update(objective, found, model.trainable_weights, learning_rate)
        return loss

    return _traced(step, x, y, weighted, bool(augment), learning_rate=_SCALAR, **_key_specs(augment))


def gradient_graph(
    model: Model,
    objective: Objective,
    x: Spec,
    y: Spec,
    *,
    weighted: bool = False,
    augment: Sequence[Augmentation] = (),
) -> Graph:
    """The step's first entry.

    Inputs: ``x, y, seed, first_row, count``, and ``epoch`` with augmentations; outputs: ``{"loss": ..., weight name:
    gradient, ...}``.
    """

    def grad(batch: _Batch, *key: Any) -> dict[str, Tensor]:
        loss, found = _loss_and_gradients(model, objective, batch, augment, *key)
        names = [weight.name for weight in model.trainable_weights]
        return {"loss": loss, **dict(zip(names, found, strict=True))}

    return _traced(grad, x, y, weighted, bool(augment), **_key_specs(augment))


def accumulation_graph(
    model: Model,
    objective: Objective,
    x: Spec,
    y: Spec,
    *,
    weighted: bool = False,
    augment: Sequence[Augmentation] = (),
) -> Graph:
    """The step's first entry, adding the gradients to the optimizer's sums.

    Inputs: as `gradient_graph`; no output but the state.
    """

    def accumulate(batch: _Batch, *key: Any) -> dict[str, Tensor]:
        _, found = _loss_and_gradients(model, objective, batch, augment, *key)
        with scope(layer="optimizer", phase="update"):
            objective.optimizer.accumulate(found, model.trainable_weights)
        return {}

    return _traced(accumulate, x, y, weighted, bool(augment), **_key_specs(augment))


def apply_graph(model: Model, objective: Objective) -> Graph:
    """The step's second entry.

    Inputs: the learning rate, then one gradient for each trainable weight; no output but the state.
    """
    weights = model.trainable_weights

    def apply(learning_rate: Tensor, *found: Tensor) -> dict[str, Tensor]:
        _update(objective, found, weights, learning_rate)
        return {}

    return trace(apply, _SCALAR, *(weight.spec for weight in weights), name="apply")


def update_graph(model: Model, objective: Objective) -> Graph:
    """The step's second entry, from the optimizer's sums, which are empty afterwards.

    Input: the learning rate; no output but the state.
    """

    def update(learning_rate: Tensor) -> dict[str, Tensor]:
        with scope(layer="optimizer", phase="update"):
            objective.optimizer.apply_accumulated(model.trainable_weights, learning_rate)
        return {}

    return trace(update, _SCALAR, name="update")


def evaluation_graph(model: Model, objective: Objective, x: Spec, y: Spec, *, weighted: bool = False) -> Graph:
    """Forward pass at inference, loss and metrics.  Inputs: ``x, y``."""

    def evaluate(batch: _Batch) -> dict[str, Tensor]:
        with training_mode(False):
            prediction = model(batch.x)
        labels: Labels = [(batch.y, None)]
        _track(objective, _sample_losses(model, objective, batch, labels, prediction), batch, prediction)
        return {}

    return _traced(evaluate, x, y, weighted, False)


def prediction_graph(model: Model, x: Spec) -> Graph:
    """Forward pass at inference.  Input: ``x``; output: the prediction."""

    def predict(x: Tensor) -> Any:
        with training_mode(False):
            return model(x)

    return trace(predict, x, name="predict")


class _Batch(NamedTuple):
    """What a graph sees of a batch.

    Attributes:
        x, y: samples and labels.
        weight: of each sample; None where samples are not weighted.
        sample: the number of each sample; None without augmentations.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None
    sample: Tensor | None


def _key_specs(augment: Sequence[Augmentation]) -> dict[str, Spec]:
    """The inputs that fix what is drawn, and the count that the loss divides by."""
    specs = {"seed": _SEED, "first_row": _ROW, "count": _SCALAR}
    return {**specs, "epoch": _ROW} if augment else specs


def _traced(function: Callable[..., Any], x: Spec, y: Spec, weighted: bool, numbered: bool, **rest: Spec) -> Graph:
    """The graph of a function of a batch and of inputs of these names."""
    specs = {"x": x, "y": y}
    if weighted:
        specs["sample_weight"] = Spec(y.shape[:1], np.dtype("float32"))
    if numbered:
        specs["sample"] = Spec(y.shape[:1], np.dtype("uint32"))
    own = len(specs)

    def flat(*inputs: Tensor) -> Any:
        given = dict(zip(specs, inputs[:own], strict=True))
        batch = _Batch(given["x"], given["y"], given.get("sample_weight"), given.get("sample"))
        return function(batch, *inputs[own:])

    return trace(flat, *specs.values(), *rest.values(), name=function.__name__, names=[*specs, *rest])


def _loss_and_gradients(
    model: Model,
    objective: Objective,
    batch: _Batch,
    augment: Sequence[Augmentation],
    seed: Any,
    first_row: Any,
    count: Any,
    epoch: Any = None,
) -> tuple[Tensor, list[Tensor]]:
    x = batch.x
    labels: Labels = [(batch.y, None)]
    if batch.sample is not None:
        with scope(layer="augmentation"):
            x, labels = augmented(augment, ops.cast(x, "float32"), batch.y, seed, epoch, batch.sample)
    with key_scope(seed, _step_number(objective.optimizer), first_row), training_mode(True):
        prediction = model(x)
    if not isinstance(prediction, Tensor):
        raise ConfigError(f"fit trains models with one output; {model.name!r} has several")
    losses = _sample_losses(model, objective, batch, labels, prediction)
    with scope(layer="loss"):
        loss = ops.sum(losses) / ops.cast(count, losses.dtype)
    weights = model.trainable_weights
    found = gradients(loss, weights)
    for weight, gradient in zip(weights, found, strict=True):
        if gradient is None:
            raise GradientError(
                f"the loss does not depend on {weight.name!r}; remove the layer or make it trainable=False"
            )
    _track(objective, losses, batch, prediction)
    with scope(layer="metrics"):
        objective.loss_mean.watch(losses, _step_number(objective.optimizer) + tensor(np.array(1, np.uint32)))
    return loss, [gradient for gradient in found if gradient is not None]


def _sample_losses(model: Model, objective: Objective, batch: _Batch, labels: Labels, prediction: Tensor) -> Tensor:
    """Each sample's loss, weighted, and with the penalties: a batch's sum then holds them once for each sample."""
    with scope(layer="loss"):
        parts = []
        for y, share in labels:
            part = objective.losses(y, prediction)
            parts.append(part if share is None else part * ops.cast(share, part.dtype))
        losses = sum(parts[1:], start=parts[0])
        if batch.weight is not None:
            losses = losses * ops.cast(batch.weight, losses.dtype)
        for penalty in model.penalties():
            losses = losses + ops.cast(penalty, losses.dtype)
        return losses


def _step_number(optimizer: Optimizer) -> Tensor:
    return optimizer.iterations.__tensor__()


def _track(objective: Objective, losses: Tensor, batch: _Batch, prediction: Tensor) -> None:
    with scope(layer="metrics"):
        objective.loss_mean.add(losses)
        for metric in objective.metrics:
            metric.update_state(batch.y, prediction)
        for metric in objective.weighted_metrics:
            metric.update_state(batch.y, prediction, batch.weight)


def _update(objective: Objective, found: Sequence[Tensor], weights: Sequence[Variable], learning_rate: Tensor) -> None:
    with scope(layer="optimizer", phase="update"):
        objective.optimizer.apply(found, weights, learning_rate)
