"""What needs a fresh process for each reading: start-up time and peak memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import OURS, Peer, environment_of
from benchmarks.protocol import Setting, WorkerError, last_words, start
from benchmarks.report import markdown_table, spread

__all__ = ["Reading", "measure", "memory_table", "startup_table"]

MIB = 2**20


@dataclass
class Reading:
    """One variant's readings: what `workers.fresh_process` printed, one each; `error` says why there are none."""

    label: str
    cache: str
    found: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    def values(self, key: str) -> list[float]:
        return [one[key] for one in self.found]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(peers: Sequence[Peer], setting: Setting, repeats: int, log: Path) -> list[Reading]:
    """Train each variant for a few steps in fresh processes, each with an empty cache and then a full one.

    Args:
        peers: what to measure.
        setting: network, batch, threads and the number of steps.
        repeats: processes of each kind, taken in turns.
        log: where the processes' standard error goes.

    Raises:
        WorkerError: a process failed otherwise than for something that this machine lacks.
    """
    variants = [(peer, variant) for peer in peers for variant in peer.variants]
    readings = {
        (peer.label(variant), cache): Reading(peer.label(variant), cache)
        for peer, variant in variants
        for cache in ("empty", "full")
    }
    for repeat in range(repeats):
        for peer, variant in variants:
            with tempfile.TemporaryDirectory() as folder:
                for cache in ("empty", "full"):
                    reading = readings[peer.label(variant), cache]
                    environment = {**environment_of(peer, setting), **_caches(folder)}
                    _once(peer, variant, setting, environment, log, reading)
        print(f"fresh processes {repeat + 1}/{repeats}", flush=True)
    return list(readings.values())


def _caches(folder: str) -> dict[str, str]:
    """Where chainrule and PyTorch's compiler keep what they have compiled."""
    return {"CHAINRULE_CACHE": f"{folder}/chainrule", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}


def _once(
    peer: Peer, variant: str, setting: Setting, environment: Mapping[str, str], log: Path, reading: Reading
) -> None:
    since = log.stat().st_size if log.exists() else 0
    arguments = [peer.module, variant, json.dumps(asdict(setting))]
    with start("benchmarks.workers.fresh_process", arguments, environment, log) as process:
        answer, _ = process.communicate()
    if process.returncode:
        ended = f"a fresh process of {reading.label} ended with status {process.returncode}"
        raise WorkerError(f"{ended}:\n{last_words(log, since)}")
    found = json.loads(answer)
    if "unavailable" in found:
        reading.error = found["unavailable"]
    else:
        reading.found.append(found)


def startup_table(readings: Sequence[Reading]) -> str:
    """Seconds until a first step is done, by variant and state of the cache."""
    rows = []
    for one in sorted((one for one in readings if one.found), key=lambda one: (one.cache, one.label != OURS)):
        keys = ("import_seconds", "first_step_seconds", "second_step_seconds")
        rows.append([one.label, one.cache, *(spread(one.values(key), 3) for key in keys)])
    header = ("variant", "cache", "import, s", "model to first step, s", "second step, s")
    return _with_errors("## Start-up in a fresh process\n\n" + markdown_table(header, rows), readings)


def memory_table(readings: Sequence[Reading]) -> str:
    """Peak memory in MiB, caches full."""
    rows = []
    for one in sorted((one for one in readings if one.found and one.cache == "full"), key=lambda one: one.label):
        above = [value / MIB for value in one.values("above_data_bytes")]
        whole = [value / MIB for value in one.values("process_bytes")]
        rows.append([one.label, spread(above, 1), spread(whole, 1)])
    header = ("variant", "training, above the imports and the loaded data, MiB", "whole process less the data, MiB")
    return _with_errors("## Peak memory in a fresh process, cache full\n\n" + markdown_table(header, rows), readings)


def _with_errors(text: str, readings: Sequence[Reading]) -> str:
    errors = [f"{one.label}, cache {one.cache}: not measured: {one.error}" for one in readings if one.error]
    return "\n\n".join([text, *errors])
