"""Activations as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule import ops
from chainrule.errors import ConfigError
from chainrule.graph.dims import Shape
from chainrule.graph.tensor import Tensor
from chainrule.layers.activations import ActivationLike, get_activation
from chainrule.layers.initializers import InitializerLike
from chainrule.layers.layer import Layer

__all__ = ["ELU", "Activation", "LeakyReLU", "PReLU", "ReLU", "Softmax"]


class Activation(Layer):
    """Any activation function.

    Args:
        activation: name or function.

    >>> import chainrule as cr
    >>> cr.layers.Activation("relu")(cr.tensor([-1.0, 2.0])).numpy().tolist()
    [0.0, 2.0]
    """

    def __init__(self, activation: ActivationLike, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = get_activation(activation)

    def call(self, x: Tensor) -> Tensor:
        return self.activation(x)


class ReLU(Layer):
    """``min(max(x, 0), max_value)``, with a slope for negative x.

    Args:
        max_value: the largest output; None for no bound.
        negative_slope: 0 for the plain ReLU.

    >>> import chainrule as cr
    >>> cr.layers.ReLU(max_value=1)(cr.tensor([-1.0, 2.0])).numpy().tolist()
    [0.0, 1.0]
    """

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if (max_value is not None and max_value < 0) or negative_slope < 0:
            raise ConfigError(
                f"layer {self.path!r}: max_value and negative_slope must not be negative, "
                f"got {max_value} and {negative_slope}"
            )
        self.max_value, self.negative_slope = max_value, negative_slope

    def call(self, x: Tensor) -> Tensor:
        y = ops.leaky_relu(x, self.negative_slope) if self.negative_slope else ops.relu(x)
        return y if self.max_value is None else ops.minimum(y, self.max_value)


class LeakyReLU(Layer):
    """See `ops.leaky_relu`.

    >>> import chainrule as cr
    >>> cr.layers.LeakyReLU(0.5)(cr.tensor([-1.0, 2.0])).numpy().tolist()
    [-0.5, 2.0]
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = float(negative_slope)

    def call(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.negative_slope)


class PReLU(Layer):
    """Leaky ReLU with learned slopes; see `ops.prelu`.

    Args:
        alpha_initializer: first slopes.
        shared_axes: axes (1 is the first after the batch) along which one slope serves all, such as (1, 2) for
            one slope for each channel.

    >>> import chainrule as cr
    >>> cr.layers.PReLU(shared_axes=(1, 2))(cr.Input((8, 8, 3))).shape
    (N, 8, 8, 3)
    """

    def __init__(
        self,
        alpha_initializer: InitializerLike = "zeros",
        shared_axes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = alpha_initializer
        self.shared_axes = tuple(shared_axes or ())

    def build(self, input_shape: Shape) -> None:
        shape = [1 if axis in self.shared_axes else size for axis, size in enumerate(input_shape)][1:]
        self.alpha = self.add_weight("alpha", shape, self.alpha_initializer)

    def call(self, x: Tensor) -> Tensor:
        return ops.prelu(x, self.alpha)


class ELU(Layer):
    """See `ops.elu`.

    >>> import chainrule as cr
    >>> cr.layers.ELU()(cr.tensor([0.0, 2.0])).numpy().tolist()
    [0.0, 2.0]
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = float(alpha)

    def call(self, x: Tensor) -> Tensor:
        return ops.elu(x, self.alpha)


class Softmax(Layer):
    """See `ops.softmax`.

    >>> import chainrule as cr
    >>> cr.layers.Softmax()(cr.tensor([[0.0, 0.0]])).numpy().tolist()
    [[0.5, 0.5]]
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: Tensor) -> Tensor:
        return ops.softmax(x, self.axis)
