"""The layout by itself: no box on another, no line over a box, and rows as close to their wishes as can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule.graph.drawing.layered import Box, Net, Path, Point, Port, Spacing, arrange, longest_paths, separate

pytestmark = pytest.mark.slow

SPACING = Spacing(boxes=12.0, lanes=30.0, rows=20.0, lines=6.0)


@st.composite
def drawings(draw: st.DrawFn) -> tuple[list[Box], list[Net]]:
    """Boxes in rows and lanes, some read upwards, and nets between any of them."""
    count = draw(st.integers(2, 9))
    boxes = [
        Box(
            width=draw(st.sampled_from([0.0, 20.0, 55.0])),
            height=draw(st.sampled_from([10.0, 40.0])),
            row=draw(st.integers(0, 4)),
            lane=float(draw(st.integers(0, 2))),
            upward=draw(st.booleans()),
        )
        for _ in range(count)
    ]
    ends = st.integers(0, count - 1)
    nets = []
    for _ in range(draw(st.integers(0, 8))):
        source = draw(ends)
        targets = draw(st.lists(ends, max_size=3, unique=True))
        nets.append(Net(Port(source), tuple(Port(target) for target in targets if target != source)))
    return boxes, nets


def points_on(path: Path) -> Iterator[Point]:
    """Points along a path, close together."""
    place = path[0][1][0]
    for command, points in path[1:]:
        assert command in "LC"
        controls = (place, *points) if command == "C" else (place, place, points[0], points[0])
        for t in np.linspace(0, 1, 21):
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            x = sum(w * p[0] for w, p in zip(weights, controls, strict=True))
            y = sum(w * p[1] for w, p in zip(weights, controls, strict=True))
            yield float(x), float(y)
        place = points[-1]


def covers(box: Box, centre: Point, point: Point) -> bool:
    """Whether a point lies inside a box, more than a hair from its edge."""
    away = abs(point[0] - centre[0]) < box.width / 2 - 0.6, abs(point[1] - centre[1]) < box.height / 2 - 0.6
    return all(away)


@given(drawing=drawings())
def test_boxes_of_a_row_keep_their_distance(drawing: tuple[list[Box], list[Net]]) -> None:
    boxes, nets = drawing
    centres = arrange(boxes, nets, SPACING).centres
    for (a, at), (b, bt) in combinations(zip(boxes, centres, strict=True), 2):
        if a.row == b.row:
            assert abs(at[0] - bt[0]) >= (a.width + b.width) / 2 + SPACING.boxes - 1e-6
        else:
            upper, lower = ((a, at), (b, bt)) if a.row < b.row else ((b, bt), (a, at))
            assert upper[1][1] + upper[0].height / 2 < lower[1][1] - lower[0].height / 2


@given(drawing=drawings())
def test_lanes_stand_from_left_to_right(drawing: tuple[list[Box], list[Net]]) -> None:
    boxes, nets = drawing
    centres = arrange(boxes, nets, SPACING).centres
    for (a, at), (b, bt) in combinations(zip(boxes, centres, strict=True), 2):
        if a.row == b.row and a.lane < b.lane:
            assert at[0] < bt[0]


@given(drawing=drawings())
def test_everything_lies_in_the_frame(drawing: tuple[list[Box], list[Net]]) -> None:
    boxes, nets = drawing
    result = arrange(boxes, nets, SPACING)
    for box, (x, y) in zip(boxes, result.centres, strict=True):
        assert -1e-6 <= x - box.width / 2 <= x + box.width / 2 <= result.width + 1e-6
        assert -1e-6 <= y - box.height / 2 <= y + box.height / 2 <= result.height + 1e-6
    for path in (path for paths in result.paths for path in paths):
        for x, y in points_on(path):
            assert -8 <= x <= result.width + 8  # lines fan out where they arrive at a box of no width
            assert -1e-6 <= y <= result.height + 1e-6


@given(drawing=drawings())
def test_no_line_runs_over_a_box(drawing: tuple[list[Box], list[Net]]) -> None:
    boxes, nets = drawing
    result = arrange(boxes, nets, SPACING)
    for path in (path for paths in result.paths for path in paths):
        for point in points_on(path):
            assert not any(covers(box, at, point) for box, at in zip(boxes, result.centres, strict=True))


@given(drawing=drawings())
def test_lines_join_the_right_sides(drawing: tuple[list[Box], list[Net]]) -> None:
    boxes, nets = drawing
    result = arrange(boxes, nets, SPACING)
    for net, paths in zip(nets, result.paths, strict=True):
        for target, path in zip(net.targets, paths, strict=True):
            start, end = path[0][1][0], path[-1][1][-1]
            for port, point, leaving in ((net.source, start, True), (target, end, False)):
                box, (x, y) = boxes[port.box], result.centres[port.box]
                below = leaving != box.upward
                assert point[1] == pytest.approx(y + box.height / 2 if below else y - box.height / 2)
                assert abs(point[0] - x) <= box.width / 2 + 1e-6


@given(drawing=drawings())
def test_the_same_arguments_give_the_same_numbers(drawing: tuple[list[Box], list[Net]]) -> None:
    assert arrange(*drawing, SPACING) == arrange(*drawing, SPACING)


def test_a_chain_is_drawn_straight() -> None:
    boxes = [Box(20.0 + 10 * row, 10.0, row) for row in range(5)]
    nets = [Net(Port(row), (Port(row + 1),)) for row in range(4)]
    result = arrange(boxes, nets, SPACING)
    assert {round(x, 3) for x, _ in result.centres} == {30.0}
    assert all([command for command, _ in path] == ["M", "L"] for paths in result.paths for path in paths)


def test_crossings_that_can_be_avoided_are_avoided() -> None:
    boxes = [Box(20.0, 10.0, row=0)] * 3 + [Box(20.0, 10.0, row=1)] * 3
    nets = [Net(Port(0), (Port(5),)), Net(Port(1), (Port(4),)), Net(Port(2), (Port(3),))]
    x = [at[0] for at in arrange(boxes, nets, SPACING).centres]
    assert np.argsort(x[:3]).tolist() == (2 - np.argsort(x[3:])).tolist()


def test_nothing_is_an_empty_drawing() -> None:
    result = arrange([], [], SPACING)
    assert (result.centres, result.paths, result.width, result.height) == ([], [], 0.0, 0.0)


# --- Parts ------------------------------------------------------------------------------------------


NUMBERS = st.floats(-100, 100)


@given(
    rows=st.lists(st.tuples(NUMBERS, st.floats(0.1, 10), st.floats(0, 20)), min_size=1, max_size=8),
    shifts=st.lists(NUMBERS, min_size=8, max_size=8),
)
def test_separation_is_the_nearest_that_keeps_the_distances(
    rows: Sequence[tuple[float, float, float]], shifts: Sequence[float]
) -> None:
    wanted, weights, gaps = (list(column) for column in zip(*rows, strict=True))
    distances = gaps[1:]

    def cost(places: Sequence[float]) -> float:
        return sum(w * (p - want) ** 2 for w, p, want in zip(weights, places, wanted, strict=True))

    placed = separate(wanted, weights, distances)
    assert all(right - left >= gap - 1e-9 for (left, right), gap in zip(pairwise(placed), distances, strict=True))
    # No other row that keeps the distances is nearer to the wish.
    other = [p + shift for p, shift in zip(placed, shifts, strict=False)]
    for index, gap in enumerate(distances):
        other[index + 1] = max(other[index + 1], other[index] + gap)
    assert cost(placed) <= cost(other) + 1e-6


def test_wishes_that_fit_are_granted() -> None:
    assert separate([0.0, 10.0, 25.0], [1.0, 2.0, 3.0], [10.0, 10.0]) == [0.0, 10.0, 25.0]


@given(edges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda edge: edge[0] < edge[1])))
def test_rows_grow_along_every_edge(edges: list[tuple[int, int]]) -> None:
    rows = longest_paths(10, edges)
    assert all(rows[start] < rows[end] for start, end in edges)
    depths = [0] * 10
    for start, end in sorted(edges, key=lambda edge: edge[1]):
        depths[end] = max(depths[end], depths[start] + 1)
    assert max(rows) == max(depths)
    assert min(rows) == 0


def test_what_is_read_late_stands_late() -> None:
    edges = [(0, 1), (1, 2), (2, 4), (3, 4)]
    assert longest_paths(5, edges) == [0, 1, 2, 2, 3]
