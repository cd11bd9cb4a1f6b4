"""Nests cut where a guard changes, and expressions that stay in proportion to the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule import ops
from chainrule.engines import Executable as Reference
from chainrule.engines.native.contractions import Generator
from chainrule.engines.native.executable import Executable as Native
from chainrule.graph import Graph, input_spec
from chainrule.ops.conv import conv2d_kernel_grad
from chainrule.plan.build import build_plan
from chainrule.plan.expr import walk
from chainrule.plan.nest import Nest, axis_size
from chainrule.plan.pieces import MOST_GROWTH, Piece, pieces
from chainrule.plan.plan import Plan

pytestmark = pytest.mark.usefixtures("no_cache")


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE", "off")


def traced(function: Callable[..., Any], *shapes: tuple[int | None, ...]) -> Graph:
    return cr.trace(function, *(input_spec(shape) for shape in shapes), name="f")


def planned(function: Callable[..., Any], *shapes: tuple[int | None, ...]) -> Plan:
    return build_plan(traced(function, *shapes), Generator(8), 4)


def assert_engines_agree(graph: Graph, *arrays: np.ndarray[Any, Any]) -> None:
    expected = Reference(graph)(*arrays)
    for checked in (False, True):
        np.testing.assert_allclose(Native(graph, checked=checked)(*arrays), expected, rtol=1e-5, atol=1e-5)


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.Generator(np.random.PCG64(7)).normal(size=shape).astype(np.float32)


# --- Pieces ------------------------------------------------------------------------------------------------


def test_each_part_of_a_concatenation_is_read_without_a_choice() -> None:
    plan = planned(lambda x, y, z: ops.concat([x, y, z], axis=-1), (None, 5, 3), (None, 5, 4), (None, 5, 1))
    (kernel,) = plan.kernels
    assert isinstance(kernel.body, Nest)
    assert any(node.op == "guard" for node in walk(*kernel.body.roots()))
    found = pieces(kernel.body)
    assert [axis_size(piece.nest.axes[-1]) for piece in found] == [3, 4, 1]
    for piece, name in zip(found, "xyz", strict=True):
        nodes = list(walk(*piece.nest.roots()))
        assert not any(node.op == "guard" for node in nodes)
        assert {node.attr.name for node in nodes if node.op == "load"} == {f"input:{name}"}


def test_a_first_axis_is_cut_inside_units() -> None:
    plan = planned(lambda x, y: ops.concat([x, y], axis=0) * 2.0, (70000,), (30000,))
    (kernel,) = plan.kernels
    assert isinstance(kernel.body, Nest)
    assert kernel.units(4) > 1
    assert [(piece.start, piece.size) for piece in pieces(kernel.body)] == [(0, 70000), (70000, 30000)]


@pytest.mark.parametrize(("first", "second"), [(50001, 33333), (70001, 13), (13, 70001)])
@pytest.mark.slow
def test_units_beside_a_cut_touch_nothing_of_the_other_piece(first: int, second: int) -> None:
    """Also those whose ends are no whole number of vectors, and which lie wholly in one piece."""
    graph = traced(lambda x, y: ops.concat([x, y], axis=0) * 2.0, (first,), (second,))
    assert_engines_agree(graph, normal(first), normal(second))


def test_bound_axes_stay_whole() -> None:
    plan = planned(lambda x: ops.pad(x, ((1, 1), (2, 0))), (5, 6))
    (kernel,) = plan.kernels
    assert isinstance(kernel.body, Nest)
    assert len(pieces(kernel.body)) == 4  # left and right; of the right, above, inside and below
    assert len(pieces(kernel.body, fixed=1)) == 2
    assert len(pieces(kernel.body, fixed=2)) == 1


def test_pieces_are_not_more_code_than_they_save() -> None:
    def function(x: Any) -> Any:
        y = x
        for axis in range(3):
            y = ops.pad(ops.tanh(y * y + 1.0), tuple((1, 1) if i == axis else (0, 0) for i in range(4)))
        return y

    (kernel,) = [k for k in planned(function, (5, 6, 7, 3)).kernels if k.name.startswith("pad")][-1:]
    assert isinstance(kernel.body, Nest)
    found = pieces(kernel.body)
    assert size(*found) <= MOST_GROWTH * len(list(walk(*kernel.body.roots())))


def size(*found: Piece) -> int:
    return sum(len(list(walk(*piece.nest.roots()))) for piece in found)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_cut_nests_compute_what_the_reference_does(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, 9)) for _ in range(rank))
    axis = data.draw(st.integers(0, rank - 1))
    widths = tuple((data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))) for _ in range(rank))
    repeats = data.draw(st.integers(1, 4))

    def function(x: Any) -> Any:
        padded = ops.pad(x, widths)
        return ops.concat([padded * float(i + 1) for i in range(repeats)], axis=axis) - 1.0

    assert_engines_agree(traced(function, shape), normal(*shape))


@pytest.mark.slow
def test_a_long_concatenation() -> None:
    graph = traced(lambda x: ops.concat([ops.relu(x * float(i)) for i in range(150)], axis=1), (None, 3))
    assert_engines_agree(graph, normal(4, 3))


# --- Proportion --------------------------------------------------------------------------------------------


def running_sum(levels: int) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        for level in range(levels):
            x = x + ops.pad(x[:, : -(2**level)], ((0, 0), (2**level, 0)))
        return x

    return function


def expressions(plan: Plan) -> int:
    return sum(len(list(walk(*k.body.roots()))) for k in plan.kernels if isinstance(k.body, Nest))


def test_a_chain_that_reads_at_two_places_does_not_double_at_every_link() -> None:
    few, many = (expressions(planned(running_sum(levels), (None, 1024))) for levels in (4, 8))
    assert many < 4 * few


@pytest.mark.slow
def test_a_running_sum_by_doubling() -> None:
    assert_engines_agree(traced(running_sum(5), (None, 40)), np.abs(normal(3, 40)))


# --- Products and the nests beside them --------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.slow
def test_two_convolutions_that_meet_in_one_nest(pooled: bool) -> None:
    def function(x: Any, a: Any, b: Any) -> Any:
        total = ops.relu(ops.conv2d(x, a, padding="same") + ops.conv2d(x, b))
        return ops.max_pool2d(total, 2) if pooled else total

    graph = traced(function, (None, 8, 8, 3), (3, 3, 3, 8), (1, 1, 3, 8))
    assert_engines_agree(graph, normal(5, 8, 8, 3), normal(3, 3, 3, 8), normal(1, 1, 3, 8))


@pytest.mark.slow
def test_a_map_behind_a_pool_is_not_taken_for_the_gradient() -> None:
    """As in a second-order gradient: the kernel gradient's map lies behind a max-pool, and all sizes agree."""

    def function(p: Any, g: Any, z: Any) -> Any:
        (placed,) = cr.gradients(ops.sum(ops.max_pool2d(p, 2) * g), [p])
        return conv2d_kernel_grad(placed, z, (3, 3, 8, 8), pads=((1, 1), (1, 1)))

    graph = traced(function, (None, 8, 8, 8), (None, 4, 4, 8), (None, 8, 8, 8))
    assert_engines_agree(graph, normal(2, 8, 8, 8), normal(2, 4, 4, 8), normal(2, 8, 8, 8))


@pytest.mark.slow
def test_a_place_before_the_first_element_stops_nothing() -> None:
    """Windows before the first one are met under a guard that fails, also where N is among the inner sizes."""

    def function(x: Any) -> Any:
        loss = ops.sum(ops.max(ops.max_pool2d(x, 3, 2), axis=(0, 2), keepdims=True))
        return cr.gradients(loss, [x])[0]

    assert_engines_agree(traced(function, (None, 8, 4, 4)), normal(3, 8, 4, 4))


@pytest.mark.parametrize("start", [1, 3, 5, 8, 32])
@pytest.mark.slow
def test_what_repeats_beside_a_cut_is_read_where_it_lies(start: int) -> None:
    """Units of a piece begin where vectors do not: an index that repeats is then no whole vector's."""

    def padded(b: Any, c: Any) -> Any:
        return ops.pad(ops.reshape(b * c, (-1,)), ((start, 0),))

    assert_engines_agree(traced(padded, (1024, 64), (64,)), normal(1024, 64), normal(64))
