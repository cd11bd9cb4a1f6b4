"""A module in several parts, compiled by several threads: the same code, linked together again."""

from __future__ import annotations

import ctypes
import re
import threading
from typing import Any

import numpy as np
import pytest

from chainrule.engines.native import jit
from chainrule.engines.native.contractions import Generator
from chainrule.engines.native.divide import PART_LINES, divided
from chainrule.engines.native.emit import emit_plan
from chainrule.engines.native.executable import Executable as Native
from chainrule.engines.native.jit import Library, Target, compile_object, compile_objects, emit_assembly, host_target
from chainrule.engines.native.platform import for_triple
from chainrule.errors import EngineError
from chainrule.graph import Graph
from chainrule.plan.build import build_plan
from tests.engines.native.support import StepRun, small_data, small_network

ARM = Target("aarch64-unknown-linux-gnu", "generic", "+neon")


def chain(count: int, lines: int) -> str:
    """Functions that call the one before them; the last one is exported, and there is a table of them."""
    text = "@tables.of = internal constant [1 x ptr] [ptr @f0]\n"
    text += f"@unused = internal constant [{count} x i64] zeroinitializer\n"
    for number in range(count):
        body = [f"  %x0 = add i64 %n, {number + 1}"]
        body += [f"  %x{i + 1} = mul i64 %x{i}, {i + 3}" for i in range(lines)]
        last = f"%x{lines}"
        if number:
            body += [f"  %y = call i64 @f{number - 1}(i64 {last})"]
            last = "%y"
        head = "define i64" if number == count - 1 else "define internal i64"
        text += f"{head} @f{number}(i64 %n) #0 {{\nentry:\n" + "\n".join(body) + f"\n  ret i64 {last}\n}}\n"
    text += "define i64 @first(i64 %n) #0 {\nentry:\n  %f = load ptr, ptr @tables.of\n"
    text += "  %y = call i64 %f(i64 %n)\n  %z = call i64 @llvm.smax.i64(i64 %y, i64 0)\n  ret i64 %z\n}\n"
    return text + "declare i64 @llvm.smax.i64(i64, i64)\nattributes #0 = { nounwind }\n"


def called(objects: list[bytes], name: str) -> int:
    found = Library(objects, [name]).function(name, ctypes.c_int64, ctypes.c_int64)(5)
    return int(found)


def test_a_small_module_stays_whole() -> None:
    text = chain(3, 4)
    assert divided(text) == [text]


