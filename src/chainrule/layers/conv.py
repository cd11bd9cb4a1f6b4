"""Convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule import ops
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.dims import Shape, format_shape
from chainrule.graph.tensor import Tensor
from chainrule.layers.activations import ActivationLike, get_activation
from chainrule.layers.arguments import channels_last, positive
from chainrule.layers.initializers import InitializerLike
from chainrule.layers.layer import Layer
from chainrule.ops._window import Padding, pair
from chainrule.regularizers import RegularizerLike

__all__ = ["Conv2D"]


class Conv2D(Layer):
    """Two-dimensional convolution, bias and activation: ``activation(conv2d(x, kernel) + bias)``.

    Args:
        filters: number of output channels.
        kernel_size: one integer or (height, width).
        strides: step of the window.
        padding: ``"valid"``, ``"same"``, or explicit as `ops.conv2d` takes it.
        data_format: None or ``"channels_last"``.
        dilation_rate: distance between kernel positions.
        groups: channel groups; as many as channels makes it depthwise.
        activation: name, function, or None.
        use_bias: whether to add one number for each filter.
        kernel_initializer, bias_initializer: see `layers.initializers`.
        kernel_regularizer, bias_regularizer: penalties that join the loss; see `regularizers`.
        name, dtype, trainable: as in `Layer`.

    Input ``(batch, height, width, channels)``; output ``(batch, out_height, out_width, filters)``.
    Weights: ``kernel (height, width, channels / groups, filters)``, ``bias (filters,)``.

    >>> import chainrule as cr
    >>> cr.layers.Conv2D(8, 3, padding="same")(cr.Input((28, 28, 1))).shape
    (N, 28, 28, 8)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = (1, 1),
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: int | Sequence[int] = (1, 1),
        groups: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        channels_last(data_format, self)
        self.filters = positive(filters, "filters", self)
        self.groups = positive(groups, "groups", self)
        self.kernel_size = pair(kernel_size, f"layer {self.path!r}: kernel_size")
        self.strides = pair(strides, f"layer {self.path!r}: strides")
        self.dilation_rate = pair(dilation_rate, f"layer {self.path!r}: dilation_rate")
        if isinstance(padding, str) and padding not in ("valid", "same"):
            raise ConfigError(f"layer {self.path!r}: padding must be 'valid', 'same' or numbers, got {padding!r}")
        self.padding = padding
        self.activation = get_activation(activation)
        self.use_bias = use_bias
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        self.kernel_regularizer, self.bias_regularizer = kernel_regularizer, bias_regularizer

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 4:
            raise ShapeError(
                f"got an input of shape {format_shape(input_shape)} of rank {len(input_shape)}; expected rank 4: "
                "(batch, height, width, channels); add a channel axis to grey images with x[..., None]"
            )
        channels = input_shape[3]
        if not isinstance(channels, int) or channels % self.groups or self.filters % self.groups:
            raise ShapeError(
                f"groups={self.groups} must divide the {channels} input channels and the {self.filters} filters"
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self.add_weight("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)
        self.bias = None
        if self.use_bias:
            penalty = self.bias_regularizer
            self.bias = self.add_weight("bias", (self.filters,), self.bias_initializer, regularizer=penalty)

    def call(self, x: Tensor) -> Tensor:
        y = ops.conv2d(x, self.kernel, self.strides, self.padding, self.dilation_rate, self.groups)
        return self.activation(y if self.bias is None else y + self.bias)
