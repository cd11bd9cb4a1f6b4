"""The graph: nodes in order of execution, named inputs and outputs, and state that goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np

from chainrule.graph.cases import case
from chainrule.graph.dims import Size
from chainrule.graph.op import Array, Op, Spec, no_flops
from chainrule.graph.tensor import Node, Provenance, Tensor
from chainrule.graph.variable import Variable

__all__ = ["CONSTANT", "INPUT", "ConstantValue", "Graph", "StateEntry"]


class ConstantValue:
    """A constant's array as a hashable attribute: equal when dtype, shape and bits are."""

    __slots__ = ("array", "key")

    def __init__(self, array: Array) -> None:
        self.array = array
        self.key = (array.dtype.str, array.shape, array.tobytes())

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConstantValue) and self.key == other.key

    def __repr__(self) -> str:
        if self.array.ndim == 0:
            return repr(self.array.item())
        return f"<{self.array.dtype}{self.array.shape}>"


def _leaf_function(*_: object) -> None:
    raise AssertionError("inputs and constants are made by a trace")


def _input_reference(**_: object) -> Array:
    raise AssertionError("an engine fills inputs itself")


def _input_spec(*, name: str, spec: Spec) -> Spec:
    return spec


def _constant_spec(*, value: ConstantValue) -> Spec:
    return Spec(value.array.shape, value.array.dtype)


def _constant_reference(*, value: ConstantValue) -> Array:
    return value.array


INPUT = Op("input", _leaf_function, _input_spec, _input_reference, "zero", no_flops, cases=(case(),))
CONSTANT = Op("constant", _leaf_function, _constant_spec, _constant_reference, "zero", no_flops, cases=(case(),))
"""The two structural ops: they are leaves of every graph and stand in no registry."""


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One variable of a graph: the tensor that it enters as, and the one it leaves as."""

    variable: Variable
    before: Tensor
    after: Tensor

    @property
    def name(self) -> str:
        return self.variable.name

    @property
    def changes(self) -> bool:
        """Whether the graph writes the variable."""
        return self.before.key != self.after.key


class Graph:
    """A recorded computation in pure single-assignment form.

    Attributes:
        name: what was traced.
        nodes: every node, inputs before users.
        inputs: run-time inputs by name, in the order of the arguments.
        state: variables that were read or written.
        outputs: results by name.
        structure: gives the traced function's return value from the list of its output values.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[Node] = []
        self.inputs: dict[str, Tensor] = {}
        self.state: list[StateEntry] = []
        self.outputs: dict[str, Tensor] = {}
        self.structure: Callable[[Sequence[Any]], Any] = tuple
        self.sealed = False
        self._constants: dict[ConstantValue, Tensor] = {}

    def append(self, node: Node) -> None:
        """Record a node."""
        self.nodes.append(node)

    def leaf(self, op: Op, spec: Spec, /, **attrs: Any) -> Tensor:
        """Record an input or a constant."""
        node = Node(op, (), attrs, (spec,), Provenance(), graph=self)
        self.append(node)
        return node.outputs[0]

    def add_input(self, name: str, spec: Spec) -> Tensor:
        """Record a run-time input."""
        self.inputs[name] = self.leaf(INPUT, spec, name=name, spec=spec)
        return self.inputs[name]

    def constant(self, value: Tensor) -> Tensor:
        """A concrete tensor as a constant of this graph; equal constants are one node."""
        key = ConstantValue(np.ascontiguousarray(value.data).reshape(value.data.shape))
        if key not in self._constants:
            self._constants[key] = self.leaf(CONSTANT, value.spec, value=key)
        return self._constants[key]

    def results(self) -> list[Tensor]:
        """Everything that leaves the graph: outputs, then changed state."""
        return [*self.outputs.values(), *(entry.after for entry in self.state)]

    def flops(self, phase: str | None = None) -> Size:
        """Floating-point operations of one run, of one pass if `phase` is given: linear in N."""
        total: Size = 0
        for node in self.nodes:
            if phase is None or node.provenance.phase == phase:
                total = total + node.flops()
        return total

    def users(self) -> Mapping[tuple[int, int], list[Node]]:
        """The nodes that read each output, keyed by (node id, output index)."""
        table: dict[tuple[int, int], list[Node]] = {}
        for node in self.nodes:
            for item in node.inputs:
                assert item.node is not None
                table.setdefault((item.node.id, item.index), []).append(node)
        return table

    def show(self, *, phase: str | None = None, layer: str | None = None) -> str:
        """The graph as text, node by node; see `graph.show`."""
        from chainrule.graph.show import show

        return show(self, phase=phase, layer=layer)

    def draw(
        self,
        path: str | PathLike[str] | None = None,
        *,
        by: Literal["node", "layer"] = "node",
        phase: str | None = None,
        layer: str | None = None,
    ) -> str:
        """The graph as an SVG picture; see `graph.drawing`."""
        from chainrule.graph.drawing import draw

        return draw(self, path, by=by, phase=phase, layer=layer)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name}: {t.spec}" for name, t in self.inputs.items())
        return f"<Graph {self.name}({inputs}), {len(self.nodes)} nodes, {len(self.state)} variables>"

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """A graph with the same interface over a subset of the nodes."""
        other = Graph(self.name)
        other.nodes = list(nodes)
        other.inputs, other.state, other.outputs = dict(self.inputs), list(self.state), dict(self.outputs)
        other.structure, other.sealed = self.structure, True
        return other
