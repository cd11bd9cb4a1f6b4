"""The graph as text: what goes in, one line for each node, and what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.errors import ConfigError
from chainrule.graph.dims import Dim, Size
from chainrule.graph.graph import CONSTANT, INPUT, Graph
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Node, Tensor

__all__ = ["PASSES", "Names", "format_flops", "is_leaf", "is_scalar", "select", "show", "total_flops"]

PASSES = ("forward", "backward", "update")
"""The passes in the order in which they run."""

_ATTRIBUTE_CHARACTERS = 48  # a longer value says less than it hides
_CONSTANT_ELEMENTS = 6  # of a larger array only its ends are printed
_COMMENT_COLUMN = 80  # comments stand in one column unless the line is longer


def show(graph: Graph, *, phase: str | None = None, layer: str | None = None) -> str:
    """The graph as text.

    Inputs and variables go by their names, results by ``%`` and their position, so that the same function
    traced twice gives the same text.  Scalar constants stand in the lines that read them.

    Args:
        graph: a traced graph.
        phase: show one pass only: ``"forward"``, ``"backward"`` or ``"update"``.
        layer: show one layer only, by its path, with the layers inside it.

    Raises:
        ConfigError: no such pass, or no node of the graph belongs to that layer.

    >>> import chainrule as cr
    >>> graph = cr.trace(lambda x: cr.ops.relu(x) * 2, cr.input_spec((None, 3)), name="twice")
    >>> print(show(graph))
    graph twice: 2 nodes, 6*N FLOPs
    inputs
      x    float32(N, 3)
    -- forward
      %0 float32(N, 3) = relu(x)              # forward, 3*N FLOPs
      %1 float32(N, 3) = multiply(%0, 2.0)    # forward, 3*N FLOPs
    outputs
      out  %1
    """
    names = Names(graph)
    shown = select(graph, phase, layer)
    lines = [_header(graph, shown)]
    if phase is not None or layer is not None:
        lines.append(f"only {' of '.join(filter(None, [phase, layer]))}")
    lines += _leaves(graph, shown, names)
    lines += _body(shown, names)
    lines += _results(graph, shown, names)
    return "\n".join(lines)


def is_leaf(node: Node) -> bool:
    """Whether the node is an input, a variable's entry or a constant."""
    return node.op in (INPUT, CONSTANT)


def select(graph: Graph, phase: str | None, layer: str | None) -> list[Node]:
    """The nodes that compute something, those of one pass and one layer if given.

    Raises:
        ConfigError: no such pass, or no node belongs to the layer.
    """
    if phase is not None and phase not in PASSES:
        raise ConfigError(f"unknown pass {phase!r}; expected 'forward', 'backward' or 'update'")
    nodes = [node for node in graph.nodes if not is_leaf(node)]
    if layer is not None:
        known = dict.fromkeys(node.provenance.layer for node in nodes)
        nodes = [node for node in nodes if f"{node.provenance.layer}/".startswith(f"{layer}/")]
        if not nodes:
            listed = ", ".join(repr(name) for name in known if name) or "none"
            raise ConfigError(f"graph {graph.name!r} has no node of a layer {layer!r}; its layers are {listed}")
    return [node for node in nodes if phase is None or node.provenance.phase == phase]


def format_flops(count: Size) -> str:
    """A number of floating-point operations with its thousands apart.

    >>> from chainrule.graph.dims import BATCH
    >>> format_flops(BATCH * 12480 + 10)
    '12,480*N + 10'
    """
    if not isinstance(count, Dim):
        return f"{count:,}"
    linear = "N" if count.scale == 1 else f"{count.scale:,}*N"
    if not count.offset:
        return linear
    return f"{linear} {'+' if count.offset > 0 else '-'} {abs(count.offset):,}"


class Names:
    """What a graph's values are called.

    >>> import chainrule as cr
    >>> graph = cr.trace(lambda x: cr.ops.relu(x) * 2, cr.input_spec((None, 3)))
    >>> names = Names(graph)
    >>> [names.value(item) for item in graph.nodes[-1].inputs]
    ['%0', '2.0']
    """

    def __init__(self, graph: Graph) -> None:
        self._of_node: dict[int, str] = {}
        arrays = results = 0
        for node in graph.nodes:
            if node.op is INPUT:
                self._of_node[node.id] = str(node.attrs["name"])
            elif is_scalar(node):
                self._of_node[node.id] = _number(node.attrs["value"].array)
            elif node.op is CONSTANT:
                self._of_node[node.id] = f"%c{arrays}"
                arrays += 1
            else:
                self._of_node[node.id] = f"%{results}"
                results += 1

    def node(self, node: Node) -> str:
        """A node's name; for an input its own, for a scalar constant the number."""
        return self._of_node[node.id]

    def value(self, item: Tensor) -> str:
        """A value's name: its node's, and which output where there are several."""
        assert item.node is not None
        name = self.node(item.node)
        return f"{name}.{item.index}" if len(item.node.specs) > 1 else name


