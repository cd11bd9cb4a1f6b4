"""Symbols: what a functional model is wired with before any value exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.errors import ConfigError
from chainrule.graph.dims import BATCH, Shape
from chainrule.graph.op import Spec
from chainrule.graph.trace import input_spec

if TYPE_CHECKING:
    from chainrule.layers.layer import Layer

__all__ = ["Call", "Input", "Symbol"]


class Call:
    """One use of a layer: the layer, the symbols it was applied to, and whether it took them as a list."""

    __slots__ = ("inputs", "layer", "listed")

    def __init__(self, layer: Layer, inputs: Sequence[Symbol], listed: bool) -> None:
        self.layer, self.inputs, self.listed = layer, tuple(inputs), listed


class Symbol:
    """The output of a layer, or an input, of a functional model: a spec and where it comes from.

    ``a + b``, ``a - b`` and ``a * b`` make the joining layers.
    """

    __slots__ = ("call", "name", "spec")

    def __init__(self, spec: Spec, call: Call | None, name: str = "") -> None:
        self.spec, self.call, self.name = spec, call, name

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.spec.dtype

    def history(self) -> list[Call]:
        """Every call that this symbol depends on, inputs before users."""
        found: dict[int, Call] = {}
        seen: set[int] = set()
        pending: list[tuple[Symbol, bool]] = [(self, False)]
        while pending:
            symbol, finished = pending.pop()
            call = symbol.call
            if call is None or id(call) in found:
                continue
            if finished:
                found[id(call)] = call
            elif id(symbol) not in seen:
                seen.add(id(symbol))
                pending.append((symbol, True))
                pending.extend((item, False) for item in reversed(call.inputs))
        return list(found.values())

    def _join(self, kind: str, other: Any) -> Any:
        from chainrule.layers.merge import Add, Multiply, Subtract

        if not isinstance(other, Symbol):
            raise ConfigError(
                f"a symbol of a functional model can be joined with another symbol, not with {other!r}; "
                "for arithmetic with numbers write a Layer subclass"
            )
        return {"add": Add, "subtract": Subtract, "multiply": Multiply}[kind]()([self, other])

    def __add__(self, other: Any) -> Any:
        return self._join("add", other)

    def __sub__(self, other: Any) -> Any:
        return self._join("subtract", other)

    def __mul__(self, other: Any) -> Any:
        return self._join("multiply", other)

    def __repr__(self) -> str:
        source = f" of {self.call.layer.path!r}" if self.call is not None else ""
        return f"<Symbol {self.spec}{source}>"


def Input(shape: Sequence[int], dtype: Any = "float32", name: str | None = None) -> Symbol:
    """The input of a model: the shape of one sample, without the batch axis.

    Raises:
        ConfigError: a size that is not a positive integer.

    >>> import chainrule as cr
    >>> cr.Input((28, 28, 1))
    <Symbol float32(N, 28, 28, 1)>
    """
    sizes = tuple(shape) if isinstance(shape, list | tuple) else (shape,)
    if not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise ConfigError(
            f"Input takes the shape of one sample in positive integers, such as (28, 28, 1); got {shape!r}"
        )
    return Symbol(input_spec((BATCH, *(int(size) for size in sizes)), dtype), None, name or "")
