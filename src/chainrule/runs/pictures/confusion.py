"""The confusion matrix, as numbers and as a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.checks import check_labels_sparse, check_same_length
from chainrule.errors import DataError
from chainrule.runs.pictures.canvas import DPI, drawing, save, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_counts", "confusion_matrix"]

_ANNOTATED_CLASSES = 20  # a count of five digits still fits its cell
_NAMED_CLASSES = 40  # labels per axis that stay readable; beyond, every second, third, ...


def confusion_matrix(path: str | os.PathLike[str], matrix: ArrayLike, class_names: Sequence[str]) -> None:
    """Draw a confusion matrix: a row per true class, a column per predicted class.

    A cell is coloured by its share of its row; with 20 classes or fewer it also shows its count.
    The title states the overall accuracy.

    Args:
        path: The PNG file; an older one is replaced, whole or not at all.
        matrix: Counts, (classes, classes), as [`confusion_counts`][] returns them.
        class_names: The name of each class.

    Raises:
        DataError: The matrix is not (classes, classes), or holds something else than counts.
        RunFolderError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture = Path(folder) / "confusion.png"
        ...     confusion_matrix(picture, [[9, 1], [0, 10]], ("cat", "dog"))
        ...     picture.read_bytes()[1:4]
        b'PNG'
    """
    counts = _check_counts(matrix, len(class_names))
    classes = len(counts)
    side = min(16.0, max(4.5, 2.5 + 0.55 * classes))
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(side + 1, side), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
        _name_classes(axes, class_names)
        if classes <= _ANNOTATED_CLASSES:
            _write_counts(axes, counts, shares)
        axes.set_title(_accuracy(counts))
        save(path, figure)


def confusion_counts(y_true: ArrayLike, y_pred: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count how often each true class was predicted as each class.

    Args:
        y_true: True labels 0 to ``classes - 1``, (samples,).
        y_pred: Predicted labels, as ``y_true``.
        classes: The number of classes.

    Returns:
        Counts, (classes, classes), int64: row is the true class, column the predicted one.

    Raises:
        DataError: A label is no class, or the lengths differ.

    Example:
        >>> confusion_counts([0, 0, 1], [0, 1, 1], 2)
        array([[1, 1],
               [0, 1]])
    """
    true = check_labels_sparse(y_true, classes, name="true labels")
    predicted = check_labels_sparse(y_pred, classes, name="predicted labels")
    check_same_length(true, predicted, name="confusion matrix")
    counts = np.bincount(true * classes + predicted, minlength=classes * classes)
    return counts.astype(np.int64).reshape(classes, classes)


def _check_counts(matrix: ArrayLike, classes: int) -> NDArray[Any]:
    counts = np.asarray(matrix)
    if counts.shape != (classes, classes) or classes == 0:
        raise DataError(
            f"confusion matrix: the shape is {counts.shape} with {classes} class names; expected "
            f"a square matrix with one name per class"
        )
    if counts.dtype.kind not in "ui" or counts.min() < 0:
        raise DataError(f"confusion matrix: the values are {counts.dtype} from {counts.min()}; expected counts")
    return counts


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    step = math.ceil(len(class_names) / _NAMED_CLASSES)
    ticks, names = range(0, len(class_names), step), [short(name) for name in class_names[::step]]
    slanted = max(len(name) for name in names) > 2
    angle, anchor = (45, "right") if slanted else (0, "center")
    axes.set_xticks(ticks, names, rotation=angle, ha=anchor, rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a "$" in a name is a dollar
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def _write_counts(axes: Axes, counts: NDArray[Any], shares: NDArray[Any]) -> None:
    size = 10 if len(counts) <= 10 else 8
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def _accuracy(counts: NDArray[Any]) -> str:
    total, right = int(counts.sum()), int(np.trace(counts))
    share = f"{100 * right / total:.2f}%" if total else "undefined"
    return f"accuracy {share} ({right} of {total})"
