"""The laws of a plan, checked after every pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from chainrule.errors import GraphError
from chainrule.plan.expr import Storage, walk
from chainrule.plan.nest import Nest
from chainrule.plan.plan import ALIGNMENT, Kernel, Plan, Product, storage_bytes
from chainrule.plan.schedule import reads_in_place

__all__ = ["KERNEL_LAWS", "PLAN_LAWS", "verify_plan"]

Law: TypeAlias = "Callable[[Plan], str | None]"


def verify_plan(plan: Plan, *, after: str = "placement", laws: Sequence[Law] | None = None) -> None:
    """Check every law of `PLAN_LAWS`, or of those given.

    Args:
        plan: the plan.
        after: the pass that produced it, named in the message.
        laws: `KERNEL_LAWS` while stages and places are not chosen yet.

    Raises:
        GraphError: naming the pass, the law and the kernel.
    """
    for law in PLAN_LAWS if laws is None else laws:
        broken = law(plan)
        if broken is not None:
            name = plan.graph.name
            raise GraphError(f"after {after}, the plan of {name!r} breaks the law {law.__name__!r}: {broken}")


def every_storage_has_one_writer(plan: Plan) -> str | None:
    """No two kernels write one storage, and nobody writes an input, a constant or a variable by its own name."""
    seen: dict[str, str] = {}
    leaves = {*plan.inputs.values(), *plan.state.values(), *plan.constants}
    for kernel in plan.kernels:
        for storage in kernel.writes:
            if storage in leaves:
                return f"{kernel.name} writes {storage}"
            if storage.name in seen:
                return f"{kernel.name} and {seen[storage.name]} both write {storage}"
            seen[storage.name] = kernel.name
    return None


def values_are_written_before_they_are_read(plan: Plan) -> str | None:
    """What a kernel reads is a leaf, or was written in an earlier stage; the same for outputs."""
    ready = {*plan.inputs.values(), *plan.state.values(), *plan.constants}
    for stage in plan.stages:
        for kernel in stage.kernels:
            for storage in kernel.reads:
                if storage not in ready and storage not in kernel.writes:
                    return f"{kernel.name} reads {storage}, which no earlier stage writes"
        ready.update(storage for kernel in stage.kernels for storage in kernel.writes)
    for name, storage in plan.outputs.items():
        if storage not in ready:
            return f"output {name!r} is {storage}, which nobody writes"
    return None


def old_state_is_read_before_it_is_overwritten(plan: Plan) -> str | None:
    """Nobody reads a variable in, or after, the stage that overwrites it, but the kernel that does so itself."""
    written: dict[str, str] = {}
    for stage in plan.stages:
        now = {plan.overwrites[s].name: k.name for k in stage.kernels for s in k.writes if s in plan.overwrites}
        for kernel in stage.kernels:
            for storage in kernel.reads:
                if storage.name in written:
                    return f"{kernel.name} reads {storage} after {written[storage.name]} has overwritten it"
                if now.get(storage.name, kernel.name) != kernel.name:
                    return f"{kernel.name} reads {storage} while {now[storage.name]} overwrites it"
        written |= now
    return None


def living_values_do_not_overlap(plan: Plan) -> str | None:
    """Two storages of the arena share bytes only if one is dead before the other is born."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, stage in enumerate(plan.stages):
        for kernel in stage.kernels:
            for storage in (*kernel.reads, *kernel.writes):
                first.setdefault(storage.name, number)
                last[storage.name] = number
    for storage in plan.outputs.values():
        last[storage.name] = len(plan.stages)
    placed = sorted(plan.offsets.items(), key=lambda item: item[1])
    for position, (a, low) in enumerate(placed):
        end = low + storage_bytes(a, plan.batch)
        if low % ALIGNMENT or end > plan.arena:
            return f"{a} lies at {low}..{end} of {plan.arena}"
        for b, start in placed[position + 1 :]:
            if start >= end:
                break
            if first[a.name] <= last[b.name] and first[b.name] <= last[a.name]:
                return f"{a} and {b} share bytes while both are alive"
    return None


def every_storage_has_a_place(plan: Plan) -> str | None:
    """Every storage lies in the arena, is a leaf, or lies in a variable's memory."""
    known = {*plan.offsets, *plan.inputs.values(), *plan.state.values(), *plan.constants, *plan.overwrites}
    for kernel in plan.kernels:
        for storage in (*kernel.reads, *kernel.writes):
            if storage not in known:
                return f"{storage} of {kernel.name} lies nowhere"
    return None


def kernels_say_what_they_touch(plan: Plan) -> str | None:
    """A kernel's declared reads are what it loads, its declared writes what it stores."""
    for kernel in plan.kernels:
        touched = _touched(kernel)
        if touched is not None and touched != (set(kernel.reads), set(kernel.writes)):
            return f"{kernel.name} declares {kernel.reads} -> {kernel.writes}"
    return None


def _touched(kernel: Kernel) -> tuple[set[Storage], set[Storage]] | None:
    """What a nest, or a product with the nests beside it, loads and stores; nothing is known of a sort."""
    if isinstance(kernel.body, Nest):
        return _loads(kernel.body), {store.storage for store in kernel.body.stores}
    if not isinstance(kernel.body, Product):
        return None
    made = {prologue.position for prologue in kernel.body.prologues}
    reads = {storage for position, storage in enumerate(kernel.body.operands) if position not in made}
    writes = {kernel.body.result}
    for prologue in kernel.body.prologues:
        reads |= _loads(prologue.nest)
    epilogue = kernel.body.epilogue
    if epilogue is not None:
        reads |= _loads(epilogue.nest) - {epilogue.area}
        writes = {store.storage for store in epilogue.nest.stores}
    return reads, writes


def _loads(nest: Nest) -> set[Storage]:
    return {node.attr for node in walk(*nest.roots()) if node.op == "load"}


def state_is_overwritten_where_it_was_read(plan: Plan) -> str | None:
    """Who writes new state over the old reads the old, if at all, at the element that it is about to write."""
    for kernel in plan.kernels:
        for new in kernel.writes:
            old = plan.overwrites.get(new)
            if old is None or (old not in kernel.reads and isinstance(kernel.body, Nest)):
                continue
            if not isinstance(kernel.body, Nest) or not reads_in_place(kernel.body, new, old):
                return f"{kernel.name} writes {new} over {old}, which it reads at other elements"
    return None


KERNEL_LAWS: tuple[Law, ...] = (
    every_storage_has_one_writer,
    values_are_written_before_they_are_read,
    kernels_say_what_they_touch,
)
"""The laws that hold of kernels in order, before stages and places are chosen."""

PLAN_LAWS: tuple[Law, ...] = (
    every_storage_has_one_writer,
    values_are_written_before_they_are_read,
    old_state_is_read_before_it_is_overwritten,
    state_is_overwritten_where_it_was_read,
    living_values_do_not_overlap,
    every_storage_has_a_place,
    kernels_say_what_they_touch,
)
"""Each law as a function that returns what is broken, or None."""
