"""Stages and memory: what may run at the same time, which state is updated in place, where storages lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from chainrule.errors import GraphError
from chainrule.plan.expr import Storage, walk
from chainrule.plan.nest import Nest
from chainrule.plan.plan import Kernel, Stage, storage_bytes

__all__ = ["arena_offsets", "dependences", "in_place", "reads_in_place", "staged"]


def dependences(kernels: Sequence[Kernel], overwrites: Mapping[Storage, Storage]) -> dict[str, set[str]]:
    """The names of the kernels that each kernel must wait for.

    Args:
        kernels: each storage is written by one of them at most.
        overwrites: new values that lie where an old one did; everybody must have read the old one before.
    """
    writer = {storage: kernel.name for kernel in kernels for storage in kernel.writes}
    readers: dict[Storage, set[str]] = {}
    for kernel in kernels:
        for storage in kernel.reads:
            readers.setdefault(storage, set()).add(kernel.name)
    found: dict[str, set[str]] = {}
    for kernel in kernels:
        waits = {writer[s] for s in kernel.reads if s in writer}
        for storage in kernel.writes:
            if storage in overwrites:
                waits |= readers.get(overwrites[storage], set())
        found[kernel.name] = waits - {kernel.name}
    return found


def staged(kernels: Sequence[Kernel], overwrites: Mapping[Storage, Storage]) -> list[Stage]:
    """Each kernel in the earliest stage that its dependences allow.

    Raises:
        GraphError: the kernels wait for each other in a circle.
    """
    waits = dependences(kernels, overwrites)
    stages: list[Stage] = []
    done: set[str] = set()
    pending = list(kernels)
    while pending:
        ready = tuple(kernel for kernel in pending if waits[kernel.name] <= done)
        if not ready:
            raise GraphError(f"the kernels {', '.join(k.name for k in pending)} wait for each other")
        stages.append(Stage(ready))
        done |= {kernel.name for kernel in ready}
        pending = [kernel for kernel in pending if kernel.name not in done]
    return stages


def in_place(kernels: Sequence[Kernel], updates: Mapping[Storage, Storage]) -> dict[Storage, Storage]:
    """Which new values of state may be written straight over the old ones.

    Args:
        kernels: in order.
        updates: the storage of each new value, with the storage of the state that it replaces.

    Returns:
        The updates for which that is safe: the writer is a nest that reads the old value, if at all, at the element
        that it is about to overwrite, and nobody else needs the old value after it.
    """
    chosen: dict[Storage, Storage] = {}
    waits = dependences(kernels, {})
    writer = {storage: kernel for kernel in kernels for storage in kernel.writes}
    for new, old in updates.items():
        kernel = writer.get(new)
        if kernel is None or not isinstance(kernel.body, Nest) or not reads_in_place(kernel.body, new, old):
            continue
        # The kernel must come after all who read the old value, so none of them may wait for it.
        readers = {other.name for other in kernels if old in other.reads} - {kernel.name}
        if kernel.name not in _awaited(readers, waits):
            chosen[new] = old
            waits[kernel.name] |= readers
    return chosen


def _awaited(kernels: Iterable[str], waits: Mapping[str, set[str]]) -> set[str]:
    """What the kernels wait for, directly or through others."""
    found: set[str] = set()
    pending = list(kernels)
    while pending:
        for name in waits[pending.pop()] - found:
            found.add(name)
            pending.append(name)
    return found


def reads_in_place(nest: Nest, new: Storage, old: Storage) -> bool:
    """Whether a nest reads the old value only at the element that it overwrites, and not inside a fold."""
    index = next(store.index for store in nest.stores if store.storage == new)
    for node in walk(*nest.roots()):
        if node.op == "load" and node.attr == old and node.args[0] is not index:
            return False
        if node.op == "fold" and any(inner.op == "load" and inner.attr == old for inner in walk(node)):
            return False
    return True


# -- memory -------------------------------------------------------------------------------------------------


def arena_offsets(
    stages: Sequence[Stage],
    batch: int,
    outside: Iterable[Storage],
    lasting: Iterable[Storage],
    *,
    reuse: bool = True,
) -> tuple[dict[Storage, int], int]:
    """Place every storage in one arena; two share bytes only if they are never alive together.

    Args:
        stages: in order.
        batch: planned batch size.
        outside: storages that lie elsewhere (inputs, state, constants).
        lasting: storages that are read after the last stage (outputs).
        reuse: False gives every storage bytes of its own.

    Returns:
        Byte offsets, and the size of the arena.
    """
    elsewhere, kept = set(outside), set(lasting)
    first: dict[Storage, int] = {}
    last: dict[Storage, int] = {}
    for number, stage in enumerate(stages):
        for kernel in stage.kernels:
            for storage in (*kernel.writes, *kernel.reads):
                if storage not in elsewhere:
                    first.setdefault(storage, number)
                    last[storage] = number
    for storage in kept:
        if storage in first:
            last[storage] = len(stages)
    offsets: dict[Storage, int] = {}
    size = 0
    for storage in sorted(first, key=lambda s: (-storage_bytes(s, batch), s.name)):
        need = storage_bytes(storage, batch)
        alive = sorted(
            (offsets[o], offsets[o] + storage_bytes(o, batch))
            for o in offsets
            if not reuse or (first[o] <= last[storage] and first[storage] <= last[o])
        )
        place = 0
        for low, high in alive:
            if place + need <= low:
                break
            place = max(place, high)
        offsets[storage] = place
        size = max(size, place + need)
    return offsets, size
