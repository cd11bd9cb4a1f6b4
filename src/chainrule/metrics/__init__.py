"""Metrics: what is averaged and counted over an epoch, inside the training step."""

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
from chainrule.metrics.metric import Mean, Metric, Totals
from chainrule.metrics.named import get_metric

__all__ = [
    "AUC",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "ConfusionMatrix",
    "F1Score",
    "Mean",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "Precision",
    "Recall",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
    "Totals",
    "get_metric",
]
