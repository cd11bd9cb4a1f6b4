"""Chains of convolutions that keep the image's size, each behind batch normalisation, with pooling after each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.layers import Activation, BatchNormalization, Conv2D, Dense, Flatten, MaxPooling2D, Rescaling
from chainrule.models import Sequential
from chainrule.networks.shapes import image_input

__all__ = ["MOMENTUM", "conv32_conv64_conv128", "conv32_conv64_conv128_conv256"]

MOMENTUM = 0.9  # of running statistics; Keras's 0.99 lags behind a short training whose rate falls to nothing

_SMALLEST = 8  # pixels on a side that leave something to see after three poolings


def conv32_conv64_conv128(input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> Sequential:
    """Three convolutions with batch normalisation, for grey images of about 28x28 pixels, such as Fashion-MNIST's.

    [Conv (3x3, same) - BatchNorm - relu - MaxPool 2 (same)] with 32, 64 and 128 filters - Flatten -
    Dense (softmax).  Convolutions have no bias, since the normalisation shifts.

    Args:
        input_shape: (height, width, channels) of an image, 8 pixels or more on each side.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/255 takes 8-bit images to 0..1.

    Raises:
        ShapeError: images that are too small.

    >>> conv32_conv64_conv128((28, 28, 1), 10).count_params()
    113834
    """
    return _network("conv32-conv64-conv128", input_shape, classes, scale, (32, 64, 128))


def conv32_conv64_conv128_conv256(input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> Sequential:
    """Four convolutions with batch normalisation, for photographs of about 32x32 pixels, such as CIFAR-10's.

    [Conv (3x3, same) - BatchNorm - relu - MaxPool 2 (same)] with 32, 64, 128 and 256 filters - Flatten -
    Dense (softmax).  Filters double where pooling halves the image, as in the VGG networks of Simonyan and
    Zisserman (ICLR 2015), but with one convolution to a size, which keeps an epoch short.

    Args:
        input_shape: (height, width, channels) of an image, 8 pixels or more on each side.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/255 takes 8-bit images to 0..1.

    Raises:
        ShapeError: images that are too small.

    >>> conv32_conv64_conv128_conv256((32, 32, 3), 10).count_params()
    400106
    """
    return _network("conv32-conv64-conv128-conv256", input_shape, classes, scale, (32, 64, 128, 256))


def _network(name: str, input_shape: Sequence[int], classes: int, scale: float, filters: Sequence[int]) -> Sequential:
    """A stage for each number of filters, between the rescaled input and one softmax output for each class."""
    inputs = image_input(name, input_shape, _SMALLEST)
    stages = [layer for count in filters for layer in _stage(count)]
    return Sequential([inputs, Rescaling(scale), *stages, Flatten(), Dense(classes, activation="softmax")], name=name)


def _stage(filters: int) -> list[Any]:
    return [
        Conv2D(filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal"),
        BatchNormalization(momentum=MOMENTUM),
        Activation("relu"),
        MaxPooling2D(2, padding="same"),
    ]
