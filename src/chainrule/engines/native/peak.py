"""What this machine can do at most: multiply-adds and memory bandwidth, measured with loops of native code.

A speed means something beside what the processor could do, so the command line and the benchmarks
both measure that here.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.jit import Library, NativeFunction, Target, compile_object, has_fma, host_target
from chainrule.engines.native.types import F32, I64, Type

__all__ = [
    "STREAM_BYTES",
    "chains",
    "emit_multiply_adds",
    "host_module",
    "host_peak",
    "measure_bandwidth",
    "measure_multiply_adds",
    "spent_together",
    "turns_for",
]

STREAM_BYTES = 64 << 20
"""Size of one array of the bandwidth measurement: several times a usual last-level cache's share."""

_LARGEST = 1024
"""Elements of the operand of the multiply-adds: more than all vectors hold."""


def host_module() -> Module:
    """An empty module for this machine."""
    module = Module(host_target().lanes32)
    module.has_fma = has_fma(host_target())
    return module


def chains(target: Target) -> int:
    """How many independent chains hide an instruction's latency and leave registers for the operands."""
    return 12 if target.is_x86 and target.lanes32 < 16 else 24


def emit_multiply_adds(module: Module, name: str, type: Type, count: int) -> None:
    """Emit ``void name(ptr operand, i64 turns)``: `count` independent chains of ``x = x * b + c`` in registers.

    Args:
        module: where to.
        name: the function's symbol.
        type: of an element; a vector of them fills a register.
        count: chains; one turn is ``2 * count * module.lanes(type)`` FLOPs.
    """
    lanes = module.lanes(type)
    f = Function(module, name, [("ptr", "p"), ("i64", "n")])
    operand = Buffer("%p", type, _LARGEST, "p")
    start = [f.load(operand, k * lanes, lanes) for k in range(count)]
    b, c = f.load(operand, 0, lanes), f.load(operand, lanes, lanes)

    def link(x: Value) -> Value:
        return f.fma(x, b, c) if module.has_fma else f.binary("fadd", f.binary("fmul", x, b), c)

    ends = f.loop(0, Value("%n", I64), lambda _, values: [link(x) for x in values], start, guard=False)
    for k, value in enumerate(ends):
        f.store(value, operand, k * lanes)


def measure_multiply_adds(threads: int, seconds: float = 0.05) -> float:
    """GFLOP/s of float32 multiply-adds, each counted as two.

    Args:
        threads: how many run, each on the same work.
        seconds: about how long they run.

    >>> measure_multiply_adds(1, 0.001) > 0.01
    True
    """
    code = _code()
    operands = np.full((threads, _LARGEST), 0.5, np.float32)  # x = x / 2 + 1 / 2 stays where numbers are normal
    turns = turns_for(lambda count: code.multiply_adds(operands[0].ctypes.data, count), seconds)
    spent = spent_together([functools.partial(code.multiply_adds, row.ctypes.data, turns) for row in operands])
    return threads * turns * code.chains * code.lanes * 2 / spent / 1e9


@functools.cache
def host_peak(threads: int) -> float:
    """GFLOP/s as `measure_multiply_adds` gives them, the best of a few short rounds; measured once in a process.

    Whatever else the machine does at the moment makes a round slower, never faster.
    """
    return max(measure_multiply_adds(threads, 0.012) for _ in range(3))


def measure_bandwidth(threads: int, size: int = STREAM_BYTES) -> tuple[float, float]:
    """GB/s of reading, and of ``a = b + c / 2``: bytes read and written, without what the caches fetch for writing.

    Args:
        threads: how many share the arrays.
        size: bytes of one array.
    """
    code = _code()
    arrays = _streams(size)
    step = code.lanes * code.chains
    share = arrays[0].size // threads // step * step
    parts = [[array[n * share :].ctypes.data for array in arrays] for n in range(threads)]
    results = np.zeros((threads, step), np.float32)
    reading = spent_together(
        [
            functools.partial(code.read, part[0], row.ctypes.data, share)
            for part, row in zip(parts, results, strict=True)
        ]
    )
    writing = spent_together([functools.partial(code.triad, *part, share) for part in parts])
    bytes_each = share * threads * 4
    return bytes_each / reading / 1e9, 3 * bytes_each / writing / 1e9


def turns_for(run: Callable[[int], Any], seconds: float) -> int:
    """How many turns of a loop take about that long."""
    turns = 1000
    while True:
        start = time.perf_counter()
        run(turns)
        spent = time.perf_counter() - start
        if spent > seconds / 10:
            return max(1, round(turns * seconds / spent))
        turns *= 4


def spent_together(calls: Sequence[Callable[[], Any]]) -> float:
    """Seconds from the moment that all threads, one for each call, stand ready until the last has finished."""
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


# -- the loops ----------------------------------------------------------------------------------------------


class _Code:
    """The compiled loops."""

    multiply_adds: NativeFunction
    read: NativeFunction
    triad: NativeFunction

    def __init__(self) -> None:
        module = host_module()
        self.lanes, self.chains = module.lanes(F32), chains(host_target())
        emit_multiply_adds(module, "multiply_adds", F32, self.chains)
        _emit_read(module, self.chains)
        _emit_triad(module)
        library = Library([compile_object(module.text())], list(module.functions))
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self.multiply_adds = library.function("multiply_adds", None, pointer, number)
        self.read = library.function("read", None, pointer, pointer, number)
        self.triad = library.function("triad", None, pointer, pointer, pointer, number)


@functools.cache
def _code() -> _Code:
    return _Code()


def _streams(size: int) -> list[Any]:
    return [np.full(size // 4, value, np.float32) for value in (1.0, 2.0, 3.0)]


def _emit_read(module: Module, count: int) -> None:
    """Emit the sum of an array in `count` vectors: ``void read(ptr in, ptr out, i64 size)``."""
    lanes = module.lanes(F32)
    f = Function(module, "read", [("ptr", "in"), ("ptr", "out"), ("i64", "n")])
    size = Value("%n", I64)
    source, target = Buffer("%in", F32, size, "in"), Buffer("%out", F32, count * lanes, "out")
    start = [f.load(target, k * lanes, lanes) for k in range(count)]

    def turn(i: Value, sums: list[Value]) -> list[Value]:
        return [f.binary("fadd", value, f.load(source, f.add(i, k * lanes), lanes)) for k, value in enumerate(sums)]

    for k, value in enumerate(f.loop(0, size, turn, start, step=count * lanes)):
        f.store(value, target, k * lanes)


def _emit_triad(module: Module) -> None:
    """Emit ``void triad(ptr to, ptr one, ptr two, i64 size)``: ``to = one + two / 2``."""
    lanes = module.lanes(F32)
    f = Function(module, "triad", [("ptr", "to"), ("ptr", "one"), ("ptr", "two"), ("i64", "n")])
    size = Value("%n", I64)
    to, one, two = (Buffer(f"%{name}", F32, size, name) for name in ("to", "one", "two"))
    half = f.splat(f.constant(0.5, F32), lanes)

    def turn(i: Value, _: list[Value]) -> None:
        scaled = f.binary("fmul", f.load(two, i, lanes), half)
        f.store(f.binary("fadd", f.load(one, i, lanes), scaled), to, i)

    f.loop(0, size, turn, step=lanes)
