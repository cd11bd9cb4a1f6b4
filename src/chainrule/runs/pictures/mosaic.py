"""Images for pictures: arrays of any kind as colours, and the size of a grid that holds some of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["grid", "visible", "with_gaps"]

_BAD = (1.0, 0.0, 1.0)  # magenta, which neither grey images nor most photographs have


def grid(count: int, most_columns: int) -> tuple[int, int]:
    """Rows and columns for so many images, nearly square.

    >>> grid(7, 8), grid(1, 8), grid(64, 8)
    ((3, 3), (1, 1), (8, 8))
    """
    columns = min(most_columns, max(1, math.ceil(math.sqrt(count))))
    return max(1, math.ceil(count / columns)), columns


def visible(image: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """An image as colours.

    Args:
        image: (height, width, 1) is drawn in grey, (height, width, 3) in colour; nothing else comes here.
        low, high: what is black and what is white; values beyond are cut off.

    Returns:
        (height, width, 3), 0 to 1; what is not finite is magenta.
    """
    values = np.asarray(image, np.float64)
    bad = ~np.isfinite(values).all(axis=-1)
    scale = max(abs(low), abs(high)) or 1.0  # so that differences of astronomic values stay finite
    span = high / scale - low / scale
    shades = np.where(np.isfinite(values), values, low) / scale - low / scale
    shades = np.clip(shades / (span if span > 0 else 1.0), 0, 1)
    colours = np.broadcast_to(shades, (*shades.shape[:2], 3)).copy()
    colours[bad] = _BAD
    return colours


def with_gaps(images: list[NDArray[Any]], columns: int, enlarged: int, gap: int) -> NDArray[np.float64]:
    """Images of one size side by side on white, each element `enlarged` pixels wide, `gap` pixels apart."""
    height, width = (side * enlarged for side in images[0].shape[:2])
    rows = math.ceil(len(images) / columns)
    result = np.ones((rows * (height + gap) + gap, columns * (width + gap) + gap, 3))
    for number, image in enumerate(images):
        top = gap + number // columns * (height + gap)
        left = gap + number % columns * (width + gap)
        result[top : top + height, left : left + width] = image.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    return result
