"""The laws of a plan, its passes, its printed levels, and what has no native lowering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import ops
from chainrule.engines.native.contractions import Generator
from chainrule.engines.native.executable import Executable as Native
from chainrule.errors import ConfigError, EngineError, GraphError
from chainrule.graph import Graph, Op, apply, case, input_spec, no_flops
from chainrule.graph.op import _REGISTRY
from chainrule.plan import verify
from chainrule.plan.build import build_plan
from chainrule.plan.dump import LEVELS, dumping
from chainrule.plan.expr import Storage
from chainrule.plan.nest import Nest
from chainrule.plan.options import Options
from chainrule.plan.plan import ALIGNMENT, Kernel, Plan, Product, Stage, storage_bytes
from chainrule.plan.schedule import arena_offsets, in_place, staged
from chainrule.plan.verify import PLAN_LAWS, verify_plan
from tests.engines.native.fuzz import build, make_recipe

LANES = 8
PASSES = tuple(item.name for item in fields(Options))


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE", "off")


def planned(graph: Graph, batch: int = 4, options: Options | None = None) -> Plan:
    return build_plan(graph, Generator(LANES), batch, options)


def network_graph() -> Graph:
    """A convolution, bias, relu, max-pool, a product, a loss, gradients and an update with momentum."""
    rng = np.random.Generator(np.random.PCG64(0))

    def variable(name: str, *shape: int) -> cr.Variable:
        return cr.Variable(rng.normal(size=shape).astype(np.float32), name=name)

    kernel, bias, weights = variable("kernel", 3, 3, 2, 4), variable("bias", 4), variable("weights", 36, 3)
    velocity = variable("velocity", 36, 3)

    def step(x: Any, y: Any) -> Any:
        h = ops.max_pool2d(ops.relu(ops.conv2d(x, kernel) + bias), 2)
        p = ops.matmul(ops.reshape(h, (x.shape[0], 36)), weights)
        loss = ops.mean((p - y) * (p - y))
        dk, db, dw = cr.gradients(loss, [kernel, bias, weights])
        assert dk is not None
        assert db is not None
        assert dw is not None
        velocity.assign(velocity * 0.9 - dw * 0.1)
        weights.assign(weights + velocity)
        kernel.assign(kernel - dk * 0.1)
        bias.assign(bias - db * 0.1)
        return loss

    return cr.trace(step, input_spec((None, 8, 8, 2)), input_spec((None, 3)), name="step")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned(network_graph())


# --- Laws --------------------------------------------------------------------------------------------------


def with_kernels(plan: Plan, change: dict[str, Kernel | None]) -> Plan:
    """The plan with kernels replaced, or left out."""
    stages = [
        Stage(tuple(k for k in (change.get(kernel.name, kernel) for kernel in stage.kernels) if k is not None))
        for stage in plan.stages
    ]
    return replace(plan, stages=tuple(stages))


def test_a_sound_plan_passes(plan: Plan) -> None:
    verify_plan(plan)
    assert all(law(plan) is None for law in PLAN_LAWS)


def refused(plan: Plan, law: str, words: str) -> None:
    """The law is the one that is named, and it names the culprit."""
    with pytest.raises(GraphError, match=f"breaks the law '{law}'.*{words}"):
        verify_plan(plan)


def test_two_writers_are_refused(plan: Plan) -> None:
    first, second = plan.kernels[0], plan.kernels[-1]
    broken = replace(second, writes=(*second.writes, *first.writes))
    refused(with_kernels(plan, {second.name: broken}), "every_storage_has_one_writer", "both write")


def test_writing_an_input_is_refused(plan: Plan) -> None:
    kernel = plan.kernels[-1]
    broken = replace(kernel, writes=(*kernel.writes, plan.inputs["x"]))
    refused(with_kernels(plan, {kernel.name: broken}), "every_storage_has_one_writer", "writes input:x")


def test_reading_before_writing_is_refused(plan: Plan) -> None:
    refused(replace(plan, stages=plan.stages[::-1]), "values_are_written_before_they_are_read", "no earlier stage")


def test_reading_beside_the_writer_is_refused(plan: Plan) -> None:
    """Kernels of one stage run in any order."""
    together = replace(plan, stages=(Stage(tuple(plan.kernels)),))
    refused(together, "values_are_written_before_they_are_read", "no earlier stage")


def test_an_output_that_nobody_writes_is_refused(plan: Plan) -> None:
    lost = Storage("lost", np.dtype("float32"), 1)
    refused(replace(plan, outputs={"out": lost}), "values_are_written_before_they_are_read", "nobody writes")


def test_reading_state_after_it_was_overwritten_is_refused(plan: Plan) -> None:
    last = plan.kernels[-1]
    written = next(
        old for new, old in plan.overwrites.items() if all(new not in k.writes for k in plan.stages[-1].kernels)
    )
    broken = replace(last, reads=(*last.reads, written))
    refused(with_kernels(plan, {last.name: broken}), "old_state_is_read_before_it_is_overwritten", "has overwritten")


def test_reading_state_while_it_is_overwritten_is_refused(plan: Plan) -> None:
    for stage in plan.stages:
        writers = {plan.overwrites[s]: k for k in stage.kernels for s in k.writes if s in plan.overwrites}
        for old, writer in writers.items():
            for other in stage.kernels:
                if other is not writer:
                    broken = with_kernels(plan, {other.name: replace(other, reads=(*other.reads, old))})
                    refused(broken, "old_state_is_read_before_it_is_overwritten", "while")
                    return
    pytest.fail("no stage overwrites state beside another kernel")


def test_overlapping_values_are_refused(plan: Plan) -> None:
    last = plan.kernels[-1]
    alive = [s for s in (*last.reads, *last.writes) if s in plan.offsets]
    extra = Storage("extra", np.dtype("float32"), 1)
    broken = replace(last, reads=(*last.reads, extra))
    changed = with_kernels(plan, {last.name: broken})
    first = replace(plan.kernels[0], writes=(*plan.kernels[0].writes, extra))
    changed = with_kernels(changed, {first.name: first})
    place = plan.offsets[alive[0]] if alive else next(iter(plan.offsets.values()))
    refused(replace(changed, offsets={**plan.offsets, extra: place}), "living_values_do_not_overlap", "share bytes")


def test_places_outside_of_the_arena_or_off_a_line_are_refused(plan: Plan) -> None:
    storage = next(iter(plan.offsets))
    for place in (plan.arena, 4):
        moved = replace(plan, offsets={**plan.offsets, storage: place})
        refused(moved, "living_values_do_not_overlap", f"{storage.name} lies at")


def test_a_storage_without_a_place_is_refused(plan: Plan) -> None:
    kernel = next(k for k in plan.kernels for s in k.writes if s in plan.offsets)
    left = {s: place for s, place in plan.offsets.items() if s not in kernel.writes}
    refused(replace(plan, offsets=left), "every_storage_has_a_place", "lies nowhere")


def test_undeclared_reads_and_writes_are_refused(plan: Plan) -> None:
    nest = next(k for k in plan.kernels if isinstance(k.body, Nest) and k.reads)
    product = next(k for k in plan.kernels if isinstance(k.body, Product) and k.body.epilogue)
    for kernel in (nest, product):
        for broken in (replace(kernel, reads=kernel.reads[1:]), replace(kernel, reads=kernel.reads[:-1])):
            changed = with_kernels(plan, {kernel.name: broken})
            refused(changed, "kernels_say_what_they_touch", kernel.name.split(".")[0])


def test_overwriting_state_that_is_read_elsewhere_is_refused() -> None:
    w = cr.Variable(np.zeros((6, 6), np.float32), name="w")

    def step(x: Any) -> Any:
        w.assign(ops.transpose(w.__tensor__(), (1, 0)) * 2.0)
        return ops.sum(x)

    plan = planned(cr.trace(step, input_spec((None, 6)), name="step"))
    writer = next(k for k in plan.kernels if plan.state["w"] in k.reads)
    (new,) = writer.writes
    others = [k for k in plan.kernels if k is writer or not any(s in plan.overwrites for s in k.writes)]
    offsets = {storage: place for storage, place in plan.offsets.items() if storage != new}
    broken = replace(
        plan,
        stages=tuple(Stage((kernel,)) for kernel in others),
        overwrites={new: plan.state["w"]},
        offsets=offsets,
    )
    refused(broken, "state_is_overwritten_where_it_was_read", "at other elements")


def test_the_pass_that_broke_a_law_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(kernels: Sequence[Kernel], kept: Any) -> list[Kernel]:
        return list(kernels[1:])

    for name in ("epilogues", "prologues"):
        with monkeypatch.context() as patched:
            patched.setattr(f"chainrule.plan.build.with_{name}", forgetful)
            with pytest.raises(GraphError, match=f"after {name}, the plan of 'step' breaks the law 'values_are_"):
                planned(network_graph())


def test_every_law_has_a_test() -> None:
    import pathlib

    text = pathlib.Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{law.__name__}"' in text for law in PLAN_LAWS)


# --- Passes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_passes_do_something_and_can_be_left_out(plan: Plan) -> None:
    def with_epilogue(plan: Plan) -> int:
        return sum(isinstance(k.body, Product) and k.body.epilogue is not None for k in plan.kernels)

    graph = network_graph()
    off = {
        name: planned(graph, options=Options(**{name: False}))
        for name in ("fuse", "epilogues", "in_place", "stages", "reuse", "place_last")
    }
    assert with_epilogue(plan) == 1
    assert with_epilogue(off["epilogues"]) == 0
    assert len(off["fuse"].kernels) > len(plan.kernels)
    assert len(off["in_place"].kernels) == len(plan.kernels) + 4
    assert len(off["stages"].stages) == len(plan.kernels) > len(plan.stages)
    assert off["reuse"].arena > plan.arena
    assert len(plan.overwrites) == 4
    for other in off.values():
        verify_plan(other)


def test_new_state_that_somebody_reads_in_its_old_form_waits() -> None:
    """b := a + 1 after everybody has read b; a := b cannot be in place of both at once."""
    a = cr.Variable(np.arange(4.0, dtype=np.float32), name="a")
    b = cr.Variable(np.ones(4, np.float32), name="b")

    def swap(x: Any) -> Any:
        old = a.__tensor__()
        a.assign(b + x)
        b.assign(old * x)
        return x

    graph = cr.trace(swap, input_spec((4,)), name="swap")
    verify_plan(planned(graph))
    run = Native(graph)
    run(np.full(4, 2.0, np.float32))
    assert a.numpy().tolist() == [3, 3, 3, 3]
    assert b.numpy().tolist() == [0, 2, 4, 6]


def test_state_that_is_read_turned_round_is_not_written_in_place() -> None:
    a = cr.Variable(np.arange(6.0, dtype=np.float32).reshape(2, 3), name="a")
    b = cr.Variable(np.arange(9.0, dtype=np.float32).reshape(3, 3), name="b")

    def step(x: Any) -> Any:
        a.assign(a * x)
        b.assign(ops.transpose(b, (1, 0)) + x)
        return x

    graph = cr.trace(step, input_spec(()), name="turn")
    found = planned(graph)
    owners = {old.name for new, old in found.overwrites.items() if not new.name.startswith("after:")}
    assert owners == {"input:a"}
    wanted = b.numpy().T + 1
    Native(graph)(np.float32(1))
    np.testing.assert_array_equal(b.numpy(), wanted)


# --- Stages and memory -------------------------------------------------------------------------------------


def chain_of_kernels(reads: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[Kernel]:
    """Kernel i writes value i and reads some of the earlier values."""
    storages = [Storage(f"value{i}", np.dtype("float32"), size) for i, size in enumerate(sizes)]
    nest = Nest("none", (), ())
    return [
        Kernel(f"kernel{i}", nest, 1, 1, tuple(storages[j] for j in sorted(set(found))), (storages[i],))
        for i, found in enumerate(reads)
    ]


@st.composite
def kernel_lists(draw: st.DrawFn) -> list[Kernel]:
    count = draw(st.integers(1, 12))
    reads = [draw(st.lists(st.integers(0, i - 1), max_size=3)) if i else [] for i in range(count)]
    sizes = [draw(st.integers(0, 100)) for _ in range(count)]
    return chain_of_kernels(reads, sizes)


@settings(max_examples=60, deadline=None)
@given(kernels=kernel_lists(), reuse=st.booleans(), data=st.data())
@pytest.mark.slow
def test_the_arena_never_overlaps(kernels: list[Kernel], reuse: bool, data: st.DataObject) -> None:
    stages = staged(kernels, {})
    kept = data.draw(st.sets(st.sampled_from([k.writes[0] for k in kernels]), max_size=3))
    offsets, size = arena_offsets(stages, 1, (), kept, reuse=reuse)
    outputs = {storage.name: storage for storage in kept}
    graph = cr.trace(lambda x: x * 1, input_spec((1,)), name="any")
    plan = Plan(graph, 1, tuple(stages), offsets, size, {}, {}, {}, outputs, {})
    assert verify.living_values_do_not_overlap(plan) is None
    assert verify.values_are_written_before_they_are_read(plan) is None
    assert verify.every_storage_has_a_place(plan) is None
    total = sum(storage_bytes(k.writes[0], 1) for k in kernels)
    assert size % ALIGNMENT == 0
    assert size == total or (reuse and size < total)
    assert len(stages) <= len(kernels)


def test_kernels_that_wait_for_each_other_are_refused() -> None:
    first, second = chain_of_kernels([[], []], [4, 4])
    first = replace(first, reads=second.writes)
    second = replace(second, reads=first.writes)
    with pytest.raises(GraphError, match="wait for each other"):
        staged([first, second], {})
    assert in_place([first, second], {}) == {}


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 9),
    off=st.sets(st.sampled_from(PASSES)),
)
@pytest.mark.slow
def test_plans_of_random_graphs_obey_the_laws(seed: int, batch: int, off: set[str]) -> None:
    """`build_plan` verifies; and however the passes are combined, results have a place."""
    graph = build(make_recipe(seed), "float32")
    plan = planned(graph, batch, Options(**dict.fromkeys(off, False)))
    verify_plan(plan)
    assert set(plan.outputs) == set(graph.outputs)
    assert len({k.name for k in plan.kernels}) == len(plan.kernels)
    assert set(plan.state) == {entry.name for entry in graph.state}


# --- Printed levels ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_level_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    graph = cr.trace(lambda x: ops.softmax(x) * 2, input_spec((None, 3)), name="f")
    monkeypatch.setenv("CHAINRULE_DUMP", "all")
    Native(graph, batch=2)
    text = capsys.readouterr().err
    parts = [text.index(f"== {level}\n") for level in LEVELS]
    assert parts == sorted(parts)
    sections = dict(zip(LEVELS, (text[a:b] for a, b in zip(parts, [*parts[1:], len(text)], strict=True)), strict=True))
    assert "softmax" in sections["graph"]
    assert "exp" in sections["expanded"]
    assert "nest" in sections["plan"]
    assert "define" in sections["ir"]
    assert ".text" in sections["assembly"]


@pytest.mark.parametrize("level", LEVELS)
def test_one_level_alone(level: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CHAINRULE_DUMP", f" {level} ,")
    assert dumping() == {level}
    Native(cr.trace(lambda x: x * 2, input_spec((None, 3)), name="f"), batch=2)
    text = capsys.readouterr().err
    assert [other for other in LEVELS if f"== {other}\n" in text] == [level]


def test_nothing_is_printed_unasked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("CHAINRULE_DUMP", raising=False)
    Native(cr.trace(lambda x: x * 2, input_spec((None, 3)), name="f"), batch=2)
    assert capsys.readouterr().err == ""


def test_an_unknown_level_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_DUMP", "plan,nonsense")
    with pytest.raises(ConfigError, match="CHAINRULE_DUMP=nonsense: expected some of graph, expanded, plan"):
        Native(cr.trace(lambda x: x * 2, input_spec((None, 3)), name="f"), batch=2)


# --- Ops without a lowering --------------------------------------------------------------------------------

NUMPY_ONLY = Op("numpy_only", ops.relu, lambda x: x, lambda x: np.maximum(x, 0), "zero", no_flops, cases=(case((2,)),))


def test_an_op_with_a_numpy_rule_only_is_named_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_REGISTRY, NUMPY_ONLY.name, NUMPY_ONLY)

    class Own(cr.layers.Layer):
        def call(self, x: cr.Tensor) -> Any:
            return x + apply(NUMPY_ONLY, x)

    for engine, fits in (("reference", True), ("native", False)):
        model = cr.Sequential([cr.Input((3,)), cr.layers.Dense(2), Own(name="mine"), cr.layers.Dense(1)])
        model.compile("sgd", "mse", engine=engine)
        x, y = np.ones((4, 3), np.float32), np.ones(4, np.float32)
        model.ensure_built(x)
        before = [w.tobytes() for w in model.get_weights()]
        if fits:
            model.fit(x, y, verbose=0)
            continue
        with pytest.raises(EngineError, match=r"mine.*numpy_only|numpy_only.*mine"):
            model.fit(x, y, verbose=0)
        assert [w.tobytes() for w in model.get_weights()] == before
