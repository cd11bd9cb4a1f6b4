"""What metrics are: totals over an epoch, kept in variables, so that they run inside the training step.

A metric adds to its totals with every batch, at no second pass over the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from chainrule import ops
from chainrule.errors import ShapeError
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Tensor
from chainrule.graph.variable import Variable

__all__ = ["LossMean", "Mean", "Metric", "Totals"]

_EXACT = np.dtype("float64")


class Totals(ABC):
    """Base class of everything that is summed up over an epoch: named totals, float64, that begin at zero.

    Subclasses say in `update_state` what a batch adds (with `add_to`), and in `result` what has come together.

    Args:
        name: the name in History and in the progress bar.
    """

    default_name: ClassVar[str] = "metric"

    def __init__(self, name: str | None = None) -> None:
        self.name = name or self.default_name
        self._totals: dict[str, Variable] = {}

    @property
    def is_scalar(self) -> bool:
        """Whether the result is one number, and so can stand in History."""
        return True

    @abstractmethod
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account; where weights are given, each sample counts so many times."""

    @abstractmethod
    def result(self) -> Any:
        """What has come together so far; NaN before the first batch."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"name": self.name}

    def variables(self) -> list[Variable]:
        """The totals that were made so far."""
        return list(self._totals.values())

    def make_totals(self, arrays: Mapping[str, Array]) -> None:
        """Make the totals of this metric that are among some arrays, by variables' names, in their shapes."""
        start = f"metrics/{self.name}/"
        for name, array in arrays.items():
            total = name.removeprefix(start)
            if name.startswith(start) and total not in self._totals:
                self._make(total, array.shape)

    def reset_state(self) -> None:
        """Forget everything."""
        for total in self._totals.values():
            total.assign(np.zeros(total.spec.shape, _EXACT))

    def add_to(self, total: str, numbers: Tensor) -> None:
        """Add to a total, which is made in that shape when it is first added to.

        Raises:
            ShapeError: it has another shape already.
        """
        if total not in self._totals:
            self._make(total, numbers.shape)
        known = self._totals[total]
        if known.shape != numbers.shape:
            raise ShapeError(
                f"the metric {self.name!r} counts {known.shape} numbers, and a batch gave {numbers.shape}; "
                "use one metric for one model"
            )
        known.assign(known + ops.cast(numbers, _EXACT.name))

    def total(self, name: str) -> Array:
        """The present value of a total; zero if nothing was added."""
        found = self._totals.get(name)
        return np.zeros((), _EXACT) if found is None else found.data

    def _make(self, total: str, shape: Any) -> None:
        spec = Spec(tuple(shape), _EXACT)
        self._totals[total] = Variable(_zeros, spec, name=f"metrics/{self.name}/{total}", trainable=False)


def _zeros(spec: Spec) -> Any:
    return np.zeros(spec.shape, spec.dtype)


class Metric(Totals):
    """A running mean of one number for each sample; subclasses say which number in `per_sample`.

    Args:
        name: the name in History and in the progress bar.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        for total in ("total", "count"):
            self._make(total, ())

    def per_sample(self, y_true: Any, y_pred: Any) -> Tensor:
        """One number for each sample, shape ``(batch,)``."""
        raise NotImplementedError(f"{type(self).__name__} has no per_sample()")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Raises:
            ShapeError: `per_sample` gave another shape than one number for each sample.
        """
        values = self.per_sample(y_true, y_pred)
        if values.ndim != 1:
            raise ShapeError(f"the metric {self.name!r} gave {values.spec}; expected one number for each sample")
        self.add(values, sample_weight)

    def add(self, values: Any, sample_weight: Any = None) -> None:
        """Take numbers of shape ``(batch,)`` into account; weighted, the result is their weighted mean."""
        numbers = ops.cast(ops.stop_gradient(values), "float64")
        if sample_weight is None:
            self.add_to("total", ops.sum(numbers))
            self.add_to("count", ops.element_count(numbers))
        else:
            weights = ops.cast(sample_weight, "float64")
            self.add_to("total", ops.sum(numbers * weights))
            self.add_to("count", ops.sum(weights))

    def result(self) -> float:
        """The mean so far; NaN before the first batch."""
        count = float(self.total("count"))
        return float(self.total("total")) / count if count else float("nan")


class Mean(Metric):
    """Mean of the numbers given to `add`; `fit` keeps the loss in one.

    >>> import chainrule as cr
    >>> mean = cr.metrics.Mean("loss")
    >>> mean.add(cr.tensor([1.0, 3.0]))
    >>> mean.result()
    2.0
    """

    default_name = "mean"


class LossMean(Mean):
    """The mean loss, and the number of the first step whose loss was not finite (from 1; 0 if there is none)."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self._make("first_bad_step", ())

    def watch(self, losses: Any, step: Any) -> None:
        """Take the losses of a step into account, which has that number."""
        sound = ops.cast(ops.stop_gradient(ops.sum(losses)), "float64")
        known = self._totals["first_bad_step"]
        new = ops.logical_and(known == 0.0, ops.logical_not(sound - sound == 0.0))
        known.assign(ops.where(new, ops.cast(step, "float64"), known))

    @property
    def first_bad_step(self) -> int:
        """See above."""
        return int(self.total("first_bad_step"))
