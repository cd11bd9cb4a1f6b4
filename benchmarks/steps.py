"""Milliseconds for a training step: all frameworks and variants, in turns, in one run.

For each network, batch size and number of threads, all workers are started, warmed up and checked (they must agree on
the loss before and after the same first steps), and then take turns: in every round each variant trains one epoch,
starting one place further on than in the round before. All of this is repeated with fresh processes, for the variants
that could be the fastest: one that took `HOPELESS` times as long as the fastest peer has been measured enough.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.networks import NETWORKS
from benchmarks.peak import measure_clock
from benchmarks.peers import OURS, Peer, environment_of
from benchmarks.protocol import Setting, Unavailable, Worker, workers
from benchmarks.report import less_favourable, markdown_table, quartiles, spread
from chainrule.engines.native.peak import measure_multiply_adds

__all__ = ["Group", "Plan", "Row", "disagreement", "is_disturbed", "measure", "tables"]

REST_SECONDS = 0.02
"""A pause after each run: thread pools that spin for a moment before they sleep must not disturb the next one."""

HOPELESS = 1.5

FIRST_LOSS_TOLERANCE = 1e-4
LOWEST_CLOCK = 0.85
CHECKED_LOSS_TOLERANCE = 5e-3  # PyTorch applies Adam's epsilon after the bias correction, Keras and chainrule before


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    peers: tuple[Peer, ...]
    networks: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    processes: int
    rounds: int
    steps: int
    data: str
    log: Path

    def settings(self) -> list[Setting]:
        """Every network, batch size and number of threads."""
        found = product(self.networks, self.batches, self.threads)
        return [Setting(network, batch, threads, self.steps, self.data) for network, batch, threads in found]


@dataclass
class Row:
    """One variant's readings; `error` says why there are none."""

    label: str
    milliseconds: list[float] = field(default_factory=list)
    prepare_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    last_loss: float | None = None
    error: str = ""


@dataclass
class Group:
    """All rows of one setting, and what the machine could do meanwhile.

    Attributes:
        idle_seconds: processor time that workers used while it was another's turn; should be near none.
        busy_seconds: wall-clock time of all turns together.
    """

    setting: Setting
    rows: dict[str, Row] = field(default_factory=dict)
    gflops: list[float] = field(default_factory=list)
    clock_ghz: list[float] = field(default_factory=list)
    idle_seconds: float = 0.0
    busy_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(plan: Plan) -> list[Group]:
    """Measure everything; one line is printed for each setting and set of processes.

    Raises:
        WorkerError: a process failed otherwise than for something that this machine lacks.
    """
    groups = [Group(setting) for setting in plan.settings()]
    for repeat in range(plan.processes):
        for group in groups:
            start = time.perf_counter()
            _measure_once(group, plan, repeat)
            one = group.setting
            name = f"{one.network}, batch {one.batch}, {one.threads} threads"
            print(f"processes {repeat + 1}/{plan.processes}: {name}: {time.perf_counter() - start:.0f} s", flush=True)
    return groups


def _measure_once(group: Group, plan: Plan, repeat: int) -> None:
    with workers() as alive:
        left = contenders(group, plan.peers)
        turns = [turn for peer in left for turn in _started(peer, group, plan, alive)]
        for number in range(plan.rounds):
            group.gflops.append(measure_multiply_adds(group.setting.threads))
            group.clock_ghz.append(measure_clock(group.setting.threads))
            first = (number + repeat) % max(1, len(turns))
            for worker, variant, row in turns[first:] + turns[:first]:
                _turn(worker, variant, row, group, alive)
        for worker, variant, row in turns:
            row.last_loss = worker.ask("loss", variant)["loss"]


def contenders(group: Group, peers: Sequence[Peer]) -> list[Peer]:
    """The peers with the variants that are still worth measuring: ours, and what may prove the fastest of them."""
    medians = {row.label: quartiles(row.milliseconds)[1] for row in measured(group) if row.label != OURS}
    limit = HOPELESS * min(medians.values(), default=0.0)
    lacking = {row.label for row in group.rows.values() if row.error}
    found = []
    for peer in peers:
        possible = [v for v in peer.variants if peer.label(v) not in lacking]
        kept = tuple(v for v in possible if peer.is_ours() or medians.get(peer.label(v), limit) <= limit)
        if kept:
            found.append(replace(peer, variants=kept))
    return found


def _started(peer: Peer, group: Group, plan: Plan, alive: list[Worker]) -> list[tuple[Worker, str, Row]]:
    """Start a peer's process; prepare, check and warm up its variants."""
    worker = Worker(peer.module, group.setting, environment_of(peer, group.setting), plan.log)
    alive.append(worker)
    ready = []
    for variant in peer.variants:
        row = group.rows.setdefault(peer.label(variant), Row(peer.label(variant)))
        try:
            prepared = worker.ask("prepare", variant)
        except Unavailable as error:
            row.error = str(error)
            continue
        worker.ask("run", variant)
        row.prepare_seconds.append(prepared["seconds"])
        row.losses = prepared["losses"]
        ready.append((worker, variant, row))
    return ready


