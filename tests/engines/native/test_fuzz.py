"""Random graphs: machine code against the reference, and the fuzzer against planted bugs."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chainrule.engines.native import math
from chainrule.engines.native.ir import Function, Value
from tests.engines.native import fuzz
from tests.engines.native.fuzz import (
    BASE,
    LEAVES,
    Recipe,
    Step,
    disagreement,
    make_recipe,
    minimised,
    try_seed,
    variants_of,
)
from tests.engines.native.fuzz import __main__ as long_run

pytestmark = pytest.mark.usefixtures("no_cache")

QUICK, ALL, CHUNK = 5, 200, 15


def _tried(first: int, count: int) -> None:
    told: Counter[str] = Counter()
    # Another way to compile on every third seed, each way in its turn.
    ways = {seed: variants_of(seed)[: 2 if seed % 3 == 0 else 1] for seed in range(first, first + count)}
    reports = [try_seed(seed, variants, told) for seed, variants in ways.items()]
    assert not any(reports), "\n".join(report for report in reports if report)
    # Most results must be told apart from rounding, or nothing is tested.
    assert told["results"] > 5 * told["ill-conditioned results"]


def test_random_graphs() -> None:
    _tried(0, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(QUICK, ALL, CHUNK))
def test_more_random_graphs(first: int) -> None:
    _tried(first, CHUNK)


@pytest.mark.slow
def test_a_seed_is_always_the_same_graph() -> None:
    for seed in range(5):
        recipe = make_recipe(seed)
        assert recipe == make_recipe(seed)
        assert fuzz.build(recipe, "float32").show() == fuzz.build(recipe, "float32").show()


@pytest.mark.slow
def test_graphs_are_of_many_kinds() -> None:
    """What the planner has passes for appears often."""
    recipes = [make_recipe(seed) for seed in range(300)]
    seen = Counter(step.kind for recipe in recipes for step in recipe.steps)
    assert set(fuzz.KINDS) <= set(seen)
    chains = sum(
        recipe.steps[step.inputs[0]].kind == "relu"
        for recipe in recipes
        for step in recipe.steps
        if "pool" in step.kind
    )
    assert chains > 50, chains  # convolution, bias, relu, pooling
    assert sum(bool(recipe.update) for recipe in recipes) > 150
    assert sum(recipe.symbolic for recipe in recipes) > 150
    assert sum(recipe.twice for recipe in recipes) > 5
    uses = [Counter(i for step in recipe.steps for i in step.inputs) for recipe in recipes]
    assert sum(any(count > 2 for count in counter.values()) for counter in uses) > 30


@pytest.mark.slow
def test_a_planted_bug_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tanh that is off by one part in a million."""
    plain = math.FUNCTIONS["tanh"]

    def wrong(f: Function, x: Value) -> Value:
        return f.binary("fmul", plain(f, x), f.constant(1 + 1e-6, x.type))

    monkeypatch.setitem(math.FUNCTIONS, "tanh", wrong)
    steps = (
        *LEAVES,
        Step("variable", attrs={"shape": (3, 3, 2, 4), "scale": 0.3}),
        Step("conv2d", (0, 5), {"stride": 1, "padding": "same", "dilation": 1, "groups": 1}),
        Step("relu", (6,)),
        Step("tanh", (7,)),
        Step("add", (8, 6)),
        Step("sum", (9,), {"axis": (1, 2), "keepdims": False}),
        Step("multiply", (1, 1)),
    )
    recipe = Recipe(0, (4, 4, 2), 4, True, (3, 2), steps, (9, 11), (10, 11), "sgd")
    assert disagreement(recipe, BASE) is not None
    small = minimised(recipe, BASE)
    assert disagreement(small, BASE) is not None
    assert [step.kind for step in small.steps[len(LEAVES) :]] == ["tanh"]
    monkeypatch.undo()
    assert disagreement(recipe, BASE) is None
    assert disagreement(small, BASE) is None


