"""What the run time asks of a platform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from chainrule.engines.native.ir import Function, Value

__all__ = ["Platform", "Services"]


@dataclass(frozen=True, slots=True)
class Services:
    """Addresses of system functions in this process; they travel in the call block, never in object code.

    Attributes:
        give_way: lets another thread have the processor.
        wait: sleeps, where the platform can until a word in memory changes.
        wake: wakes the sleepers of a word, or 0 where sleepers only nap.
    """

    give_way: int
    wait: int
    wake: int


class Platform(ABC):
    """One operating system on one kind of processor.

    The ``emit_`` methods write LLVM IR for that target whatever machine they run on; only `services` looks at this
    process.  A system function is called by the address in an LLVM register, such as ``%yield``.
    """

    name: str

    @abstractmethod
    def emit_pause(self, f: Function) -> None:
        """Tell the processor that this is a loop that waits."""

    @abstractmethod
    def emit_fast_floats(self, f: Function) -> str:
        """Round to nearest, trap nothing, flush denormals; returns what `emit_restore_floats` needs."""

    @abstractmethod
    def emit_restore_floats(self, f: Function, saved: str) -> None:
        """Put the thread's floating-point state back as it was."""

    @abstractmethod
    def emit_clock(self, f: Function) -> Value:
        """A counter that grows at a steady rate and agrees between cores, for profiles; its unit is measured."""

    @abstractmethod
    def emit_give_way(self, f: Function, give_way: str) -> None:
        """Let another thread have the processor."""

    @abstractmethod
    def emit_wait(self, f: Function, wait: str, address: str, expected: Value) -> None:
        """Sleep a short time, or until the 32-bit word at `address` is woken or differs from `expected` (an i64)."""

    @abstractmethod
    def emit_wake(self, f: Function, wake: str, address: str) -> None:
        """Wake every thread that sleeps on `address`."""

    @abstractmethod
    def services(self) -> Services:
        """The addresses of the system functions; only where this platform is the host."""