def _turn(worker: Worker, variant: str, row: Row, group: Group, alive: Sequence[Worker]) -> None:
    others = [other for other in alive if other is not worker]
    before = sum(other.processor_seconds() for other in others)  # none of them can end meanwhile: all wait for input
    seconds = worker.ask("run", variant)["seconds"]
    group.idle_seconds += sum(other.processor_seconds() for other in others) - before
    group.busy_seconds += seconds
    row.milliseconds.append(seconds / group.setting.steps * 1e3)
    time.sleep(REST_SECONDS)


# --- What was found ------------------------------------------------------------------------------


def disagreement(group: Group) -> list[str]:
    """What is wrong with the rows as trainings: losses that differ between frameworks, or do not fall."""
    found = []
    rows = [row for row in group.rows.values() if row.losses]
    for place, tolerance in enumerate((FIRST_LOSS_TOLERANCE, CHECKED_LOSS_TOLERANCE)):
        losses = {row.label: row.losses[place] for row in rows}
        if losses and max(losses.values()) - min(losses.values()) > tolerance:
            when = "with the first weights" if place == 0 else "after the first steps"
            found.append(f"losses differ {when}: {losses}")
    found += [
        f"{row.label}: the loss did not fall, {row.losses[0]:.4f} to {row.last_loss:.4f}"
        for row in rows
        if row.last_loss is not None and not row.last_loss < row.losses[0]
    ]
    return found


def is_disturbed(group: Group, groups: Sequence[Group]) -> bool:
    """Whether the clock of some round fell far below the run's highest, as it seems to where threads must wait."""
    return min(group.clock_ghz) < LOWEST_CLOCK * max(max(one.clock_ghz) for one in groups)


def peak_of(group: Group, groups: Sequence[Group]) -> float:
    """The highest FMA peak in GFLOP/s that this run saw with as many threads."""
    return max(max(one.gflops) for one in groups if one.setting.threads == group.setting.threads)


def tables(groups: Sequence[Group]) -> str:
    """The summary, then every row of every setting."""
    return "\n\n".join([_summary(groups), *(_details(group, peak_of(group, groups)) for group in groups)])


def measured(group: Group) -> list[Row]:
    """The rows with readings, fastest first."""
    rows = [row for row in group.rows.values() if row.milliseconds and not row.error]
    return sorted(rows, key=lambda row: quartiles(row.milliseconds)[1])


def _summary(groups: Sequence[Group]) -> str:
    rows = []
    for group in groups:
        ours = group.rows.get(OURS)
        others = [row for row in measured(group) if row.label != OURS]
        if not others:
            continue
        fastest, setting = others[0], group.setting
        own = spread(ours.milliseconds) if ours and ours.milliseconds else "-"
        marks = ("*" if disagreement(group) else "") + ("†" if is_disturbed(group, groups) else "")
        name = [setting.network, str(setting.batch), str(setting.threads)]
        rows.append([*name, own, fastest.label, spread(fastest.milliseconds), _ratio(fastest, ours) + marks])
    header = ("network", "batch", "threads", "chainrule, ms", "fastest peer", "its ms", "times as long")
    notes = (
        "\\* the trainings differ: this row counts for nothing; see below. "
        "† other programs used the processors, by the clock."
    )
    return "## The fastest peer\n\n" + markdown_table(header, rows) + "\n\n" + notes


def _ratio(row: Row, ours: Row | None) -> str:
    """Of the rounds that both took part in: a row that was given up took part in the first ones."""
    count = len(row.milliseconds)
    if ours is None or not ours.milliseconds or count > len(ours.milliseconds):
        return "-"
    return f"{less_favourable(row.milliseconds, ours.milliseconds[:count]):.2f}"


def _details(group: Group, peak: float) -> str:
    setting, network = group.setting, NETWORKS[group.setting.network]
    flops = network.step_flops() * setting.batch
    clock = quartiles(group.clock_ghz)[1]
    rows = []
    for row in measured(group):
        middle = quartiles(row.milliseconds)[1]
        share = f"{flops / middle / 1e6 / peak:.0%}"
        rows.append([row.label, spread(row.milliseconds), _ratio(row, group.rows.get(OURS)), share])
    arithmetic = (
        f"{network.parameters():,} parameters; {flops / 1e6:.0f} MFLOP a step by the dense direct algorithm. FMA peak "
        f"meanwhile {spread(group.gflops, 0)} GFLOP/s at {clock:.2f} GHz "
        f"({min(group.clock_ghz):.2f}-{max(group.clock_ghz):.2f}), {peak:.0f} GFLOP/s at best; shares are of the best. "
        f"Idle workers used {group.idle_seconds:.2f} s of processor time in {group.busy_seconds:.0f} s of turns."
    )
    lines = [
        f"## {setting.network}, batch {setting.batch}, threads {setting.threads}",
        arithmetic,
        markdown_table(("variant", "ms a step", "times as long", "share of peak"), rows),
    ]
    lines += [f"{row.label}: not measured: {row.error}" for row in group.rows.values() if row.error]
    lines += disagreement(group)
    return "\n\n".join(lines)
