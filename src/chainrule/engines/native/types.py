"""Types of native values: scalars and vectors of floats and integers, and how LLVM spells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = ["BOOL", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "Type", "type_of"]

Kind = Literal["f", "i", "u", "b"]


@dataclass(frozen=True, slots=True)
class Type:
    """A scalar, or a vector of `lanes` of them.

    Attributes:
        kind: ``f`` float, ``i`` signed, ``u`` unsigned, ``b`` truth value (one bit in registers, one byte in memory).
        bits: width of one element in registers.
        lanes: how many elements; 1 is a scalar.
    """

    kind: Kind
    bits: int
    lanes: int = 1

    @property
    def llvm(self) -> str:
        """LLVM's spelling of the type in registers."""
        return self._spelled(self._element())

    @property
    def stored(self) -> str:
        """LLVM's spelling of the type in memory, where truth values are bytes."""
        return self._spelled("i8" if self.kind == "b" else self._element())

    @property
    def bytes(self) -> int:
        """Size of one element in memory."""
        return 1 if self.kind == "b" else self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def scalar(self) -> Type:
        return self.of(1)

    def of(self, lanes: int) -> Type:
        """The same element, `lanes` times."""
        return self if lanes == self.lanes else Type(self.kind, self.bits, lanes)

    @property
    def suffix(self) -> str:
        """How intrinsics name the type: ``f32``, ``v8f32``, ``v8i64``."""
        element = ("f" if self.kind == "f" else "i") + str(self.bits)
        return f"v{self.lanes}{element}" if self.lanes > 1 else element

    def _element(self) -> str:
        return ("float" if self.bits == 32 else "double") if self.kind == "f" else f"i{self.bits}"

    def _spelled(self, element: str) -> str:
        return f"<{self.lanes} x {element}>" if self.lanes > 1 else element

    def __repr__(self) -> str:
        return f"{self.kind}{self.bits}" + (f"x{self.lanes}" if self.lanes > 1 else "")


F32, F64 = Type("f", 32), Type("f", 64)
I8, I16, I32, I64 = Type("i", 8), Type("i", 16), Type("i", 32), Type("i", 64)
U8, U16, U32, U64 = Type("u", 8), Type("u", 16), Type("u", 32), Type("u", 64)
BOOL = Type("b", 1)

_KINDS: dict[str, Kind] = {"f": "f", "i": "i", "u": "u"}


def type_of(dtype: Any) -> Type:
    """The native type of a NumPy dtype."""
    found = np.dtype(dtype)
    return BOOL if found.kind == "b" else Type(_KINDS[found.kind], found.itemsize * 8)
