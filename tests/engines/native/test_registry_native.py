"""Every case of every op as machine code: both float dtypes, plain and checked, fixed and symbolic batch.

All cases of an op share one graph, so that compiling takes seconds, not minutes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines import Executable
from chainrule.engines.native.executable import Executable as Native
from chainrule.errors import ChainruleError
from chainrule.graph import BATCH, Graph, Op, Spec, Trait, apply_all
from chainrule.graph.dims import bind
from tests.ops.harness import NATIVE_TOLERANCE, Array, Trial, assert_agrees, trials

pytestmark = [pytest.mark.usefixtures("no_cache"), pytest.mark.slow]

TRIALS = trials()
OPS = list(dict.fromkeys(trial.op for trial in TRIALS))
DTYPES = ("float32", "float64")


@dataclass
class Job:
    """One op on given inputs.

    Attributes:
        op, attrs: the op.
        arrays: its inputs.
        batched: inputs whose first axis is the batch.
    """

    op: Op
    attrs: Mapping[str, Any]
    arrays: Sequence[Array]
    batched: frozenset[int] = frozenset()

    @property
    def specs(self) -> list[Spec]:
        return [
            Spec((BATCH, *a.shape[1:]) if i in self.batched else a.shape, a.dtype) for i, a in enumerate(self.arrays)
        ]

    def first(self, count: int) -> Job:
        """The same with the first samples only."""
        return Job(
            self.op,
            self.attrs,
            [a[:count] if i in self.batched else a for i, a in enumerate(self.arrays)],
            self.batched,
        )


def graph_of(jobs: Sequence[Job]) -> Graph:
    """All of them in one graph."""

    def everything(*items: Any) -> list[Any]:
        results: list[Any] = []
        rest = list(items)
        for job in jobs:
            own, rest = rest[: len(job.arrays)], rest[len(job.arrays) :]
            results += apply_all(job.op, *own, **job.attrs)
        return results

    return cr.trace(everything, *(spec for job in jobs for spec in job.specs), name=jobs[0].op.name)


def inputs_of(jobs: Sequence[Job]) -> list[Array]:
    return [array for job in jobs for array in job.arrays]


def compare(run: Any, reference: Any, jobs: Sequence[Job]) -> None:
    """Both engines on the jobs' inputs."""
    wanted = reference(*inputs_of(jobs))
    for number, (a, b) in enumerate(zip(run(*inputs_of(jobs)), wanted, strict=True)):
        assert_agrees(a, b, NATIVE_TOLERANCE, f"{jobs[0].op.name}, output {number}")


def jobs_of(op: Op, dtypes: Sequence[str] = DTYPES) -> list[Job]:
    """Every case in these dtypes."""
    return [Job(op, trial.case.attrs, trial.arrays(dtype)) for trial in TRIALS if trial.op is op for dtype in dtypes]


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "checked"])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_case_agrees_with_the_reference(op: Op, checked: bool) -> None:
    jobs = jobs_of(op)
    graph = graph_of(jobs)
    compare(Native(graph, checked=checked), Executable(graph), jobs)


# --- A symbolic batch size ---------------------------------------------------------------------------------


def batched_job(trial: Trial, dtype: str) -> Job | None:
    """The case with its first axis as the batch, for as many inputs as the op allows; None if it allows none."""
    arrays = trial.arrays(dtype)
    if not arrays or not arrays[0].ndim:
        return None
    n = arrays[0].shape[0]
    attrs = {
        name: (BATCH, *value[1:]) if name in ("shape", "input_shape") and value and value[0] == n else value
        for name, value in trial.case.attrs.items()
    }
    rank = arrays[0].ndim
    same_size = frozenset(i for i, a in enumerate(arrays) if a.ndim and a.shape[0] == n)
    same_rank = frozenset(i for i in same_size if arrays[i].ndim == rank)
    for batched in (same_size, same_rank, frozenset({0})):
        for tried in (attrs, dict(trial.case.attrs)):
            job = Job(trial.op, tried, arrays, batched)
            if _runs(job, n):
                return job
    return None


def _runs(job: Job, n: int) -> bool:
    try:
        found = Executable(graph_of([job]))(*job.arrays)
    except ChainruleError:
        return False
    wanted = job.op.evaluate(job.arrays, {name: bind(value, n) for name, value in job.attrs.items()})
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(found, wanted, strict=True))


def batched_jobs(op: Op) -> dict[int, list[Job]]:
    """Jobs by batch size: in one graph there is one."""
    found: dict[int, list[Job]] = {}
    for trial in TRIALS:
        for dtype in DTYPES:
            job = batched_job(trial, dtype) if trial.op is op else None
            if job is not None:
                found.setdefault(job.arrays[0].shape[0], []).append(job)
    return found


PER_SAMPLE = [op for op in OPS if Trait.PER_SAMPLE in op.traits]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_symbolic_batch_runs_at_every_size_up_to_the_planned_one(op: Op) -> None:
    jobs = batched_jobs(op)
    assert jobs or op not in PER_SAMPLE or Trait.RANDOM in op.traits, "no case takes a symbolic batch"
    for n, together in jobs.items():
        graph = graph_of(together)
        run, reference = Native(graph, batch=n + 3), Executable(graph)
        planned = run._compiled
        compare(run, reference, together)
        for count in range(1, n):
            shorter = [job.first(count) for job in together]
            if _accepts(reference, shorter):
                compare(run, reference, shorter)
        assert run._compiled is planned, "a smaller batch was compiled anew"


def _accepts(reference: Executable, jobs: Sequence[Job]) -> bool:
    try:
        reference(*inputs_of(jobs))
    except (ChainruleError, IndexError):  # numbers in the inputs may point to rows that are gone
        return False
    return True


def test_most_cases_have_a_symbolic_form() -> None:
    """So that the test above is not empty."""
    found = sum(batched_job(trial, "float32") is not None for trial in TRIALS)
    assert found > len(TRIALS) // 2, f"{found} of {len(TRIALS)}"


# --- NaN, infinities, zeros --------------------------------------------------------------------------------

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])


def special_job(trial: Trial) -> Job | None:
    """The case with special values in its first input; None if NumPy leaves open what then comes out."""
    arrays = trial.arrays("float32")
    if not arrays or arrays[0].dtype.kind != "f":
        return None
    first = arrays[0] = arrays[0].copy()
    rng = trial.rng()
    places = rng.choice(first.size, -(-first.size // 5), replace=False)
    first.reshape(-1)[places] = rng.choice(SPECIAL, len(places))
    try:
        with np.errstate(all="ignore", invalid="warn"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", "invalid value encountered in cast")
            trial.op.evaluate(arrays, trial.case.attrs)
    except RuntimeWarning:
        return None
    return Job(trial.op, trial.case.attrs, arrays)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_nan_and_infinities_come_out_in_the_same_places(op: Op) -> None:
    found = [special_job(trial) for trial in TRIALS if trial.op is op]
    jobs = [job for job in found if job is not None]
    if jobs:
        graph = graph_of(jobs)
        compare(Native(graph), Executable(graph), jobs)
