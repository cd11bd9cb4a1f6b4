"""Steps emitted for other processors; code for the plainest x86-64 also runs here, and for AArch64 where qemu is."""

from __future__ import annotations

import math
import platform
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import networks
from chainrule.engines import Executable as Reference
from chainrule.engines.native import executable
from chainrule.engines.native.contractions import Generator
from chainrule.engines.native.emit import emit_plan, new_module
from chainrule.engines.native.executable import Executable as Native
from chainrule.engines.native.jit import (
    Target,
    compile_object,
    compile_objects,
    emit_assembly,
    host_target,
    undefined_symbols,
)
from chainrule.engines.native.platform import for_triple
from chainrule.graph import Graph
from chainrule.graph.dims import bind_shape
from chainrule.plan.build import build_plan
from tests.engines.native.foreign import emulator, run_step
from tests.engines.native.support import (
    StepRun,
    assert_changes_agree,
    assert_results_agree,
    assert_steps_agree,
    small_data,
    small_network,
)
from tests.engines.native.test_networks import STEPS, everything, images, residual
from tests.ops.harness import NATIVE_TOLERANCE, Array

pytestmark = pytest.mark.usefixtures("no_cache")

AVX512 = "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512dq,+avx512vl,+sse4.1"
TARGETS = {
    "aarch64": Target("aarch64-unknown-linux-gnu", "generic", "+neon"),
    "apple": Target("arm64-apple-macosx12.0", "apple-m1", "+neon"),
    "avx512": Target("x86_64-unknown-linux-gnu", "skylake-avx512", AVX512),
    "baseline": Target("x86_64-unknown-linux-gnu", "x86-64", ""),
    "windows": Target("x86_64-pc-windows-msvc", "x86-64-v3", "+avx,+avx2,+fma,+sse4.1"),
}
LANES = {"aarch64": 4, "apple": 4, "avx512": 16, "baseline": 4, "windows": 8}
ELF = {"aarch64": 183, "avx512": 62, "baseline": 62}
"""Machine numbers in ELF's header."""
BASELINE = TARGETS["baseline"]

runs_here = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and platform.machine() == "x86_64"), reason="runs code for x86-64 Linux"
)


def emitted(graph: Graph, batch: int, target: Target, *, checked: bool = False) -> str:
    """The module of a graph for a target."""
    generator = Generator(target.lanes32)
    plan = build_plan(graph, generator, batch)
    return emit_plan(plan, generator, target, for_triple(target.triple), checked=checked)[0]


def graph_of(name: str) -> Graph:
    if name == "seed004":
        model: cr.Model = networks.conv32_conv64_dense64((28, 28, 1), 10)
        x, y = images((28, 28, 1), 4, "uint8")
    else:
        model = everything("float32") if name == "everything" else small_network()
        x, y = images((9, 9, 3), 4, "float32") if name == "everything" else small_data(4)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return StepRun(model, x, y, 4).graph


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name"),
    [
        *((target, name) for target in ("aarch64", "avx512", "baseline") for name in ("seed004", "everything")),
        ("apple", "small"),
        ("windows", "small"),
    ],
)
def test_every_kernel_compiles_for_other_processors(target: str, name: str) -> None:
    chosen = TARGETS[target]
    assert chosen.lanes32 == LANES[target]
    graph = graph_of(name)
    content = compile_object(emitted(graph, 32, chosen), chosen)
    if target in ELF:
        assert content[:4] == b"\x7fELF"
        assert struct.unpack_from("<H", content, 18) == (ELF[target],)
        assert set(undefined_symbols(content)) <= {"memcpy", "memmove", "memset"}


@pytest.mark.slow
def test_the_checked_build_compiles_for_other_processors() -> None:
    graph = StepRun(small_network(), *small_data(), 4).graph
    for target in ("aarch64", "avx512"):
        assert compile_object(emitted(graph, 5, TARGETS[target], checked=True), TARGETS[target])


@pytest.mark.slow
def test_vectors_are_those_of_the_target() -> None:
    model = small_network()
    graph = StepRun(model, *small_data(), 4).graph
    assembly = {
        name: emit_assembly(emitted(graph, 4, TARGETS[name]), TARGETS[name]) for name in LANES if name != "apple"
    }
    assert "fmla" in assembly["aarch64"]
    assert "zmm" in assembly["avx512"]
    assert "vfmadd" in assembly["avx512"]
    assert "vfmadd" in assembly["windows"]
    assert "zmm" not in assembly["windows"]
    assert "mulps" in assembly["baseline"]
    for word in ("vfmadd", "ymm", "roundps", "blendvps", "pmulld"):
        assert word not in assembly["baseline"], word


