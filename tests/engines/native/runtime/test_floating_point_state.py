"""Native code has a floating-point state of its own."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest

from chainrule.engines.native import threads
from chainrule.engines.native.call import CallBlock, Driver
from chainrule.engines.native.jit import Library, compile_object
from chainrule.engines.native.platform import host
from tests.engines.native.runtime.running import Loaded, in_thread
from tests.engines.native.toys import ToyCall, load_tiny

needs_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads MXCSR")


def multiply(driver: Driver, left: float, right: float) -> float:
    """The product that native code computes."""
    block, data = CallBlock(driver), np.array([left, right])
    block.table[:] = data.ctypes.data, data.ctypes.data + 8
    block.set_records(np.zeros((1, 1), np.int64))
    threads.run(driver.entry, block, 1)
    return float(data[0])


def numpy_keeps_denormals() -> bool:
    return bool(np.array([1e-300])[0] * np.array([1e-10])[0] > 0) and bool(np.array([5e-324]) * 1.0 > 0)


@pytest.mark.skipif(host().name == "portable", reason="denormals are not flushed there")
def test_denormals_are_flushed_inside_and_kept_outside() -> None:
    tiny = load_tiny()
    assert multiply(tiny, 3.0, 5.0) == 15.0
    assert multiply(tiny, 1e-300, 1e-10) == 0.0  # a denormal result
    assert multiply(tiny, 5e-324, 2.0**60) == 0.0  # a denormal operand
    assert numpy_keeps_denormals()


@pytest.mark.skipif(host().name == "portable", reason="denormals are not flushed there")
def test_workers_restore_their_state_too(slow: Loaded) -> None:
    driver, _ = slow
    call = ToyCall(driver, [40] * 300)
    generation = call.block.open(300, 2)
    kept = []

    def work() -> None:
        driver.entry(call.block.address, 1, generation)
        kept.append(numpy_keeps_denormals())

    worker = in_thread(work)
    driver.entry(call.block.address, 0, generation)
    worker.join()
    assert kept == [True]


MXCSR = """
define i64 @get() {
  %p = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %p)
  %v = load i32, ptr %p
  %r = zext i32 %v to i64
  ret i64 %r
}
define void @set(i64 %x) {
  %p = alloca i32
  %v = trunc i64 %x to i32
  store i32 %v, ptr %p
  call void @llvm.x86.sse.ldmxcsr(ptr %p)
  ret void
}
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
"""


@needs_x86
def test_the_callers_rounding_neither_changes_bits_nor_is_changed() -> None:
    library = Library([compile_object(MXCSR)], ["get", "set"])
    get, put = library.function("get", ctypes.c_int64), library.function("set", None, ctypes.c_int64)
    tiny, usual = load_tiny(), get()
    expected = multiply(tiny, 0.1, 0.1)
    upwards = 0x1F80 | 2 << 13
    try:
        put(upwards)
        got, after = multiply(tiny, 0.1, 0.1), get()
    finally:
        put(usual)
    assert got == expected
    assert after & ~0x3F == upwards  # the low bits note what has happened
