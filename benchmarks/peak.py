"""What this machine can do at most: fused multiply-adds, clock, and memory bandwidth, with all threads busy.

The loops are LLVM IR, compiled in this process. The clock comes from a chain of additions and exclusive-ors, each of
which waits for the one before and takes one cycle; FMA peak divided by the clock must come near a whole power of two of
FLOPs per cycle (16, 32, 64 ...), else something disturbed the measurement.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Peak", "measure_bandwidth", "measure_clock", "measure_fma", "measure_peak"]

CHAIN = 64
"""Links of the dependent chain in one turn of its loop."""

STREAM_BYTES = 64 << 20
"""Size of one array of the bandwidth measurement: several times a usual last-level cache's share."""


@dataclass(frozen=True)
class Peak:
    """Medians of some rounds, all threads together.

    Attributes:
        threads: how many ran.
        gflops: float32 multiply-adds, each counted as two.
        clock_ghz: cycles of one thread per nanosecond.
        read_gb, triad_gb: bytes read; bytes read and written by ``a = b + s * c``, without write-allocation.
    """

    threads: int
    gflops: float
    clock_ghz: float
    read_gb: float
    triad_gb: float

    @property
    def flops_per_cycle(self) -> float:
        """Of one thread."""
        return self.gflops / self.threads / self.clock_ghz

    def is_plausible(self) -> bool:
        """Whether FLOPs per cycle are within a tenth of a power of two, as hardware has them."""
        nearest = 2.0 ** round(math.log2(self.flops_per_cycle))
        return abs(self.flops_per_cycle / nearest - 1) <= 0.1


def measure_peak(threads: int, rounds: int = 7, seconds: float = 0.05) -> Peak:
    """Measure everything in turns and take medians."""
    fma, clock, read, triad = [], [], [], []
    for _ in range(rounds):
        fma.append(measure_fma(threads, seconds))
        clock.append(measure_clock(threads, seconds))
        first, second = measure_bandwidth(threads)
        read.append(first)
        triad.append(second)
    middle = statistics.median
    return Peak(threads, middle(fma), middle(clock), middle(read), middle(triad))


def measure_fma(threads: int, seconds: float = 0.05) -> float:
    """GFLOP/s of `threads` threads, float32."""
    code = _code()
    run = code.function("fma", ctypes.c_int64, ctypes.c_void_p)
    results = np.zeros((threads, 64), np.float32)
    turns = _turns(lambda count: run(count, results[0].ctypes.data), seconds)
    spent = _together([functools.partial(run, turns, row.ctypes.data) for row in results])
    return threads * turns * code.accumulators * code.lanes * 2 / spent / 1e9


