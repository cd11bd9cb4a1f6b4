"""Metrics of right and wrong decisions by class: precision, recall, F1, and the confusion matrix they come from."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, TypeAlias

import numpy as np

from chainrule import ops
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.op import Array
from chainrule.graph.tensor import as_tensor
from chainrule.metrics.labels import decisions, row_weights
from chainrule.metrics.metric import Totals

__all__ = ["ConfusionMatrix", "F1Score", "Precision", "Recall"]

Average: TypeAlias = Literal["macro", "micro", "weighted"] | None


class _Decisions(Totals):
    """What follows from counts of hits, decisions and labels of each class.

    Args:
        average: over the classes: ``"macro"`` the plain mean, ``"weighted"`` by how often each class is true,
            ``"micro"`` one number of all counts together, None a number for each class.  A yes/no output has the class
            yes alone.
        threshold: of a yes/no output; 0.5 for probabilities, 0 for logits.
        name: as in `Metric`.
        multi_label: whether several outputs are yes/no answers each, with labels of 0 and 1 for each, instead of
            classes of which one is true.

    A class without any decision (precision) or label (recall) counts as 0.
    """

    def __init__(
        self,
        average: Average = "macro",
        threshold: float = 0.5,
        name: str | None = None,
        multi_label: bool = False,
    ) -> None:
        super().__init__(name)
        self.multi_label = bool(multi_label)
        if average not in ("macro", "micro", "weighted", None):
            raise ConfigError(
                f"{type(self).__name__}: average must be 'macro', 'micro', 'weighted' or None, got {average!r}"
            )
        self.average: Average = average
        self.threshold = float(threshold)

    @property
    def is_scalar(self) -> bool:
        return self.average is not None

    def get_config(self) -> dict[str, Any]:
        own = {"average": self.average, "threshold": self.threshold, "multi_label": self.multi_label}
        return {**super().get_config(), **own}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true, decided = decisions(y_true, y_pred, self.threshold, self.multi_label)
        weight = None if sample_weight is None else row_weights(sample_weight, as_tensor(y_pred))
        for name, marks in (("hits", true * decided), ("decided", decided), ("true", true)):
            self.add_to(name, ops.sum(marks if weight is None else marks * weight, axis=0))

    def result(self) -> Any:
        """The share, NaN before the first batch; an array where nothing is averaged."""
        hits, decided, true = (self.total(name) for name in ("hits", "decided", "true"))
        if not hits.ndim:
            return float("nan")
        if self.average == "micro":
            return float(self.share(*(np.asarray(counts.sum()) for counts in (hits, decided, true))))
        shares = self.share(hits, decided, true)
        if self.average is None:
            return shares
        weights = true if self.average == "weighted" and true.sum() else np.ones_like(true)
        return float((shares * weights).sum() / weights.sum())

    @abstractmethod
    def share(self, hits: Array, decided: Array, true: Array) -> Array:
        """The number of each class from its counts."""


def _quotient(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


class Precision(_Decisions):
    """``hits / decisions``: how many of those decided for a class belong to it.

    >>> import chainrule as cr
    >>> metric = cr.metrics.Precision()
    >>> metric.update_state([[1.0], [0.0], [1.0]], cr.tensor([[0.9], [0.8], [0.1]]))
    >>> metric.result()
    0.5
    """

    default_name = "precision"

    def share(self, hits: Array, decided: Array, true: Array) -> Array:
        return _quotient(hits, decided)


class Recall(_Decisions):
    """``hits / labels``: how many of a class were found.

    >>> import chainrule as cr
    >>> metric = cr.metrics.Recall(average=None)
    >>> metric.update_state([0, 1, 1], cr.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
    >>> metric.result().tolist()
    [1.0, 0.5]
    """

    default_name = "recall"

    def share(self, hits: Array, decided: Array, true: Array) -> Array:
        return _quotient(hits, true)


class F1Score(_Decisions):
    """``2 hits / (decisions + labels)``: the harmonic mean of precision and recall.

    >>> import chainrule as cr
    >>> metric = cr.metrics.F1Score()
    >>> metric.update_state([[1.0], [0.0], [1.0]], cr.tensor([[0.9], [0.8], [0.1]]))
    >>> metric.result()
    0.5
    """

    default_name = "f1_score"

    def share(self, hits: Array, decided: Array, true: Array) -> Array:
        return _quotient(2 * hits, decided + true)


class ConfusionMatrix(Totals):
    """How often each class was taken for each: row the true class, column the decided one.

    A yes/no output has the two classes no and yes.  The result is an array, which stands in no History.

    Args:
        threshold: of a yes/no output; 0.5 for probabilities, 0 for logits.
        name: as in `Metric`.
        multi_label: whether several outputs are yes/no answers each: these have no such matrix, and are refused.

    >>> import chainrule as cr
    >>> metric = cr.metrics.ConfusionMatrix()
    >>> metric.update_state([0, 1, 1], cr.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
    >>> metric.result().tolist()
    [[1, 0], [1, 1]]
    """

    default_name = "confusion_matrix"

    def __init__(self, threshold: float = 0.5, name: str | None = None, multi_label: bool = False) -> None:
        super().__init__(name)
        self.threshold, self.multi_label = float(threshold), bool(multi_label)

    @property
    def is_scalar(self) -> bool:
        return False

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold, "multi_label": self.multi_label}

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        true, decided = decisions(y_true, y_pred, self.threshold, self.multi_label)
        if self.multi_label and true.shape[-1] != 1:
            raise ShapeError(
                f"{self.name}: {true.shape[-1]} outputs that may be true together have no confusion matrix; "
                "take precision, recall or f1_score"
            )
        if true.shape[-1] == 1:
            true, decided = (ops.concat([1 - marks, marks], axis=-1) for marks in (true, decided))
        if sample_weight is not None:
            true = true * row_weights(sample_weight, as_tensor(y_pred))
        self.add_to("counts", ops.matmul(ops.transpose(true, (1, 0)), decided))

    def result(self) -> Array:
        """The counts: integers, or sums of weights."""
        counts = self.total("counts")
        whole = np.rint(counts)
        return whole.astype(np.int64) if (whole == counts).all() else counts.copy()
