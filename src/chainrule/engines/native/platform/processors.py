"""What the platforms of one kind of processor share."""

from __future__ import annotations

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.platform.base import Platform
from chainrule.engines.native.types import I32, I64

__all__ = ["X86", "Arm64"]

# MXCSR: round to nearest, all exceptions masked, flush to zero (bit 15), denormals are zero (bit 6).
_MXCSR = 0x1F80 | 1 << 15 | 1 << 6

# FPCR: round to nearest, no traps, flush to zero (bit 24).
_FPCR = 1 << 24


def _do(f: Function, name: str, *arguments: str) -> None:
    """Call a function of LLVM's own that gives nothing; each argument is a type and a value."""
    kinds = ", ".join(argument.partition(" ")[0] for argument in arguments)
    f.module.declare(name, f"void ({kinds})")
    f.emit(f"call void @{name}({', '.join(arguments)})")


class X86(Platform):
    """x86 with SSE2."""

    def emit_pause(self, f: Function) -> None:
        _do(f, "llvm.x86.sse2.pause")

    def emit_fast_floats(self, f: Function) -> str:
        saved, fast = f.scratch(I32, 1, "saved").pointer, f.scratch(I32, 1, "fast").pointer
        _do(f, "llvm.x86.sse.stmxcsr", f"ptr {saved}")
        f.emit(f"store i32 {_MXCSR}, ptr {fast}, align 4")
        _do(f, "llvm.x86.sse.ldmxcsr", f"ptr {fast}")
        return saved

    def emit_restore_floats(self, f: Function, saved: str) -> None:
        _do(f, "llvm.x86.sse.ldmxcsr", f"ptr {saved}")

    def emit_clock(self, f: Function) -> Value:
        f.module.declare("llvm.readcyclecounter", "i64 ()")
        return f.let(I64, "call i64 @llvm.readcyclecounter()")


class Arm64(Platform):
    """64-bit Arm."""

    def emit_pause(self, f: Function) -> None:
        # An instruction barrier waits some tens of cycles; the yield hint does nothing on most cores.
        _do(f, "llvm.aarch64.isb", "i32 15")

    def emit_fast_floats(self, f: Function) -> str:
        f.module.declare("llvm.aarch64.get.fpcr", "i64 ()")
        saved = f.let(I64, "call i64 @llvm.aarch64.get.fpcr()")
        _do(f, "llvm.aarch64.set.fpcr", f"i64 {_FPCR}")
        return saved.text

    def emit_restore_floats(self, f: Function, saved: str) -> None:
        _do(f, "llvm.aarch64.set.fpcr", f"i64 {saved}")

    def emit_clock(self, f: Function) -> Value:
        # The virtual timer: the cycle counter traps in user mode.
        f.module.declare("llvm.read_register.i64", "i64 (metadata)")
        return f.let(I64, 'call i64 @llvm.read_register.i64(metadata !{!"CNTVCT_EL0"})')
