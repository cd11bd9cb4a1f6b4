"""The fully connected layer."""

from __future__ import annotations

from typing import Any

from chainrule import ops
from chainrule.errors import ShapeError
from chainrule.graph.dims import Shape, format_shape
from chainrule.graph.tensor import Tensor
from chainrule.layers.activations import ActivationLike, get_activation
from chainrule.layers.arguments import positive
from chainrule.layers.initializers import InitializerLike
from chainrule.layers.layer import Layer
from chainrule.regularizers import RegularizerLike

__all__ = ["Dense"]


class Dense(Layer):
    """Affine map of the last axis and an activation: ``activation(x @ kernel + bias)``.

    Args:
        units: number of outputs.
        activation: name, function, or None.
        use_bias: whether to add one number for each unit.
        kernel_initializer, bias_initializer: see `layers.initializers`.
        kernel_regularizer, bias_regularizer: penalties that join the loss; see `regularizers`.
        name, dtype, trainable: as in `Layer`.

    Input ``(batch, ..., inputs)``; output ``(batch, ..., units)``.
    Weights: ``kernel (inputs, units)``, ``bias (units,)``; the number of inputs is inferred.

    >>> import chainrule as cr
    >>> cr.layers.Dense(10)(cr.Input((64,))).shape
    (N, 10)
    """

    def __init__(
        self,
        units: int,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive(units, "units", self)
        self.activation = get_activation(activation)
        self.use_bias = use_bias
        self.kernel_initializer, self.bias_initializer = kernel_initializer, bias_initializer
        self.kernel_regularizer, self.bias_regularizer = kernel_regularizer, bias_regularizer

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2:
            raise ShapeError(
                f"got an input of shape {format_shape(input_shape)}; expected at least rank 2: (batch, inputs)"
            )
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)
        self.bias = None
        if self.use_bias:
            penalty = self.bias_regularizer
            self.bias = self.add_weight("bias", (self.units,), self.bias_initializer, regularizer=penalty)

    def call(self, x: Tensor) -> Tensor:
        return self.activation(ops.dense(x, self.kernel, self.bias))
