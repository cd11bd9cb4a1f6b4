"""The images that a model took for something else, and was most sure about."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chainrule.checks import check_labels_sparse
from chainrule.errors import DataError
from chainrule.runs.pictures.canvas import DPI, drawing, save, short
from chainrule.runs.pictures.mosaic import grid, visible

__all__ = ["worst_mistakes"]

_MOST = 25
_COLUMNS = 5
_SIDE, _GAP, _CAPTION, _HEAD = 1.7, 0.2, 0.4, 0.5  # inches: an image with its gap, the gap, caption, title
_CAPTION_CHARACTERS, _WIDE_CHARACTERS = 11, 6


def worst_mistakes(
    path: str | os.PathLike[str],
    images: ArrayLike | Callable[[NDArray[np.int64]], ArrayLike],
    true: ArrayLike,
    predicted: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
) -> None:
    """Draw the images that were most confidently taken for another class, up to 25, the worst first.

    Each is captioned with its class, the class it was taken for, and the probability of that. Where
    there is no mistake the picture says so.

    Args:
        path: The PNG file; an older one is replaced, whole or not at all.
        images: (samples, height, width) or (samples, height, width, channels). One channel is drawn
            in grey, three in colour; of others the mean is drawn, and the title says so. 8-bit images
            go from 0 to 255, others from the lowest to the highest value that is drawn; a value that
            is not finite is drawn in magenta.  Or a function that gives the images of some numbers, where not
            all of them lie in memory.
        true: The classes, (samples,).
        predicted: The classes they were taken for, (samples,).
        probabilities: Of every class, (samples, classes). A NaN counts as no confidence.
        class_names: The name of each class.

    Raises:
        DataError: Shapes that do not go together, or a label that is no class.
        RunFolderError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture = Path(folder) / "mistakes.png"
        ...     images = np.arange(18).reshape(2, 3, 3)
        ...     worst_mistakes(picture, images, [0, 1], [0, 0], [[0.9, 0.1], [0.8, 0.2]], ("cat", "dog"))
        ...     picture.read_bytes()[1:4]
        b'PNG'
    """
    given = None if callable(images) else _checked_images(images)
    samples, classes = len(np.atleast_1d(true)) if given is None else len(given[0]), len(class_names)
    wanted, taken = (
        _checked_labels(labels, classes, samples, name) for labels, name in ((true, "true"), (predicted, "predicted"))
    )
    chances = np.asarray(probabilities)
    if chances.shape != (samples, classes) or chances.dtype.kind not in "fiu":
        raise DataError(
            f"mistakes: the probabilities are {chances.dtype} of shape {chances.shape}; expected numbers of shape "
            f"{(samples, classes)}, one for each image and class name"
        )
    confidence = chances[np.arange(samples), taken].astype(np.float64)
    wrong = np.flatnonzero(wanted != taken)
    # A stable sort: equal confidence leaves the order of the samples. NaN comes last.
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MOST]
    if given is not None:
        pixels, channels = given[0][worst], given[1]
    else:
        assert callable(images)
        pixels, channels = _checked_images(images(worst)) if len(worst) else (np.zeros((0, 1, 1, 1)), 1)
    captions = [
        _caption(class_names[wanted[sample]], class_names[taken[sample]], confidence[sample]) for sample in worst
    ]
    with drawing():
        _draw(path, pixels, captions, _title(len(worst), len(wrong), samples, channels))


def _draw(path: str | os.PathLike[str], images: NDArray[Any], captions: list[str], title: str) -> None:
    """All images in one panel measured in inches: a panel for each would take seconds."""
    from matplotlib.figure import Figure

    rows, columns = grid(len(images), _COLUMNS)
    width, height = max(3, columns) * _SIDE, rows * (_SIDE + _CAPTION) + _HEAD
    figure = Figure(figsize=(width, height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height, va="top")
    if not len(images):
        axes.text(width / 2, (height + _HEAD) / 2, "no mistakes", fontsize=14, ha="center", va="center")
    low, high = _range(images)
    left = (width - columns * _SIDE) / 2
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        middle = left + (number % columns + 0.5) * _SIDE
        top = _HEAD + number // columns * (_SIDE + _CAPTION) + _CAPTION
        tall, wide = (side / max(image.shape[:2]) * (_SIDE - _GAP) for side in image.shape[:2])
        place = (middle - wide / 2, middle + wide / 2, top + tall, top)
        axes.imshow(visible(image, low, high), interpolation="nearest", extent=place)
        axes.text(middle, top - 0.03, caption, fontsize=8, ha="center", va="bottom", parse_math=False)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_aspect("auto")
    save(path, figure)


def _checked_images(images: ArrayLike) -> tuple[NDArray[Any], int]:
    """(samples, height, width, 1 or 3), and how many channels were given."""
    array = np.asarray(images)
    if array.dtype.kind not in "uifb" or array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DataError(
            f"mistakes: the images are {array.dtype} of shape {array.shape}; expected numbers of shape "
            "(samples, height, width) or (samples, height, width, channels)"
        )
    if array.ndim == 3:
        return array[..., None], 1
    channels = array.shape[-1]
    return (array if channels in (1, 3) else array.mean(axis=-1, keepdims=True, dtype=np.float64)), channels


def _checked_labels(labels: ArrayLike, classes: int, samples: int, name: str) -> NDArray[np.int64]:
    given = np.asarray(labels)
    if len(given.shape) == 0 or len(given) != samples:
        raise DataError(
            f"mistakes: the {name} labels have shape {given.shape}; expected ({samples},), one for each image"
        )
    if not samples:
        return np.zeros(0, np.int64)
    return check_labels_sparse(given, classes, name=f"{name} labels")


def _range(images: NDArray[Any]) -> tuple[float, float]:
    """What is black, and what is white."""
    if images.dtype == np.uint8:
        return 0.0, 255.0
    finite = images[np.isfinite(images)].astype(np.float64)
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _title(shown: int, wrong: int, samples: int, channels: int) -> str:
    images = "1 image" if samples == 1 else f"{samples:,} images"
    if not wrong:
        return images
    mistakes = "1 mistake" if wrong == 1 else f"{wrong:,} mistakes"
    which = f"{mistakes} in {images}" if shown == wrong else f"the worst {shown} of {mistakes} in {images}"
    return which if channels in (1, 3) else f"{which}\n(the mean of {channels} channels)"


def _caption(true: str, taken: str, confidence: float) -> str:
    first, second = (short(name, _WIDE_CHARACTERS if _is_wide(name) else _CAPTION_CHARACTERS) for name in (true, taken))
    return f"true {first}\ntaken for {second}, {confidence:.2f}"


def _is_wide(name: str) -> bool:
    """Whether a name has characters that are as wide as high, as Chinese ones are."""
    return any(unicodedata.east_asian_width(character) in "WF" for character in name)