def is_scalar(node: Node) -> bool:
    """Whether the node is a constant without axes, which is shown as a number."""
    return node.op is CONSTANT and node.specs[0].shape == ()


def _number(array: Array) -> str:
    """The shortest number that gives these bits in the array's dtype."""
    return str(array[()])


def _header(graph: Graph, shown: Sequence[Node]) -> str:
    passes = [name for name in PASSES if any(node.provenance.phase == name for node in shown)]
    totals = {name: total_flops(node for node in shown if node.provenance.phase == name) for name in passes}
    count = "1 node" if len(shown) == 1 else f"{len(shown)} nodes"
    parts = ", ".join(f"{name} {format_flops(total)}" for name, total in totals.items())
    split = f" ({parts})" if len(totals) > 1 else ""
    return f"graph {graph.name}: {count}, {format_flops(total_flops(shown))} FLOPs{split}"


def total_flops(nodes: Iterable[Node]) -> Size:
    """Floating-point operations of some nodes: linear in N."""
    total: Size = 0
    for node in nodes:
        total = total + node.flops()
    return total


def _leaves(graph: Graph, shown: Sequence[Node], names: Names) -> list[str]:
    """Inputs, state and constant arrays: all of them, or those that a part of the graph reads."""
    read = {item.node.id for node in shown for item in node.inputs if item.node is not None}
    whole = len(shown) == sum(not is_leaf(node) for node in graph.nodes)
    entries = {entry.before.key for entry in graph.state}
    sections: dict[str, dict[str, str]] = {"inputs": {}, "state": {}, "constants": {}}
    for node in graph.nodes:
        if is_leaf(node) and not is_scalar(node) and (whole or node.id in read):
            title = "constants" if node.op is CONSTANT else "state" if (node.id, 0) in entries else "inputs"
            sections[title][names.node(node)] = _leaf_text(node)
    return [line for title, rows in sections.items() for line in _section(title, rows)]


def _leaf_text(node: Node) -> str:
    if node.op is INPUT:
        return repr(node.specs[0])
    array = node.attrs["value"].array
    values = np.array2string(array, separator=", ", threshold=_CONSTANT_ELEMENTS, edgeitems=2)
    return f"{node.specs[0]} = {' '.join(values.split())}"


def _section(title: str, rows: Mapping[str, str]) -> list[str]:
    if not rows:
        return []
    width = max(len("out"), *map(len, rows))
    return [title, *(f"  {name.ljust(width)}  {text}" for name, text in rows.items())]


def _body(shown: Sequence[Node], names: Names) -> list[str]:
    texts = [_node_text(node, names) for node in shown]
    column = min(_COMMENT_COLUMN, max(map(len, texts), default=0))
    lines, heading = [], ""
    for node, text in zip(shown, texts, strict=True):
        place = node.provenance
        now = f"-- {place.phase}: {place.layer}" if place.layer else f"-- {place.phase}"
        if now != heading:
            lines.append(now)
            heading = now
        lines.append(f"  {text.ljust(column)}    # {_comment(node)}")
    return lines


def _node_text(node: Node, names: Names) -> str:
    arguments = ", ".join(names.value(item) for item in node.inputs)
    attributes = "".join(f" {name}={_attribute(value)}" for name, value in node.attrs.items())
    return f"{names.node(node)} {_specs(node.specs)} = {node.op.name}({arguments}){attributes}"


def _specs(specs: Iterable[Spec]) -> str:
    listed = [repr(spec) for spec in specs]
    return listed[0] if len(listed) == 1 else f"({', '.join(listed)})"


def _attribute(value: Any) -> str:
    text = _compact(value)
    return text if len(text) <= _ATTRIBUTE_CHARACTERS else f"{text[: _ATTRIBUTE_CHARACTERS - 1]}…"


def _compact(value: Any) -> str:
    if isinstance(value, tuple):
        inner = ",".join(map(_compact, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return value if isinstance(value, str) and value.isidentifier() else repr(value)


def _comment(node: Node) -> str:
    place = " ".join(filter(None, [node.provenance.layer, node.provenance.phase]))
    count = node.flops()
    return f"{place}, {format_flops(count)} FLOPs" if count != 0 else place


def _results(graph: Graph, shown: Sequence[Node], names: Names) -> list[str]:
    """Outputs and changed state: all of them, or those that a part of the graph makes."""
    made = {node.id for node in shown}
    whole = len(shown) == sum(not is_leaf(node) for node in graph.nodes)

    def belongs(item: Tensor) -> bool:
        return whole or (item.node is not None and item.node.id in made)

    outputs = {name: names.value(item) for name, item in graph.outputs.items() if belongs(item)}
    changed = {
        names.value(entry.before): names.value(entry.after)
        for entry in graph.state
        if entry.changes and belongs(entry.after)
    }
    return [*_section("outputs", outputs), *_section("changed state", changed)]