@pytest.mark.slow
def test_ill_conditioned_results_are_left_out() -> None:
    """The sign of a sum that is zero but for rounding says nothing; the same of an input does."""
    steps = (
        *LEAVES,
        Step("mean", (1,), {"axis": (1,), "keepdims": True}),
        Step("subtract", (1, 5)),
        Step("sum", (6,), {"axis": (1,), "keepdims": True}),
        Step("subtract", (5, 5)),
        Step("mask", (7, 8)),
        Step("mask", (1, 8)),
    )
    recipe = Recipe(0, (1, 1, 1), 17, False, (33,), steps, (9, 10))
    told: Counter[str] = Counter()
    assert disagreement(recipe, BASE, told) is None
    assert told == {"ill-conditioned results": 1, "results": 1}
    assert disagreement(replace(recipe, outputs=(10,)), BASE, told) is None


def test_a_wrong_shape_dtype_or_place_of_nan_is_told() -> None:
    value = np.array([1.0, np.nan, np.inf])
    wanted = fuzz.Wanted({"v": value}, {"v": 0.0})
    for other in (value.astype("float32"), value[:2], np.array([1.0, 2.0, np.inf]), np.array([1.0, np.nan, -np.inf])):
        assert fuzz.wrong({"v": other}, wanted, "float64", Counter())
    assert not fuzz.wrong({"v": value + 1e-13}, wanted, "float64", Counter())
    assert fuzz.wrong({"v": value + 1e-11}, wanted, "float64", Counter())


# --- Failures of the engine, and of the fuzzer -------------------------------------------------------------


def broken(*arguments: object, **settings: object) -> None:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize(("name", "when"), [("Native.__init__", "compiling"), ("Native.run", "running with n = ")])
@pytest.mark.slow
def test_whatever_the_engine_raises_is_a_finding(name: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"tests.engines.native.fuzz.comparing.{name}", broken)
    found = disagreement(make_recipe(0), BASE)
    assert found is not None
    assert found.startswith(when)
    assert "ZeroDivisionError: planted" in found


@pytest.mark.parametrize("name", ["comparing.Reference.run", "comparing.build", "minimising.make_recipe"])
@pytest.mark.slow
def test_a_fault_of_the_fuzzer_is_no_finding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"tests.engines.native.fuzz.{name}", broken)
    with pytest.raises(ZeroDivisionError, match="planted"):
        try_seed(0)


PLANTED = """
import os, sys
from tests.engines.native.fuzz import __main__ as long_run, minimising

def compared(recipe, variant, told=None):
    if recipe.seed == {fault}: raise ZeroDivisionError("planted")
    if recipe.seed == {crash}: os.abort()
    if told is not None: told["results"] += 1
    return "it differs" if recipe.seed == {finding} else None

minimising.disagreement = compared
sys.exit(long_run.main(["--work", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planted", "status", "summary"),
    [
        ({}, 0, "3 passed, 6 results"),
        ({"finding": 4}, 1, "2 passed, 1 failed, 5 results"),
        ({"crash": 4}, 1, "2 passed, 1 crashed, 2 results"),
        ({"fault": 4}, 2, "2 passed, 4 results, 1 faults of the fuzzer itself"),
    ],
    ids=["sound", "finding", "crash", "fault"],
)
def test_the_long_run_tells_faults_from_findings(
    planted: dict[str, int], status: int, summary: str, tmp_path: Path
) -> None:
    code = PLANTED.format(**{"fault": -1, "crash": -1, "finding": -1, **planted})
    log = tmp_path / "log"
    arguments = ["--seed", "3", "--count", "3", "--log", str(log)]
    assert long_run.main(arguments, worker=[sys.executable, "-c", code]) == status
    *reports, last = log.read_text(encoding="utf-8").splitlines()
    assert last.startswith(f"seeds from 3: {summary}; ")
    reason = {"finding": "seed 4, plain: it differs", "crash": "Aborted", "fault": "ZeroDivisionError: planted"}
    assert all(any(reason[kind] in line for line in reports) for kind in planted)
    assert any("the fuzzer itself failed" in line for line in reports) == ("fault" in planted)


def test_a_worker_that_cannot_begin_ends_the_long_run() -> None:
    with pytest.raises(RuntimeError, match=r"before its first seed:\nno such word"):
        long_run.main(["--count", "1"], worker=[sys.executable, "-c", "import sys; sys.exit('no such word')"])
