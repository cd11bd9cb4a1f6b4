"""A graph as text that is equal for equal computations, for keys of caches."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import CodeType

from chainrule.graph.graph import CONSTANT, INPUT, Graph
from chainrule.graph.op import Op
from chainrule.graph.tensor import Node

__all__ = ["canonical_text", "source_fingerprint"]


def canonical_text(graph: Graph) -> str:
    """Everything that the graph's results depend on, the ops' rules included; node numbers start at 0."""
    numbers = {node.id: number for number, node in enumerate(graph.nodes)}
    lines = [_line(node, numbers) for node in graph.nodes]
    for kind, ends in (("input", graph.inputs), ("output", graph.outputs)):
        lines += [f"{kind} {name} {numbers[t.node.id]}.{t.index}" for name, t in ends.items() if t.node is not None]
    for entry in graph.state:
        assert entry.before.node is not None
        assert entry.after.node is not None
        after = f"{numbers[entry.after.node.id]}.{entry.after.index}"
        lines.append(f"state {entry.name} {numbers[entry.before.node.id]} {after}")
    ops = {node.op.name: node.op for node in graph.nodes if node.op not in (INPUT, CONSTANT)}
    lines += [f"op {name} {_rules_of(op)}" for name, op in sorted(ops.items())]
    return "\n".join(lines)


def _line(node: Node, numbers: Mapping[int, int]) -> str:
    if node.op is CONSTANT:
        array = node.attrs["value"].array
        return f"constant {array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    inputs = " ".join(f"{numbers[t.node.id]}.{t.index}" for t in node.inputs if t.node is not None)
    attrs = " ".join(f"{name}={value!r}" for name, value in sorted(node.attrs.items()))
    return f"{node.op.name} {inputs} {attrs} {node.specs!r} {node.where}"


@functools.cache
def _rules_of(op: Op) -> str:
    """What an op's native rules are: those of this package go with its version, a user's with their code."""
    if op.function.__module__.startswith("chainrule."):
        return "own"
    digest = hashlib.sha256()
    for candidate in op.lowering:
        for value in vars(candidate).values():
            digest.update(_code(value.__code__) if hasattr(value, "__code__") else repr(value).encode())
    source = inspect.getsourcefile(op.function)
    if source is not None and Path(source).is_file():
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def _code(code: CodeType) -> bytes:
    """The bytes of a function and of the functions inside it."""
    constants = [_code(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"|".join([code.co_code, repr(code.co_names).encode(), *constants])


def source_fingerprint(folder: Path) -> str:
    """A hash over the Python files below a folder, so that a changed generator finds no old code."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
