"""Learning curves: how loss, metrics and learning rate went, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import DataError
from chainrule.runs.pictures.canvas import DPI, drawing, save, short
from chainrule.train.callbacks.monitor import Monitor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["learning_curves"]

_MARKED_EPOCHS = 30  # more points than that run into one another
_DIVERGED = 1e100  # such values are not drawn: matplotlib's ticks overflow on larger ones
_RATE = "learning_rate"


def learning_curves(path: str | os.PathLike[str], history: Mapping[str, Sequence[float]]) -> None:
    """Draw a panel for the loss and for every other metric, training against validation.

    Args:
        path: The PNG file; an older one is replaced, whole or not at all.
        history: The values of each metric, one per epoch; ``"val_loss"`` is drawn beside
            ``"loss"``, and so on, and the best epoch is marked, that of validation if there is
            one. ``"learning_rate"`` is drawn on a logarithmic axis. A NaN, infinite or astronomic
            value (1e100) leaves a gap.

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
    metrics.sort(key=lambda metric: metric == _RATE)  # it comes last
    if not metrics:
        raise DataError("learning curves: the history holds no values; expected one epoch or more")
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2 * len(metrics), 4.0), dpi=DPI, layout="constrained")
        panels = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            _draw_metric(axes, metric, history)
        save(path, figure)


def _draw_metric(axes: Axes, metric: str, history: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import MaxNLocator

    rate = metric == _RATE
    lines = {"training": (metric, "C0", "-"), "validation": (f"val_{metric}", "C1", "--")}
    decisive: tuple[NDArray[Any], str] | None = None  # the best epoch is that of validation, where there is one
    for label, (key, colour, style) in lines.items():
        values = _drawable(history.get(key, ()))
        if len(values):
            marker = "o" if len(values) <= _MARKED_EPOCHS else ""
            numbers = np.arange(1, len(values) + 1)
            axes.plot(numbers, values, style, color=colour, marker=marker, ms=4, label=None if rate else label)
            decisive = (values, colour) if np.isfinite(values).any() else decisive
    if rate:
        _use_log_axis(axes, _drawable(history.get(metric, ())))
    elif decisive is not None:
        _mark_best(axes, metric, *decisive)
    epochs = max(len(history.get(key, ())) for key, _, _ in lines.values())
    margin = 0.05 * (epochs - 1) or 0.5
    axes.set_xlim(1 - margin, epochs + margin)  # epochs without a drawable value count too
    name = short(metric.replace("_", " ") if rate else metric)
    axes.set_title(name, parse_math=False)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    if not rate:
        axes.legend()


def _drawable(values: Sequence[float]) -> NDArray[Any]:
    """The values, NaN where they cannot be drawn."""
    array = np.asarray(values, np.float64)
    return np.where(np.abs(array) < _DIVERGED, array, np.nan)


def _use_log_axis(axes: Axes, values: NDArray[Any]) -> None:
    """Learning rates differ by powers of ten; a rate of zero has no logarithm."""
    if (values > 0).any() and not (values <= 0).any():
        axes.set_yscale("log")


def _mark_best(axes: Axes, metric: str, values: NDArray[Any], colour: str) -> None:
    """Mark the first of the best values, where there is more than one epoch."""
    if len(values) < 2:
        return
    place = int(np.nanargmax(values) if Monitor(metric).upwards else np.nanargmin(values))
    label = f"best: {values[place]:.4g} in epoch {place + 1}"
    axes.plot([place + 1], [values[place]], "*", color=colour, markeredgecolor="black", ms=12, label=label, zorder=3)
