"""Labels and predictions in the forms that metrics count."""

from __future__ import annotations

from typing import Any

from chainrule import ops
from chainrule.errors import ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.tensor import Tensor, as_tensor

__all__ = ["class_count", "class_numbers", "decisions", "row_weights", "yes_or_no"]


def class_count(prediction: Tensor) -> int:
    """How many outputs a prediction has.

    Raises:
        ShapeError: it has no axis of classes.
    """
    if prediction.ndim < 2 or not isinstance(prediction.shape[-1], int):
        raise ShapeError(f"a metric of classes needs predictions (batch, ..., classes), got {prediction.spec}")
    return prediction.shape[-1]


def class_numbers(y_true: Any, prediction: Tensor) -> Tensor:
    """The classes of labels that are numbers, numbers in a column, or one-hot rows, as int32.

    Raises:
        ShapeError: labels of another shape.
    """
    labels = as_tensor(y_true)
    if labels.shape == prediction.shape and prediction.shape[-1] != 1:
        return ops.argmax(labels)
    if labels.ndim == prediction.ndim and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, -1)
    if labels.ndim != prediction.ndim - 1:
        raise ShapeError(
            f"labels of shape {format_shape(labels.shape)} do not fit predictions of shape "
            f"{format_shape(prediction.shape)}"
        )
    return ops.cast(labels, "int32")


def yes_or_no(y_true: Any, prediction: Tensor) -> Tensor:
    """Labels of yes/no outputs, ``(samples, outputs)`` in float64.

    Raises:
        ShapeError: labels of another shape than the predictions, where these have several outputs.
    """
    labels = as_tensor(y_true)
    classes = class_count(prediction)
    if classes > 1 and labels.shape != prediction.shape:
        raise ShapeError(
            f"labels of shape {format_shape(labels.shape)} do not fit predictions of shape "
            f"{format_shape(prediction.shape)}; expected 0 or 1 for each output"
        )
    return ops.reshape(ops.cast(labels, "float64"), (-1, classes))


def row_weights(sample_weight: Any, prediction: Tensor) -> Tensor:
    """A weight for each row of `decisions`, ``(rows, 1)`` in float64: each position of a map has its sample's.

    Raises:
        ShapeError: weights that belong neither to samples nor to positions.
    """
    weights = ops.cast(as_tensor(sample_weight), "float64")
    places = prediction.ndim - 1
    if weights.ndim == prediction.ndim and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    if not 1 <= weights.ndim <= places:
        raise ShapeError(
            f"weights of shape {format_shape(weights.shape)} do not fit predictions of shape "
            f"{format_shape(prediction.shape)}; expected one for each sample or position"
        )
    weights = ops.reshape(weights, (*weights.shape, *(1 for _ in range(places - weights.ndim))))
    return ops.reshape(ops.broadcast_to(weights, prediction.shape[:-1]), (-1, 1))


def decisions(y_true: Any, y_pred: Any, threshold: float, multi_label: bool = False) -> tuple[Tensor, Tensor]:
    """What is true and what was decided, each ``(samples, classes)`` of 0 and 1 in float64.

    One output is a yes/no answer and gives one column: yes above the threshold.  Of several, the largest is decided,
    unless each is a yes/no answer of its own.
    Positions of maps and sequences count as samples.
    """
    prediction = ops.stop_gradient(as_tensor(y_pred))
    classes = class_count(prediction)
    if classes == 1 or multi_label:
        true = yes_or_no(y_true, prediction)
        decided = ops.reshape(ops.cast(prediction > threshold, "float64"), (-1, classes))
        return ops.cast(true > 0.5, "float64"), decided
    true = ops.one_hot(class_numbers(y_true, prediction), classes, "float64")
    decided = ops.one_hot(ops.argmax(prediction), classes, "float64")
    return ops.reshape(true, (-1, classes)), ops.reshape(decided, (-1, classes))
