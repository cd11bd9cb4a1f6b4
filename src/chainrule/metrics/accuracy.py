"""How often, and by how much, predictions are right: means of one number for each sample."""

from __future__ import annotations

from typing import Any

from chainrule import ops
from chainrule.checks import check_positive
from chainrule.graph.tensor import Tensor, as_tensor
from chainrule.losses import mean_absolute_error, mean_squared_error
from chainrule.metrics.labels import class_count, class_numbers
from chainrule.metrics.metric import Metric

__all__ = [
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
]


class SparseCategoricalAccuracy(Metric):
    """How often the largest prediction is at the integer label.

    >>> import chainrule as cr
    >>> metric = cr.metrics.SparseCategoricalAccuracy()
    >>> metric.update_state([1, 1], cr.tensor([[0.1, 0.9], [0.8, 0.2]]))
    >>> metric.result()
    0.5
    """

    default_name = "sparse_categorical_accuracy"

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        labels, prediction = as_tensor(y_true), as_tensor(y_pred)
        if labels.ndim == prediction.ndim and labels.shape[-1] == 1:
            labels = ops.squeeze(labels, -1)
        return _hits(ops.cast(labels, "int32") == ops.argmax(prediction))


class CategoricalAccuracy(Metric):
    """How often the largest prediction is at the one-hot label.

    >>> import chainrule as cr
    >>> metric = cr.metrics.CategoricalAccuracy()
    >>> metric.update_state([[0.0, 1.0]], cr.tensor([[0.1, 0.9]]))
    >>> metric.result()
    1.0
    """

    default_name = "categorical_accuracy"

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        prediction = as_tensor(y_pred)
        target = ops.cast(as_tensor(y_true), prediction.dtype)
        return _hits(ops.argmax(target) == ops.argmax(prediction))


class BinaryAccuracy(Metric):
    """How often a yes/no output lies on its label's side of a threshold.

    Args:
        threshold: 0.5 for probabilities, 0 for logits.
        name: as in `Metric`.

    >>> import chainrule as cr
    >>> metric = cr.metrics.BinaryAccuracy()
    >>> metric.update_state([[1.0], [1.0]], cr.tensor([[0.9], [0.2]]))
    >>> metric.result()
    0.5
    """

    default_name = "binary_accuracy"

    def __init__(self, threshold: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = float(threshold)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        prediction = as_tensor(y_pred)
        target = ops.cast(as_tensor(y_true), prediction.dtype)
        if target.ndim == prediction.ndim - 1:
            target = ops.expand_dims(target, -1)
        return _hits((prediction > self.threshold) == (target > 0.5))


class SparseTopKCategoricalAccuracy(Metric):
    """How often fewer than k classes are predicted higher than the integer label.

    A class with exactly the label's score does not count against it; a NaN never is a hit.

    Args:
        k: how many guesses there are.
        name: as in `Metric`.

    >>> import chainrule as cr
    >>> metric = cr.metrics.SparseTopKCategoricalAccuracy(k=2)
    >>> metric.update_state([2, 0], cr.tensor([[0.1, 0.7, 0.2], [0.1, 0.2, 0.7]]))
    >>> metric.result()
    0.5
    """

    default_name = "sparse_top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        check_positive(k, f"{type(self).__name__}: k")
        self.k = int(k)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        prediction = ops.stop_gradient(as_tensor(y_pred))
        classes = class_count(prediction)
        marked = ops.one_hot(class_numbers(y_true, prediction), classes, prediction.dtype.name)
        # A sum of zeros and the one score, which a NaN elsewhere would spoil: it is taken by choice.
        score = ops.sum(ops.where(marked > 0.5, prediction, 0.0), axis=-1, keepdims=True)
        higher = ops.sum(ops.cast(prediction > score, "float64"), axis=-1)
        return _hits(ops.logical_and(higher < float(self.k), ops.squeeze(score == score, -1)))


class TopKCategoricalAccuracy(SparseTopKCategoricalAccuracy):
    """As `SparseTopKCategoricalAccuracy`, for one-hot labels.

    >>> import chainrule as cr
    >>> metric = cr.metrics.TopKCategoricalAccuracy(k=1)
    >>> metric.update_state([[0.0, 1.0]], cr.tensor([[0.1, 0.9]]))
    >>> metric.result()
    1.0
    """

    default_name = "top_k_categorical_accuracy"


class MeanAbsoluteError(Metric):
    """Mean of the absolute errors; see `losses.mean_absolute_error`.

    >>> import chainrule as cr
    >>> metric = cr.metrics.MeanAbsoluteError()
    >>> metric.update_state([[1.0], [1.0]], cr.tensor([[3.0], [1.0]]))
    >>> metric.result()
    1.0
    """

    default_name = "mean_absolute_error"

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_absolute_error(y_true, y_pred, reduction=None)


class MeanSquaredError(Metric):
    """Mean of the squared errors; see `losses.mean_squared_error`.

    >>> import chainrule as cr
    >>> metric = cr.metrics.MeanSquaredError()
    >>> metric.update_state([[1.0], [1.0]], cr.tensor([[3.0], [1.0]]))
    >>> metric.result()
    2.0
    """

    default_name = "mean_squared_error"

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_squared_error(y_true, y_pred, reduction=None)


def _hits(equal: Tensor) -> Tensor:
    """1 for True, averaged over a sample's own elements."""
    numbers = ops.cast(equal, "float64")
    return ops.mean(numbers, axis=range(1, numbers.ndim)) if numbers.ndim > 1 else numbers
