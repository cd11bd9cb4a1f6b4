"""LLVM: from text to code in this process."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from chainrule.engines.native import jit
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.jit import (
    Library,
    Target,
    compile_object,
    emit_assembly,
    has_fma,
    host_lanes32,
    host_target,
    llvm_version,
    undefined_symbols,
)
from chainrule.engines.native.types import F32, I64
from chainrule.errors import EngineError

LINUX = "x86_64-unknown-linux-gnu"
BASELINE = Target(LINUX, "x86-64", "")
AVX2 = Target(LINUX, "haswell", "+avx2,+fma")
AVX512 = Target(LINUX, "skylake-avx512", "+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl")
ARM = Target("aarch64-unknown-linux-gnu", "generic", "+neon")

ADD = "define i64 @add(i64 %a, i64 %b) {\n  %c = add i64 %a, %b\n  ret i64 %c\n}\n"


def one_intrinsic(name: str, arguments: int) -> str:
    """A function that calls an intrinsic of float32."""
    parameters = ", ".join(f"float %a{i}" for i in range(arguments))
    return (
        f"define float @f({parameters}) {{\n  %r = call float @llvm.{name}.f32({parameters})\n  ret float %r\n}}\n"
        f"declare float @llvm.{name}.f32({', '.join(['float'] * arguments)})\n"
    )


# --- Targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "lanes", "fma"),
    [
        (BASELINE, 4, False),
        (Target(LINUX, "sandybridge", "+avx,-avx2,-fma"), 4, False),
        (AVX2, 8, True),
        (Target(LINUX, "knl", "+avx2,+fma,+avx512f,-avx512bw"), 8, True),
        (AVX512, 16, True),
        (ARM, 4, True),
        (Target("arm64-apple-macosx12.0.0", "apple-m1", "+neon"), 4, True),
    ],
)
def test_vectors_of_a_target(target: Target, lanes: int, fma: bool) -> None:
    assert target.lanes32 == lanes
    assert has_fma(target) == fma


def test_the_host() -> None:
    target = host_target()
    assert target.is_x86 == (platform.machine() in ("x86_64", "AMD64"))
    assert host_lanes32() == target.lanes32
    assert llvm_version().count(".") >= 3


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="reads the flags of Linux")
def test_the_host_has_what_the_kernel_says() -> None:
    with open("/proc/cpuinfo", encoding="ascii") as file:
        flags = next(line for line in file if line.startswith("flags")).split()
    assert has_fma(host_target()) == ("fma" in flags)
    assert (host_lanes32() >= 8) == ("avx2" in flags)


# --- Code ----------------------------------------------------------------------------------------


def test_code_runs() -> None:
    add = Library([compile_object(ADD)], ["add"]).function("add", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    assert add(2, 40) == 42


def test_the_same_text_gives_the_same_bytes() -> None:
    assert compile_object(ADD) == compile_object(ADD)
    assert compile_object(ADD, BASELINE) == compile_object(ADD, BASELINE)


@pytest.mark.parametrize(
    "text", ["rubbish", "define i64 @f() {\n  ret i32 0\n}\n", "define void @f() {\n  call void @g()\n  ret void\n}\n"]
)
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match="LLVM refuses the generated code"):
        compile_object(text)


def test_functions_of_libm_are_refused() -> None:
    with pytest.raises(EngineError, match="calls expf"):
        compile_object(one_intrinsic("exp", 1), BASELINE)


def test_fma_is_an_instruction_or_refused() -> None:
    text = one_intrinsic("fma", 3)
    assert "vfmadd" in emit_assembly(text, AVX2)
    assert "fmadd" in emit_assembly(text, ARM)
    with pytest.raises(EngineError, match="calls fmaf"):
        compile_object(text, BASELINE)


def test_fills_and_copies_are_allowed() -> None:
    text = (
        "define void @clear(ptr %p, i64 %n) {\n  call void @llvm.memset.p0.i64(ptr %p, i8 0, i64 %n, i1 false)\n"
        "  ret void\n}\ndeclare void @llvm.memset.p0.i64(ptr, i8, i64, i1)\n"
    )
    content = compile_object(text)
    clear = Library([content], ["clear"]).function("clear", None, ctypes.c_void_p, ctypes.c_int64)
    data = np.ones(100, np.uint8)
    clear(data.ctypes.data, 60)
    assert data.tolist() == [0] * 60 + [1] * 40
    assert undefined_symbols(compile_object(text, BASELINE)) == ["memset"]


def test_constants_and_tables_are_found_wherever_the_code_is() -> None:
    text = (
        "@squares = internal constant [4 x double] [double 0.0, double 1.5, double 4.5, double 9.5]\n"
        "@table = internal constant [1 x ptr] [ptr @square]\n"
        "define internal double @square(i64 %i) {\n  %p = getelementptr double, ptr @squares, i64 %i\n"
        "  %x = load double, ptr %p\n  %y = fadd double %x, 0.25\n  ret double %y\n}\n"
        "define double @f(i64 %i) {\n  %g = load ptr, ptr @table\n  %r = call double %g(i64 %i)\n  ret double %r\n}\n"
    )
    content = compile_object(text)
    libraries = [Library([content], ["f"]) for _ in range(3)]
    for library in libraries:
        assert library.function("f", ctypes.c_double, ctypes.c_int64)(2) == 4.75


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(EngineError, match="LLVM knows no target"):
        compile_object(ADD, Target("pdp11-dec-unix", "", ""))


def test_threads_may_compile_at_once() -> None:
    expected, got = compile_object(ADD), []
    running = [threading.Thread(target=lambda: got.append(compile_object(ADD))) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert got == [expected] * 4


# --- Loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"rubbish" * 100, b"\x7fELF" + bytes(100)])
def test_what_is_no_code_for_this_machine_is_refused(content: bytes) -> None:
    with pytest.raises(EngineError, match="cannot be loaded"):
        Library([content], ["add"])


def test_a_missing_symbol_is_named() -> None:
    with pytest.raises(EngineError, match="subtract"):
        Library([compile_object(ADD)], ["add", "subtract"])


@pytest.mark.slow
def test_code_lives_as_long_as_it_is_used() -> None:
    library = Library([compile_object(ADD)], ["add"])
    code = weakref.ref(library._code)
    add = library.function("add", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    del library
    gc.collect()
    assert code() is not None
    assert add(20, 22) == 42
    del add
    gc.collect()
    assert code() is None


def test_code_can_be_dropped_by_a_thread_that_the_locks_holder_waits_for() -> None:
    """As when the garbage collector comes while several threads compile."""
    libraries = [Library([compile_object(ADD)], ["add"])]
    code = weakref.ref(libraries[0]._code)
    dropping = threading.Thread(target=libraries.clear)
    with jit._LOCK:
        dropping.start()
        dropping.join(20)
        assert not dropping.is_alive()
        assert code() is None
        unused = list(jit._UNUSED)
        assert unused
    Library([compile_object(ADD)], ["add"])
    assert not any(item is other for item in jit._UNUSED for other in unused)


def test_loading_and_unloading_many_times() -> None:
    content = compile_object(ADD)
    for _ in range(100):
        library = Library([content], ["add"])
        assert library.function("add", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(1, 2) == 3


# --- What the code looks like --------------------------------------------------------------------


def dot_product(lanes: int, multiply: bool) -> str:
    """A loop with four accumulators, as a product has."""
    module = Module(lanes32=lanes)
    f = Function(module, "dot", [("ptr", "a"), ("ptr", "b"), ("ptr", "out"), ("i64", "n")])
    a, b = (Buffer(f"%{name}", F32, Value("%n", I64), name) for name in "ab")
    out = Buffer("%out", F32, 4 * lanes, "out")
    zero = f.constant(0, F32.of(lanes))

    def turn(i: Value, sums: list[Value]) -> list[Value]:
        result = []
        for number, total in enumerate(sums):
            place = f.add(f.mul(i, 4 * lanes), number * lanes)
            x, y = f.load(a, place, lanes), f.load(b, place, lanes)
            result.append(f.binary("fadd", total, f.binary("fmul", x, y)) if multiply else f.fma(x, y, total))
        return result

    for number, total in enumerate(f.loop(0, Value("%n", I64), turn, [zero] * 4)):
        f.store(total, out, number * lanes)
    return module.text()


@pytest.mark.parametrize("target", [BASELINE, AVX2, AVX512, ARM])
def test_product_loops_touch_no_stack(target: Target) -> None:
    lines = emit_assembly(dot_product(target.lanes32, not has_fma(target)), target).splitlines()
    product = [number for number, line in enumerate(lines) if "fmadd" in line or "mulps" in line or "fmla" in line]
    assert len(product) == 4
    inside = lines[product[0] - 4 : product[-1] + 4]
    assert not [line for line in inside if "sp)" in line or "[sp" in line]
    register = {4: "xmm", 8: "ymm", 16: "zmm"}[target.lanes32] if target.is_x86 else "v"
    assert all(register in lines[number] for number in product)


# --- The import ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_llvm_is_loaded_when_it_is_needed() -> None:
    code = (
        "import sys, chainrule\n"
        "from chainrule.engines.native import cache, call, driver, jit, platform, threads\n"
        "assert 'llvmlite' not in sys.modules\n"
        "jit.host_target()\n"
        "assert 'llvmlite' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
