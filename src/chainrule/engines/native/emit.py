"""From a plan to one module of LLVM IR: a function for each kernel, and the driver."""

from __future__ import annotations

from collections import Counter

from chainrule.engines.native.contractions import Generator
from chainrule.engines.native.driver import Binding, Stage, UnitCount, Work, emit_driver
from chainrule.engines.native.ir import Function, Index, Module, Value
from chainrule.engines.native.jit import Target, has_fma
from chainrule.engines.native.kernels import PARAMETERS, RANGE, Context, lanes_of, table_buffer
from chainrule.engines.native.nests import Likeness, emit_nest, likeness, size_value
from chainrule.engines.native.platform import Platform
from chainrule.engines.native.program import Place, Program, constant_data
from chainrule.engines.native.sorting import emit_sort
from chainrule.engines.native.types import I64
from chainrule.graph.dims import Dim, bind_size
from chainrule.plan.expr import Storage
from chainrule.plan.nest import Nest
from chainrule.plan.plan import Kernel, Plan, Sort

__all__ = ["emit_plan", "new_module"]

SYMBOL = "chainrule_step"
_WORD = 8


def new_module(target: Target, *, checked: bool = False) -> Module:
    """An empty module for a target."""
    module = Module(target.lanes32, checked)
    module.has_fma = has_fma(target)
    module.has_rounding = not target.is_x86 or target.has("sse4.1")
    module.vector_registers = 16 if target.is_x86 and target.lanes32 < 16 else 32
    return module


def emit_plan(
    plan: Plan,
    generator: Generator,
    target: Target,
    platform: Platform,
    *,
    checked: bool = False,
    profile: bool = False,
) -> tuple[str, Program]:
    """The module's text, and the program that describes it.

    Args:
        plan: a verified plan.
        generator: the written kernels that the plan was made with.
        target: processor.
        platform: operating system and processor family.
        checked: whether every access is bounds-checked.
        profile: whether the time of every kernel is taken.
    """
    module = new_module(target, checked=checked)
    places, record = _places(plan)
    storages = list(places)
    context = Context(module, {storage: number for number, storage in enumerate(storages)}, plan)
    alike = _alike(module, plan)
    for kernel in plan.kernels:
        _emit_kernel(context, generator, kernel, alike.get(kernel.name))
    stages = [
        Stage(tuple(_work(plan, kernel) for kernel in stage.kernels)) for stage in plan.stages if stage.kernels
    ] or [_emit_idle(context)]
    bindings = [
        Binding(number, place.offset, place.pointer)
        for number, place in enumerate(places.values())
        if place.kind == "input"
    ]
    emit_driver(module, SYMBOL, stages, len(places), bindings, platform, profile=profile)
    scratch = max((generator.scratch_bytes(kernel) for kernel in plan.kernels), default=0)
    constants = tuple(constant_data(array) for array in plan.constants.values())
    outputs = tuple(context.entries[storage] for storage in plan.outputs.values())
    program = Program(
        SYMBOL,
        plan.batch,
        plan.arena,
        scratch,
        record,
        tuple(places.values()),
        tuple(stages),
        constants,
        outputs,
        tuple(", ".join(kernel.where for kernel in stage.kernels) for stage in plan.stages),
        tuple(module.sites),
        checked,
        profile,
    )
    return module.text(), program


def _places(plan: Plan) -> tuple[dict[Storage, Place], int]:
    """Every storage with its place, and the size of a record."""
    places: dict[Storage, Place] = {}
    offset = _WORD  # the batch size comes first
    for name, storage in plan.inputs.items():
        places[storage] = Place("input", storage.name, name, offset, pointer=True)
        offset += _WORD
    owners = {storage: name for name, storage in plan.state.items()}
    for storage, name in owners.items():
        places[storage] = Place("state", storage.name, name)
    for number, storage in enumerate(plan.constants):
        places[storage] = Place("constant", storage.name, offset=number)
    for new, old in plan.overwrites.items():
        places[new] = Place("state", new.name, owners[old])
    for storage, start in plan.offsets.items():
        places[storage] = Place("arena", storage.name, offset=start)
    return places, offset


def _emit_kernel(context: Context, generator: Generator, kernel: Kernel, common: Likeness | None) -> None:
    f = Function(context.module, kernel.name, PARAMETERS, where=kernel.where, internal=True)
    batch = Value("%n", I64)
    if common is not None:
        _call_common(context, f, kernel, common)
        return
    buffers = {s: context.buffer(f, s, batch) for s in dict.fromkeys((*kernel.reads, *kernel.writes))}
    if isinstance(kernel.body, Nest):
        low, high = _range(f, kernel, batch)
        emit_nest(f, kernel.body, buffers, batch, low, high, lanes_of(context.module, kernel.body))
    elif isinstance(kernel.body, Sort):
        emit_sort(f, kernel.body, buffers, batch)
    else:
        generator.emit(context, f, kernel, buffers, batch)


def _range(f: Function, kernel: Kernel, batch: Value) -> tuple[Index, Index]:
    """The part of a nest's first axis that the kernel's units are."""
    low, high = (f.mul(unit, kernel.chunk) for unit in RANGE)
    return low, f.min(high, size_value(f, kernel.extent, batch)) if kernel.chunk > 1 else high


def _alike(module: Module, plan: Plan) -> dict[str, Likeness]:
    """The nests, by kernel, that have a fellow with the same loops; none in a checked build: its code names the op."""
    found = {}
    for kernel in plan.kernels if not module.checked else ():
        common = likeness(kernel.body, lanes_of(module, kernel.body)) if isinstance(kernel.body, Nest) else None
        if common is not None:
            found[kernel.name] = common
    counts = Counter(found.values())
    return {name: common for name, common in found.items() if counts[common] > 1}


def _call_common(context: Context, f: Function, kernel: Kernel, common: Likeness) -> None:
    name = context.function(kernel, "nest", common, _emit_common)
    numbers = (context.entries[storage] for storage in common.storages)
    indices = (f.index(index).text for index in (*_range(f, kernel, Value("%n", I64)), *numbers))
    f.call_void(name, ", ".join(("ptr %table", "i64 %n", *(f"i64 {index}" for index in indices))))


def _emit_common(module: Module, name: str, common: Likeness) -> None:
    """``void @name(ptr table, i64 n, i64 low, i64 high, i64 entries...)``: a nest over the table's given entries."""
    entries = [f"entry{number}" for number in range(len(common.storages))]
    parameters = (*PARAMETERS[:4], *(("i64", entry) for entry in entries))
    f = Function(module, name, parameters, internal=True)
    buffers = {
        storage: table_buffer(f, f"%{entry}", storage, bind_size(storage.size, 0))
        for storage, entry in zip(common.storages, entries, strict=True)
    }
    low, high = RANGE
    emit_nest(f, common.nest, buffers, Value("%n", I64), low, high, lanes_of(module, common.nest))


def _work(plan: Plan, kernel: Kernel) -> Work:
    extent = kernel.extent
    scale, offset = (extent.scale, extent.offset) if isinstance(extent, Dim) else (0, extent)
    return Work(kernel.name, UnitCount(scale, offset, kernel.chunk), kernel.units(plan.batch))


def _emit_idle(context: Context) -> Stage:
    """A stage for a graph that computes nothing."""
    Function(context.module, "nothing", PARAMETERS, internal=True)
    return Stage((Work("nothing", UnitCount(0, 1, 1), 1),))
