"""What a training's bits depend on beside its state: code, machine, network, settings, data.

A checkpoint carries these facts; a training that goes on compares them with its own.  The number of threads is none of
them, for no bit depends on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.__about__ import __version__
from chainrule.engines import Engine, Executable
from chainrule.graph.canonical import canonical_text, package_fingerprint
from chainrule.graph.op import Array
from chainrule.optimizers.schedules import Schedule, described
from chainrule.random import get_seed
from chainrule.train.feed import Arrays, Feed, Stream

if TYPE_CHECKING:
    from chainrule.train.fitting import Fitting
    from chainrule.train.supply import Supply

__all__ = ["changes", "facts_of", "fingerprint", "plan_text", "schedule_fact"]

_BLOCK = 1 << 24  # bytes that one thread hashes in one go
_WORDS = {
    "source": "the source code of chainrule has changed",
    "cpu_features": "the processor has other instructions",
    "graph": "the network, the loss or the optimizer has changed",
    "plan": "the plan of the step has changed",
    "schedule": "the learning rate's schedule has changed",
    "data": "the data have changed",
    "validation_data": "the validation data, or their batches, have changed",
}
_BEFORE_PLAN = {"source", "cpu", "cpu_features", "graph", "batch_size"}
"""What the plan follows from."""
_NAMES = {"batch_size": "batch size", "steps_per_epoch": "batches of an epoch", "cpu": "processor"}


def facts_of(fitting: Fitting, *, data: bool = True) -> dict[str, Any]:
    """The facts of a training, as JSON can hold them; None where one cannot be known.

    Args:
        fitting: about to begin.
        data: whether to look at the data, which takes a second for each gigabyte.
    """
    supply, optimizer = fitting.supply, fitting.model.optimizer
    engines = fitting.steps.engines()
    return {
        "chainrule": __version__,
        "source": package_fingerprint(),
        **_versions(),
        **_machine(engines),
        "graph": _graph_digest(engines),
        "plan": _plan_digest(engines),
        "batch_size": supply.batch_size,
        "steps_per_epoch": supply.batches,
        "shuffle": getattr(supply, "shuffle", None),
        "seed": get_seed(),
        "schedule": schedule_fact(optimizer.schedule),
        "data": supply.fingerprint() if data else None,
        "validation_data": _held_out_fact(fitting.held_out) if data else None,
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed, in plain words; what one of the two does not know counts for nothing."""
    found = [name for name, was in before.items() if None not in (was, now.get(name)) and was != now[name]]
    if not _BEFORE_PLAN.isdisjoint(found):
        found = [name for name in found if name != "plan"]
    return [_WORDS.get(name) or f"{_NAMES.get(name, name)} {before[name]} -> {now[name]}" for name in found]


def fingerprint(feed: Feed) -> str | None:
    """SHA-256 over the samples of a feed and all that belongs to them; None for one of another kind."""
    if isinstance(feed, Arrays):
        arrays, first = feed.data, ""
    elif isinstance(feed, Stream):
        arrays, first = feed.labels, feed.source.fingerprint()
    else:
        return None
    total = hashlib.sha256(first.encode())
    for name in sorted(set(arrays) - {"sample"}):  # numbers that are only counted
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        total.update(_array_digest(array))
    return total.hexdigest()


def schedule_fact(schedule: Schedule | None) -> str:
    """SHA-256 over a schedule's description; ``"constant"`` where the learning rate is a number."""
    return "constant" if schedule is None else _digest(json.dumps(_plain(described(schedule))))


def plan_text(engines: Sequence[Engine]) -> str:
    """The plans of a step, in words; empty for an engine that plans nothing."""
    planning = (getattr(engine, "plan_text", None) for engine in engines)
    return "\n".join(text() for text in planning if text is not None)


def _held_out_fact(supply: Supply | None) -> str | None:
    """A hash over what is held out and its batches, or ``"none"``; None where it cannot be looked at."""
    if supply is None:
        return "none"
    found = supply.fingerprint()
    return None if found is None else _digest(f"{found} in {supply.batches} batches of {supply.batch_size}")


def _versions() -> dict[str, str | None]:
    import llvmlite

    return {"numpy": np.__version__, "llvmlite": llvmlite.__version__}


def _machine(engines: Sequence[Engine]) -> dict[str, str | None]:
    if isinstance(engines[0], Executable):
        return {"engine": "reference", "cpu": None, "cpu_features": None}
    from chainrule.engines.native.jit import host_target

    target = host_target()
    return {"engine": "native", "cpu": target.cpu, "cpu_features": target.features}


def _graph_digest(engines: Sequence[Engine]) -> str | None:
    """None for a graph with ops of a user's own, which no text can say all of."""
    texts = [canonical_text(engine.graph) for engine in engines]
    return None if None in texts else _digest("\n\n".join(map(str, texts)))


def _plan_digest(engines: Sequence[Engine]) -> str | None:
    """That of the plan, or over those of several; None for an engine that plans nothing."""
    found = [engine.plan_digest() for engine in engines if hasattr(engine, "plan_digest")]
    return found[0] if len(found) == 1 else _digest("\n".join(found)) if found else None


def _array_digest(array: Array) -> bytes:
    """A hash over the hashes of blocks, which threads take side by side; how many do makes no difference."""
    from chainrule.engines.native.threads import get_threads

    memory = array.reshape(-1).view(np.uint8).data
    starts = range(0, len(memory), _BLOCK)
    if len(starts) < 2:
        return hashlib.sha256(hashlib.sha256(memory).digest()).digest()
    with ThreadPoolExecutor(get_threads()) as pool:
        parts = pool.map(lambda start: hashlib.sha256(memory[start : start + _BLOCK]).digest(), starts)
        return hashlib.sha256(b"".join(parts)).digest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A schedule's arguments as JSON can hold them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
