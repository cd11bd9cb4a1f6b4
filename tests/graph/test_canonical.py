"""The text that stands for a graph in keys of caches: equal for equal computations, and for no others."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.engines.native.executable import Executable as Native
from chainrule.graph import Graph, Spec, apply, apply_all, as_tensor
from chainrule.graph import op as op_module
from chainrule.graph.canonical import canonical_text
from chainrule.graph.cases import case
from chainrule.graph.lowering import Composed, Elementwise, Lowering
from chainrule.graph.op import Op, no_flops, register
from tests.ops.harness import trials

SCALE = 2.0
TABLE: dict[str, Any] = {"scale": 2.0}
HELPER: Any = None


@dataclass
class Setting:
    scale: float


SETTING = Setting(2.0)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its own for each test."""
    monkeypatch.setattr(op_module, "_REGISTRY", dict(op_module._REGISTRY))


def users(infer: Callable[..., Any], reference: Callable[..., Any], lowering: tuple[Lowering, ...]) -> Op:
    """An op of a user's; the latest one is registered."""
    op_module._REGISTRY.pop("users", None)
    cases = (case((3,)),)
    return register(Op("users", lambda x: x, infer, reference, "zero", no_flops, cases=cases, lowering=lowering))


def graph_of(
    rule: Callable[..., Any],
    kind: Callable[..., Lowering] = Elementwise,
    infer: Callable[..., Any] = lambda x: x,
    reference: Callable[..., Any] = lambda x: x,
) -> Graph:
    """One op of a user's, with that rule."""
    op = users(infer, reference, (kind(rule),))
    return cr.trace(lambda x: apply(op, as_tensor(x)), cr.input_spec((None,)), name="f")


def text_of(rule: Callable[..., Any], **settings: Any) -> str:
    text = canonical_text(graph_of(rule, **settings))
    assert text is not None
    return text


def closing_over(scale: Any) -> Callable[..., Any]:
    return lambda k, x: x * scale


def nested(scale: float) -> Callable[..., Any]:
    def inner(x: Any) -> Any:
        return x * scale

    return lambda k, x: inner(x)


def by_default(scale: float) -> Callable[..., Any]:
    def rule(k: Any, x: Any, factor: float = scale) -> Any:
        return x * factor

    return rule


def by_keyword(scale: float) -> Callable[..., Any]:
    def rule(k: Any, x: Any, *, factor: float = scale) -> Any:
        return x * factor

    return rule


def partial(scale: float) -> Callable[..., Any]:
    return functools.partial(lambda factor, k, x: x * factor, scale)


def constant(scale: float) -> Callable[..., Any]:
    return (lambda k, x: x * 2.0) if scale == 2.0 else (lambda k, x: x * 3.0)


def other_code(scale: float) -> Callable[..., Any]:
    return (lambda k, x: x * x) if scale == 2.0 else (lambda k, x: x + x)


def in_an_array(scale: float) -> Callable[..., Any]:
    values = np.zeros(5000)
    values[2500] = scale
    return lambda k, x: x * float(values[2500])


def in_containers(scale: float) -> Callable[..., Any]:
    return closing_over({"a": (1, [scale]), "b": frozenset({scale})})


def attribute(scale: float) -> Callable[..., Any]:
    def rule(k: Any, x: Any) -> Any:
        return x * vars_of.scale

    vars_of: Any = rule
    vars_of.scale = scale
    return rule


@pytest.mark.parametrize(
    "make",
    [
        *(closing_over, nested, by_default, by_keyword, partial, constant, other_code),
        *(in_an_array, in_containers, attribute),
    ],
)
def test_a_rule_s_values_count(make: Callable[[float], Callable[..., Any]]) -> None:
    assert text_of(make(2.0)) == text_of(make(2.0))
    assert text_of(make(2.0)) != text_of(make(3.0))


def test_the_numpy_and_shape_rules_count() -> None:
    """They are run where a rule computes with tensors that are no part of the graph."""
    rule = closing_over(2.0)
    texts = [
        text_of(rule, reference=lambda x: x * 2),
        text_of(rule, reference=lambda x: x * 3),
        text_of(rule, infer=lambda x: Spec(x.shape, x.dtype)),
    ]
    assert len(set(texts)) == 3


def test_a_rule_s_globals_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(k: Any, x: Any) -> Any:
        return x * SCALE

    def table(k: Any, x: Any) -> Any:
        return sum(x * TABLE[name] for name in ("scale",))

    def helper(k: Any, x: Any) -> Any:
        return HELPER(k, x)

    monkeypatch.setitem(globals(), "HELPER", closing_over(2.0))
    rules = (plain, table, helper)
    before = [text_of(rule) for rule in rules]
    assert [text_of(rule) for rule in rules] == before
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    monkeypatch.setitem(globals(), "HELPER", closing_over(3.0))
    monkeypatch.setitem(TABLE, "scale", 3.0)
    assert all(text_of(rule) != text for rule, text in zip(rules, before, strict=True))


