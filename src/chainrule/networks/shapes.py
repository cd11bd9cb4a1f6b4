"""What a network asks of the images that it is built for."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.errors import ShapeError
from chainrule.layers import Input
from chainrule.layers.symbol import Symbol

__all__ = ["image_input"]


def image_input(network: str, input_shape: Sequence[int], smallest: int) -> Symbol:
    """The input of a network for images of a shape.

    Args:
        network: its name, for errors.
        input_shape: (height, width, channels) of an image.
        smallest: the pixels that it needs on each side.

    Raises:
        ConfigError: a size that is not a positive integer.
        ShapeError: no image, or one that is too small; the message names its size.

    >>> image_input("resnet20", (32, 32, 3), 4).shape
    (N, 32, 32, 3)
    """
    symbol = Input(input_shape)
    sizes = symbol.shape[1:]
    if len(sizes) != 3:
        raise ShapeError(
            f"network {network!r} takes images (height, width, channels), got the shape {sizes}; "
            "add a channel axis to grey images with x[..., None]"
        )
    if any(isinstance(size, int) and size < smallest for size in sizes[:2]):
        raise ShapeError(
            f"network {network!r} takes images of {smallest} pixels or more on each side, got {sizes[0]}x{sizes[1]} "
            "(height x width)"
        )
    return symbol
