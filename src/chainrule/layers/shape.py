"""Layers that rearrange: Flatten, Reshape, Rescaling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chainrule import ops
from chainrule.graph.tensor import Tensor
from chainrule.layers.layer import Layer

__all__ = ["Flatten", "Rescaling", "Reshape"]


class Flatten(Layer):
    """Each sample as one row of numbers, in row-major order (height, width, channels).

    >>> import chainrule as cr
    >>> cr.layers.Flatten()(cr.Input((5, 5, 64))).shape
    (N, 1600)
    """

    def call(self, x: Tensor) -> Tensor:
        if x.ndim == 1:
            return ops.expand_dims(x, -1)
        sizes = [int(size) for size in x.shape[1:]]
        return ops.reshape(x, (x.shape[0], math.prod(sizes)))


class Reshape(Layer):
    """Each sample under another shape.

    Args:
        target_shape: shape of one sample; one size may be -1.

    >>> import chainrule as cr
    >>> cr.layers.Reshape((4, -1))(cr.Input((8,))).shape
    (N, 4, 2)
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)

    def call(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (x.shape[0], *self.target_shape))


class Rescaling(Layer):
    """``x * scale + offset``, such as ``Rescaling(1 / 255)`` for 8-bit images.

    >>> import chainrule as cr
    >>> cr.layers.Rescaling(0.5, offset=1.0)(cr.tensor([[2.0]])).item()
    2.0
    """

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = float(scale), float(offset)

    def call(self, x: Tensor) -> Tensor:
        return ops.cast(x, self.dtype) * self.scale + self.offset
