"""The loops that measure the machine: they compute what they say, and rates rise with what is done."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from chainrule.engines.native import peak
from chainrule.engines.native.jit import Library, Target, compile_object, host_target
from chainrule.engines.native.types import F32, F64, Type


@pytest.mark.parametrize("type", [F32, F64])
@pytest.mark.parametrize("with_fma", [True, False])
def test_multiply_adds_compute_their_chains(type: Type, with_fma: bool) -> None:
    module = peak.host_module()
    module.has_fma = module.has_fma and with_fma
    peak.emit_multiply_adds(module, "f", type, 3)
    run = Library([compile_object(module.text())], ["f"]).function("f", None, ctypes.c_void_p, ctypes.c_int64)
    operand: Any = np.linspace(0.1, 0.9, 1024).astype(np.float32 if type == F32 else np.float64)
    lanes = module.lanes(type)
    expected = operand.astype(np.float64)
    b, c = expected[:lanes].copy(), expected[lanes : 2 * lanes].copy()
    for _ in range(5):
        for k in range(3):
            expected[k * lanes : (k + 1) * lanes] = expected[k * lanes : (k + 1) * lanes] * b + c
    run(operand.ctypes.data, 5)
    assert np.allclose(operand, expected, rtol=1e-5)


def test_the_streams_are_read_and_written_whole() -> None:
    code = peak._code()
    size = 3 * code.lanes * code.chains
    one, two, to = np.arange(size, dtype=np.float32), np.full(size, 4, np.float32), np.zeros(size, np.float32)
    code.triad(to.ctypes.data, one.ctypes.data, two.ctypes.data, size)
    assert (to == one + 2).all()
    sums = np.zeros(code.lanes * code.chains, np.float32)
    code.read(one.ctypes.data, sums.ctypes.data, size)
    assert (sums == one.reshape(3, -1).sum(0)).all()


def test_rates_are_those_of_a_processor() -> None:
    assert 0.1 < peak.measure_multiply_adds(1, 0.002) < 1e4
    assert all(0.01 < rate < 1e4 for rate in peak.measure_bandwidth(2, 1 << 20))


def test_vectors_leave_registers_for_the_operands() -> None:
    assert peak.chains(Target("x86_64-linux", "haswell", "+avx2,+fma")) + 2 <= 16
    assert peak.chains(Target("aarch64-linux", "generic", "")) + 2 <= 32
    assert peak.chains(host_target()) > 8


def test_what_runs_together_is_timed_to_the_last() -> None:
    from time import sleep

    assert 0.02 <= peak.spent_together([lambda: sleep(0.001), lambda: sleep(0.02)]) < 5


def test_turns_fill_the_time() -> None:
    from time import sleep

    assert peak.turns_for(lambda turns: sleep(turns * 1e-6), 0.01) > 1000
