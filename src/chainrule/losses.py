"""Losses: functions that give a number to minimise, and the classes that `compile` takes.

Every loss is a mean over samples; a sample's own loss is a mean over its elements (or positions, for
cross-entropy).  Cross-entropies take probabilities or logits; probabilities that come straight out of a
softmax or sigmoid are not used: the loss is computed from the logits behind them, which is exact where the
probability rounds to 0 or 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from chainrule import ops
from chainrule.errors import ConfigError, DTypeError, ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.tensor import Tensor, as_tensor

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "get_loss",
    "mean_absolute_error",
    "mean_squared_error",
    "sparse_categorical_crossentropy",
]

EPSILON = 1e-7
"""Probabilities are kept this far from 0 and 1 before a logarithm, as Keras does."""

Reduction: TypeAlias = Literal["sum_over_batch_size", "sum"] | None


def mean_squared_error(y_true: Any, y_pred: Any, reduction: Reduction = "sum_over_batch_size") -> Tensor:
    """``mean((y_pred - y_true)**2)``.

    Args:
        y_true, y_pred: one shape; ``(batch,)`` targets fit a ``(batch, 1)`` prediction.
        reduction: None gives one loss for each sample, ``"sum"`` their sum.

    Gradient: ``dy_pred = 2 (y_pred - y_true) / number of elements``.

    >>> import chainrule as cr
    >>> cr.losses.mean_squared_error([1.0, 2.0], cr.tensor([1.0, 4.0])).item()
    2.0
    """
    prediction = as_tensor(y_pred)
    target = _matched(y_true, prediction, "mean_squared_error")
    error = prediction - target
    return _reduce(_sample_mean(error * error), reduction)


def mean_absolute_error(y_true: Any, y_pred: Any, reduction: Reduction = "sum_over_batch_size") -> Tensor:
    """``mean(|y_pred - y_true|)``.

    Args: as `mean_squared_error`.

    Gradient: ``dy_pred = sign(y_pred - y_true) / number of elements``, 0 where the two are equal.

    >>> import chainrule as cr
    >>> cr.losses.mean_absolute_error([1.0, 2.0], cr.tensor([1.0, 4.0])).item()
    1.0
    """
    prediction = as_tensor(y_pred)
    target = _matched(y_true, prediction, "mean_absolute_error")
    return _reduce(_sample_mean(ops.abs(prediction - target)), reduction)


def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    reduction: Reduction = "sum_over_batch_size",
) -> Tensor:
    """``-sum_c y_c log p_c`` for one-hot (or soft) labels.

    Args:
        y_true: ``(batch, ..., classes)``, each row summing to 1.
        y_pred: the same shape: probabilities, or logits.
        from_logits: whether y_pred are logits; then ``p = softmax(y_pred)``.
        label_smoothing: s in [0, 1): labels become ``y (1 - s) + s / classes``.
        reduction: as in `mean_squared_error`.

    Gradient with respect to logits: ``(p - y) / batch``.

    >>> import chainrule as cr
    >>> logits = cr.tensor([[0.0, 0.0]])
    >>> round(cr.losses.categorical_crossentropy([[1.0, 0.0]], logits, from_logits=True).item(), 4)
    0.6931
    """
    prediction = as_tensor(y_pred)
    target = _matched(y_true, prediction, "categorical_crossentropy")
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / _classes(prediction)
    logarithms = _log_probabilities(prediction, from_logits)
    return _reduce(_sample_mean(-ops.sum(target * logarithms, axis=-1)), reduction)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, reduction: Reduction = "sum_over_batch_size"
) -> Tensor:
    """``-log p_label`` for integer labels.

    Args:
        y_true: integers ``(batch, ...)`` or ``(batch, ..., 1)`` in 0..classes-1.
        y_pred: ``(batch, ..., classes)``: probabilities, or logits.
        from_logits: whether y_pred are logits.
        reduction: as in `mean_squared_error`.

    Gradient with respect to logits: ``(softmax(y_pred) - one_hot(y_true)) / batch``.

    >>> import chainrule as cr
    >>> round(
    ...     cr.losses.sparse_categorical_crossentropy([1], cr.tensor([[0.0, 0.0]]), from_logits=True).item(),
    ...     4,
    ... )
    0.6931
    """
    prediction = as_tensor(y_pred)
    labels = as_tensor(y_true)
    if labels.spec.is_float:
        raise DTypeError(f"sparse_categorical_crossentropy takes integer labels, got {labels.spec}")
    if labels.ndim == prediction.ndim and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, -1)
    if labels.shape != prediction.shape[:-1]:
        raise ShapeError(
            f"sparse_categorical_crossentropy: labels of shape {format_shape(labels.shape)} do not fit a "
            f"prediction of shape {format_shape(prediction.shape)}; expected {format_shape(prediction.shape[:-1])} "
            "(for one-hot labels use categorical_crossentropy)"
        )
    logarithms = _log_probabilities(prediction, from_logits)
    chosen = ops.one_hot(labels, _classes(prediction), prediction.dtype.name)
    return _reduce(_sample_mean(-ops.sum(chosen * logarithms, axis=-1)), reduction)


def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    reduction: Reduction = "sum_over_batch_size",
) -> Tensor:
    """``-(y log p + (1 - y) log(1 - p))`` for independent yes/no outputs.

    Args:
        y_true: 0 or 1, in the shape of y_pred; ``(batch,)`` fits a ``(batch, 1)`` prediction.
        y_pred: probabilities, or logits; with logits z it is ``softplus(z) - y z``.
        from_logits: whether y_pred are logits; then ``p = sigmoid(y_pred)``.
        label_smoothing: s in [0, 1): labels become ``y (1 - s) + s / 2``.
        reduction: as in `mean_squared_error`.

    Gradient with respect to logits: ``(p - y) / number of elements``.

    >>> import chainrule as cr
    >>> round(cr.losses.binary_crossentropy([1.0], cr.tensor([0.0]), from_logits=True).item(), 4)
    0.6931
    """
    prediction = as_tensor(y_pred)
    target = _matched(y_true, prediction, "binary_crossentropy")
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / 2
    logits = prediction if from_logits else _behind(prediction, "sigmoid")
    if logits is not None:
        loss = ops.softplus(logits) - target * logits
    else:
        p = ops.clip(prediction, EPSILON, 1 - EPSILON)
        loss = -(target * ops.log(p) + (1 - target) * ops.log(1 - p))
    return _reduce(_sample_mean(loss), reduction)


def _behind(prediction: Tensor, activation: str) -> Tensor | None:
    """The logits that an activation made these probabilities from, where that is known."""
    node = prediction.node
    if node is None or node.op.name != activation:
        return None
    if activation == "softmax" and node.attrs["axis"] != prediction.ndim - 1:
        return None
    return node.inputs[0]


def _log_probabilities(prediction: Tensor, from_logits: bool) -> Tensor:
    _classes(prediction)
    logits = prediction if from_logits else _behind(prediction, "softmax")
    if logits is not None:
        return ops.log_softmax(logits)
    total = ops.sum(prediction, axis=-1, keepdims=True)
    return ops.log(ops.clip(prediction / total, EPSILON, 1 - EPSILON))


def _classes(prediction: Tensor) -> int:
    if prediction.ndim < 2 or not isinstance(prediction.shape[-1], int):
        raise ShapeError(
            f"a cross-entropy needs predictions (batch, ..., classes), got {format_shape(prediction.shape)}"
        )
    return prediction.shape[-1]


def _matched(y_true: Any, prediction: Tensor, name: str) -> Tensor:
    """The targets in the prediction's dtype and shape; broadcasting them would be a silent error."""
    target = ops.cast(as_tensor(y_true), prediction.dtype)
    if target.ndim == prediction.ndim - 1 and prediction.shape[-1] == 1:
        target = ops.expand_dims(target, -1)
    if target.shape != prediction.shape:
        raise ShapeError(
            f"{name}: targets of shape {format_shape(target.shape)} do not fit a prediction of shape "
            f"{format_shape(prediction.shape)}; the two must be equal"
        )
    return target


