"""Functional models: a graph of layers between input and output symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.errors import ConfigError, ShapeError
from chainrule.graph.tensor import Tensor
from chainrule.layers.layer import numbered_names
from chainrule.layers.symbol import Call, Symbol
from chainrule.models.model import Model

__all__ = ["Functional"]


class Functional(Model):
    """What ``Model(inputs, outputs)`` makes.

    Args:
        inputs: an `Input` symbol, or a list of them.
        outputs: a symbol, or a list of them.
        name: as in `Layer`.

    Raises:
        ConfigError: an output depends on an input that is not listed, or something is no symbol.
    """

    def __init__(
        self, inputs: Symbol | Sequence[Symbol], outputs: Symbol | Sequence[Symbol], name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.inputs, self.outputs = _symbols(inputs, "inputs"), _symbols(outputs, "outputs")
        self._one_input, self._one_output = isinstance(inputs, Symbol), isinstance(outputs, Symbol)
        self.calls = _ordered(self.outputs)
        self._check_inputs()
        chain = list(dict.fromkeys(call.layer for call in self.calls))
        for layer, name_ in zip(chain, numbered_names(chain), strict=True):
            if not layer.adopted:
                layer.adopt(self._child_path(name_))
            self._sublayers[name_] = layer
        self._input_spec = self.inputs[0].spec if self._one_input else None
        self._input_specs = [symbol.spec for symbol in self.inputs]
        self.built = True

    def _check_inputs(self) -> None:
        known = {id(symbol) for symbol in self.inputs}
        for symbol in self.inputs:
            if symbol.call is not None:
                raise ConfigError(f"{symbol!r} is the output of a layer, not an Input; inputs come from cr.Input")
        for call in self.calls:
            for symbol in call.inputs:
                if symbol.call is None and id(symbol) not in known:
                    raise ConfigError(
                        f"layer {call.layer.path!r} reads the input {symbol!r}, which is not among the model's inputs"
                    )

    def _check_trainable(self) -> None:
        if len(self.inputs) > 1 or len(self.outputs) > 1:
            raise ConfigError(
                f"compile, fit and predict take models with one input and one output; {self.name!r} has "
                f"{len(self.inputs)} and {len(self.outputs)}; call it, and train it with loss.backward()"
            )

    def call(self, inputs: Any) -> Any:
        given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        if len(given) != len(self.inputs):
            raise ShapeError(f"model {self.name!r} takes {len(self.inputs)} inputs, got {len(given)}")
        values: dict[int, Any] = {}
        for symbol, value in zip(self.inputs, given, strict=True):
            values[id(symbol)] = self._cast_input(value, symbol.spec)
        for call in self.calls:
            arguments = [values[_key(symbol)] for symbol in call.inputs]
            values[id(call)] = call.layer(arguments if call.listed else arguments[0])
        results = [values[_key(symbol)] for symbol in self.outputs]
        return results[0] if self._one_output else tuple(results)


def _key(symbol: Symbol) -> int:
    return id(symbol) if symbol.call is None else id(symbol.call)


def _symbols(value: Any, what: str) -> list[Symbol]:
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if not listed or not all(isinstance(item, Symbol) for item in listed):
        raise ConfigError(f"a model's {what} are symbols from cr.Input and layers, got {value!r}")
    return listed


def _ordered(outputs: Sequence[Symbol]) -> list[Call]:
    """Every call that an output depends on, inputs before users."""
    found: dict[int, Call] = {}
    for symbol in outputs:
        for call in symbol.history():
            found.setdefault(id(call), call)
    return list(found.values())
