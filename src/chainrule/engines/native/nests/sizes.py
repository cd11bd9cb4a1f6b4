"""Sizes that the batch decides."""

from __future__ import annotations

from chainrule.engines.native.ir import Function, Index, Value
from chainrule.graph.dims import Dim, Size

__all__ = ["size_value"]


def size_value(f: Function, size: Size, batch: Value) -> Index:
    """A size as an index: a number, or computed from the run-time batch size."""
    return f.add(f.mul(batch, size.scale), size.offset) if isinstance(size, Dim) else size
