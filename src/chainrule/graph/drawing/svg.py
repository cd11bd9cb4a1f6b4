"""The graph as a picture: an SVG in which the backward pass climbs beside the forward pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Literal

from chainrule.errors import ConfigError
from chainrule.files import write_text_atomic
from chainrule.graph.drawing.layered import Path, Point
from chainrule.graph.drawing.scene import (
    CYLINDER_RIM,
    LINE_HEIGHT,
    Item,
    Kind,
    Picture,
    Scene,
    group_title,
    item_size,
    lay_out,
    shortened,
    text_width,
)
from chainrule.graph.graph import Graph
from chainrule.graph.show import PASSES, format_flops, select, total_flops
from chainrule.graph.tensor import Node

__all__ = ["draw"]

_MARGIN = 24.0
_HEADER = 108.0
_ARROW = 7.0
_SLANT = 8.0  # of the sides of an input's and a constant's shape

# Wong's palette (Nature Methods 8, 441, 2011), which colour-blind readers tell apart: line, fill, background.
_COLOURS = {
    "forward": ("#0072b2", "#dceefa", "#f4f9fd"),
    "backward": ("#c4500c", "#fde6d8", "#fef7f2"),
    "update": ("#00795a", "#d6f2e9", "#f2faf7"),
}
_LEAF_LINE, _LEAF_FILL = "#6b7280", "#f3f4f6"
_INK, _PALE_INK = "#111827", "#4b5563"
_PASS_NAMES = {"forward": "forward pass", "backward": "backward pass", "update": "update"}
_KIND_NAMES: dict[Kind, str] = {
    "input": "input",
    "state": "variable",
    "constant": "constant",
    "outside": "made elsewhere",
    "output": "output",
    "written": "variable's new value",
}


def draw(
    graph: Graph,
    path: str | os.PathLike[str] | None = None,
    *,
    by: Literal["node", "layer"] = "node",
    phase: str | None = None,
    layer: str | None = None,
) -> str:
    """Draw a graph as SVG.

    The forward pass runs down on the left; the backward pass climbs on the right, each layer's part beside the
    forward part of the same layer; the update follows below.  Dashed lines are values that the forward pass
    keeps for the backward pass.  Scalar constants stand inside the boxes that read them; inputs and variables
    are drawn again for every layer and pass that reads them.

    Args:
        graph: a traced graph.
        path: the file to write, whole or not at all; an older one is replaced.
        by: ``"node"`` draws every node, ``"layer"`` one box for each layer and pass.
        phase: draw one pass only: ``"forward"``, ``"backward"`` or ``"update"``.
        layer: draw one layer only, by its path, with the layers inside it.

    Returns:
        The SVG text; the same graph gives the same text.

    Raises:
        ConfigError: an unknown `by` or pass, or a layer without nodes.
        RunFolderError: the file cannot be written.

    >>> import chainrule as cr
    >>> graph = cr.trace(lambda x: cr.ops.relu(x) * 2, cr.input_spec((None, 3)), name="twice")
    >>> draw(graph).startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    True
    """
    if by not in ("node", "layer"):
        raise ConfigError(f"by={by!r} is unknown; expected 'node' or 'layer'")
    shown = select(graph, phase, layer)
    text = _svg(graph, shown, Scene(graph, shown, by))
    if path is not None:
        write_text_atomic(path, text)
    return text


def _svg(graph: Graph, shown: Sequence[Node], scene: Scene) -> str:
    picture = lay_out(scene)
    legend, legend_width = _legend(scene)
    title, notes = f"graph {graph.name}", _notes(graph, shown, scene)
    widths = (picture.size[0], legend_width, text_width(title, 16.0), text_width(notes, 11.5))
    width, height = max(widths) + 2 * _MARGIN, _HEADER + picture.size[1] + _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" role="img">',
        f"<title>{_escaped(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(title, (_MARGIN, 34.0), size=16, bold=True, anchor="start"),
        _text(notes, (_MARGIN, 54.0), colour=_PALE_INK, anchor="start"),
        f'<g transform="translate({_MARGIN:g} 78)">',
        *legend,
        "</g>",
        f'<g transform="translate({_number((width - picture.size[0]) / 2)} {_HEADER:g})">',
        *(_frames(scene, picture) if scene.by == "node" else ()),
        *_lines(scene, picture),
        *(_frame_titles(scene, picture) if scene.by == "node" else ()),
        *(_item(scene, item, centre) for item, centre in zip(scene.items, picture.centres, strict=True)),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _notes(graph: Graph, shown: Sequence[Node], scene: Scene) -> str:
    """The line below the title."""
    count = "1 node" if len(shown) == 1 else f"{len(shown)} nodes"
    notes = [f"{count}, {format_flops(total_flops(shown))} FLOPs", f"shapes are {scene.common} unless they say more"]
    read = {item.node.id for node in graph.nodes for item in node.inputs if item.node is not None}
    read |= {item.node.id for item in graph.results() if item.node is not None}
    unread = [name for name, item in graph.inputs.items() if item.node is not None and item.node.id not in read]
    if unread:
        notes.append(f"inputs that nothing reads: {', '.join(unread)}")
    return "; ".join(notes)


def _legend(scene: Scene) -> tuple[list[str], float]:
    """Samples of what the picture holds, in a row, and the row's width."""
    phases = {group.phase for group in scene.groups}
    kinds = {item.kind: scene.groups[item.group].phase for item in scene.items}
    entries = [(_shape("op", (24.0, 15.0), phase), _PASS_NAMES[phase]) for phase in PASSES if phase in phases]
    for kind, name in _KIND_NAMES.items():
        if kind in kinds:
            entries.append((_shape(kind, (28.0, 17.0), kinds[kind]), name))
    if any(_is_kept(scene, source, item) for item in scene.items for source in item.sources):
        line = f'<path d="M-14 0H14" fill="none" stroke="{_COLOURS["forward"][0]}" stroke-width="1.5" {_DASHES}/>'
        entries.append((line, "kept for the backward pass"))
    parts, x = [], 14.0
    for sample, name in entries:
        parts.append(f'<g transform="translate({_number(x)} 0)">{sample}{_text(name, (20.0, 4.0), anchor="start")}</g>')
        x += text_width(name, 11.5) + 52.0
    return parts, x


