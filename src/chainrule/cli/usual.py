"""The training step of a model as a graph, for commands that look at a step without data."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.errors import ConfigError
from chainrule.graph.dims import BATCH
from chainrule.graph.graph import Graph
from chainrule.graph.op import Spec
from chainrule.graph.trace import trace
from chainrule.models import Model
from chainrule.train.step import step_graph
from chainrule.train.targets import prepared_targets

__all__ = ["compile_as_usual", "training_step"]


def compile_as_usual(model: Model) -> None:
    """Give a model that says nothing about its training the one of `chainrule train`."""
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])


def training_step(model: Model) -> Graph:
    """One training step of a compiled model, traced as `fit` traces it.

    Args:
        model: compiled, and its input is known.

    Raises:
        ConfigError: the input is not known, or the model has several outputs.

    >>> from chainrule.networks import digits
    >>> model = digits()
    >>> compile_as_usual(model)
    >>> list(training_step(model).inputs)[:3]
    ['x', 'y', 'learning_rate']
    """
    if model.input_spec is None:
        raise ConfigError(f"model {model.name!r} does not know its input; it was saved before it had seen any")
    return step_graph(model, model.objective, model.input_spec, _labels(model, model.input_spec))


def _labels(model: Model, x: Spec) -> Spec:
    """What `fit` makes of labels that suit the model's loss."""
    outputs = list(trace(lambda batch: model(batch), x, name="predict").outputs.values())
    if len(outputs) != 1:
        raise ConfigError(f"fit trains models with one output; {model.name!r} has several")
    shape, loss = outputs[0].shape, model.objective.loss
    sizes = [size if isinstance(size, int) else 1 for size in shape[1:]]
    if loss.labels == "sparse":
        y: Any = np.zeros((1, *sizes[:-1]), np.int64)
    elif loss.labels == "one_hot" and len(sizes) == 1:
        y = np.eye(1, sizes[0])
    elif loss.labels == "binary":
        y = np.zeros((1, *sizes), np.int64)
    else:
        y = np.zeros((1, *sizes), outputs[0].spec.dtype)
    found = prepared_targets(y, np.zeros((1, 1)), shape, loss, "y")
    return Spec((BATCH, *found.shape[1:]), found.dtype)
