"""What this machine can do at most: fused multiply-adds, clock, and memory bandwidth, with all threads busy.

The loops are the native engine's own (`chainrule.engines.native.peak`). The clock comes from a chain of additions and
exclusive-ors, each of which waits for the one before and takes one cycle; FMA peak divided by the clock must come near
a whole power of two of FLOPs per cycle (16, 32, 64 ...), else something disturbed the measurement.
"""

from __future__ import annotations

import ctypes
import functools
import math
import statistics
from dataclasses import dataclass

import numpy as np

from chainrule.engines.native.ir import Buffer, Function, Value
from chainrule.engines.native.jit import Library, NativeFunction, compile_object
from chainrule.engines.native.peak import (
    host_module,
    measure_bandwidth,
    measure_multiply_adds,
    spent_together,
    turns_for,
)
from chainrule.engines.native.types import I64

__all__ = ["Peak", "measure_clock", "measure_peak"]

CHAIN = 64
"""Links of the dependent chain in one turn of its loop."""


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
        fma.append(measure_multiply_adds(threads, seconds))
        clock.append(measure_clock(threads, seconds))
        first, second = measure_bandwidth(threads)
        read.append(first)
        triad.append(second)
    middle = statistics.median
    return Peak(threads, middle(fma), middle(clock), middle(read), middle(triad))


def measure_clock(threads: int, seconds: float = 0.05) -> float:
    """GHz of one of `threads` busy threads."""
    run = _chain()
    results = np.zeros((threads, 8), np.int64)
    turns = turns_for(lambda count: run(count, 3, 5, results[0].ctypes.data), seconds)
    spent = spent_together([functools.partial(run, turns, 3, 5, row.ctypes.data) for row in results])
    return turns * CHAIN / spent / 1e9


@functools.cache
def _chain() -> NativeFunction:
    """``void chain(i64 turns, i64 a, i64 b, ptr out)``: links that each wait for the one before."""
    module = host_module()
    f = Function(module, "chain", [("i64", "n"), ("i64", "a"), ("i64", "b"), ("ptr", "out")])
    a, b = Value("%a", I64), Value("%b", I64)

    def turn(_: Value, values: list[Value]) -> list[Value]:
        x = values[0]
        for k in range(CHAIN):
            x = f.binary("xor", x, b) if k % 2 else f.binary("add", x, a)
        return [x]

    (end,) = f.loop(0, Value("%n", I64), turn, [a], guard=False)
    f.store(end, Buffer("%out", I64, 8, "out"), 0)
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    return Library([compile_object(module.text())], ["chain"]).function("chain", None, number, number, number, pointer)
