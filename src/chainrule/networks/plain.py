"""Small networks: one or two convolutions and a hidden dense layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.layers import (
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
    MaxPooling2D,
    Rescaling,
)
from chainrule.models import Sequential

__all__ = ["conv32_conv64_dense64", "conv32_dense128", "digits"]

_MOMENTUM = 0.9  # of running statistics; Keras's 0.99 needs more steps than two epochs of the digits have


def conv32_dense128(input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> Sequential:
    """One convolution and one hidden dense layer: the smallest network that deserves the name CNN.

    Conv 32 (3x3, valid, relu) - MaxPool 2 - Flatten - Dense 128 (relu) - Dense (softmax).

    Args:
        input_shape: (height, width, channels) of an image.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/255 takes 8-bit images to 0..1.

    >>> conv32_dense128((28, 28, 1), 10).count_params()
    693962
    """
    return _network(
        "conv32-dense128",
        input_shape,
        classes,
        scale,
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(128, activation="relu"),
    )


def conv32_conv64_dense64(input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> Sequential:
    """Two convolutions and one hidden dense layer; an epoch on MNIST takes it past 97 % test accuracy.

    Conv 32 (3x3, valid, relu) - MaxPool 2 - Conv 64 (3x3, valid, relu) - MaxPool 2 - Flatten -
    Dense 64 (relu) - Dense (softmax).

    Args:
        input_shape: (height, width, channels) of an image, 10 pixels or more on each side.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/255 takes 8-bit images to 0..1.

    >>> conv32_conv64_dense64((28, 28, 1), 10).count_params()
    121930
    """
    return _network(
        "conv32-conv64-dense64",
        input_shape,
        classes,
        scale,
        Conv2D(32, 3, activation="relu"),
        MaxPooling2D(2),
        Conv2D(64, 3, activation="relu"),
        MaxPooling2D(2),
        Flatten(),
        Dense(64, activation="relu"),
    )


def digits(input_shape: Sequence[int] = (8, 8, 1), classes: int = 10, scale: float = 1 / 16) -> Sequential:
    """A small network for images of about 8x8 pixels, such as scikit-learn's digits.

    Conv 32 (3x3, same, relu) - BatchNorm - MaxPool 2 - Conv 64 (3x3, same, relu) - BatchNorm - Flatten -
    Dropout 0.5 - Dense 64 (relu) - Dense (softmax).  The convolutions keep the border, where 8x8 digits have
    ink; batch normalisation and dropout are what 1,347 training images need.

    Args:
        input_shape: (height, width, channels) of an image, 2 pixels or more on each side.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/16 takes scikit-learn's digits to 0..1.

    >>> digits().count_params()
    85450
    """
    return _network(
        "digits",
        input_shape,
        classes,
        scale,
        Conv2D(32, 3, padding="same", activation="relu"),
        BatchNormalization(momentum=_MOMENTUM),
        MaxPooling2D(2),
        Conv2D(64, 3, padding="same", activation="relu"),
        BatchNormalization(momentum=_MOMENTUM),
        Flatten(),
        Dropout(0.5),
        Dense(64, activation="relu"),
    )


def _network(name: str, input_shape: Sequence[int], classes: int, scale: float, *hidden: Any) -> Sequential:
    """The hidden layers between the rescaled input and one softmax output for each class."""
    return Sequential([Input(input_shape), Rescaling(scale), *hidden, Dense(classes, activation="softmax")], name=name)
