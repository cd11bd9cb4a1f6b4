"""Metrics by name, as `compile` and model files call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule.errors import ConfigError
from chainrule.losses import Loss
from chainrule.metrics.accuracy import (
    BinaryAccuracy,
    CategoricalAccuracy,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from chainrule.metrics.auc import AUC
from chainrule.metrics.counts import ConfusionMatrix, F1Score, Precision, Recall
from chainrule.metrics.metric import Totals

__all__ = ["get_metric"]

_KINDS: tuple[type[Totals], ...] = (
    AUC,
    BinaryAccuracy,
    CategoricalAccuracy,
    ConfusionMatrix,
    F1Score,
    MeanAbsoluteError,
    MeanSquaredError,
    Precision,
    Recall,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
_NAMED: dict[str, type[Totals]] = {
    **{kind.default_name: kind for kind in _KINDS},
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
}
_CLASSES: dict[str, Callable[..., Totals]] = {kind.__name__: kind for kind in _KINDS}


def get_metric(value: Any, loss: Loss) -> Totals:
    """A metric from its name or itself.

    ``"accuracy"`` and ``"top_5_accuracy"`` (or another number) are those that suit the loss's labels; thresholds are
    those of logits where the loss takes logits.

    Raises:
        ConfigError: no metric has that name, or the loss has no accuracy.
    """
    if isinstance(value, Totals):
        return value
    if isinstance(value, type) and issubclass(value, Totals):
        return value()
    if isinstance(value, dict) and value.get("class") in _CLASSES:
        return _CLASSES[value["class"]](**value["config"])
    if value in ("accuracy", "acc"):
        return _accuracy(value, loss)
    if isinstance(value, str) and value in _NAMED:
        return _suited(_NAMED[value], value, loss)
    top = _top(value, loss)
    if top is not None:
        return top
    names = ("accuracy", "top_K_accuracy", *sorted(_NAMED))
    raise ConfigError(f"unknown metric {value!r}; expected one of {', '.join(names)}, or a Metric")


def _accuracy(name: str, loss: Loss) -> Totals:
    if loss.labels == "sparse":
        return SparseCategoricalAccuracy(name)
    if loss.labels == "one_hot":
        return CategoricalAccuracy(name)
    if loss.labels == "binary":
        return BinaryAccuracy(_threshold(loss), name)
    raise ConfigError(f"the loss {loss.name!r} has no accuracy; name a metric")


def _suited(kind: type[Totals], name: str, loss: Loss) -> Totals:
    """A metric of yes/no decisions with the threshold of the loss's outputs."""
    if issubclass(kind, BinaryAccuracy | ConfusionMatrix | Precision | Recall | F1Score):
        if issubclass(kind, BinaryAccuracy):
            return kind(threshold=_threshold(loss), name=name)
        return kind(threshold=_threshold(loss), name=name, multi_label=loss.labels == "binary")
    if issubclass(kind, AUC):
        return AUC(from_logits=_takes_logits(loss), name=name, multi_label=loss.labels == "binary")
    return kind(name=name)


def _top(value: Any, loss: Loss) -> Totals | None:
    """``top_K_accuracy`` for labels of classes."""
    middle = value.removeprefix("top_").removesuffix("_accuracy") if isinstance(value, str) else ""
    if not (middle.isascii() and middle.isdigit()) or value != f"top_{middle}_accuracy":
        return None
    kinds = {"sparse": SparseTopKCategoricalAccuracy, "one_hot": TopKCategoricalAccuracy}
    if loss.labels not in kinds:
        raise ConfigError(f"the loss {loss.name!r} has no {value}; it is for labels of several classes")
    return kinds[loss.labels](int(middle), value)


def _takes_logits(loss: Loss) -> bool:
    return bool(getattr(loss, "from_logits", False))


def _threshold(loss: Loss) -> float:
    return 0.0 if _takes_logits(loss) else 0.5