def _sample_mean(loss: Tensor) -> Tensor:
    """One number for each sample."""
    return ops.mean(loss, axis=range(1, loss.ndim)) if loss.ndim > 1 else loss


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction is None:
        return losses
    if reduction == "sum":
        return ops.sum(losses)
    if reduction == "sum_over_batch_size":
        return ops.mean(losses)
    raise ConfigError(f"reduction must be 'sum_over_batch_size', 'sum' or None, got {reduction!r}")


LabelKind: TypeAlias = Literal["values", "sparse", "one_hot", "binary"]


class Loss(ABC):
    """A loss with its settings; call it with ``(y_true, y_pred)``, or give it to `compile`.

    Subclass it with a `call` that gives one loss for each sample to make your own.

    Attributes:
        labels: what targets it takes, so that `fit` can check them before the first step.
    """

    labels: ClassVar[LabelKind] = "values"
    name: ClassVar[str] = "loss"

    @abstractmethod
    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        """One loss for each sample, shape ``(batch,)``."""

    def __call__(self, y_true: Any, y_pred: Any) -> Tensor:
        return ops.mean(self.call(y_true, y_pred))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(vars(self))


class MeanSquaredError(Loss):
    """See `mean_squared_error`.

    >>> import chainrule as cr
    >>> cr.losses.MeanSquaredError()([1.0], cr.tensor([3.0])).item()
    4.0
    """

    name = "mean_squared_error"

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_squared_error(y_true, y_pred, reduction=None)


