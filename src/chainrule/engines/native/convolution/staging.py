"""Maps copied to a thread's private memory where a product cannot take them as they lie."""

from __future__ import annotations

from chainrule.engines.native.ir import Buffer, Function, Module
from chainrule.engines.native.kernels import Scratch, call, rounded
from chainrule.engines.native.maps import MapCopy, emit_map_copy

__all__ = ["Staged", "staged_bytes"]


def staged_bytes(copy: MapCopy) -> int:
    """Private memory for a map's copy; none where the copy would be the map."""
    return rounded(copy.target_size() * copy.type.bytes) if _differs(copy) else 0


class Staged:
    """One sample's map as a product takes it: framed or widened in private memory, or the map itself.

    Args:
        f: the kernel's function.
        scratch: where the copy's place is taken from.
        function: name of the copying function.
        copy: how the copy lies.
        name: what the checked build calls it.
    """

    def __init__(self, f: Function, scratch: Scratch, function: str, copy: MapCopy, name: str) -> None:
        self.function, self.copy = function, copy
        self.area = scratch.take(f, copy.type, copy.target_size(), name) if _differs(copy) else None

    def emit(self, module: Module) -> None:
        """Add the copying function, if there is something to copy, to a module."""
        if self.area is not None:
            emit_map_copy(module, self.function, self.copy)

    def of(self, f: Function, source: Buffer) -> Buffer:
        """What a product is to read for a map."""
        if self.area is None:
            return source
        call(f, self.function, source, self.area)
        return self.area


def _differs(copy: MapCopy) -> bool:
    return any(copy.frame) or copy.zeros > 0
