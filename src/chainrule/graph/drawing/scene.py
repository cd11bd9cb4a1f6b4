"""What a drawing of a graph holds, and where it stands.

Nodes become items in groups, one group for each layer and pass.  Each group is laid out by itself, then the
groups are; a line between groups leaves one through a port and enters the other through a port.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from chainrule.graph.dims import format_shape
from chainrule.graph.drawing.layered import Arrangement, Box, Net, Path, Point, Port, Spacing, arrange, longest_paths
from chainrule.graph.graph import CONSTANT, Graph
from chainrule.graph.op import Spec
from chainrule.graph.show import PASSES, Names, format_flops, is_leaf, is_scalar, total_flops
from chainrule.graph.tensor import Node, Tensor

__all__ = [
    "CYLINDER_RIM",
    "LINE_HEIGHT",
    "Group",
    "Item",
    "Kind",
    "Picture",
    "Scene",
    "group_title",
    "item_size",
    "lay_out",
    "shortened",
    "text_width",
]

Kind: TypeAlias = Literal["op", "input", "state", "constant", "outside", "output", "written"]

LINE_HEIGHT = 14.0
CYLINDER_RIM = 5.0
_INSIDE = Spacing(boxes=18.0, lanes=18.0, rows=24.0, lines=10.0)
_OUTSIDE = Spacing(boxes=28.0, lanes=56.0, rows=36.0, lines=9.0)
_FLOW_PULL = 4.0
_PADDING = 14.0
_LABEL_HEIGHT = 20.0
_LONGEST_TEXT = 40
_LISTED_VALUES = 4  # of those a layer reads, in the drawing by layers
_LISTED_OPS = 6
_LISTED_SHAPES = 2


# --- What is drawn ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Item:
    """A shape of the picture: an op, a whole layer, or a value that comes in or goes out."""

    kind: Kind
    lines: Sequence[str]
    tip: str
    group: int
    sources: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """The nodes of one layer in one pass."""

    layer: str
    phase: str
    nodes: list[Node] = field(default_factory=list)
    readers: set[int] = field(default_factory=set)


class Scene:
    """The shapes to draw, in groups, each shape after those of its group that it reads."""

    def __init__(self, graph: Graph, shown: Sequence[Node], by: str) -> None:
        self.by = by
        self.names = Names(graph)
        self.groups, self.group_of = _grouped(shown, split=by == "node")
        self.common = _common_dtype(shown)
        self.items: list[Item] = []
        self._graph = graph
        self._whole = len(shown) == sum(not is_leaf(node) for node in graph.nodes)
        self._states = {entry.before.key for entry in graph.state}
        self._item_of: dict[int, int] = {}
        self._leaf_of: dict[tuple[int, str], int] = {}
        if by == "node":
            self._add_nodes(shown)
        else:
            self._add_layers()
        self._add_results()

    def spec(self, spec: Spec) -> str:
        """A spec without the dtype that most of the graph has."""
        return format_shape(spec.shape) if spec.dtype.name == self.common else repr(spec)

    def _add(self, item: Item) -> int:
        self.items.append(item)
        return len(self.items) - 1

    def _add_nodes(self, shown: Sequence[Node]) -> None:
        for node in shown:
            group = self.group_of[node.id]
            sources = [self._source(item, group) for item in node.inputs if not _is_inlined(item)]
            lines = [self._title(node), *map(self.spec, node.specs)]
            item = Item("op", lines, self._tip(node), group, list(dict.fromkeys(sources)))
            self._item_of[node.id] = self._add(item)

    def _title(self, node: Node) -> str:
        if not any(_is_inlined(item) for item in node.inputs):
            return node.op.name
        arguments = ", ".join(self.names.value(item) if _is_inlined(item) else "·" for item in node.inputs)
        return f"{node.op.name}({arguments})"

    def _tip(self, node: Node) -> str:
        arguments = ", ".join(map(self.names.value, node.inputs))
        place = " ".join(filter(None, [node.provenance.layer, node.provenance.phase]))
        return f"{self.names.node(node)} = {node.op.name}({arguments}): {place}, {format_flops(node.flops())} FLOPs"

    def _source(self, value: Tensor, group: int) -> int:
        """The item that a value comes from; inputs and variables are drawn again in every group."""
        assert value.node is not None
        if value.node.id in self._item_of:
            return self._item_of[value.node.id]
        key = (group, self.names.node(value.node))
        if key not in self._leaf_of:
            self._leaf_of[key] = self._add(self._leaf(value, group))
        return self._leaf_of[key]

    def _leaf(self, value: Tensor, group: int) -> Item:
        assert value.node is not None
        name = self.names.value(value)
        return Item(self._kind(value), [self._called(value), self.spec(value.spec)], f"{name}: {value.spec}", group)

    def _called(self, value: Tensor) -> str:
        """A value's name, with its op if that is not drawn."""
        assert value.node is not None
        name = self.names.value(value)
        return name if is_leaf(value.node) else f"{name} {value.node.op.name}"

    def _kind(self, value: Tensor) -> Kind:
        assert value.node is not None
        if not is_leaf(value.node):
            return "outside"
        if value.node.op is CONSTANT:
            return "constant"
        return "state" if value.key in self._states else "input"

    def _add_layers(self) -> None:
        for number, group in enumerate(self.groups):
            sources = self._collapsed_leaves(number, group)
            item = Item("op", self._layer_lines(group), group_title(group), number, sources)
            place = self._add(item)
            self._item_of.update({node.id: place for node in group.nodes})
        for group in self.groups:
            place = self._item_of[group.nodes[0].id]
            read = [item.node.id for node in group.nodes for item in node.inputs if item.node is not None]
            others = [self._item_of[node_id] for node_id in read if node_id in self._item_of]
            self.items[place].sources += [other for other in dict.fromkeys(others) if other != place]

    def _collapsed_leaves(self, number: int, group: Group) -> list[int]:
        """One item for all inputs that a layer reads, one for its variables, and so on."""
        found: dict[Kind, dict[str, Tensor]] = {}
        for node in group.nodes:
            for value in node.inputs:
                assert value.node is not None
                if value.node.id not in self.group_of and not _is_inlined(value):
                    found.setdefault(self._kind(value), {})[self._called(value)] = value
        return [self._add(self._collapsed(kind, values, number)) for kind, values in found.items()]

    def _collapsed(self, kind: Kind, values: Mapping[str, Tensor], number: int) -> Item:
        prefix = f"{self.groups[number].layer}/"
        lines = [f"{name.removeprefix(prefix)} {self.spec(value.spec)}" for name, value in values.items()]
        if len(lines) > _LISTED_VALUES:
            hidden = len(lines) - _LISTED_VALUES + 1
            lines = [*lines[: _LISTED_VALUES - 1], f"and {hidden} more"]
        return Item(kind, lines, ", ".join(values), number)

    def _layer_lines(self, group: Group) -> list[str]:
        counts = Counter(node.op.name for node in group.nodes)
        listed = [name if count == 1 else f"{name} ×{count}" for name, count in counts.items()]
        if len(listed) > _LISTED_OPS:
            listed = [*listed[: _LISTED_OPS - 1], f"and {len(listed) - _LISTED_OPS + 1} more"]
        lines = [group.layer or group.phase, *_wrapped(listed)]
        shapes = self._leaving(group)
        if shapes:
            more = f", +{len(shapes) - _LISTED_SHAPES}" if len(shapes) > _LISTED_SHAPES else ""
            lines.append(f"→ {', '.join(shapes[:_LISTED_SHAPES])}{more}")
        total = total_flops(group.nodes)
        return [*lines, f"{format_flops(total)} FLOPs"] if total != 0 else lines

    def _leaving(self, group: Group) -> list[str]:
        """The shapes that the next layers of the same pass get from a layer, or, if there are none, any reader."""
        inside = {node.id for node in group.nodes}
        values: dict[bool, dict[object, Tensor]] = {True: {}, False: {}}
        for node in self._graph.nodes:
            for item in node.inputs:
                if node.id not in inside and item.node is not None and item.node.id in inside:
                    values[node.provenance.phase == group.phase][item.key] = item
        return [self.spec(item.spec) for item in (values[True] or values[False]).values()]

    def _add_results(self) -> None:
        """The outputs and the new values of variables, each below what makes it."""
        results: list[tuple[Kind, str, Tensor]] = [("output", name, item) for name, item in self._graph.outputs.items()]
        changed = (entry for entry in self._graph.state if entry.changes)
        results.extend(("written", self.names.value(entry.before), entry.after) for entry in changed)
        found: dict[tuple[int, Kind], dict[str, Tensor]] = {}
        for kind, name, value in results:
            assert value.node is not None
            if value.node.id in self._item_of or self._whole:
                found.setdefault((self._maker(value), kind), {})[name] = value
        for (maker, kind), values in found.items():
            self._add_result(maker, kind, values)

    def _maker(self, value: Tensor) -> int:
        assert value.node is not None
        if value.node.id in self._item_of:
            return self._item_of[value.node.id]
        if not self.groups:
            self.groups.append(Group("", "forward"))
        return self._source(value, 0)

    def _add_result(self, maker: int, kind: Kind, values: Mapping[str, Tensor]) -> None:
        group = self.items[maker].group
        if self.by == "layer":
            item = self._collapsed(kind, values, group)
            item.sources = [maker]
            self._add(item)
            return
        for name, value in values.items():
            self._add(Item(kind, [name, self.spec(value.spec)], f"{name}: {value.spec}", group, [maker]))


