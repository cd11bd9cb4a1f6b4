"""What the platforms of one operating system share."""

from __future__ import annotations

import ctypes
from typing import Any

from chainrule.engines.native.ir import Function, Value
from chainrule.engines.native.platform.base import Platform, Services
from chainrule.engines.native.types import I64

__all__ = ["Linux", "Posix", "Windows", "address_in"]

# A sleeper looks again after so long, even if nothing wakes it.
_SLEEP_NANOSECONDS = 2_000_000
_SLEEP_MILLISECONDS = _SLEEP_NANOSECONDS // 1_000_000
_NAP_MICROSECONDS = 100

_FUTEX_WAIT_PRIVATE, _FUTEX_WAKE_PRIVATE = 128, 129
_ALL = 2**31 - 1


def address_in(library: Any, function: str) -> int:
    """The address of a function of a loaded library."""
    address = ctypes.cast(getattr(library, function), ctypes.c_void_p).value
    assert address
    return address


class Linux(Platform):
    """Linux: sched_yield and futex, both by way of libc."""

    futex: int
    """The number of the system call."""

    def emit_give_way(self, f: Function, give_way: str) -> None:
        f.emit(f"call i32 {give_way}()")

    def emit_wait(self, f: Function, wait: str, address: str, expected: Value) -> None:
        limit = f.scratch(I64, 2, "limit").pointer
        nanoseconds = f.let(I64, f"getelementptr i64, ptr {limit}, i64 1").text
        f.emit(f"store i64 0, ptr {limit}, align 8")
        f.emit(f"store i64 {_SLEEP_NANOSECONDS}, ptr {nanoseconds}, align 8")
        self._syscall(f, wait, address, f"i64 {_FUTEX_WAIT_PRIVATE}, {expected}, ptr {limit}, ptr null, i64 0")

    def emit_wake(self, f: Function, wake: str, address: str) -> None:
        self._syscall(f, wake, address, f"i64 {_FUTEX_WAKE_PRIVATE}, i64 {_ALL}, ptr null, ptr null, i64 0")

    def services(self) -> Services:
        libc = ctypes.CDLL(None)
        syscall = address_in(libc, "syscall")
        return Services(address_in(libc, "sched_yield"), syscall, syscall)

    def _syscall(self, f: Function, function: str, address: str, arguments: str) -> None:
        f.emit(f"call i64 (i64, ...) {function}(i64 {self.futex}, ptr {address}, {arguments})")


class Posix(Platform):
    """Any other Unix: sched_yield, and naps instead of sleep, so nobody need wake."""

    def emit_give_way(self, f: Function, give_way: str) -> None:
        f.emit(f"call i32 {give_way}()")

    def emit_wait(self, f: Function, wait: str, address: str, expected: Value) -> None:
        f.emit(f"call i32 {wait}(i32 {_NAP_MICROSECONDS})")

    def emit_wake(self, f: Function, wake: str, address: str) -> None:
        pass

    def services(self) -> Services:
        libc = ctypes.CDLL(None)
        return Services(address_in(libc, "sched_yield"), address_in(libc, "usleep"), 0)


class Windows(Platform):
    """Windows: SwitchToThread, and WaitOnAddress (Windows 8 and newer)."""

    def emit_give_way(self, f: Function, give_way: str) -> None:
        f.emit(f"call i32 {give_way}()")

    def emit_wait(self, f: Function, wait: str, address: str, expected: Value) -> None:
        compare = f.scratch(I64, 1, "expected").pointer
        f.emit(f"store {expected}, ptr {compare}, align 8")
        f.emit(f"call i32 {wait}(ptr {address}, ptr {compare}, i64 4, i32 {_SLEEP_MILLISECONDS})")

    def emit_wake(self, f: Function, wake: str, address: str) -> None:
        f.emit(f"call void {wake}(ptr {address})")

    def services(self) -> Services:
        kernel, base = ctypes.CDLL("kernel32"), ctypes.CDLL("KernelBase")
        return Services(
            address_in(kernel, "SwitchToThread"),
            address_in(base, "WaitOnAddress"),
            address_in(base, "WakeByAddressAll"),
        )
