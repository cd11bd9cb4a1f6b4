"""The driver for other processors and systems."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from functools import partial

import pytest

from chainrule.engines.native.driver import Field
from chainrule.engines.native.jit import Library, Target, compile_object, emit_assembly
from chainrule.engines.native.platform import for_triple, host
from tests.engines.native.runtime.running import in_thread, planned, sizes_of
from tests.engines.native.toys import emit_toys


@pytest.mark.parametrize(
    ("triple", "cpu", "features", "name", "machine"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64", "", "linux-x86_64", 62),
        ("x86_64-unknown-linux-gnu", "znver4", "", "linux-x86_64", 62),
        ("aarch64-unknown-linux-gnu", "generic", "+neon", "linux-aarch64", 183),
        ("x86_64-pc-windows-msvc-elf", "x86-64", "", "windows-x86_64", 62),
        ("riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d", "portable", 243),
    ],
)
def test_the_driver_is_emitted_for_other_machines(
    triple: str, cpu: str, features: str, name: str, machine: int
) -> None:
    target = for_triple(triple)
    assert target.name == name
    text = emit_toys(3, target, profile=True)[0].text()
    content = compile_object(text, Target(triple, cpu, features))
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == machine


@pytest.mark.parametrize(
    ("triple", "name"), [("arm64-apple-macosx12.0.0", "macos-arm64"), ("x86_64-apple-macosx12.0.0", "macos-x86_64")]
)
def test_the_driver_is_emitted_for_macos(triple: str, name: str) -> None:
    target = for_triple(triple)
    assert target.name == name
    content = compile_object(emit_toys(3, target)[0].text(), Target(triple, "", ""))
    assert content[:4] == bytes.fromhex("cffaedfe")


@pytest.mark.slow
def test_what_is_particular_to_a_processor_is_there() -> None:
    arm = emit_assembly(
        emit_toys(3, for_triple("aarch64-linux-gnu"), profile=True)[0].text(),
        Target("aarch64-unknown-linux-gnu", "generic", "+neon"),
    ).lower()
    assert all(word in arm for word in ("isb", "fpcr", "cntvct_el0"))
    intel = emit_assembly(
        emit_toys(3, for_triple("x86_64-linux-gnu"), profile=True)[0].text(),
        Target("x86_64-unknown-linux-gnu", "x86-64", ""),
    )
    assert all(word in intel for word in ("pause", "stmxcsr", "ldmxcsr", "rdtsc", "lock\t"))


# The system's functions with Windows' calling convention, and the way from ours to it.
AS_ON_WINDOWS = """
define win64cc i32 @give_way() {
  %n = atomicrmw add ptr @yields, i64 1 monotonic
  ret i32 0
}
define win64cc i32 @wait(ptr %word, ptr %compare, i64 %size, i32 %milliseconds) {
  %n = atomicrmw add ptr @waits, i64 1 monotonic
  ret i32 0
}
define win64cc void @wake(ptr %word) {
  ret void
}
define i64 @enter(ptr %entry, ptr %call, i64 %thread, i64 %generation) {
  %done = call win64cc i64 %entry(ptr %call, i64 %thread, i64 %generation)
  ret i64 %done
}
define i64 @count_yields() {
  %n = load atomic i64, ptr @yields monotonic, align 8
  ret i64 %n
}
define i64 @count_waits() {
  %n = load atomic i64, ptr @waits monotonic, align 8
  ret i64 %n
}
@yields = internal global i64 0
@waits = internal global i64 0
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the bridge is for Linux")
def test_the_code_for_windows_runs_over_a_bridge() -> None:
    target = Target("x86_64-pc-windows-msvc-elf", "x86-64", "")
    module, toys = emit_toys(800, for_triple(target.triple))
    call, expected = planned((toys.load(compile_object(module.text(), target)), toys), sizes_of(300))
    names = ["give_way", "wait", "wake", "enter", "count_yields", "count_waits"]
    bridge = Library([compile_object(AS_ON_WINDOWS)], names)
    enter = bridge.function("enter", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    for field, name in ((Field.GIVE_WAY, "give_way"), (Field.WAIT, "wait"), (Field.WAKE, "wake")):
        call.block._set(field, bridge.function(name, None).address)
    generation = call.block.open(300, 3)
    come_in = partial(enter, call.driver.entry.address, call.block.address)
    workers = [in_thread(partial(come_in, number, generation)) for number in (1, 2)]
    time.sleep(0.01)  # both wait for the first step by now
    assert come_in(0, generation) == 300
    for worker in workers:
        worker.join()
    assert call.result == expected
    assert bridge.function("count_yields", ctypes.c_int64)() > 0
    assert bridge.function("count_waits", ctypes.c_int64)() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="knows what uname says on Linux")
def test_the_host_is_known() -> None:
    assert host().name == {"x86_64": "linux-x86_64", "aarch64": "linux-aarch64"}.get(platform.machine(), "portable")