def _is_inlined(item: Tensor) -> bool:
    return item.node is not None and is_scalar(item.node)


def _common_dtype(shown: Sequence[Node]) -> str:
    counts = Counter(spec.dtype.name for node in shown for spec in node.specs if spec.is_float)
    return counts.most_common(1)[0][0] if counts else "float32"


def _wrapped(words: Sequence[str], width: int = 28) -> list[str]:
    """Words joined by commas, in lines."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 2 > width:
            lines[-1] += ","
            lines.append(word)
        else:
            lines[-1] += f", {word}"
    return lines


def _grouped(shown: Sequence[Node], *, split: bool) -> tuple[list[Group], dict[int, int]]:
    """Nodes by layer and pass; with `split`, in as many groups as it takes for none to lead back to itself."""
    groups: list[Group] = []
    latest: dict[tuple[str, str], int] = {}
    group_of: dict[int, int] = {}
    for node in shown:
        key = (node.provenance.layer, node.provenance.phase)
        read = {group_of[t.node.id] for t in node.inputs if t.node is not None and t.node.id in group_of}
        number = latest.get(key)
        if number is None or (split and _reaches(groups, number, read - {number})):
            number = latest[key] = len(groups)
            groups.append(Group(*key))
        groups[number].nodes.append(node)
        group_of[node.id] = number
        for other in read - {number}:
            groups[other].readers.add(number)
    return groups, group_of


def _reaches(groups: Sequence[Group], start: int, ends: set[int]) -> bool:
    pending, seen = [start], {start}
    while pending:
        fresh = groups[pending.pop()].readers - seen
        seen |= fresh
        pending.extend(fresh)
    return not seen.isdisjoint(ends)


def group_title(group: Group) -> str:
    """What a group's frame is labelled with."""
    return f"{group.layer}, {group.phase}" if group.layer else group.phase


