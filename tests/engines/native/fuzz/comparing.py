"""Machine code against the reference, and what rounding may do to each result."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np

from chainrule.engines.native.executable import Executable as Native
from chainrule.engines.reference import Executable as Reference
from chainrule.graph import Graph
from chainrule.plan.options import Options
from tests.engines.native.fuzz.graphs import build, inputs_of
from tests.engines.native.fuzz.recipe import Recipe
from tests.ops.harness import Array

__all__ = [
    "BASE",
    "EVERY",
    "EngineRaised",
    "Variant",
    "Wanted",
    "disagreement",
    "variants_of",
    "wanted_of",
    "wrong",
]

T = TypeVar("T")

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
AMPLIFIED = 50.0
"""How many times the effect of changed last bits is allowed."""
ILL_CONDITIONED = 1e-2
"""A result that changed last bits move by more than this part of itself says nothing."""


@dataclass
class Wanted:
    """What the reference gives, and how much of it is rounding.

    Attributes:
        values: results and new state by name.
        spread: the largest effect of changed last bits on each.
    """

    values: dict[str, Array]
    spread: dict[str, float]


def _flat(result: Any, state: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(v) for name, v in result.items()} | {f"state {name}": v for name, v in state.items()}


def _wide(graph: Graph, inputs: Sequence[Array], state: Mapping[str, Array]) -> dict[str, Array]:
    wider = [a.astype("float64") if a.dtype.kind == "f" else a for a in inputs]
    return _flat(*Reference(graph).run(wider, {name: v.astype("float64") for name, v in state.items()}))


def wanted_of(
    graph: Graph, wide: Graph | None, inputs: Sequence[Array], state: Mapping[str, Array], seed: int, runs: int
) -> Wanted:
    """What the reference gives, run again on inputs that differ in their last bits.

    Args:
        graph: the graph.
        wide: the same in float64, for a graph in float32.
        inputs, state: of `graph`.
        seed, runs: of the changes.
    """
    reference = Reference(graph)
    plain = _flat(*reference.run(inputs, state))
    values = plain if wide is None else _wide(wide, inputs, state)
    spread = dict.fromkeys(values, 0.0)
    rng = np.random.Generator(np.random.PCG64(seed))

    def moved(array: Array) -> Array:
        if array.dtype.kind != "f":
            return array
        changed = array * (1 + 8 * np.finfo(array.dtype).eps * rng.uniform(-1, 1, array.shape))
        return np.asarray(changed, array.dtype)

    others = [plain]
    for _ in range(runs):
        again = reference.run([moved(a) for a in inputs], {name: moved(v) for name, v in state.items()})
        others.append(_flat(*again))
    for other in others:
        for name, value in values.items():
            spread[name] = max(spread[name], _distance(other[name], value))
    return Wanted(values, spread)


def _distance(a: Array, b: Array) -> float:
    """The largest difference; infinite where NaN or infinities are in other places, or integers differ."""
    if not b.size:
        return 0.0
    if b.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else np.inf
    fa, fb = np.isfinite(a), np.isfinite(b)
    if not (fa == fb).all() or not np.array_equal(a[~fa].astype("f8"), b[~fb].astype("f8"), equal_nan=True):
        return np.inf
    return float(np.max(np.abs(a[fa].astype("f8") - b[fb].astype("f8")), initial=0.0))


def wrong(found: Mapping[str, Array], wanted: Wanted, dtype: str, told: Counter[str]) -> list[str]:
    """Names of the results that rounding does not explain."""
    names = []
    for name, value in wanted.values.items():
        if value.dtype.kind != "f":
            size = 0.0
        else:
            finite = value[np.isfinite(value)]
            size = float(np.max(np.abs(finite), initial=0.0))
        spread = wanted.spread[name]
        if spread > ILL_CONDITIONED * max(size, 1e-300) and spread > TOLERANCE[dtype]:
            told["ill-conditioned results"] += 1
            continue
        told["results"] += 1
        kind = np.dtype(dtype) if value.dtype.kind == "f" else value.dtype
        allowed = TOLERANCE[dtype] * size + AMPLIFIED * spread
        if found[name].dtype != kind or found[name].shape != value.shape:
            names.append(f"{name}: {found[name].dtype}{found[name].shape} for {kind}{value.shape}")
        elif _distance(found[name], value) > allowed:
            names.append(f"{name}: off by {_distance(found[name], value):.2g} of {size:.2g}, allowed {allowed:.2g}")
    return names


@dataclass(frozen=True)
class Variant:
    """One way to compile a graph."""

    name: str
    dtype: str = "float64"
    options: Options = field(default_factory=Options)
    checked: bool = False
    threads: int = 1


OFF = [name.name for name in fields(Options) if name.type in (bool, "bool")]
BASE = Variant("plain")
SINGLE = Variant("float32", "float32", threads=2)
VARIANTS = (
    Variant("checked", checked=True),
    *(Variant(f"without {name}", options=Options(**{name: False})) for name in OFF),
    Variant("checked float32", "float32", checked=True, threads=2),
    Variant("without anything", options=Options(**dict.fromkeys(OFF, False))),
    *(Variant(f"float32 without {name}", "float32", Options(**{name: False}), threads=2) for name in OFF),
)

EVERY = (BASE, SINGLE, *VARIANTS)


class EngineRaised(Exception):
    """The engine under test raised something; the text says when, with the traceback."""


def disagreement(recipe: Recipe, variant: Variant, told: Counter[str] | None = None) -> str | None:
    """What is wrong with a recipe compiled in one way, or None.

    What is raised here comes from making the graph or from the reference: the fuzzer itself failed.
    """
    try:
        return _compared(recipe, variant, Counter() if told is None else told)
    except EngineRaised as finding:
        return str(finding)


def _compared(recipe: Recipe, variant: Variant, told: Counter[str]) -> str | None:
    graph = build(recipe, variant.dtype)
    wide = build(recipe, "float64") if variant.dtype == "float32" else None
    native = _under_test("compiling", lambda: _native(graph, recipe, variant))
    state: Mapping[str, Array] = {entry.name: entry.variable.data for entry in graph.state}
    for n in recipe.sizes:
        inputs = inputs_of(recipe, n, variant.dtype)
        result, after = _under_test(f"running with n = {n}", partial(native.run, inputs, state))
        found = _flat(result, after)
        wanted = wanted_of(graph, wide, inputs, state, recipe.seed, 2)
        bad = wrong(found, wanted, variant.dtype, told)
        if bad:  # perhaps the effect of rounding was not seen yet
            bad = wrong(found, wanted_of(graph, wide, inputs, state, recipe.seed + 1, 12), variant.dtype, Counter())
        if bad:
            return f"n = {n}: " + "; ".join(bad)
        state = after
        if any(not np.isfinite(v).all() for v in state.values() if v.dtype.kind == "f"):
            break
    return None


def _native(graph: Graph, recipe: Recipe, variant: Variant) -> Native:
    return Native(
        graph,
        batch=recipe.sizes[0] if recipe.symbolic else None,
        options=variant.options,
        checked=variant.checked,
        threads=variant.threads,
    )


def _under_test(what: str, work: Callable[[], T]) -> T:
    """What the engine under test gives.

    Raises:
        EngineRaised: it raised.
    """
    try:
        return work()
    except Exception:  # the engine must raise nothing at all: whatever it is, it is what the fuzzer looks for
        raise EngineRaised(f"{what}: {traceback.format_exc()}") from None


def variants_of(seed: int) -> list[Variant]:
    """The plain one, and another one in turn."""
    return [BASE, EVERY[1 + seed % (len(EVERY) - 1)]]
