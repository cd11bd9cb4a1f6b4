"""The data set that every reader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, split into a training and a test part.

    Attributes:
        name: The data set's name, such as ``"mnist"``.
        x_train: Training images, (samples, height, width, channels), uint8 or float32, in the
            units of the source.
        y_train: Training labels, (samples,), int64 class numbers from 0.
        x_test: Test images; the shape of a sample and the dtype are those of ``x_train``.
        y_test: Test labels, as ``y_train``.
        class_names: The name of each class; label ``k`` means ``class_names[k]``.

    Example:
        >>> import numpy as np
        >>> x, y = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 1, 0])
        >>> Dataset("squares", x, y, x[:2], y[:2], ("empty", "full")).describe()
        'squares: 4 training and 2 test images of 8x8x1 uint8, 2 classes'
    """

    name: str
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    class_names: tuple[str, ...]

    def describe(self) -> str:
        """One line: the name, the counts, the shape of an image and the number of classes."""
        image = "x".join(str(size) for size in self.x_train.shape[1:])
        return (
            f"{self.name}: {len(self.x_train)} training and {len(self.x_test)} test images "
            f"of {image} {self.x_train.dtype}, {len(self.class_names)} classes"
        )
