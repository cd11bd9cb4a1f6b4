"""The area under the curve of decisions at every threshold."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from chainrule import ops
from chainrule.checks import check_at_least
from chainrule.errors import ConfigError
from chainrule.graph.op import Array
from chainrule.graph.tensor import Tensor, as_tensor, tensor
from chainrule.metrics.labels import class_count, class_numbers, row_weights, yes_or_no
from chainrule.metrics.metric import Totals

__all__ = ["AUC"]

_UPPER = 2.0**26  # more than the samples of a batch


class AUC(Totals):
    """Area under the receiver operating characteristic, or under precision over recall.

    The curve is taken at evenly spaced thresholds between 0 and 1, and below and above all scores.  Under the first
    curve the area is that of straight lines between the points; under the second every recall counts with the precision
    at its own threshold (average precision), since straight lines there promise too much.  With several classes it is
    the plain mean of each class against all others, without classes that never or always are true.

    Args:
        curve: ``"ROC"`` or ``"PR"``.
        num_thresholds: points of the curve; 200 miss the exact area by less than 0.005 for spread scores.
        from_logits: whether predictions are logits; they then go through a sigmoid or softmax first.
        name: as in `Metric`.
        multi_label: whether several outputs are yes/no answers each, with labels of 0 and 1 for each, instead of
            classes of which one is true.

    Sources: Fawcett, Pattern Recognition Letters 2006; Davis and Goadrich, ICML 2006.

    >>> import chainrule as cr
    >>> metric = cr.metrics.AUC()
    >>> metric.update_state([[0.0], [0.0], [1.0], [1.0]], cr.tensor([[0.1], [0.5], [0.3], [0.9]]))
    >>> metric.result()
    0.75
    """

    default_name = "auc"

    def __init__(
        self,
        curve: Literal["ROC", "PR"] = "ROC",
        num_thresholds: int = 200,
        from_logits: bool = False,
        name: str | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__(name)
        if curve not in ("ROC", "PR"):
            raise ConfigError(f"AUC: curve must be 'ROC' or 'PR', got {curve!r}")
        check_at_least(num_thresholds, 3, "AUC: num_thresholds")
        self.curve: Literal["ROC", "PR"] = curve
        self.num_thresholds, self.from_logits = num_thresholds, bool(from_logits)
        self.multi_label = bool(multi_label)
        inner = np.arange(1, num_thresholds - 1) / (num_thresholds - 1)
        self._thresholds = {"float64": np.array([-1e-7, *inner, 1 + 1e-7])}
        self._thresholds["float32"] = _rounded_down(self._thresholds["float64"])

    def get_config(self) -> dict[str, Any]:
        own = {"curve": self.curve, "num_thresholds": self.num_thresholds, "from_logits": self.from_logits}
        own["multi_label"] = self.multi_label
        return {**super().get_config(), **own}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        score = ops.stop_gradient(as_tensor(y_pred))
        classes = class_count(score)
        if self.from_logits:
            score = ops.sigmoid(score) if classes == 1 or self.multi_label else ops.softmax(score)
        if score.dtype != np.float32:
            score = ops.cast(score, "float64")
        # A sum is stored before it is compared with each threshold: the quotients of a softmax are taken once.
        flat = ops.sum(ops.reshape(score, (-1, classes, 1)), axis=-1)
        above = ops.expand_dims(flat, -1) > tensor(self._thresholds[score.dtype.name])
        if classes == 1 or self.multi_label:
            true = yes_or_no(y_true, score)
        else:
            true = ops.reshape(ops.one_hot(class_numbers(y_true, score), classes, "float64"), (-1, classes))
        untrue = 1 - true
        if sample_weight is not None:
            weight = row_weights(sample_weight, score)
            true, untrue = true * weight, untrue * weight
        if sample_weight is None and classes > 1 and not self.multi_label:
            hits, false = _counted_at_once(true, untrue, above)
        else:
            hits, false = _over_samples(true, above), _over_samples(untrue, above)
        for name, sums, marks in (("hits", hits, true), ("false", false, untrue)):
            self.add_to(name, sums)
            self.add_to(f"{name} in all", ops.sum(marks, axis=0))

    def result(self) -> float:
        """The area in [0, 1]; NaN before there are samples of both kinds."""
        hits, false = self.total("hits"), self.total("false")
        if not hits.ndim:
            return float("nan")
        true, untrue = self.total("hits in all"), self.total("false in all")
        usable = np.flatnonzero((true > 0) & (untrue > 0))
        if not len(usable):
            return float("nan")
        return float(self._areas(hits[usable], false[usable], true[usable, None], untrue[usable, None]).mean())

    def _areas(self, hits: Array, false: Array, true: Array, untrue: Array) -> Array:
        """From the counts above each threshold, which rise: a row for each class."""
        recall = hits / true
        if self.curve == "ROC":
            fallout = false / untrue
            found: Array = ((fallout[:, :-1] - fallout[:, 1:]) * (recall[:, :-1] + recall[:, 1:]) / 2).sum(axis=1)
            return found
        decided = hits + false
        precision = np.divide(hits, decided, out=np.ones_like(hits), where=decided > 0)
        found = ((recall[:, :-1] - recall[:, 1:]) * precision[:, :-1]).sum(axis=1)
        return found


def _over_samples(marks: Tensor, above: Tensor) -> Tensor:
    """``sum_n marks[n, k] above[n, k, t]``."""
    return ops.sum(ops.where(above, ops.expand_dims(marks, -1), 0.0), axis=0)


def _counted_at_once(true: Tensor, untrue: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Both sums of marks that are 0 or 1 from one: hits in the upper half of a float64, the others in the lower."""
    marks = ops.sum(ops.expand_dims(true * _UPPER + untrue, -1), axis=-1)  # stored, as the scores are
    both = _over_samples(marks, above)
    hits = ops.cast(ops.cast(both / _UPPER, "int32"), "float64")
    return hits, both - hits * _UPPER


def _rounded_down(numbers: Array) -> Array:
    """The largest float32 numbers that are not above them: a float32 score exceeds the one where it does the other."""
    near = numbers.astype(np.float32)
    return np.where(near > numbers, np.nextafter(near, np.float32(-np.inf)), near)