def measure_clock(threads: int, seconds: float = 0.05) -> float:
    """GHz of one of `threads` busy threads."""
    code = _code()
    run = code.function("chain", ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    results = np.zeros((threads, 8), np.int64)
    turns = _turns(lambda count: run(count, 3, 5, results[0].ctypes.data), seconds)
    spent = _together([functools.partial(run, turns, 3, 5, row.ctypes.data) for row in results])
    return turns * CHAIN / spent / 1e9


def measure_bandwidth(threads: int) -> tuple[float, float]:
    """GB/s of reading, and of reading two arrays and writing a third."""
    code = _code()
    read = code.function("read", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    triad = code.function("triad", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    arrays = _streams()
    step = code.lanes * code.accumulators
    share = arrays[0].size // threads // step * step
    parts = [[array[n * share :].ctypes.data for array in arrays] for n in range(threads)]
    results = np.zeros((threads, 64), np.float32)
    reading = _together(
        [functools.partial(read, share, part[0], row.ctypes.data) for part, row in zip(parts, results, strict=True)]
    )
    writing = _together([functools.partial(triad, share, *part) for part in parts])
    bytes_each = share * threads * 4
    return bytes_each / reading / 1e9, 3 * bytes_each / writing / 1e9


@functools.cache
def _streams() -> list[Any]:
    return [np.full(STREAM_BYTES // 4, value, np.float32) for value in (1.0, 2.0, 3.0)]


def _turns(run: Callable[[int], Any], seconds: float) -> int:
    """How many turns of a loop take about that long."""
    turns = 1000
    while True:
        start = time.perf_counter()
        run(turns)
        spent = time.perf_counter() - start
        if spent > seconds / 10:
            return max(1, round(turns * seconds / spent))
        turns *= 4


def _together(calls: Sequence[Callable[[], Any]]) -> float:
    """Seconds from the moment that all threads stand ready until the last has finished."""
    ready = threading.Barrier(len(calls) + 1)

    def run(call: Callable[[], Any]) -> None:
        ready.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


# --- The loops -----------------------------------------------------------------------------------


class _Code:
    """The compiled loops; they live as long as this object."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features()
        wide = bool(features.get("avx512f"))
        self.lanes = 16 if wide else 8 if features.get("avx") else 4
        # As many accumulators as hide the latency and leave two of 16 or 32 registers for the operands.
        many = wide or llvm.get_default_triple().startswith(("aarch64", "arm64"))
        self.accumulators = 24 if many else 12
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2, jit=True
        )
        module = llvm.parse_assembly(_ir(self.lanes, self.accumulators))
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()

    def function(self, name: str, *arguments: Any) -> Callable[..., Any]:
        """A compiled loop; calls release the interpreter's lock."""
        kind = ctypes.CFUNCTYPE(None, *arguments)
        return kind(self._engine.get_function_address(name))


@functools.cache
def _code() -> _Code:
    return _Code()


def _ir(lanes: int, accumulators: int) -> str:
    vector = f"<{lanes} x float>"
    declared = f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})"
    return "\n".join(
        (
            declared,
            _fma(vector, lanes, accumulators),
            _chain(),
            _read(vector, lanes, accumulators),
            _triad(vector, lanes),
        )
    )


def _splat(name: str, value: str, vector: str, lanes: int) -> str:
    """A vector of one value that only the running program knows."""
    return (
        f"  %{name}1 = insertelement {vector} poison, float {value}, i32 0\n"
        f"  %{name} = shufflevector {vector} %{name}1, {vector} poison, <{lanes} x i32> zeroinitializer\n"
    )


def _stored_sum(vector: str, accumulators: int) -> str:
    lines = [f"  %s0 = fadd {vector} %y0, zeroinitializer"]
    lines += [f"  %s{k} = fadd {vector} %s{k - 1}, %y{k}" for k in range(1, accumulators)]
    return "\n".join([*lines, f"  store {vector} %s{accumulators - 1}, ptr %out, align 4", "  ret void", "}"])


def _fma(vector: str, lanes: int, accumulators: int) -> str:
    each = range(accumulators)
    phis = "\n".join(f"  %x{k} = phi {vector} [ %a, %entry ], [ %y{k}, %loop ]" for k in each)
    body = "\n".join(
        f"  %y{k} = call {vector} @llvm.fma.v{lanes}f32({vector} %x{k}, {vector} %a, {vector} %b)" for k in each
    )
    return (
        "define void @fma(i64 %turns, ptr %out) {\nentry:\n"
        "  %half = fdiv float 1.0, 2.0\n  %one = load float, ptr %out, align 4\n"
        + _splat("a", "%half", vector, lanes)
        + _splat("b", "%one", vector, lanes)
        + "  br label %loop\nloop:\n  %i = phi i64 [ 0, %entry ], [ %next, %loop ]\n"
        + f"{phis}\n{body}\n"
        + "  %next = add i64 %i, 1\n  %more = icmp slt i64 %next, %turns\n"
        "  br i1 %more, label %loop, label %done\ndone:\n" + _stored_sum(vector, accumulators)
    )


def _chain() -> str:
    names = ["%x", *(f"%x{k}" for k in range(1, CHAIN)), "%end"]
    links = "\n".join(
        f"  {after} = {'add' if k % 2 == 0 else 'xor'} i64 {before}, {'%a' if k % 2 == 0 else '%b'}"
        for k, (before, after) in enumerate(itertools.pairwise(names))
    )
    return (
        "define void @chain(i64 %turns, i64 %a, i64 %b, ptr %out) {\nentry:\n  br label %loop\nloop:\n"
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]\n  %x = phi i64 [ %a, %entry ], [ %end, %loop ]\n"
        f"{links}\n  %next = add i64 %i, 1\n  %more = icmp slt i64 %next, %turns\n"
        "  br i1 %more, label %loop, label %done\ndone:\n  store i64 %end, ptr %out\n  ret void\n}"
    )


def _read(vector: str, lanes: int, accumulators: int) -> str:
    each = range(accumulators)
    phis = "\n".join(f"  %x{k} = phi {vector} [ zeroinitializer, %entry ], [ %y{k}, %loop ]" for k in each)
    body = "\n".join(
        f"  %i{k} = add i64 %i, {k * lanes}\n  %p{k} = getelementptr float, ptr %in, i64 %i{k}\n"
        f"  %v{k} = load {vector}, ptr %p{k}, align 4\n  %y{k} = fadd {vector} %x{k}, %v{k}"
        for k in each
    )
    return (
        "define void @read(i64 %count, ptr %in, ptr %out) {\nentry:\n  br label %loop\nloop:\n"
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]\n"
        f"{phis}\n{body}\n  %next = add i64 %i, {accumulators * lanes}\n  %more = icmp slt i64 %next, %count\n"
        "  br i1 %more, label %loop, label %done\ndone:\n" + _stored_sum(vector, accumulators)
    )


def _triad(vector: str, lanes: int) -> str:
    return (
        "define void @triad(i64 %count, ptr %to, ptr %one, ptr %two) {\nentry:\n"
        "  %scale = fdiv float 1.0, 2.0\n"
        + _splat("s", "%scale", vector, lanes)
        + "  br label %loop\nloop:\n  %i = phi i64 [ 0, %entry ], [ %next, %loop ]\n"
        "  %p = getelementptr float, ptr %to, i64 %i\n  %q = getelementptr float, ptr %one, i64 %i\n"
        "  %r = getelementptr float, ptr %two, i64 %i\n"
        f"  %b = load {vector}, ptr %q, align 4\n  %c = load {vector}, ptr %r, align 4\n"
        f"  %a = call {vector} @llvm.fma.v{lanes}f32({vector} %s, {vector} %c, {vector} %b)\n"
        f"  store {vector} %a, ptr %p, align 4\n"
        f"  %next = add i64 %i, {lanes}\n  %more = icmp slt i64 %next, %count\n"
        "  br i1 %more, label %loop, label %done\ndone:\n  ret void\n}"
    )
