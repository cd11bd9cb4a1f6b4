"""Sequential: layers one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.errors import ConfigError
from chainrule.graph.tensor import Tensor
from chainrule.layers.layer import Layer, numbered_names
from chainrule.layers.symbol import Input, Symbol
from chainrule.models.model import Model
from chainrule.train.loop import Trainer

__all__ = ["Sequential"]


class Sequential(Model):
    """A chain of layers.

    Args:
        layers: layers; the first entry may be an `Input`, and then the weights are made and every shape is
            checked at once.  Without one that happens at the first call or `fit`.
        name: as in `Layer`.

    Raises:
        ConfigError: something that is not a layer.
        ShapeError: a layer does not fit its input; the message names it.

    >>> import chainrule as cr
    >>> model = cr.Sequential([cr.Input((8, 8, 1)), cr.layers.Flatten(), cr.layers.Dense(10)])
    >>> model.count_params()
    650
    """

    def __init__(self, layers: Sequence[Any] | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self._chain: list[Layer] = []
        for layer in layers or ():
            self._append(layer)
        self._settle()

    def add(self, layer: Any) -> None:
        """Put a layer at the end."""
        self._append(layer)
        self._settle()

    @property
    def layers(self) -> list[Layer]:
        return list(self._chain)

    def call(self, inputs: Tensor) -> Any:
        for layer in self._chain:
            inputs = layer(inputs)
        return inputs

    def _append(self, layer: Any) -> None:
        if isinstance(layer, Symbol):
            if self._chain or layer.call is not None:
                raise ConfigError(f"model {self.name!r}: an Input can only be the first entry")
            self._input_spec = layer.spec
            return
        if not isinstance(layer, Layer):
            raise ConfigError(f"model {self.name!r}: entry {len(self._chain)} is {layer!r}, not a layer")
        if any(layer is other for other in self._chain):
            raise ConfigError(f"model {self.name!r}: layer {layer.path!r} stands in the chain twice")
        if not self._chain and layer.input_shape is not None and self._input_spec is None:
            self._input_spec = Input(layer.input_shape, layer.dtype or "float32").spec
        self._chain.append(layer)

    def _settle(self) -> None:
        """Name the layers by position, and build them if the input is known."""
        self._sublayers.clear()
        for layer, name in zip(self._chain, numbered_names(self._chain), strict=True):
            layer.adopt(self._child_path(name))
            self._sublayers[name] = layer
        self._trainer = None if self._objective is None else Trainer(self, self._objective)
        if self._input_spec is not None and self._chain:
            self.output_spec(self._input_spec)