_DASHES = 'stroke-dasharray="5 3"'


def _is_kept(scene: Scene, source: int, reader: Item) -> bool:
    """Whether a line carries a value from the forward pass into the backward pass."""
    item = scene.items[source]
    phases = (scene.groups[item.group].phase, scene.groups[reader.group].phase)
    return item.kind == "op" and phases == ("forward", "backward")


def _frames(scene: Scene, picture: Picture) -> Iterator[str]:
    """The background of each layer's part of a pass, with its name."""
    for group, corner, block in zip(scene.groups, picture.corners, picture.blocks, strict=True):
        line, _, background = _COLOURS[group.phase]
        yield (
            f'<rect class="group" x="{_number(corner[0])}" y="{_number(corner[1])}" width="{_number(block.size[0])}" '
            f'height="{_number(block.size[1])}" rx="10" fill="{background}" stroke="{line}" stroke-opacity="0.35"/>'
        )


def _frame_titles(scene: Scene, picture: Picture) -> Iterator[str]:
    """The names of the frames, on a ground of their own where a line passes."""
    for group, corner in zip(scene.groups, picture.corners, strict=True):
        line, _, background = _COLOURS[group.phase]
        halo = f'stroke="{background}" stroke-width="5" stroke-linejoin="round" paint-order="stroke"'
        title = _text(group_title(group), (corner[0] + 12.0, corner[1] + 17.0), colour=line, anchor="start", bold=True)
        yield f"<g {halo}>{title}</g>"


def _lines(scene: Scene, picture: Picture) -> Iterator[str]:
    for (source, reader), path in picture.paths.items():
        item = scene.items[source]
        colour = _COLOURS[scene.groups[item.group].phase][0] if item.kind == "op" else _LEAF_LINE
        dashes = f" {_DASHES}" if _is_kept(scene, source, scene.items[reader]) else ""
        yield f'<path class="line" d="{_data(path)}" fill="none" stroke="{colour}" stroke-width="1.3"{dashes}/>'
        yield _arrow(path, colour)