# --- Where it stands -------------------------------------------------------------------------------


def text_width(text: str, size: float) -> float:
    """A generous guess, since the reader's font is unknown; Chinese characters are square."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return size * (0.6 * (len(text) - wide) + 1.05 * wide)


def shortened(text: str) -> str:
    """A text that fits a box."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def item_size(item: Item) -> Point:
    """Width and height of an item's shape."""
    widths = [text_width(shortened(line), 11.5 if number else 13.0) for number, line in enumerate(item.lines)]
    slack = 34.0 if item.kind in ("input", "output", "constant") else 20.0
    rim = 2 * CYLINDER_RIM if item.kind in ("state", "written") else 0.0
    return max(36.0, *widths) + slack, LINE_HEIGHT * len(item.lines) + 10.0 + rim


@dataclass(frozen=True, slots=True)
class _Block:
    """A group laid out inside: points from its upper left corner, ports by the item that they carry."""

    size: Point
    places: dict[int, Point]
    entries: dict[int, Point]
    exits: dict[int, Point]
    paths: dict[tuple[int, int], Path]
    ways_out: dict[int, Path]


@dataclass(frozen=True, slots=True)
class Picture:
    """Where everything stands: the middle of each item, the corner of each group, the lines, and from where
    (in x) an item's line comes into a group.
    """

    size: Point
    centres: list[Point]
    corners: list[Point]
    blocks: list[_Block]
    paths: dict[tuple[int, int], Path]
    arrivals: dict[tuple[int, int], float]


def lay_out(scene: Scene) -> Picture:
    """Lay a scene out, and once more with ports in the order in which the first layout's lines arrive."""
    first = _laid_out(scene, {})
    return _laid_out(scene, first.arrivals)


