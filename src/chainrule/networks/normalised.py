"""Chains of convolutions that keep the image's size, each behind batch normalisation, with pooling between stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    MaxPooling2D,
    Rescaling,
)
from chainrule.models import Sequential
from chainrule.networks.shapes import image_input

__all__ = ["MOMENTUM", "conv32_conv64_conv128", "conv32x2_conv64x2_conv128x2"]

MOMENTUM = 0.9  # of running statistics; Keras's 0.99 lags behind a short training whose rate falls to nothing


def conv32_conv64_conv128(input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> Sequential:
    """Three convolutions with batch normalisation: what Fashion-MNIST needs to pass 92 %.

    [Conv (3x3, same) - BatchNorm - relu - MaxPool 2] with 32, 64 and 128 filters - Flatten - Dropout 0.3 -
    Dense (softmax).

    Args:
        input_shape: (height, width, channels) of an image, 8 pixels or more on each side.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/255 takes 8-bit images to 0..1.

    Raises:
        ShapeError: images that are too small.

    >>> conv32_conv64_conv128((28, 28, 1), 10).count_params()
    104874
    """
    stages = [layer for filters in (32, 64, 128) for layer in _stage(filters, 1)]
    return _network("conv32-conv64-conv128", input_shape, classes, scale, *stages, Flatten(), Dropout(0.3))


def conv32x2_conv64x2_conv128x2(input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> Sequential:
    """Six convolutions in three stages, after the VGG networks: photographs of 32x32 pixels, such as CIFAR-10's.

    [Conv (3x3, same) - BatchNorm - relu, twice - MaxPool 2] with 32, 64 and 128 filters -
    GlobalAveragePooling - Dense (softmax).

    Args:
        input_shape: (height, width, channels) of an image, 8 pixels or more on each side.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/255 takes 8-bit images to 0..1.

    Raises:
        ShapeError: images that are too small.

    Source: after Simonyan and Zisserman, ICLR 2015, much smaller and with batch normalisation.

    >>> conv32x2_conv64x2_conv128x2((32, 32, 3), 10).count_params()
    289642
    """
    stages = [layer for filters in (32, 64, 128) for layer in _stage(filters, 2)]
    return _network("conv32x2-conv64x2-conv128x2", input_shape, classes, scale, *stages, GlobalAveragePooling2D())


def _stage(filters: int, convolutions: int) -> list[Any]:
    """Convolutions whose bias is left to the normalisation behind them, then pooling."""
    layers: list[Any] = []
    for _ in range(convolutions):
        layers += [
            Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal"),
            BatchNormalization(momentum=MOMENTUM),
            Activation("relu"),
        ]
    return [*layers, MaxPooling2D(2)]


def _network(name: str, input_shape: Sequence[int], classes: int, scale: float, *hidden: Any) -> Sequential:
    """The hidden layers between the rescaled input and one softmax output for each class."""
    inputs = image_input(name, input_shape, 8)
    return Sequential([inputs, Rescaling(scale), *hidden, Dense(classes, activation="softmax")], name=name)