def _data(path: Path) -> str:
    return " ".join(command + " ".join(f"{_number(x)} {_number(y)}" for x, y in points) for command, points in path)


def _arrow(path: Path, colour: str) -> str:
    points = [point for _, group in path for point in group]
    x, y = points[-1]
    back = y - _ARROW if points[-2][1] < y else y + _ARROW
    corners = ((x, y), (x - _ARROW / 2, back), (x + _ARROW / 2, back))
    return f'<polygon points="{_points(corners)}" fill="{colour}"/>'


def _item(scene: Scene, item: Item, centre: Point) -> str:
    size = item_size(item)
    below = 2 * CYLINDER_RIM if item.kind in ("state", "written") else 0.0
    first = (below - (len(item.lines) - 1) * LINE_HEIGHT) / 2 + 4.0
    texts = [
        _text(shortened(line), (0.0, first + i * LINE_HEIGHT), bold=item.kind == "op" and i == 0, colour=ink)
        for i, (line, ink) in enumerate(zip(item.lines, [_INK] + [_PALE_INK] * len(item.lines), strict=False))
    ]
    shape = _shape(item.kind, size, scene.groups[item.group].phase)
    place = f"translate({_number(centre[0])} {_number(centre[1])})"
    inside = f"<title>{_escaped(item.tip)}</title>{shape}{''.join(texts)}"
    return f'<g class="item {item.kind}" transform="{place}">{inside}</g>'


def _shape(kind: Kind, size: Point, phase: str) -> str:
    """The outline of an item around the origin."""
    width, height = size
    left, right, top, bottom = -width / 2, width / 2, -height / 2, height / 2
    line, fill, _ = _COLOURS[phase] if kind in ("op", "written") else (_LEAF_LINE, _LEAF_FILL, "")
    paint = f'fill="{fill}" stroke="{line}" stroke-width="1.2"'
    if kind == "input":
        return _polygon(((left + _SLANT, top), (right, top), (right - _SLANT, bottom), (left, bottom)), paint)
    if kind == "constant":
        sides = ((left + _SLANT, top), (right - _SLANT, top), (right, 0.0), (right - _SLANT, bottom))
        return _polygon((*sides, (left + _SLANT, bottom), (left, 0.0)), paint)
    if kind in ("state", "written"):
        return _cylinder(left, right, top, bottom, paint)
    radius = height / 2 if kind == "output" else min(7.0, height / 3)
    dashes = f" {_DASHES}" if kind == "outside" else ""
    return (
        f'<rect x="{_number(left)}" y="{_number(top)}" width="{_number(width)}" height="{_number(height)}" '
        f'rx="{_number(radius)}" {paint}{dashes}/>'
    )


def _polygon(points: Iterable[Point], paint: str) -> str:
    return f'<polygon points="{_points(points)}" {paint}/>'


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _cylinder(left: float, right: float, top: float, bottom: float, paint: str) -> str:
    rim, wide = CYLINDER_RIM, (right - left) / 2
    arc = f"A{_number(wide)} {_number(rim)} 0 0"
    upper, lower = _number(top + rim), _number(bottom - rim)
    a, b = _number(left), _number(right)
    return (
        f'<path d="M{a} {upper}V{lower}{arc} 0 {b} {lower}V{upper}{arc} 0 {a} {upper}{arc} 0 {b} {upper}'
        f'M{a} {upper}{arc} 1 {b} {upper}" {paint}/>'
    )


def _text(
    text: str, place: Point, *, size: float = 11.5, colour: str = _INK, anchor: str = "middle", bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{_number(place[0])}" y="{_number(place[1])}" font-size="{size:g}" fill="{colour}" '
        f'text-anchor="{anchor}"{weight}>{_escaped(text)}</text>'
    )


def _number(value: float) -> str:
    # A little more than the value: sums that end in 5 round alike, though Pythons add in different ways.
    text = f"{value + 1e-6:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _escaped(text: str) -> str:
    """A text as XML holds it; characters that no XML may hold become question marks."""
    return escape(_NOT_IN_XML.sub("\ufffd", text))