@pytest.mark.slow
def test_parts_compute_what_the_whole_does() -> None:
    text = chain(20, PART_LINES // 5)
    parts = divided(text)
    assert 3 <= len(parts) <= 5
    assert max(map(len, parts)) < 1.3 * min(map(len, parts))
    whole = [compile_object(text)]
    for threads in (1, 2, 8):
        objects = compile_objects(parts, threads=threads)
        for name in ("f19", "first"):
            assert called(objects, name) == called(whole, name)


def test_every_function_stands_once_and_only_the_first_part_has_globals() -> None:
    parts = divided(chain(20, PART_LINES // 5))
    defined = [re.findall(r"^define .*?@(\w+)\(", part, re.MULTILINE) for part in parts]
    assert sorted(name for names in defined for name in names) == sorted([*(f"f{i}" for i in range(20)), "first"])
    assert {"first", "f19"} <= set(defined[0])
    assert "@unused" in parts[0]
    assert not any(line.startswith("@") for part in parts[1:] for line in part.splitlines())
    assert not any("llvm.smax" in part for part in parts[1:])
    calls = [
        set(re.findall(r"call i64 @(f\d+)\(", part)) - set(names) for part, names in zip(parts, defined, strict=True)
    ]
    for part, missing in zip(parts, calls, strict=True):
        assert set(re.findall(r"^declare hidden i64 @(f\d+)\(i64\)$", part, re.MULTILINE)) >= missing


def test_what_no_part_defines_is_named() -> None:
    text = chain(20, PART_LINES // 5).replace("call i64 @f3(", "call i64 @elsewhere(")
    text += "declare i64 @elsewhere(i64)\n"
    with pytest.raises(EngineError, match="calls elsewhere; expected nothing outside"):
        compile_objects(divided(text), threads=2)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_part_that_llvm_refuses_is_an_error(threads: int) -> None:
    good = chain(2, 3)
    with pytest.raises(EngineError, match="LLVM refuses the generated code"):
        compile_objects([good, "define i64 @g() { ret i32 0 }\n", good], threads=threads)


@pytest.fixture
def slow_helpers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Threads beside the main one compile when the event is set."""
    inner, main, go = jit._emitted, threading.main_thread(), threading.Event()

    def emitted(*arguments: Any) -> Any:
        if threading.current_thread() is not main:
            assert go.wait(20)
        return inner(*arguments)

    monkeypatch.setattr(jit, "_emitted", emitted)
    return go


@pytest.mark.slow
def test_an_interrupt_waits_for_nobody_and_a_fork_for_all(
    slow_helpers: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the helpers are waited for: they go on with code generators of their own, and end."""
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_objects([chain(2, 3)] * 6, threads=3)
    monkeypatch.undo()
    helpers = [thread for thread in threading.enumerate() if thread in jit._HELPERS]
    assert len(helpers) == 2
    threading.Timer(0.1, slow_helpers.set).start()
    jit._pause()
    jit._LOCK.release()
    assert not any(helper.is_alive() for helper in helpers)
    assert called(compile_objects([chain(2, 3)]), "first") == 6 * 3 * 4 * 5
    machines = jit._idle(host_target(), 1)
    assert len(set(map(id, machines))) == len(machines) >= 3


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_helpers_wait_for_no_lock_of_llvmlites() -> None:
    """The caller may hold it: a signal handler that compiles, or an interrupt in the wrong place."""
    from llvmlite.binding import ffi

    objects: list[list[bytes]] = []
    with ffi.lib._lock:
        objects.append(compile_objects([chain(2, 3)] * 4, threads=3))
    assert called(objects[0][:1], "first") == 6 * 3 * 4 * 5


def test_where_no_thread_can_be_started_one_compiles_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    expected = compile_objects([chain(2, 3)] * 3, threads=3)
    machines = list(jit._idle(host_target(), 1))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert compile_objects([chain(2, 3)] * 3, threads=3) == expected
    assert sorted(map(id, jit._idle(host_target(), 1))) == sorted(map(id, machines))  # none is lost


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_a_helper_could_not_finish_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, main = jit._emitted, threading.current_thread()

    def emitted(*arguments: Any) -> Any:
        if threading.current_thread() is not main:
            raise SystemExit  # ends the thread without a word
        return inner(*arguments)

    expected = compile_objects([chain(2, 3)] * 5)
    monkeypatch.setattr(jit, "_emitted", emitted)
    assert compile_objects([chain(2, 3)] * 5, threads=3) == expected


def test_llvmlite_still_has_what_lets_threads_compile_at_once() -> None:
    from llvmlite.binding import ffi

    assert callable(ffi.lib.LLVMPY_TargetMachineEmitToMemory._cfn)


# --- Steps -------------------------------------------------------------------------------------------------


def step(batch: int = 6) -> tuple[Graph, StepRun]:
    x, y = small_data(24)
    run = StepRun(small_network(), x, y, batch)
    return run.graph, run


@pytest.mark.slow
@pytest.mark.parametrize("target", [host_target(), ARM], ids=["host", "aarch64"])
def test_a_functions_code_is_the_same_in_any_part(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.engines.native.divide.PART_LINES", 300)
    graph, _ = step()
    generator = Generator(target.lanes32)
    text, _ = emit_plan(build_plan(graph, generator, 6), generator, target, for_triple(target.triple))
    parts = divided(text)
    assert len(parts) == 8
    whole = bodies(emit_assembly(text, target))
    found = {name: body for part in parts for name, body in bodies(emit_assembly(part, target)).items()}
    assert len(whole) > 50
    assert set(found) == set(whole)
    for name, body in whole.items():
        assert found[name] == body, name


def bodies(assembly: str) -> dict[str, str]:
    """The instructions of every function, labels counted anew and constants by their content."""
    constants = dict(
        re.findall(
            r"^(\.LCPI\d+_\d+):\n((?:\s+\.(?:long|quad|short|byte|zero|xword|word)\b.*\n)+)", assembly, re.MULTILINE
        )
    )
    found = {}
    parts = re.split(r"^\s+\.type\s+(\S+),\s*[@%]function\n", assembly, flags=re.MULTILINE)[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        body = text.partition(".Lfunc_end")[0]
        lines = [line.split("#")[0].split("//")[0].rstrip() for line in body.splitlines()]
        kept = "\n".join(line for line in lines if re.match(r"\s+[a-z]|\.LBB", line))
        kept = re.sub(r"\.LCPI\d+_\d+", lambda match: repr(constants.get(match[0])), kept)
        found[name] = re.sub(r"\.LBB\d+_", ".LBB_", kept).replace("@PLT", "")
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("no_cache")
def test_a_step_in_parts_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, run = step()
    wanted = Native(graph, batch=6).run(run.inputs(0), run.first_state())[1]
    monkeypatch.setattr("chainrule.engines.native.divide.PART_LINES", 300)
    found = Native(graph, batch=6).run(run.inputs(0), run.first_state())[1]
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
