"""Layered layout: where boxes in rows stand, and how the lines between them run.

The method of Sugiyama, Tagawa and Toda (1981): a line that passes a row gets a bend there, so that it never
runs over a box; sweeps over the rows order boxes and bends by the barycentre of their neighbours; each row is
then placed as close to its neighbours as the widths allow, which is an isotonic regression.

A box of the forward pass is read from top to bottom: lines arrive at its upper side and leave at its lower one.
An `upward` box is read from bottom to top, so that a backward pass can climb beside the forward pass.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

__all__ = ["Arrangement", "Box", "Net", "Path", "Point", "Port", "Spacing", "arrange", "longest_paths", "separate"]

Point: TypeAlias = tuple[float, float]
Path: TypeAlias = list[tuple[str, tuple[Point, ...]]]
"""Commands as SVG writes them, with absolute points: M (move), L (line), C (cubic curve)."""

_ORDER_SWEEPS = 12
_PLACE_SWEEPS = 40
_STRAIGHTNESS = (1.0, 2.0, 8.0)  # how hard a piece of a line pulls, by the number of bends that it joins
_TURN_PULL = 0.1  # of a line that turns back to the side it came from, which is never vertical
_SLANT = 0.08  # extra height of a gap for each unit that a line in it runs sideways
_MOST_SLANT = 56.0
_WIDE_TURN = 500.0  # a turn this wide uses the whole height of its gap
_FAN = 14.0  # the distance of lines that arrive at one port
_SAME_POINT = 1e-6
_STRAIGHT = 0.5  # a line that runs sideways less than this is drawn straight


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a row; lanes stand from left to right in every row."""

    width: float
    height: float
    row: int
    lane: float = 0.0
    upward: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """Where a line meets a box, as a distance from the middle of its side."""

    box: int
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Net:
    """The lines from one port to several others, which run together as long as they can.

    The harder a line pulls, the nearer its ends come to standing in one column.
    """

    source: Port
    targets: tuple[Port, ...]
    pull: float = 1.0


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distances between the boxes of a row, lanes, rows, and neighbouring lines."""

    boxes: float
    lanes: float
    rows: float
    lines: float


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The result: the middle of each box, a path for each target of each net, and the size of it all."""

    centres: list[Point]
    paths: list[list[Path]]
    width: float
    height: float


def arrange(boxes: Sequence[Box], nets: Sequence[Net], spacing: Spacing) -> Arrangement:
    """Place boxes and route lines.  The same arguments give the same numbers.

    >>> chain = [Box(40, 20, row=0), Box(40, 20, row=1)]
    >>> arrange(chain, [Net(Port(0), (Port(1),))], Spacing(10, 10, 30, 6)).centres
    [(20.0, 10.0), (20.0, 60.0)]
    """
    wires = _Wires(boxes, nets)
    rows = _ordered_rows(wires, spacing)
    x = _columns(wires, rows, spacing)
    left = min((x[i] - box.width / 2 for i, box in enumerate(wires.boxes)), default=0.0)
    right = max((x[i] + box.width / 2 for i, box in enumerate(wires.boxes)), default=0.0)
    x = [value - left for value in x]
    bands = _Bands(wires, rows, x, spacing)
    centres = [(x[i], bands.middle(box.row)) for i, box in enumerate(boxes)]
    pen = _Pen(wires, bands, x)
    paths = [[pen.path(route) for route in routes] for routes in wires.routes]
    return Arrangement(centres, paths, right - left, bands.height)