def _laid_out(scene: Scene, arrivals: Mapping[tuple[int, int], float]) -> Picture:
    rows, folded = _group_rows(scene.groups)
    upward = [folded and group.phase == "backward" for group in scene.groups]
    readers = _readers(scene.items)
    blocks = [_block(scene, number, readers, arrivals, upward=flag) for number, flag in enumerate(upward)]
    boxes = [
        Box(*block.size, row=row, lane=2.0 * PASSES.index(group.phase) if folded else 0.0, upward=flag)
        for block, row, group, flag in zip(blocks, rows, scene.groups, upward, strict=True)
    ]
    away = {source: [g for g in found if g != scene.items[source].group] for source, found in readers.items()}
    lines = {source: groups for source, groups in away.items() if groups}
    nets = []
    for source, targets in lines.items():
        group = scene.items[source].group
        ports = (Port(target, _offset(blocks[target], blocks[target].entries[source])) for target in targets)
        port = Port(group, _offset(blocks[group], blocks[group].exits[source]))
        nets.append(Net(port, tuple(ports), _pull(scene.items[source])))
    return _composed(scene, blocks, lines, arrange(boxes, nets, _OUTSIDE))


def _pull(item: Item) -> float:
    """What ops compute flows straight; inputs and variables come in from the side."""
    return _FLOW_PULL if item.kind == "op" else 1.0


def _offset(block: _Block, port: Point) -> float:
    return port[0] - block.size[0] / 2


def _readers(items: Sequence[Item]) -> dict[int, dict[int, list[int]]]:
    """For each item that is read: its readers by their groups."""
    result: dict[int, dict[int, list[int]]] = {}
    for number, item in enumerate(items):
        for source in item.sources:
            result.setdefault(source, {}).setdefault(item.group, []).append(number)
    return dict(sorted(result.items()))


def _group_rows(groups: Sequence[Group]) -> tuple[list[int], bool]:
    """The row of each group, and whether the backward pass climbs beside the forward pass."""
    read: list[list[int]] = [[] for _ in groups]
    for number, group in enumerate(groups):
        for reader in sorted(group.readers):
            read[reader].append(number)
    members = {phase: [i for i, group in enumerate(groups) if group.phase == phase] for phase in PASSES}
    if not members["forward"] or not members["backward"]:
        return _depths(read, range(len(groups))), False
    depths = _depths(read, members["forward"])
    rows = {number: depths[number] for number in members["forward"]}
    below = max(rows.values()) + 1
    _climb(groups, read, members["backward"], rows)
    depths = _depths(read, members["update"])
    rows.update({number: below + depths[number] for number in members["update"]})
    return [rows[number] for number in range(len(groups))], True


def _depths(read: Sequence[Sequence[int]], members: Iterable[int]) -> list[int]:
    """How many members lie on the longest path to each group; a group read before it is made counts nothing."""
    counted = set(members)
    depths: list[int] = []
    for number, sources in enumerate(read):
        above = max((depths[source] for source in sources if source < number), default=-1)
        depths.append(above + 1 if number in counted else above)
    return depths


def _climb(
    groups: Sequence[Group], read: Sequence[Sequence[int]], backward: Iterable[int], rows: dict[int, int]
) -> None:
    """Put each backward group beside the forward part of its layer, or else above what it reads."""
    lowest = max(rows.values())
    for number in backward:
        twins = [i for i in rows if groups[i].layer == groups[number].layer and groups[i].phase == "forward"]
        above = [rows[i] - 1 for i in read[number] if i in rows and groups[i].phase == "backward"]
        beside = [rows[i] for i in twins if i in read[number]] or [rows[i] for i in twins]
        rows[number] = max(beside) if beside else max(0, min(above, default=lowest))


def _block(
    scene: Scene,
    number: int,
    readers: Mapping[int, Mapping[int, list[int]]],
    arrivals: Mapping[tuple[int, int], float],
    *,
    upward: bool,
) -> _Block:
    """Lay out one group, with a port above for each item that comes in and one below for each that leaves."""
    members = [i for i, item in enumerate(scene.items) if item.group == number]
    local = {member: place for place, member in enumerate(members)}
    coming = list(dict.fromkeys(s for member in members for s in scene.items[member].sources if s not in local))
    coming.sort(key=lambda source: arrivals.get((source, number), 0.0))
    leaving = [member for member in members if readers.get(member, {}).keys() - {number}]
    edges = [(local[s], local[member]) for member in members for s in scene.items[member].sources if s in local]
    rows = [row + bool(coming) for row in longest_paths(len(members), edges)]
    boxes = [Box(*item_size(scene.items[member]), row=row) for member, row in zip(members, rows, strict=True)]
    entries = {source: len(boxes) + place for place, source in enumerate(coming)}
    exits = {source: len(boxes) + len(coming) + place for place, source in enumerate(leaving)}
    boxes += [Box(0.0, 0.0, row=0) for _ in coming]
    boxes += [Box(0.0, 0.0, row=max(rows) + 1) for _ in leaving]
    nets, targets = [], []
    for source in (*members, *coming):
        inside = readers.get(source, {}).get(number, [])
        ports = [Port(local[reader]) for reader in inside]
        if source in exits:
            ports.append(Port(exits[source]))
        if ports:
            box = local[source] if source in local else entries[source]
            nets.append(Net(Port(box), tuple(ports), _pull(scene.items[source])))
            targets.append((source, inside))
    frame = _Frame(scene, number, arrange(boxes, nets, _INSIDE), upward)
    return frame.block(local, entries, exits, targets)


