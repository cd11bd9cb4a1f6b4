"""A trained model as a classifier: class probabilities, accuracy, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule import ops
from chainrule.checks import check_labels_sparse
from chainrule.cli.parts import batches_of
from chainrule.data import Source
from chainrule.errors import ConfigError, DataError, ShapeError
from chainrule.graph.tensor import tensor
from chainrule.losses import BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy
from chainrule.models import Model
from chainrule.runs import confusion_counts

__all__ = ["Classifier", "Score"]

_BATCH = 256
_SUM_TOLERANCE = 1e-3  # by which the probabilities of a sample may miss 1


@dataclass(frozen=True, eq=False)
class Score:
    """How a model does on some data.

    Attributes:
        loss: the mean loss.
        labels: the true classes, (samples,).
        probabilities: of every class, (samples, classes).
    """

    loss: float
    labels: NDArray[np.int64]
    probabilities: NDArray[Any]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest classes, (samples,)."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (classes, classes): row is the true class, column the predicted one."""
        return confusion_counts(self.labels, self.predicted, self.probabilities.shape[1])

    @property
    def samples(self) -> int:
        """How many samples there were."""
        return int(self.confusion.sum())

    @property
    def correct(self) -> int:
        """How many of them were classified correctly."""
        return int(np.trace(self.confusion))

    @property
    def accuracy(self) -> float:
        """The share that was classified correctly."""
        return self.correct / self.samples

    def by_class(self) -> list[tuple[int, int]]:
        """Correct and all samples of each true class."""
        return [(int(row[k]), int(row.sum())) for k, row in enumerate(self.confusion)]

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.2f} % ({self.correct} of {self.samples}), loss {self.loss:.4f}"


class Classifier:
    """A model whose outputs are read as class probabilities.

    Whether the outputs are logits is known from the loss that the model was compiled with.  Without such a
    loss they count as probabilities if those of every sample are positive and sum to 1.

    Args:
        model: one image in, one number for each class out; a single number is a yes/no answer, two classes.

    Raises:
        ConfigError: the model has another form.
    """

    def __init__(self, model: Model) -> None:
        spec = model.input_spec
        if spec is None:
            raise ConfigError(f"model {model.name!r} has several inputs, or none that is known; expected one of images")
        output = model.output_spec(spec).shape
        if len(output) != 2 or not isinstance(output[1], int):
            raise ConfigError(
                f"model {model.name!r} gives an output of rank {len(output)}; expected one number for each class"
            )
        self.model = model
        self.input_shape = tuple(int(size) for size in spec.shape[1:])
        self.outputs = output[1]
        self.classes = max(2, output[1])

    def probabilities(self, x: NDArray[Any]) -> NDArray[Any]:
        """The probability of every class, (samples, classes)."""
        return self._as_probabilities(self.model.predict(x, batch_size=_BATCH))

    def score(self, part: Source, name: str, workers: int) -> Score:
        """How the model does on labelled images, whose labels are class numbers.

        Args:
            part: the images.
            name: what messages call them.
            workers: threads that read images which are not in memory.

        Raises:
            DataError: a label is no class of the model.
            ShapeError: the images have another shape than the model's.
        """
        labels = check_labels_sparse(part.labels, self.classes, name="test labels")
        losses, outputs = [], []
        for x, y in batches_of(part, _BATCH, workers):
            images = self.fit_images(x, name)
            outputs.append(self.model.predict(images, batch_size=_BATCH))
            self._ensure_compiled(outputs[0])
            found = self.model.evaluate(images, self._targets(y), batch_size=_BATCH, return_dict=True)
            losses.append((found["loss"], len(y)))
        loss = sum(value * count for value, count in losses) / len(labels)
        return Score(loss, labels, self._as_probabilities(np.concatenate(outputs)))

    def fit_images(self, x: NDArray[Any], name: str) -> NDArray[Any]:
        """Images in the model's shape: a grey image gets its channel axis, a single one its batch axis.

        Raises:
            ShapeError: the array has another shape.
            DataError: it holds no images.
        """
        shape = self.input_shape
        grey = shape[:-1] if shape[-1] == 1 else None
        if x.size == 0:
            raise DataError(f"{name} holds no values (shape {_times(x.shape)}); expected one image or more")
        if x.shape[1:] == shape:
            return x
        if x.shape == shape:
            return x[np.newaxis]
        if grey is not None and x.shape[1:] == grey:
            return x[..., np.newaxis]
        if grey is not None and x.shape == grey:
            return x[np.newaxis, ..., np.newaxis]
        raise ShapeError(f"{name} has the shape {_times(x.shape)}; the model takes images of {_times(shape)}")

    def _as_probabilities(self, outputs: NDArray[Any]) -> NDArray[Any]:
        if self._gives_logits(outputs):
            outputs = (ops.sigmoid if self.outputs == 1 else ops.softmax)(tensor(outputs)).numpy()
        return np.hstack([1 - outputs, outputs]) if self.outputs == 1 else outputs

    def _gives_logits(self, outputs: NDArray[Any]) -> bool:
        loss: object = self.model.objective.loss if self.model.is_compiled else None
        from_logits = getattr(loss, "from_logits", None)
        if from_logits is not None:
            return bool(from_logits)
        positive = bool((outputs >= 0).all())
        if self.outputs == 1:
            return not (positive and bool((outputs <= 1).all()))
        return not (positive and bool((np.abs(outputs.sum(axis=1) - 1) < _SUM_TOLERANCE).all()))

    def _ensure_compiled(self, outputs: NDArray[Any]) -> None:
        if not self.model.is_compiled:
            kind = BinaryCrossentropy if self.outputs == 1 else SparseCategoricalCrossentropy
            self.model.compile(loss=kind(from_logits=self._gives_logits(outputs)))

    def _targets(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Class numbers in the form that the model's loss takes."""
        one_hot = isinstance(self.model.objective.loss, CategoricalCrossentropy)
        return np.eye(self.classes, dtype=np.float32)[labels] if one_hot else labels


def _times(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape) or "() of a single number"
