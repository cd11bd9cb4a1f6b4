"""Residual networks: blocks that add what two convolutions find to what they were given."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.layers import Activation, Add, BatchNormalization, Conv2D, Dense, GlobalAveragePooling2D, Rescaling
from chainrule.layers.symbol import Symbol
from chainrule.models import Functional
from chainrule.networks.normalised import MOMENTUM
from chainrule.networks.shapes import image_input

__all__ = ["resnet20"]

_STAGES = (16, 32, 64)
_BLOCKS = 3  # in each stage


def resnet20(input_shape: Sequence[int], classes: int, scale: float = 1 / 255) -> Functional:
    """The residual network of 20 layers for images of about 32x32 pixels.

    Conv 16 (3x3, same) - BatchNorm - relu; then three stages with 16, 32 and 64 filters of three blocks each:
    Conv - BatchNorm - relu - Conv - BatchNorm, added to the block's input, - relu; then GlobalAveragePooling -
    Dense (softmax).  The first convolution of the second and third stage has stride 2; there the shortcut is a
    1x1 convolution of stride 2 with batch normalisation (the paper's option B; its CIFAR networks have the
    padded shortcuts of option A, with 2,752 weights fewer).

    Args:
        input_shape: (height, width, channels) of an image, 4 pixels or more on each side.
        classes: the number of classes.
        scale: what pixels are multiplied by; 1/255 takes 8-bit images to 0..1.

    Raises:
        ShapeError: images that are too small.

    Source: He, Zhang, Ren and Sun, CVPR 2016, section 4.2, with n = 3.

    >>> resnet20((32, 32, 3), 10).count_params()
    274042
    """
    inputs = image_input("resnet20", input_shape, 4)
    x = _relu(_convolution(Rescaling(scale)(inputs), _STAGES[0]))
    for stage, filters in enumerate(_STAGES):
        for block in range(_BLOCKS):
            x = _block(x, filters, strides=2 if stage and not block else 1)
    outputs = Dense(classes, activation="softmax")(GlobalAveragePooling2D()(x))
    return Functional(inputs, outputs, name="resnet20")


def _block(x: Symbol, filters: int, strides: int) -> Symbol:
    found = _convolution(_relu(_convolution(x, filters, strides=strides)), filters)
    shortcut = x if strides == 1 else _convolution(x, filters, 1, strides)
    return _relu(Add()([found, shortcut]))


def _convolution(x: Symbol, filters: int, size: int = 3, strides: int = 1) -> Symbol:
    """A convolution whose bias is left to the normalisation behind it."""
    convolution = Conv2D(filters, size, strides, "same", use_bias=False, kernel_initializer="he_normal")
    normalised: Symbol = BatchNormalization(momentum=MOMENTUM)(convolution(x))
    return normalised


def _relu(x: Symbol) -> Symbol:
    rectified: Symbol = Activation("relu")(x)
    return rectified
