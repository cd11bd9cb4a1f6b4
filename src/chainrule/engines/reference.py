"""The reference engine: a graph run node by node in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule.engines.checks import Stop, batch_of, checked_data, checked_input, checked_inputs, checked_order
from chainrule.errors import ShapeError
from chainrule.graph.dims import bind, bind_shape
from chainrule.graph.graph import CONSTANT, INPUT, Graph
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Node, Tensor, check_values, frozen
from chainrule.graph.verify import verify

__all__ = ["Executable"]


class Executable:
    """A graph ready to run.

    Calling it takes one array per run-time input, reads the graph's variables, runs every node in order, writes
    the variables back, and returns what the traced function returned, as arrays.

    Args:
        graph: a traced graph.

    Raises:
        GraphError: the graph breaks a law.

    >>> import chainrule as cr
    >>> graph = cr.trace(lambda x: cr.ops.relu(x) * 2, cr.input_spec((None, 2)), name="f")
    >>> Executable(graph)(np.array([[-1.0, 3.0]], np.float32)).tolist()
    [[0.0, 6.0]]
    """

    def __init__(self, graph: Graph) -> None:
        verify(graph, after="loading")
        self.graph = graph
        self._work = [node for node in graph.nodes if node.op not in (INPUT, CONSTANT)]
        self._last_use = self._last_uses()

    def __call__(self, *inputs: Any) -> Any:
        """Run once; state is read from the variables before and written to them after."""
        outputs, state = self.run(inputs, {entry.name: entry.variable.data for entry in self.graph.state})
        for entry in self.graph.state:
            if entry.changes:
                entry.variable.set_array(state[entry.name])
        return outputs

    def run(self, inputs: Sequence[Any], state: Mapping[str, Array]) -> tuple[Any, dict[str, Array]]:
        """Run once on explicit state.

        Args:
            inputs: one array per run-time input.
            state: the value of every variable by name.

        Returns:
            What the traced function returned, and every variable's new value.
        """
        values = self._load(inputs, state)
        batch = batch_of(self.graph, {name: self._value(item, values) for name, item in self.graph.inputs.items()})
        with np.errstate(all="ignore"):
            for node in self._work:
                self._step(node, values, batch)
        given = [self._value(item, values) for item in self.graph.inputs.values()]
        results = [_own(self._value(item, values), given) for item in self.graph.outputs.values()]
        after = {entry.name: _own(self._value(entry.after, values), given) for entry in self.graph.state}
        return self.graph.structure(results), after

    def run_steps(
        self, data: Mapping[str, Array], order: Array, batch_size: int, scalars: Mapping[str, Array], stop: Stop
    ) -> int:
        """Run many steps: step s takes the rows ``order[s * batch_size : (s + 1) * batch_size]`` of the data.

        Args:
            data: the data set of each input that is a batch, rows along the first axis.
            order: row numbers.
            batch_size: rows of a step; the last one may have fewer.
            scalars: the other inputs: one value for all steps, or one for each along a further first axis.
            stop: asked after each step.

        Returns:
            How many steps were run; state is written to the variables.
        """
        order = checked_order(order)
        specs = {name: item.spec for name, item in self.graph.inputs.items() if name in data}
        data = checked_data(specs, data, order)
        steps = range(-(-len(order) // batch_size))
        for step in steps:
            rows = order[step * batch_size : (step + 1) * batch_size]
            inputs = [
                data[name][rows] if name in data else _of_step(scalars[name], len(item.shape), step)
                for name, item in self.graph.inputs.items()
            ]
            self(*inputs)
            if stop.requested:
                return step + 1
        return len(steps)

    def _step(self, node: Node, values: dict[tuple[int, int], Array], batch: int) -> None:
        arguments = [self._value(item, values) for item in node.inputs]
        attrs = {name: bind(value, batch) for name, value in node.attrs.items()}
        specs = [Spec(bind_shape(s.shape, batch), s.dtype) for s in node.specs]
        for spec in specs:
            if min(spec.shape, default=0) < 0:
                raise ShapeError(f"{node.where}: a batch of {batch} is too small; it would make {spec}")
        produced = node.op.evaluate(arguments, attrs)
        check_values(node.op, produced, specs)
        for index, value in enumerate(produced):
            values[node.id, index] = frozen(value)
        for key in self._last_use.get(node.id, ()):
            del values[key]

    @staticmethod
    def _value(item: Tensor, values: Mapping[tuple[int, int], Array]) -> Array:
        assert item.node is not None
        return values[item.node.id, item.index]

    def _load(self, inputs: Sequence[Any], state: Mapping[str, Array]) -> dict[tuple[int, int], Array]:
        arrays = checked_inputs(self.graph, inputs)
        values: dict[tuple[int, int], Array] = {}
        for node in self.graph.nodes:
            if node.op is CONSTANT:
                values[node.id, 0] = node.attrs["value"].array
        for name, item in self.graph.inputs.items():
            assert item.node is not None
            values[item.node.id, 0] = arrays[name]
        for entry in self.graph.state:
            assert entry.before.node is not None
            values[entry.before.node.id, 0] = checked_input(entry.name, entry.before.spec, state[entry.name])
        return values

    def _last_uses(self) -> dict[int, list[tuple[int, int]]]:
        """For each node, the values that nobody needs after it."""
        kept = {(t.node.id, t.index) for t in self.graph.results() if t.node is not None}
        last: dict[tuple[int, int], int] = {}
        for node in self._work:
            for index in range(len(node.specs)):
                last[node.id, index] = node.id
            for item in node.inputs:
                if item.node is not None and item.node.op not in (INPUT, CONSTANT):
                    last[item.node.id, item.index] = node.id
        table: dict[int, list[tuple[int, int]]] = {}
        for key, node_id in last.items():
            if key not in kept:
                table.setdefault(node_id, []).append(key)
        return table


def _of_step(value: Array, rank: int, step: int) -> Array:
    return value if value.ndim == rank else value[step]


def _own(value: Array, given: Sequence[Array]) -> Array:
    """A result that does not change when the caller fills its input arrays anew."""
    return frozen(value.copy()) if any(np.may_share_memory(value, array) for array in given) else value
