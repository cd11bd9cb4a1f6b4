"""Pooling layers.  They have no weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule import ops
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.tensor import Tensor
from chainrule.layers.arguments import channels_last
from chainrule.layers.layer import Layer
from chainrule.ops._window import Padding, pair

__all__ = ["AveragePooling2D", "GlobalAveragePooling2D", "MaxPooling2D"]


class _Pooling2D(Layer):
    """What the two pooling layers share.

    Args:
        pool_size: the window, one integer or (height, width).
        strides: step of the window; the window's size by default.
        padding: ``"valid"``, ``"same"``, or explicit as `ops.max_pool2d` takes it.
        data_format: None or ``"channels_last"``.
        name: as in `Layer`.
    """

    def __init__(
        self,
        pool_size: int | Sequence[int] = (2, 2),
        strides: int | Sequence[int] | None = None,
        padding: Padding = "valid",
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        channels_last(data_format, self)
        self.pool_size = pair(pool_size, f"layer {self.path!r}: pool_size")
        self.strides = self.pool_size if strides is None else pair(strides, f"layer {self.path!r}: strides")
        if isinstance(padding, str) and padding not in ("valid", "same"):
            raise ConfigError(f"layer {self.path!r}: padding must be 'valid', 'same' or numbers, got {padding!r}")
        self.padding = padding


class MaxPooling2D(_Pooling2D):
    """Maximum over windows; see `ops.max_pool2d`.

    Args: ``pool_size=(2, 2)``, ``strides=None`` (the pool size), ``padding="valid"``, ``data_format=None``.

    >>> import chainrule as cr
    >>> cr.layers.MaxPooling2D(2)(cr.Input((26, 26, 32))).shape
    (N, 13, 13, 32)
    """

    def call(self, x: Tensor) -> Any:
        return ops.max_pool2d(x, self.pool_size, self.strides, self.padding)


class AveragePooling2D(_Pooling2D):
    """Mean over windows; see `ops.avg_pool2d`.

    Args: as `MaxPooling2D`, and ``count_padding=False``: whether padding counts as elements that are 0
    (PyTorch's default; Keras's is not to).

    >>> import chainrule as cr
    >>> cr.layers.AveragePooling2D(2)(cr.Input((26, 26, 32))).shape
    (N, 13, 13, 32)
    """

    def __init__(
        self,
        pool_size: int | Sequence[int] = (2, 2),
        strides: int | Sequence[int] | None = None,
        padding: Padding = "valid",
        data_format: str | None = None,
        count_padding: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(pool_size, strides, padding, data_format, **kwargs)
        self.count_padding = count_padding

    def call(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.pool_size, self.strides, self.padding, self.count_padding)


class GlobalAveragePooling2D(Layer):
    """Mean of each channel over the whole image.

    Args:
        data_format: None or ``"channels_last"``.
        keepdims: keep height and width as axes of size 1.

    >>> import chainrule as cr
    >>> cr.layers.GlobalAveragePooling2D()(cr.Input((7, 7, 64))).shape
    (N, 64)
    """

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        channels_last(data_format, self)
        self.keepdims = keepdims

    def call(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(
                f"layer {self.path!r}: got an input of shape {format_shape(x.shape)} of rank {x.ndim}; "
                "expected rank 4: (batch, height, width, channels)"
            )
        return ops.mean(x, axis=(1, 2), keepdims=self.keepdims)
