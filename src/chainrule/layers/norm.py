"""Batch normalisation as a layer: with running statistics."""

from __future__ import annotations

from typing import Any

from chainrule import ops
from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.dims import Shape, format_shape
from chainrule.graph.tensor import Tensor, tensor
from chainrule.layers.initializers import InitializerLike
from chainrule.layers.layer import Layer
from chainrule.regularizers import RegularizerLike

__all__ = ["BatchNormalization"]


class BatchNormalization(Layer):
    """Normalise each channel: by the batch in training, by running statistics otherwise.

    ``moving = momentum * moving + (1 - momentum) * batch``: Keras's meaning of momentum; PyTorch's is one minus
    it.  The biased variance normalises and is what the running variance averages (PyTorch averages the
    unbiased one).

    The running statistics need about ``5 / (1 - momentum)`` steps to arrive: for a short training take 0.9.

    Args:
        axis: the channel axis; only the last (-1) is supported.
        momentum: weight of the past in the running statistics.
        epsilon: added to the variance.
        center, scale: whether to learn a shift (beta) and a factor (gamma).
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer:
            see `layers.initializers`.
        beta_regularizer, gamma_regularizer: penalties that join the loss; see `regularizers`.
        name, dtype, trainable: as in `Layer`.

    Weights: ``gamma``, ``beta``, and not trained ``moving_mean``, ``moving_variance``, all ``(channels,)``.

    >>> import chainrule as cr
    >>> cr.layers.BatchNormalization()(cr.Input((8, 8, 16))).shape
    (N, 8, 8, 16)
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        moving_mean_initializer: InitializerLike = "zeros",
        moving_variance_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1:
            raise ConfigError(f"layer {self.path!r}: momentum must lie in [0, 1], got {momentum}")
        if not epsilon > 0:
            raise ConfigError(f"layer {self.path!r}: epsilon must be positive, got {epsilon}")
        self.axis, self.momentum, self.epsilon = axis, momentum, epsilon
        self.center, self.scale = center, scale
        self.beta_initializer, self.gamma_initializer = beta_initializer, gamma_initializer
        self.moving_mean_initializer = moving_mean_initializer
        self.moving_variance_initializer = moving_variance_initializer
        self.beta_regularizer, self.gamma_regularizer = beta_regularizer, gamma_regularizer

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2 or self.axis not in (-1, len(input_shape) - 1):
            raise ShapeError(
                f"axis {self.axis} of an input of shape {format_shape(input_shape)} is not its last, the channels"
            )
        shape = input_shape[-1:]
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight("gamma", shape, self.gamma_initializer, regularizer=self.gamma_regularizer)
        if self.center:
            self.beta = self.add_weight("beta", shape, self.beta_initializer, regularizer=self.beta_regularizer)
        self.moving_mean = self.add_weight("moving_mean", shape, self.moving_mean_initializer, False)
        self.moving_variance = self.add_weight("moving_variance", shape, self.moving_variance_initializer, False)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        mean, variance = self.moving_mean, self.moving_variance
        scale = self.gamma if self.gamma is not None else _filled(mean, 1.0)
        shift = self.beta if self.beta is not None else _filled(mean, 0.0)
        if not (training and self.trainable):
            return ops.batch_norm_inference(x, scale, shift, mean, variance, self.epsilon)
        y, batch_mean, batch_variance = ops.batch_norm(x, scale, shift, self.epsilon)
        for moving, batch in ((mean, batch_mean), (variance, batch_variance)):
            moving.assign(moving * self.momentum + ops.stop_gradient(batch) * (1 - self.momentum))
        return y


def _filled(like: Any, value: float) -> Tensor:
    return ops.broadcast_to(tensor(value, like.dtype), like.shape)