def test_modules_know_what_the_target_lacks() -> None:
    assert not new_module(BASELINE).has_fma
    assert not new_module(BASELINE).has_rounding
    for name in ("aarch64", "apple", "avx512", "windows"):
        assert new_module(TARGETS[name]).has_fma
        assert new_module(TARGETS[name]).has_rounding


@pytest.fixture
def baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine, as if it had nothing but SSE2."""
    plain = Target(host_target().triple, BASELINE.cpu, BASELINE.features)
    monkeypatch.setattr(executable, "host_target", lambda: plain)
    monkeypatch.setattr(executable, "compile_objects", lambda texts, target, threads: compile_objects(texts, plain))


@runs_here
@pytest.mark.slow
@pytest.mark.usefixtures("baseline")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [everything, residual], ids=["everything", "residual"])
def test_steps_without_fma_and_wide_vectors_agree(make: Callable[[str], cr.Model], dtype: str) -> None:
    model = make(dtype)
    model.compile(cr.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images((9, 9, 3), 11, dtype)
    assert_steps_agree(model, x, y, 7, tolerance=STEPS[dtype])


@runs_here
@pytest.mark.slow
@pytest.mark.usefixtures("baseline")
def test_every_op_agrees_without_fma_and_wide_vectors() -> None:
    from tests.engines.native.test_registry_native import OPS, compare, graph_of, jobs_of

    for op in OPS:
        jobs = jobs_of(op, ("float32",))
        graph = graph_of(jobs)
        compare(Native(graph), Reference(graph), jobs)


# --- AArch64, emulated -------------------------------------------------------------------------------------

emulated = pytest.mark.skipif(emulator() is None, reason="no qemu-aarch64: code for AArch64 is made, not run")


def on_arm(graph: Graph, inputs: Sequence[Array], state: Mapping[str, Array], batch: int, folder: Path) -> Any:
    """Outputs and new state of one run on the emulated processor, as the engines give them."""
    target = TARGETS["aarch64"]
    generator = Generator(target.lanes32)
    plan = build_plan(graph, generator, batch + 2)
    text, program = emit_plan(plan, generator, target, for_triple(target.triple))
    named = {
        name: np.asarray(array, item.dtype) for (name, item), array in zip(graph.inputs.items(), inputs, strict=True)
    }
    outputs, new = run_step(text, program, target, named, state, batch, folder)
    found = []
    for item, content in zip(graph.outputs.values(), outputs, strict=True):
        shape = bind_shape(item.shape, batch)
        count = math.prod(shape)
        found.append(np.frombuffer(content, item.dtype, count).reshape(shape) if count else np.empty(shape, item.dtype))
    after = {name: np.frombuffer(new[name], array.dtype).reshape(array.shape) for name, array in state.items()}
    return graph.structure(found), after


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [everything, residual], ids=["everything", "residual"])
def test_steps_run_on_an_emulated_arm(make: Callable[[str], cr.Model], dtype: str, tmp_path: Path) -> None:
    model = make(dtype)
    model.compile(cr.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    run = StepRun(model, *images((9, 9, 3), 7, dtype), 7)
    assert_arm_agrees(run, 7, STEPS[dtype], tmp_path)


@emulated
@pytest.mark.slow
def test_sparse_gradients_run_on_an_emulated_arm(tmp_path: Path) -> None:
    model = networks.conv32_conv64_dense64((28, 28, 1), 10)
    model.compile(cr.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    assert_arm_agrees(StepRun(model, *images((28, 28, 1), 3, "uint8"), 3), 3, STEPS["float32"], tmp_path)


def assert_arm_agrees(run: StepRun, batch: int, tolerance: Mapping[str, float], folder: Path) -> None:
    inputs, state = run.inputs(0), run.first_state()
    wanted, after = Reference(run.graph).run(inputs, state)
    found, found_after = on_arm(run.graph, inputs, state, batch, folder)
    assert_results_agree(found, wanted, tolerance, "loss")
    assert_changes_agree(found_after, after, state, tolerance, "step")


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_op_runs_on_an_emulated_arm(dtype: str, tmp_path: Path) -> None:
    from tests.engines.native.test_registry_native import OPS, graph_of, inputs_of, jobs_of

    for op in OPS:
        jobs = jobs_of(op, (dtype,))
        graph = graph_of(jobs)
        found, _ = on_arm(graph, inputs_of(jobs), {}, 1, tmp_path)
        assert_results_agree(found, Reference(graph)(*inputs_of(jobs)), NATIVE_TOLERANCE, op.name)
