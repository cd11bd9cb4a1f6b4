"""Functions that a module holds once for each type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chainrule.engines.native.ir import Function, Value

__all__ = ["Outlined"]


@dataclass(frozen=True, slots=True)
class Outlined:
    """A function that modules hold once per type, called where it is used.

    Attributes:
        name: what engines call it.
        body: emits the formula in place.
        arity: how many arguments it takes, all of one floating-point type.
    """

    name: str
    body: Callable[..., Value]
    arity: int = 1

    def __call__(self, f: Function, *arguments: Value, inline: bool = False) -> Value:
        """The function's value.

        Args:
            f: where it is used.
            arguments: scalars or vectors of one floating-point type.
            inline: emit the formula here; worth it only where the call would keep a hot loop's values out of the
                registers.
        """
        if inline:
            return self.body(f, *arguments)
        type = arguments[0].type
        symbol = f"chainrule_{self.name}_{type.suffix}"
        if symbol not in f.module.functions:
            parameters = "xy"[: self.arity]
            g = Function(f.module, symbol, [(type.llvm, p) for p in parameters], result=type.llvm, internal=True)
            g.emit(f"ret {self.body(g, *(Value(f'%{p}', type) for p in parameters))}")
        return f.call(symbol, type, *arguments)