class _Frame:
    """The rectangle of a group around what stands inside it; an upward group is turned upside down."""

    def __init__(self, scene: Scene, number: int, inner: Arrangement, upward: bool) -> None:
        framed = scene.by == "node"
        self._inner, self._upward = inner, upward
        title = text_width(group_title(scene.groups[number]), 11.0) if framed else 0.0
        padding = _PADDING if framed else 0.0
        self._top = padding + _LABEL_HEIGHT if framed else 0.0
        width = max(inner.width, title) + 2 * padding
        self._left = (width - inner.width) / 2
        self.size = (width, self._top + inner.height + padding)

    def _point(self, point: Point) -> Point:
        y = self._inner.height - point[1] if self._upward else point[1]
        return point[0] + self._left, y + self._top

    def _path(self, path: Path) -> Path:
        return [(command, tuple(map(self._point, points))) for command, points in path]

    def block(
        self,
        local: Mapping[int, int],
        entries: Mapping[int, int],
        exits: Mapping[int, int],
        targets: Sequence[tuple[int, list[int]]],
    ) -> _Block:
        """The block, with items for box numbers."""
        paths: dict[tuple[int, int], Path] = {}
        ways_out: dict[int, Path] = {}
        for (source, inside), found in zip(targets, self._inner.paths, strict=True):
            for reader, path in zip(inside, found, strict=False):
                paths[source, reader] = self._path(path)
            if source in exits:
                ways_out[source] = self._path(found[-1])
        at = [self._point(point) for point in self._inner.centres]
        return _Block(
            self.size,
            {item: at[box] for item, box in local.items()},
            {item: at[box] for item, box in entries.items()},
            {item: at[box] for item, box in exits.items()},
            paths,
            ways_out,
        )


def _composed(
    scene: Scene, blocks: Sequence[_Block], lines: Mapping[int, Sequence[int]], outer: Arrangement
) -> Picture:
    """Groups and items in one plane, and the pieces of each line joined."""
    corners = [
        (x - block.size[0] / 2, y - block.size[1] / 2) for (x, y), block in zip(outer.centres, blocks, strict=True)
    ]
    between = {
        (source, group): path
        for (source, groups), paths in zip(lines.items(), outer.paths, strict=True)
        for group, path in zip(groups, paths, strict=True)
    }
    centres = [_moved(blocks[item.group].places[i], corners[item.group]) for i, item in enumerate(scene.items)]
    paths: dict[tuple[int, int], Path] = {}
    for number, item in enumerate(scene.items):
        last, corner = blocks[item.group], corners[item.group]
        for source in item.sources:
            path = _shifted(last.paths[source, number], corner)
            home = scene.items[source].group
            if home != item.group:
                way_out = _shifted(blocks[home].ways_out[source], corners[home])
                path = _joined(way_out, between[source, item.group], path)
            paths[source, number] = path
    arrivals = {key: _comes_from(path) for key, path in between.items()}
    return Picture((outer.width, outer.height), centres, corners, list(blocks), paths, arrivals)


def _comes_from(path: Path) -> float:
    """Where a line was before it turned to its end."""
    places = [point[0] for _, points in path for point in points]
    return next((x for x in reversed(places) if x != places[-1]), places[-1])


def _moved(point: Point, by: Point) -> Point:
    return point[0] + by[0], point[1] + by[1]


def _shifted(path: Path, by: Point) -> Path:
    return [(command, tuple(_moved(point, by) for point in points)) for command, points in path]


def _joined(*parts: Path) -> Path:
    """One path through several that end where the next begins, or straight above it."""
    whole = list(parts[0])
    for part in parts[1:]:
        whole += [("L", part[0][1]), *part[1:]]
    return whole
