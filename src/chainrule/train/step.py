"""The training step as graphs: forward, loss, backward and update, with state in and state out.

The step has two entries.  `grad` gives the gradients (and moves running statistics and metrics); `apply` takes
gradients and updates.  Between them gradients can be summed over micro-batches or hosts, because the loss is a
sum divided by a count given at run time.  `step` is both in one graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import ops
from chainrule.autodiff import gradients
from chainrule.errors import ConfigError, GradientError, ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.graph import Graph
from chainrule.graph.op import Spec
from chainrule.graph.tensor import Tensor, scope
from chainrule.graph.trace import trace
from chainrule.graph.variable import Variable
from chainrule.layers.layer import training_mode
from chainrule.losses import Loss
from chainrule.metrics import Mean, Metric
from chainrule.optimizers import Optimizer
from chainrule.random import key_scope

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Objective", "apply_graph", "evaluation_graph", "gradient_graph", "prediction_graph", "step_graph"]

_SCALAR = Spec((), np.dtype("float64"))
_SEED = Spec((2,), np.dtype("uint32"))
_ROW = Spec((), np.dtype("uint32"))


@dataclass(frozen=True)
class Objective:
    """What a model is trained for: its loss, metrics, and the optimizer that follows the gradients."""

    loss: Loss
    metrics: tuple[Metric, ...]
    optimizer: Optimizer
    loss_mean: Mean

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

    def trackers(self) -> tuple[Metric, ...]:
        """The mean loss and every metric."""
        return (self.loss_mean, *self.metrics)


def step_graph(model: Model, objective: Objective, x: Spec, y: Spec) -> Graph:
    """One whole training step.

    Inputs: ``x, y, learning_rate, seed, first_row, count``; output: the loss.
    """

    def step(x: Tensor, y: Tensor, learning_rate: Any, seed: Any, first_row: Any, count: Any) -> Tensor:
        loss, found = _loss_and_gradients(model, objective, x, y, seed, first_row, count)
        _update(objective, found, model.trainable_weights, learning_rate)
        return loss

    return trace(step, x, y, _SCALAR, _SEED, _ROW, _SCALAR, name="step")


def gradient_graph(model: Model, objective: Objective, x: Spec, y: Spec) -> Graph:
    """The step's first entry.

    Inputs: ``x, y, seed, first_row, count``; outputs: ``{"loss": ..., weight name: gradient, ...}``.
    """

    def grad(x: Tensor, y: Tensor, seed: Any, first_row: Any, count: Any) -> dict[str, Tensor]:
        loss, found = _loss_and_gradients(model, objective, x, y, seed, first_row, count)
        names = [weight.name for weight in model.trainable_weights]
        return {"loss": loss, **dict(zip(names, found, strict=True))}

    return trace(grad, x, y, _SEED, _ROW, _SCALAR, name="grad")


def apply_graph(model: Model, objective: Objective) -> Graph:
    """The step's second entry.

    Inputs: the learning rate, then one gradient for each trainable weight; no output but the state.
    """
    weights = model.trainable_weights

    def apply(learning_rate: Tensor, *found: Tensor) -> dict[str, Tensor]:
        _update(objective, found, weights, learning_rate)
        return {}

    return trace(apply, _SCALAR, *(weight.spec for weight in weights), name="apply")


def evaluation_graph(model: Model, objective: Objective, x: Spec, y: Spec) -> Graph:
    """Forward pass at inference, loss and metrics.  Inputs: ``x, y``."""

    def evaluate(x: Tensor, y: Tensor) -> dict[str, Tensor]:
        with training_mode(False):
            prediction = model(x)
        with scope(layer="loss"):
            losses = objective.losses(y, prediction)
        _track(objective, losses, y, prediction)
        return {}

    return trace(evaluate, x, y, name="evaluate")


def prediction_graph(model: Model, x: Spec) -> Graph:
    """Forward pass at inference.  Input: ``x``; output: the prediction."""

    def predict(x: Tensor) -> Any:
        with training_mode(False):
            return model(x)

    return trace(predict, x, name="predict")


def _loss_and_gradients(
    model: Model, objective: Objective, x: Tensor, y: Tensor, seed: Any, first_row: Any, count: Any
) -> tuple[Tensor, list[Tensor]]:
    with key_scope(seed, _step_number(objective.optimizer), first_row), training_mode(True):
        prediction = model(x)
    if not isinstance(prediction, Tensor):
        raise ConfigError(f"fit trains models with one output; {model.name!r} has several")
    with scope(layer="loss"):
        losses = objective.losses(y, prediction)
        loss = ops.sum(losses) / ops.cast(count, losses.dtype)
    weights = model.trainable_weights
    found = gradients(loss, weights)
    for weight, gradient in zip(weights, found, strict=True):
        if gradient is None:
            raise GradientError(
                f"the loss does not depend on {weight.name!r}; remove the layer or make it trainable=False"
            )
    _track(objective, losses, y, prediction)
    return loss, [gradient for gradient in found if gradient is not None]


def _step_number(optimizer: Optimizer) -> Tensor:
    return optimizer.iterations.__tensor__()


def _track(objective: Objective, losses: Tensor, y: Tensor, prediction: Tensor) -> None:
    with scope(layer="metrics"):
        objective.loss_mean.add(losses)
        for metric in objective.metrics:
            metric.update_state(y, prediction)


def _update(objective: Objective, found: Sequence[Tensor], weights: Sequence[Variable], learning_rate: Tensor) -> None:
    with scope(layer="optimizer", phase="update"):
        objective.optimizer.apply(found, weights, learning_rate)
