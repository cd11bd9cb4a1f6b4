"""The kernels of a first convolution as small images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.errors import DataError
from chainrule.runs.pictures.canvas import DPI, drawing, save, short
from chainrule.runs.pictures.mosaic import grid, visible, with_gaps

__all__ = ["first_layer_filters"]

_MOST = 64
_COLUMNS = 8
_FILTER_PIXELS = 48  # about how wide a filter is drawn
_GAP = 4


def first_layer_filters(path: str | os.PathLike[str], kernel: ArrayLike, layer: str = "first convolution") -> None:
    """Draw the kernels of a convolution, up to 64, in order.

    Zero is middle grey, and black and white are equally far from it: the largest absolute weight of
    all that is drawn, which the title states. Kernels with one input channel are grey, those with
    three are in colour; of others the mean over the channels is drawn, and the title says so. A
    weight that is not finite is drawn in magenta.

    Args:
        path: The PNG file; an older one is replaced, whole or not at all.
        kernel: (height, width, input channels, filters), as a Conv2D's weight.
        layer: What the title calls the layer.

    Raises:
        DataError: The kernel has another shape, or holds no numbers.
        RunFolderError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture = Path(folder) / "filters.png"
        ...     first_layer_filters(picture, np.linspace(-1, 1, 36).reshape(3, 3, 1, 4))
        ...     picture.read_bytes()[1:4]
        b'PNG'
    """
    weights = np.asarray(kernel)
    if weights.ndim != 4 or not weights.size or weights.dtype.kind not in "fiu":
        raise DataError(
            f"filters of {layer}: the kernel is {weights.dtype} of shape {weights.shape}; expected numbers of shape "
            "(height, width, input channels, filters)"
        )
    height, width, _, filters = weights.shape
    shown = min(filters, _MOST)
    values = _drawn(weights[..., :shown])
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max(initial=0.0))
    images = [visible(values[..., number], -(limit or 1.0), limit or 1.0) for number in range(shown)]
    _, columns = grid(shown, _COLUMNS)
    enlarged = max(1, _FILTER_PIXELS // max(height, width))
    mosaic = with_gaps(images, columns, enlarged, _GAP)
    with drawing():
        from matplotlib.figure import Figure

        size = (max(4.5, mosaic.shape[1] / DPI + 0.4), mosaic.shape[0] / DPI + 1.0)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        axes = figure.subplots()
        axes.set_axis_off()
        axes.imshow(mosaic, interpolation="nearest")
        axes.set_title(_title(layer, weights, shown, limit), fontsize=9, parse_math=False)
        save(path, figure)


def _drawn(weights: NDArray[Any]) -> NDArray[Any]:
    """(height, width, 1 or 3, filters), float64."""
    values = weights.astype(np.float64)
    if values.shape[2] in (1, 3):
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(values.mean(axis=2, keepdims=True))


def _title(layer: str, weights: NDArray[Any], shown: int, limit: float) -> str:
    height, width, channels, filters = weights.shape
    count = f"{filters}" if shown == filters else f"the first {shown} of {filters}"
    title = f"{short(layer)}: {count} filters of {height}x{width}x{channels}"
    if channels not in (1, 3):
        title += f"\nmean over {channels} input channels"
    title += f"\nblack {-limit:.3g}, white {limit:.3g}"
    bad = int((~np.isfinite(weights)).sum())
    return title if not bad else f"{title}\nnot finite, in magenta: {bad} of {weights.size:,} weights"
