"""Layers that join several tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

from chainrule import ops
from chainrule.errors import ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.tensor import Tensor
from chainrule.layers.layer import Layer

__all__ = ["Add", "Concatenate", "Multiply", "Subtract"]


class _Merge(Layer):
    """What the joining layers share: they take a list of at least two tensors."""

    def build(self, input_shape: Any) -> None:
        if not isinstance(input_shape, list) or len(input_shape) < 2:
            raise ShapeError("takes a list of at least two tensors, such as layer([a, b])")

    def _joined(self, inputs: list[Tensor], join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Tensors of one shape, joined from the first one on."""
        first = inputs[0]
        for item in inputs[1:]:
            if item.shape != first.shape:
                shapes = ", ".join(format_shape(t.shape) for t in inputs)
                raise ShapeError(f"layer {self.path!r}: joins tensors of one shape, got {shapes}")
        return reduce(join, inputs)


class Add(_Merge):
    """Sum of tensors of one shape.

    >>> import chainrule as cr
    >>> cr.layers.Add()([cr.tensor([1.0]), cr.tensor([2.0])]).item()
    3.0
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        return self._joined(inputs, operator.add)


class Subtract(_Merge):
    """The first tensor minus the others.

    >>> import chainrule as cr
    >>> cr.layers.Subtract()([cr.tensor([1.0]), cr.tensor([2.0])]).item()
    -1.0
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        return self._joined(inputs, operator.sub)


class Multiply(_Merge):
    """Elementwise product of tensors of one shape.

    >>> import chainrule as cr
    >>> cr.layers.Multiply()([cr.tensor([3.0]), cr.tensor([2.0])]).item()
    6.0
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        return self._joined(inputs, operator.mul)


class Concatenate(_Merge):
    """Tensors side by side along an axis.

    Args:
        axis: the axis; the channels by default.

    >>> import chainrule as cr
    >>> cr.layers.Concatenate()([cr.tensor([[1.0]]), cr.tensor([[2.0, 3.0]])]).shape
    (1, 3)
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs: list[Tensor]) -> Tensor:
        return ops.concat(inputs, self.axis)
