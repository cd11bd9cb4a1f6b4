"""Metrics: averages over an epoch, kept in variables, so that they run inside the training step.

A metric adds to its totals with every batch, at no second pass over the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from chainrule import ops
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.op import Spec
from chainrule.graph.tensor import Tensor, as_tensor
from chainrule.graph.variable import Variable
from chainrule.losses import Loss

__all__ = [
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "Mean",
    "Metric",
    "SparseCategoricalAccuracy",
    "get_metric",
]


class Metric:
    """A running mean of one number for each sample; subclasses say which number in `per_sample`.

    Args:
        name: the name in History and in the progress bar.
    """

    default_name: ClassVar[str] = "metric"

    def __init__(self, name: str | None = None) -> None:
        self.name = name or self.default_name
        exact = Spec((), np.dtype("float64"))
        self.total = Variable(_zero, exact, name=f"metrics/{self.name}/total", trainable=False)
        self.count = Variable(_zero, exact, name=f"metrics/{self.name}/count", trainable=False)

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        """One number for each sample, shape ``(batch,)``."""
        raise NotImplementedError(f"{type(self).__name__} has no per_sample()")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"name": self.name}

    def update_state(self, y_true: Any, y_pred: Any) -> None:
        """Take a batch into account.

        Raises:
            ShapeError: `per_sample` gave another shape than one number for each sample.
        """
        values = self.per_sample(y_true, y_pred)
        if values.ndim != 1:
            raise ShapeError(f"the metric {self.name!r} gave {values.spec}; expected one number for each sample")
        self.add(values)

    def add(self, values: Any) -> None:
        """Take numbers of shape ``(batch,)`` into account."""
        numbers = ops.cast(ops.stop_gradient(values), "float64")
        self.total.assign(self.total + ops.sum(numbers))
        self.count.assign(self.count + ops.element_count(numbers))

    def result(self) -> float:
        """The mean so far; NaN before the first batch."""
        count = float(self.count.data)
        return float(self.total.data) / count if count else float("nan")

    def reset_state(self) -> None:
        """Forget everything."""
        self.total.assign(0.0)
        self.count.assign(0.0)


def _zero(spec: Spec) -> Any:
    return np.zeros(spec.shape, spec.dtype)


class Mean(Metric):
    """Mean of the numbers given to `add`; `fit` keeps the loss in one.

    >>> import chainrule as cr
    >>> mean = cr.metrics.Mean("loss")
    >>> mean.add(cr.tensor([1.0, 3.0]))
    >>> mean.result()
    2.0
    """

    default_name = "mean"


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


def _hits(equal: Tensor) -> Tensor:
    """1 for True, averaged over a sample's own elements."""
    numbers = ops.cast(equal, "float64")
    return ops.mean(numbers, axis=range(1, numbers.ndim)) if numbers.ndim > 1 else numbers


_KINDS = (SparseCategoricalAccuracy, CategoricalAccuracy, BinaryAccuracy)
_NAMED: dict[str, Callable[[], Metric]] = {kind.default_name: kind for kind in _KINDS}
_CLASSES: dict[str, Callable[..., Metric]] = {kind.__name__: kind for kind in _KINDS}


def get_metric(value: Any, loss: Loss) -> Metric:
    """A metric from its name or itself; ``"accuracy"`` is the accuracy that suits the loss's labels.

    Raises:
        ConfigError: no metric has that name, or the loss has no accuracy.
    """
    if isinstance(value, Metric):
        return value
    if isinstance(value, type) and issubclass(value, Metric):
        return value()
    if isinstance(value, dict) and value.get("class") in _CLASSES:
        return _CLASSES[value["class"]](**value["config"])
    if value in ("accuracy", "acc"):
        return _accuracy(value, loss)
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]()
    names: Sequence[str] = ("accuracy", *sorted(_NAMED))
    raise ConfigError(f"unknown metric {value!r}; expected one of {', '.join(names)}, or a Metric")


def _accuracy(name: str, loss: Loss) -> Metric:
    if loss.labels == "sparse":
        return SparseCategoricalAccuracy(name)
    if loss.labels == "one_hot":
        return CategoricalAccuracy(name)
    if loss.labels == "binary":
        return BinaryAccuracy(0.0 if getattr(loss, "from_logits", False) else 0.5, name)
    raise ConfigError(f"the loss {loss.name!r} has no accuracy; name a metric")
