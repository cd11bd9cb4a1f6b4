"""Any other Unix machine: nothing is known of its processor, so denormals are not flushed."""

from __future__ import annotations

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.platform.systems import Posix
from chainrule.engines.native.types import I64

__all__ = ["Portable"]


class Portable(Posix):
    """A little-endian 64-bit machine with a Unix."""

    name = "portable"

    def emit_pause(self, f: Function) -> None:
        pass

    def emit_fast_floats(self, f: Function) -> str:
        return ""

    def emit_restore_floats(self, f: Function, saved: str) -> None:
        pass

    def emit_clock(self, f: Function) -> Value:
        # LLVM makes this zero where the machine has no such counter: profiles then show no times.
        f.module.declare("llvm.readcyclecounter", "i64 ()")
        return f.let(I64, "call i64 @llvm.readcyclecounter()")