class MeanAbsoluteError(Loss):
    """See `mean_absolute_error`.

    >>> import chainrule as cr
    >>> cr.losses.MeanAbsoluteError()([1.0], cr.tensor([3.0])).item()
    2.0
    """

    name = "mean_absolute_error"

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return mean_absolute_error(y_true, y_pred, reduction=None)


class _Crossentropy(Loss):
    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"{type(self).__name__}: label_smoothing lies in [0, 1), got {label_smoothing}")
        self.from_logits, self.label_smoothing = bool(from_logits), float(label_smoothing)


class CategoricalCrossentropy(_Crossentropy):
    """See `categorical_crossentropy`.

    >>> import chainrule as cr
    >>> round(cr.losses.CategoricalCrossentropy()([[1.0, 0.0]], cr.tensor([[0.5, 0.5]])).item(), 4)
    0.6931
    """

    labels = "one_hot"
    name = "categorical_crossentropy"

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, None)


class SparseCategoricalCrossentropy(Loss):
    """See `sparse_categorical_crossentropy`.

    >>> import chainrule as cr
    >>> round(cr.losses.SparseCategoricalCrossentropy()([0], cr.tensor([[0.5, 0.5]])).item(), 4)
    0.6931
    """

    labels = "sparse"
    name = "sparse_categorical_crossentropy"

    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = bool(from_logits)

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return sparse_categorical_crossentropy(y_true, y_pred, self.from_logits, None)


class BinaryCrossentropy(_Crossentropy):
    """See `binary_crossentropy`.

    >>> import chainrule as cr
    >>> round(cr.losses.BinaryCrossentropy()([1.0], cr.tensor([0.5])).item(), 4)
    0.6931
    """

    labels = "binary"
    name = "binary_crossentropy"

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return binary_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing, None)


class _FunctionLoss(Loss):
    """A function ``(y_true, y_pred)`` of the user's own that gives one loss for each sample."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Tensor:
        return self.function(y_true, y_pred)


_CLASSES: Sequence[type[Loss]] = (
    MeanAbsoluteError,
    MeanSquaredError,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
)
_NAMED: dict[str, type[Loss]] = {
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
    **{kind.name: kind for kind in _CLASSES},
    **{kind.__name__: kind for kind in _CLASSES},
}
_FUNCTIONS: dict[Callable[..., Tensor], type[Loss]] = {
    mean_absolute_error: MeanAbsoluteError,
    mean_squared_error: MeanSquaredError,
    categorical_crossentropy: CategoricalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
    binary_crossentropy: BinaryCrossentropy,
}


def get_loss(value: Any) -> Loss:
    """A loss from its name, its configuration, a function, a class, or itself.

    Raises:
        ConfigError: no loss has that name.

    >>> get_loss("mse").name
    'mean_squared_error'
    """
    if isinstance(value, Loss):
        return value
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]()
    if isinstance(value, dict) and value.get("class") in _NAMED:
        return _NAMED[value["class"]](**value["config"])
    if isinstance(value, type) and issubclass(value, Loss):
        return value()
    if callable(value):
        return _FUNCTIONS[value]() if value in _FUNCTIONS else _FunctionLoss(value)
    names = ", ".join(sorted({"mae", "mse", *(kind.name for kind in _CLASSES)}))
    raise ConfigError(f"unknown loss {value!r}; expected one of {names}, or a Loss")