def longest_paths(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """The row of each vertex of an acyclic graph whose edges lead from smaller to larger numbers.

    A vertex stands below everything that leads to it; one that is read by as many or more than it reads is
    then drawn down to its first reader, which shortens the lines.

    >>> longest_paths(4, [(0, 1), (1, 3), (2, 3)])
    [0, 1, 1, 2]
    """
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for start, end in edges:
        above[end].append(start)
        below[start].append(end)
    rows = [0] * count
    for vertex in range(count):
        rows[vertex] = max((rows[item] + 1 for item in above[vertex]), default=0)
    for vertex in reversed(range(count)):
        if below[vertex] and len(above[vertex]) <= len(below[vertex]):
            rows[vertex] = min(rows[item] for item in below[vertex]) - 1
    return rows


@dataclass(frozen=True, slots=True)
class _Link:
    """A piece of a line inside one gap; gap g lies below row g."""

    gap: int
    start: Port
    end: Port


class _Wires:
    """Boxes and nets with a bend, which is a box of no size, wherever a line passes a row."""

    def __init__(self, boxes: Sequence[Box], nets: Sequence[Net]) -> None:
        self.boxes = list(boxes)
        self.real = len(boxes)
        self._bends: dict[tuple[int, int], Port] = {}
        self.routes = [[self._route(number, net, target) for target in net.targets] for number, net in enumerate(nets)]
        self.pulls = {
            link: net.pull for net, routes in zip(nets, self.routes, strict=True) for route in routes for link in route
        }
        self.links = list(self.pulls)

    def is_bend(self, port: Port) -> bool:
        return port.box >= self.real

    def hangs_above(self, port: Port, gap: int) -> bool:
        """Whether the port's box stands above the gap rather than below it."""
        return self.boxes[port.box].row == gap

    def chains(self) -> list[list[int]]:
        """The bends of each line in neighbouring rows."""
        between = (link for link in self.links if self.is_bend(link.start) and self.is_bend(link.end))
        after = {link.start.box: link.end.box for link in between}
        inner = set(after.values())
        result = []
        for start in range(self.real, len(self.boxes)):
            if start not in inner:
                chain = [start]
                while chain[-1] in after:
                    chain.append(after[chain[-1]])
                result.append(chain)
        return result

    def crosses(self, link: _Link) -> bool:
        """Whether a link leads from one side of its gap to the other, rather than turning back."""
        return self.hangs_above(link.start, link.gap) != self.hangs_above(link.end, link.gap)

    def upper_first(self, link: _Link) -> tuple[Port, Port]:
        """The ends of a link that crosses its gap."""
        return (link.start, link.end) if self.hangs_above(link.start, link.gap) else (link.end, link.start)

    def _route(self, number: int, net: Net, target: Port) -> tuple[_Link, ...]:
        source_box, target_box = self.boxes[net.source.box], self.boxes[target.box]
        first = source_box.row - source_box.upward
        last = target_box.row - (not target_box.upward)
        down = last > first
        rows = range(first + 1, last + 1) if down else range(first, last, -1)
        lane = (source_box.lane + target_box.lane) / 2
        stops = [net.source, *(self._bend(number, row, lane) for row in rows), target]
        gaps = range(first, last + 1) if down else range(first, last - 1, -1)
        return tuple(_Link(gap, *ends) for gap, ends in zip(gaps, pairwise(stops), strict=True))

    def _bend(self, number: int, row: int, lane: float) -> Port:
        key = (number, row)
        if key not in self._bends:
            self._bends[key] = Port(len(self.boxes))
            self.boxes.append(Box(0.0, 0.0, row, lane))
        return self._bends[key]


def _ordered_rows(wires: _Wires, spacing: Spacing) -> list[list[int]]:
    """The boxes of every row from left to right, with few crossings."""
    count = max((box.row for box in wires.boxes), default=-1) + 1
    rows: list[list[int]] = [[] for _ in range(count)]
    for index in sorted(range(len(wires.boxes)), key=lambda i: wires.boxes[i].lane):
        rows[wires.boxes[index].row].append(index)
    across = [link for link in wires.links if wires.crosses(link)]
    best, fewest = [list(row) for row in rows], _crossings(wires, across, rows, spacing)
    for sweep in range(_ORDER_SWEEPS):
        if fewest == 0:
            break
        _sweep(wires, across, rows, spacing, down=sweep % 2 == 0)
        found = _crossings(wires, across, rows, spacing)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    return best


def _packed(wires: _Wires, row: Sequence[int], spacing: Spacing) -> dict[int, float]:
    """Positions of a row's boxes side by side, around 0."""
    places = list(accumulate(_distances(wires, row, spacing), initial=0.0))
    middle = places[-1] / 2
    return {index: place - middle for index, place in zip(row, places, strict=False)}  # an empty row has no box


def _distances(wires: _Wires, row: Sequence[int], spacing: Spacing) -> list[float]:
    """The least distance of neighbours in a row, from middle to middle."""
    result = []
    for left, right in pairwise(row):
        a, b = wires.boxes[left], wires.boxes[right]
        lines = left >= wires.real and right >= wires.real
        gap = spacing.lanes if a.lane != b.lane and not lines else spacing.lines if lines else spacing.boxes
        result.append((a.width + b.width) / 2 + gap)
    return result


def _sweep(wires: _Wires, links: Sequence[_Link], rows: list[list[int]], spacing: Spacing, *, down: bool) -> None:
    """Sort every row by the mean position of its neighbours in the row before."""
    pulls: dict[int, list[tuple[Port, Port]]] = {}
    for link in links:
        upper, lower = wires.upper_first(link)
        mine, other = (lower, upper) if down else (upper, lower)
        pulls.setdefault(mine.box, []).append((mine, other))
    order = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
    for number in order:
        before = _packed(wires, rows[number - 1 if down else number + 1], spacing)
        here = _packed(wires, rows[number], spacing)
        means = {
            index: _mean([before[other.box] + other.offset - mine.offset for mine, other in pulls.get(index, [])])
            for index in rows[number]
        }
        rows[number].sort(key=lambda i: (wires.boxes[i].lane, here[i] if (m := means[i]) is None else m))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _crossings(wires: _Wires, links: Sequence[_Link], rows: Sequence[Sequence[int]], spacing: Spacing) -> int:
    """How many pairs of lines cross."""
    places: dict[int, float] = {}
    for row in rows:
        places.update(_packed(wires, row, spacing))
    gaps: dict[int, list[Point]] = {}
    for link in links:
        upper, lower = wires.upper_first(link)
        ends = (places[upper.box] + upper.offset, places[lower.box] + lower.offset)
        gaps.setdefault(link.gap, []).append(ends)
    return sum(map(_inversions, gaps.values()))


def _inversions(ends: Iterable[Point]) -> int:
    seen: list[float] = []
    count = 0
    for _, lower in sorted(ends):
        count += len(seen) - bisect_right(seen, lower)
        insort(seen, lower)
    return count


def _columns(wires: _Wires, rows: Sequence[Sequence[int]], spacing: Spacing) -> list[float]:
    """The middle of every box: rows take turns in moving to the mean of their neighbours."""
    x = [0.0] * len(wires.boxes)
    for row in rows:
        for index, place in _packed(wires, row, spacing).items():
            x[index] = place
    pulls = _pulls(wires)
    distances = [_distances(wires, row, spacing) for row in rows]
    for sweep in range(_PLACE_SWEEPS):
        order = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        for number in order:
            wanted = [_wanted(index, x, pulls[index]) for index in rows[number]]
            placed = separate([w for w, _ in wanted], [weight for _, weight in wanted], distances[number])
            for index, place in zip(rows[number], placed, strict=True):
                x[index] = place
    _straighten(wires, rows, x, distances)
    return x


def _straighten(
    wires: _Wires, rows: Sequence[Sequence[int]], x: list[float], distances: Sequence[Sequence[float]]
) -> None:
    """Make lines vertical where nothing stands in the way, the longest first."""
    place_of = {index: (number, place) for number, row in enumerate(rows) for place, index in enumerate(row)}
    for chain in sorted(wires.chains(), key=len, reverse=True):
        lowest, highest = -math.inf, math.inf
        for index in chain:
            number, place = place_of[index]
            if place > 0:
                lowest = max(lowest, x[rows[number][place - 1]] + distances[number][place - 1])
            if place + 1 < len(rows[number]):
                highest = min(highest, x[rows[number][place + 1]] - distances[number][place])
        if lowest <= highest:
            middle = sum(x[index] for index in chain) / len(chain)
            for index in chain:
                x[index] = min(max(middle, lowest), highest)


def _pulls(wires: _Wires) -> list[list[tuple[float, Port, float]]]:
    """For each box: its port's offset, the port at the other end, and how hard that pulls."""
    result: list[list[tuple[float, Port, float]]] = [[] for _ in wires.boxes]
    for link in wires.links:
        bends = wires.is_bend(link.start) + wires.is_bend(link.end)
        weight = wires.pulls[link] * _STRAIGHTNESS[bends] if wires.crosses(link) else _TURN_PULL
        result[link.start.box].append((link.start.offset, link.end, weight))
        result[link.end.box].append((link.end.offset, link.start, weight))
    return result


def _wanted(index: int, x: Sequence[float], pulls: Sequence[tuple[float, Port, float]]) -> tuple[float, float]:
    """Where a box would stand if it were alone in its row, and the weight of that wish."""
    weight = sum(strength for _, _, strength in pulls)
    if not weight:
        return x[index], 0.01
    moment = sum(strength * (x[other.box] + other.offset - offset) for offset, other, strength in pulls)
    return moment / weight, weight


def separate(wanted: Sequence[float], weights: Sequence[float], distances: Sequence[float]) -> list[float]:
    """Positions nearest to the wanted ones (weighted least squares) that keep the order and the distances.

    Pool adjacent violators: neighbours that come too close move as one.

    >>> separate([0.0, 0.0, 50.0], [1.0, 1.0, 1.0], [10.0, 10.0])
    [-5.0, 5.0, 50.0]
    """
    shifts = list(accumulate(distances, initial=0.0))
    blocks: list[tuple[float, float, int]] = []
    for place, weight, shift in zip(wanted, weights, shifts, strict=False):
        mean, mass, size = place - shift, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, other_mass, other_size = blocks.pop()
            mean = (mean * mass + other * other_mass) / (mass + other_mass)
            mass, size = mass + other_mass, size + other_size
        blocks.append((mean, mass, size))
    means = [mean for mean, _, size in blocks for _ in range(size)]
    return [mean + shift for mean, shift in zip(means, shifts, strict=False)]


class _Bands:
    """The heights of rows and of the gaps between them."""

    def __init__(self, wires: _Wires, rows: Sequence[Sequence[int]], x: Sequence[float], spacing: Spacing) -> None:
        heights = [max((wires.boxes[i].height for i in row), default=0.0) for row in rows]
        flat = {number for number, height in enumerate(heights) if not height}
        gaps = [0.0] * (len(rows) + 1)
        for number in range(-1, len(rows)):
            links = [link for link in wires.links if link.gap == number]
            if links or number not in (-1, len(rows) - 1):
                least = spacing.rows / 2 if {number, number + 1} & flat else spacing.rows
                gaps[number + 1] = least + self._slant(links, x)
        self._tops, self._bottoms = [], []
        y = gaps[0] if gaps else 0.0
        for height, gap in zip(heights, gaps[1:], strict=True):
            self._tops.append(y)
            self._bottoms.append(y + height)
            y += height + gap
        self.height = y

    @staticmethod
    def _slant(links: Sequence[_Link], x: Sequence[float]) -> float:
        """What a gap needs beyond the least height, so that no line in it runs too flat."""
        sideways = [abs(x[a.start.box] + a.start.offset - x[a.end.box] - a.end.offset) for a in links]
        return min(_MOST_SLANT, _SLANT * max(sideways, default=0.0))

    def middle(self, row: int) -> float:
        return (self._tops[row] + self._bottoms[row]) / 2

    def border(self, row: int, above_gap: bool) -> float:
        """The edge of a row towards a gap: its lower one if the row stands above the gap."""
        return self._bottoms[row] if above_gap else self._tops[row]

    def depth(self, gap: int) -> float:
        """The height of a gap."""
        upper = self._bottoms[gap] if gap >= 0 else 0.0
        lower = self._tops[gap + 1] if gap + 1 < len(self._tops) else self.height
        return lower - upper


class _Pen:
    """Draws routes: straight through rows, curved in gaps."""

    def __init__(self, wires: _Wires, bands: _Bands, x: Sequence[float]) -> None:
        self._wires, self._bands, self._x = wires, bands, x
        self._fan = self._fanned_ends()

    def _fanned_ends(self) -> dict[_Link, float]:
        """Where lines that end in one port arrive: side by side, in the order they come from."""
        arriving: dict[Port, list[_Link]] = {}
        for link in self._wires.links:
            if not self._wires.is_bend(link.end):
                arriving.setdefault(link.end, []).append(link)
        result: dict[_Link, float] = {}
        for port, links in arriving.items():
            step = min(_FAN, self._wires.boxes[port.box].width / (len(links) + 1))
            links.sort(key=lambda link: self._x[link.start.box] + link.start.offset)
            for place, link in enumerate(links):
                result[link] = (place - (len(links) - 1) / 2) * step
        return result

    def path(self, route: Sequence[_Link]) -> Path:
        """The line of one route."""
        path: Path = [("M", (self._at_side(route[0].start, route[0].gap),))]
        for link in route:
            start = self._at_gap(link.start, link.gap)
            end = self._at_gap(link.end, link.gap, self._fan.get(link, 0.0))
            _draw_line(path, start)
            self._draw_link(path, link, start, end)
        _draw_line(path, self._at_side(route[-1].end, route[-1].gap, self._fan[route[-1]]))
        return path

    def _draw_link(self, path: Path, link: _Link, start: Point, end: Point) -> None:
        if not self._wires.crosses(link):
            depth = self._bands.depth(link.gap)
            path.append(_u_turn(start, end, depth, self._wires.hangs_above(link.start, link.gap)))
        elif abs(start[0] - end[0]) < _STRAIGHT:
            _draw_line(path, end)
        else:
            path.append(_s_curve(start, end))

    def _at_gap(self, port: Port, gap: int, shift: float = 0.0) -> Point:
        """Where a line between a port and the gap crosses the edge of the gap."""
        border = self._bands.border(self._wires.boxes[port.box].row, self._wires.hangs_above(port, gap))
        return self._x[port.box] + port.offset + shift, border

    def _at_side(self, port: Port, gap: int, shift: float = 0.0) -> Point:
        """The port itself, on the side of its box that faces the gap."""
        box = self._wires.boxes[port.box]
        half = box.height / 2 if self._wires.hangs_above(port, gap) else -box.height / 2
        return self._x[port.box] + port.offset + shift, self._bands.middle(box.row) + half


def _draw_line(path: Path, end: Point) -> None:
    if math.dist(path[-1][1][-1], end) > _SAME_POINT:
        path.append(("L", (end,)))


def _s_curve(start: Point, end: Point) -> tuple[str, tuple[Point, ...]]:
    middle = (start[1] + end[1]) / 2
    return "C", ((start[0], middle), (end[0], middle), end)


def _u_turn(start: Point, end: Point, depth: float, hangs_above: bool) -> tuple[str, tuple[Point, ...]]:
    """A line that comes back to the side it came from; wider turns reach deeper into the gap."""
    reach = depth * (0.4 + 0.5 * min(1.0, abs(start[0] - end[0]) / _WIDE_TURN))
    control = start[1] + (reach if hangs_above else -reach) / 0.75  # a cubic reaches 3/4 of its controls
    return "C", ((start[0], control), (end[0], control), end)