def test_an_op_that_a_rule_is_composed_of_counts() -> None:
    def composed(scale: float) -> Callable[..., Any]:
        inner = graph_of(closing_over(scale)).nodes[-1].op
        return lambda x: apply(inner, x)

    assert text_of(composed(2.0), kind=Composed) == text_of(composed(2.0), kind=Composed)
    assert text_of(composed(2.0), kind=Composed) != text_of(composed(3.0), kind=Composed)


def test_what_stands_in_modules_that_never_change_goes_by_its_name() -> None:
    def rule(k: Any, x: Any) -> Any:
        return x * math.pi * float(np.sqrt(2.0)) * float(np.sum(np.float32(2)))

    assert "numpy" in text_of(rule)
    assert text_of(closing_over(np.sum)) != text_of(closing_over(np.prod))
    assert text_of(closing_over(math.sin)) != text_of(closing_over(math.cos))


def test_rules_that_call_one_another() -> None:
    def rule(k: Any, x: Any, depth: int = 2) -> Any:
        return rule(k, x, depth - 1) if depth else x

    assert text_of(rule)


def by_object(k: Any, x: Any) -> Any:
    return x * SETTING.scale


def by_import(k: Any, x: Any) -> Any:
    import os

    return x * float(os.environ["SCALE"])


def by_file(k: Any, x: Any) -> Any:
    with open("scale") as file:
        return x * float(file.read())


def by_name(k: Any, x: Any) -> Any:
    return x * globals()["SCALE"]


class Pair(tuple[float, ...]):
    """May do anything."""


class Rule:
    def __call__(self, k: Any, x: Any) -> Any:
        return x


def unset() -> Callable[..., Any]:
    def rule(k: Any, x: Any) -> Any:
        return x * later

    if not SCALE:
        later = 3.0
    return rule


@pytest.mark.parametrize(
    "rule",
    [
        *(by_object, by_import, by_file, by_name, Rule(), unset(), closing_over(SETTING), closing_over(Setting)),
        *(
            closing_over(np.random.default_rng(0).random),
            closing_over(np.frompyfunc(abs, 1, 1)),
            closing_over({Rule()}),
            closing_over(Pair((2.0, 3.0))),
            closing_over(eval),
        ),
    ],
)
def test_a_rule_that_reads_what_nobody_can_name_has_no_text(rule: Callable[..., Any]) -> None:
    assert canonical_text(graph_of(rule)) is None


def test_attributes_of_an_op_count_in_full() -> None:
    def text(value: Any) -> str | None:
        op = users(lambda x, value: x, lambda x, value: x, ())
        graph = cr.trace(lambda x: apply(op, as_tensor(x), value=value), cr.input_spec((None,)), name="f")
        return canonical_text(graph)

    values = [(*range(5000), last) for last in (1, 2)]
    functions = [closing_over(2.0), closing_over(3.0)]
    assert text(values[0]) == text((*range(5000), 1))
    assert len({text(value) for value in (*values, *functions, 1, 1.0, True, "1")}) == 8
    assert text(functions[0]) is not None
    assert text(Rule()) is None


def test_every_op_of_the_package_has_a_text() -> None:
    for trial in trials():
        arrays = trial.arrays("float32")
        specs = [Spec(array.shape, array.dtype) for array in arrays]
        call = functools.partial(apply_all, trial.op, **trial.case.attrs)
        graph = cr.trace(lambda *xs, call=call: list(call(*xs)), *specs, name="f")
        text = canonical_text(graph)
        assert text is not None, trial.name
        assert f"Op {trial.op.name}" in text


# --- What the cache does with it -----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAINRULE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def result(rule: Callable[..., Any]) -> list[float]:
    found: list[float] = Native(graph_of(rule))(np.array([1, 2], np.float32)).tolist()
    return found


def test_another_value_finds_no_old_code(folder: Path) -> None:
    assert result(closing_over(2.0)) == [2, 4]
    assert result(closing_over(10.0)) == [10, 20]
    assert result(closing_over(2.0)) == [2, 4]
    assert len(list(folder.iterdir())) == 2


def test_a_step_without_a_text_is_compiled_each_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert result(by_object) == [2, 4]
    monkeypatch.setattr(SETTING, "scale", 10.0)
    assert result(by_object) == [10, 20]
    assert not list(folder.iterdir())
