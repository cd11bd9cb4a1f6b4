"""A graph as text that is equal for equal computations, for keys of caches."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

from chainrule.graph.graph import CONSTANT, INPUT, Graph
from chainrule.graph.op import is_own
from chainrule.graph.tensor import Node

__all__ = ["canonical_text", "package_fingerprint"]


def canonical_text(graph: Graph) -> str | None:
    """Everything that the graph's results depend on, but for the package itself; node numbers start at 0.

    None for a graph with an op of a user's own: its rules may depend on anything, such as a file or the program's
    settings, and no text says all of that.
    """
    if not all(node.op in (INPUT, CONSTANT) or is_own(node.op) for node in graph.nodes):
        return None
    numbers = {node.id: number for number, node in enumerate(graph.nodes)}
    lines = [_line(node, numbers) for node in graph.nodes]
    for kind, ends in (("input", graph.inputs), ("output", graph.outputs)):
        lines += [f"{kind} {name} {numbers[t.node.id]}.{t.index}" for name, t in ends.items() if t.node is not None]
    for entry in graph.state:
        assert entry.before.node is not None
        assert entry.after.node is not None
        after = f"{numbers[entry.after.node.id]}.{entry.after.index}"
        lines.append(f"state {entry.name} {numbers[entry.before.node.id]} {after}")
    return "\n".join(lines)


def _line(node: Node, numbers: Mapping[int, int]) -> str:
    if node.op is CONSTANT:
        array = node.attrs["value"].array
        return f"constant {array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    inputs = " ".join(f"{numbers[t.node.id]}.{t.index}" for t in node.inputs if t.node is not None)
    attrs = " ".join(f"{name}={value!r}" for name, value in sorted(node.attrs.items()))
    return f"{node.op.name} {inputs} {attrs} {node.specs!r} {node.where}"


@functools.cache
def package_fingerprint() -> str:
    """SHA-256 over the package's Python files: what stands for everything that turns a graph into numbers."""
    import chainrule

    folder = Path(chainrule.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
