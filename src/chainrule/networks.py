"""Named networks: functions from the shape of an image and the number of classes to a `Sequential`.

Every network rescales its input itself, so that a saved model takes pixels as the data set holds them,
and ends in a softmax, so that its outputs are probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from chainrule.errors import ConfigError
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

__all__ = ["NETWORKS", "NetworkFunction", "conv32_conv64_dense64", "conv32_dense128", "digits", "get_network"]

NetworkFunction: TypeAlias = Callable[..., Sequential]
"""``network(input_shape, classes, scale=...)``."""

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


NETWORKS: Mapping[str, NetworkFunction] = {
    "conv32-dense128": conv32_dense128,
    "conv32-conv64-dense64": conv32_conv64_dense64,
    "digits": digits,
}
"""The networks by the names that the command line knows."""


def get_network(name: str) -> NetworkFunction:
    """A network from its name.

    Raises:
        ConfigError: no network has that name.

    >>> get_network("conv32-dense128") is conv32_dense128
    True
    """
    if name in NETWORKS:
        return NETWORKS[name]
    raise ConfigError(f"unknown network {name!r}; expected one of {', '.join(NETWORKS)}")


def _network(name: str, input_shape: Sequence[int], classes: int, scale: float, *hidden: Any) -> Sequential:
    """The hidden layers between the rescaled input and one softmax output for each class."""
    return Sequential([Input(input_shape), Rescaling(scale), *hidden, Dense(classes, activation="softmax")], name=name)
