"""Pictures of a run: learning curves and the confusion matrix, as PNG files.

The same numbers give the same bytes on the same matplotlib, whatever the user's own settings are.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.checks import check_labels_sparse, check_same_length
from chainrule.errors import DataError
from chainrule.files import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["confusion_counts", "confusion_matrix", "learning_curves"]

_DPI = 120
_MARKED_EPOCHS = 30  # more points than that run into one another
_DIVERGED = 1e100  # such values are not drawn: matplotlib's ticks overflow on larger ones
_ANNOTATED_CLASSES = 20  # a count of five digits still fits its cell
_NAMED_CLASSES = 40  # labels per axis that stay readable; beyond, every second, third, ...
_NAME_CHARACTERS = 24  # a longer name squeezes the picture beside it
_CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)


def learning_curves(path: str | os.PathLike[str], history: Mapping[str, Sequence[float]]) -> None:
    """Draw a panel for the loss and for every other metric, training against validation.

    Args:
        path: The PNG file; an older one is replaced, whole or not at all.
        history: The values of each metric, one per epoch; ``"val_loss"`` is drawn beside
            ``"loss"``, and so on. A NaN, infinite or astronomic value (1e100) leaves a gap.

    Raises:
        DataError: The history holds no values.
        RunFolderError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture = Path(folder) / "curves.png"
        ...     learning_curves(picture, {"loss": [0.9, 0.5], "val_loss": [1.0, 0.6]})
        ...     picture.read_bytes()[1:4]
        b'PNG'
    """
    drawn = [metric for metric, values in history.items() if len(values)]
    metrics = list(dict.fromkeys(metric.removeprefix("val_") for metric in drawn))
    if not metrics:
        raise DataError("learning curves: the history holds no values; expected one epoch or more")
    with _drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2 * len(metrics), 4.0), dpi=_DPI, layout="constrained")
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            _draw_metric(axes, metric, history)
        _save(path, figure)


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
    with _drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(side + 1, side), dpi=_DPI, layout="constrained")
        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
        _name_classes(axes, class_names)
        if classes <= _ANNOTATED_CLASSES:
            _write_counts(axes, counts, shares)
        axes.set_title(_accuracy(counts))
        _save(path, figure)


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


def _draw_metric(axes: Axes, metric: str, history: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    lines = {"training": (metric, "C0", "-"), "validation": (f"val_{metric}", "C1", "--")}
    for label, (key, colour, style) in lines.items():
        values = np.asarray(history.get(key, ()), np.float64)
        if len(values):
            drawable = np.where(np.abs(values) < _DIVERGED, values, np.nan)
            marker = "o" if len(values) <= _MARKED_EPOCHS else ""
            numbers = np.arange(1, len(values) + 1)
            axes.plot(numbers, drawable, style, color=colour, marker=marker, ms=4, label=label)
    epochs = max(len(history.get(key, ())) for key, _, _ in lines.values())
    margin = 0.05 * (epochs - 1) or 0.5
    axes.set_xlim(1 - margin, epochs + margin)  # epochs without a drawable value count too
    axes.set_title(_short(metric), parse_math=False)
    axes.set_xlabel("epoch")
    axes.set_ylabel(_short(metric), parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()


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
    ticks, names = range(0, len(class_names), step), [_short(name) for name in class_names[::step]]
    slanted = max(len(name) for name in names) > 2
    angle, anchor = (45, "right") if slanted else (0, "center")
    axes.set_xticks(ticks, names, rotation=angle, ha=anchor, rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a "$" in a name is a dollar
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")


def _short(name: str) -> str:
    """Put a name on one line, cut to the length that fits."""
    line = " ".join(name.split())
    return line if len(line) <= _NAME_CHARACTERS else line[: _NAME_CHARACTERS - 1] + "…"


def _write_counts(axes: Axes, counts: NDArray[Any], shares: NDArray[Any]) -> None:
    size = 10 if len(counts) <= 10 else 8
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def _accuracy(counts: NDArray[Any]) -> str:
    total, right = int(counts.sum()), int(np.trace(counts))
    share = f"{100 * right / total:.2f}%" if total else "undefined"
    return f"accuracy {share} ({right} of {total})"


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """Use matplotlib's own defaults, and behind its font those with Chinese characters."""
    import matplotlib as mpl
    from matplotlib import font_manager

    installed = set(font_manager.fontManager.get_font_names())
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        fonts = ["DejaVu Sans", *(font for font in _CJK_FONTS if font in installed)]
        mpl.rcParams["font.family"] = fonts
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def _save(path: str | os.PathLike[str], figure: Figure) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes_atomic(path, content.getvalue())
