"""Nests that compute the same of different storages share one function; others do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops
from chainrule.engines import Executable as Reference
from chainrule.engines.native.contractions import Generator
from chainrule.engines.native.emit import emit_plan
from chainrule.engines.native.executable import Executable as Native
from chainrule.engines.native.jit import host_target
from chainrule.engines.native.nests import likeness
from chainrule.engines.native.platform import host
from chainrule.graph import Graph, input_spec
from chainrule.plan.build import build_plan
from chainrule.plan.nest import Nest
from chainrule.plan.plan import Plan
from tests.engines.native.support import rng

pytestmark = pytest.mark.usefixtures("no_cache")

Shape = tuple[int | None, ...]


def traced(functions: list[Callable[[Any], Any]], shapes: list[Shape]) -> Graph:
    """Each function of an input of its own."""
    return cr.trace(
        lambda *inputs: [function(x) for function, x in zip(functions, inputs, strict=True)],
        *(input_spec(shape) for shape in shapes),
        name="f",
    )


def planned(functions: list[Callable[[Any], Any]], shapes: list[Shape]) -> Plan:
    return build_plan(traced(functions, shapes), Generator(8), 4)


def common_functions(functions: list[Callable[[Any], Any]], shapes: list[Shape], *, checked: bool = False) -> int:
    """How many functions the module has that several nests call."""
    plan = planned(functions, shapes)
    text, _ = emit_plan(plan, Generator(8), host_target(), host(), checked=checked)
    return sum(line.startswith("define") and "@shared.nest" in line for line in text.splitlines())


def curve(x: Any) -> Any:
    return ops.tanh(x * 0.5) + x


def other_curve(x: Any) -> Any:
    return ops.tanh(x * 0.25) + x


@pytest.mark.parametrize(
    ("functions", "shapes", "expected"),
    [
        ([curve, curve, curve], [(64,), (640,), (1280,)], 1),
        ([curve, curve], [(64,), (65,)], 0),  # one has a scalar tail
        ([curve, curve], [(61,), (65,)], 1),
        ([curve, curve], [(None, 8), (None, 16)], 1),
        ([curve, other_curve], [(64,), (640,)], 0),
        ([curve, other_curve, other_curve, curve], [(64,), (640,), (64,), (640,)], 2),
        ([curve], [(64,)], 0),
        ([lambda x: x * 0.0, lambda x: x * -0.0], [(64,), (640,)], 0),
        ([lambda x: ops.concat([x, x * 2], axis=-1)] * 2, [(3, 8), (5, 8)], 0),  # a guard
        ([lambda x: ops.sum(x, axis=-1)] * 2, [(8, 40), (16, 40)], 0),  # a fold
    ],
    ids=["sizes", "tail and no tail", "tails", "batch", "constants", "two", "alone", "zeros", "guard", "fold"],
)
def test_the_same_loops_are_written_once(
    functions: list[Callable[[Any], Any]], shapes: list[Shape], expected: int
) -> None:
    assert common_functions(functions, shapes) == expected
    graph = traced(functions, shapes)
    arrays = [rng(i).normal(size=[n or 3 for n in shape]).astype(np.float32) for i, shape in enumerate(shapes)]
    for found, wanted in zip(Native(graph, batch=4)(*arrays), Reference(graph)(*arrays), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


def test_a_checked_build_keeps_them_apart_so_that_it_can_name_the_op() -> None:
    assert common_functions([curve, curve], [(64,), (640,)], checked=True) == 0


def test_inner_axes_and_dtypes_tell_nests_apart() -> None:
    def some_columns(x: Any) -> Any:
        return x[:, :8] * 2

    assert common_functions([some_columns, some_columns], [(16, 24), (40, 24)]) == 1
    assert common_functions([some_columns, some_columns], [(16, 24), (16, 32)]) == 0

    def step(x: Any, y: Any) -> Any:
        return [x * 2, y * 2]

    graph = cr.trace(step, input_spec((64,), "float32"), input_spec((64,), "float64"), name="f")
    nests = [kernel.body for kernel in build_plan(graph, Generator(8), 4).kernels if isinstance(kernel.body, Nest)]
    first, second = (likeness(nest, 8) for nest in nests)
    assert first is not None
    assert second is not None
    assert first != second
    assert likeness(nests[0], 8) == first
