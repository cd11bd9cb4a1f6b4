"""The text that stands for a graph in keys of caches: equal for equal computations, and for no others."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
from chainrule.graph.lowering import Elementwise
from chainrule.graph.op import Op, get_op, is_own, no_flops, register
from chainrule.plan.expr import Rules
from tests.ops.harness import trials


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its own for each test."""
    monkeypatch.setattr(op_module, "_REGISTRY", dict(op_module._REGISTRY))


def graph_of(rule: Callable[..., Any], name: str = "users", function: Any = lambda x: x) -> Graph:
    """One op of a user's, with that rule."""
    op_module._REGISTRY.pop(name, None)
    lowering = (Elementwise(rule),)
    op = register(Op(name, function, lambda x: x, np.log, "zero", no_flops, cases=(case((3,)),), lowering=lowering))
    return cr.trace(lambda x: apply(op, as_tensor(x)), cr.input_spec((None,)), name="f")


def scaled(scale: float) -> Callable[..., Any]:
    return lambda k, x: x * scale


@pytest.mark.slow
def test_every_op_of_the_package_has_a_text() -> None:
    texts = set()
    for trial in trials():
        arrays = trial.arrays("float32")
        specs = [Spec(array.shape, array.dtype) for array in arrays]
        call = functools.partial(apply_all, trial.op, **trial.case.attrs)
        graph = cr.trace(lambda *xs, call=call: list(call(*xs)), *specs, name="f")
        assert is_own(trial.op)
        text = canonical_text(graph)
        assert text is not None, trial.name
        texts.add(text)
    assert len(texts) > len({trial.op.name for trial in trials()})


def test_values_that_are_equal_but_not_the_same_count() -> None:
    def text(value: Any) -> str | None:
        return canonical_text(cr.trace(lambda x: x * value, cr.input_spec((None,)), name="f"))

    assert len({text(value) for value in (1.0, 2.0, np.float32(2) ** -149)}) == 3
    assert text(2.0) == text(2.0)


def test_a_user_s_op_has_no_text() -> None:
    assert canonical_text(graph_of(scaled(2.0))) is None
    # Also one that is made of nothing but the package's functions, or that has the name of an op of the package.
    assert canonical_text(graph_of(Rules.log, function=cr.ops.exp)) is None
    assert canonical_text(graph_of(scaled(2.0), name="relu")) is None
    assert not is_own(get_op("relu"))


# --- What the cache does with it -----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAINRULE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_a_step_with_a_user_s_op_is_compiled_each_time(folder: Path) -> None:
    for scale in (2.0, 10.0):
        found = Native(graph_of(scaled(scale)))(np.array([1, 2], np.float32))
        assert found.tolist() == [scale, 2 * scale]
    assert not folder.exists() or not list(folder.iterdir())
    Native(cr.trace(lambda x: x * 2.0, cr.input_spec((None,)), name="f"))(np.array([1, 2], np.float32))
    assert len(list(folder.iterdir())) == 1
