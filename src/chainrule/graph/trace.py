"""Tracing: a Python function becomes a graph by being called once with traced tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from chainrule.errors import TraceError
from chainrule.graph.dims import BATCH, Size
from chainrule.graph.graph import INPUT, Graph, StateEntry
from chainrule.graph.op import Spec
from chainrule.graph.passes import remove_dead_nodes, run_passes
from chainrule.graph.tensor import Tensor, as_tensor, check_dtype, tracing_into
from chainrule.graph.variable import Variable, tracing_state

__all__ = ["input_spec", "trace"]


def input_spec(shape: Sequence[Size | None], dtype: Any = "float32") -> Spec:
    """A `Spec` in which None stands for the batch size N.

    >>> input_spec((None, 28, 28, 1))
    float32(N, 28, 28, 1)
    """
    result = Spec(tuple(BATCH if size is None else size for size in shape), np.dtype(dtype))
    check_dtype(result.dtype, "the input spec")
    return result


class _Trace:
    """The state side of a running trace: which variables were read, and what they hold now."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._before: dict[int, tuple[Variable, Tensor]] = {}
        self._now: dict[int, Tensor] = {}

    def read_state(self, variable: Variable) -> Tensor:
        if id(variable) not in self._before:
            entry = self.graph.leaf(INPUT, variable.spec, name=variable.name, spec=variable.spec)
            self._before[id(variable)] = (variable, entry)
            self._now[id(variable)] = entry
        return self._now[id(variable)]

    def write_state(self, variable: Variable, value: Tensor) -> None:
        if value.is_traced and (value.node is None or value.node.graph is not self.graph):
            raise TraceError(f"variable {variable.name!r} was assigned a tensor of another trace")
        self.read_state(variable)
        self._now[id(variable)] = value if value.is_traced else self.graph.constant(value)

    def entries(self) -> list[StateEntry]:
        return [StateEntry(variable, before, self._now[key]) for key, (variable, before) in self._before.items()]

    @contextmanager
    def active(self) -> Iterator[None]:
        token = tracing_state.set(self)
        try:
            with tracing_into(self.graph):
                yield
        finally:
            tracing_state.reset(token)


def trace(
    function: Callable[..., Any], *specs: Spec, name: str | None = None, names: Sequence[str] | None = None
) -> Graph:
    """Record what `function` computes for inputs of the given specs.

    Variables that the function reads or assigns become the graph's state.  The graph holds only nodes that
    contribute to an output or to state, and is verified.

    Args:
        function: takes one tensor per spec; returns a tensor, or a tuple, list or dict of tensors.
        specs: see `input_spec`.
        name: the graph's name; by default the function's.
        names: the inputs' names; by default those of the function's parameters.

    Raises:
        TraceError: the function returned something else, or used Python control flow on a tensor.
        ShapeError, DTypeError: as the ops inside raise them.

    >>> import chainrule as cr
    >>> graph = cr.trace(lambda x: cr.ops.relu(x).sum(axis=1), cr.input_spec((None, 3)), name="f")
    >>> graph
    <Graph f(x: float32(N, 3)), 3 nodes, 0 variables>
    """
    graph = Graph(name or str(getattr(function, "__name__", "graph")))
    keys = _names(function, len(specs)) if names is None else names
    arguments = [graph.add_input(key, spec) for key, spec in zip(keys, specs, strict=True)]
    state = _Trace(graph)
    try:
        with state.active():
            result = function(*arguments)
            names, values, graph.structure = _flatten(result)
            tensors = [_output(key, value) for key, value in zip(names, values, strict=True)]
    finally:
        graph.sealed = True
    for key, value in zip(names, tensors, strict=True):
        graph.outputs[key] = value if value.is_traced else graph.constant(value)
        if graph.outputs[key].node not in graph.nodes:
            raise TraceError(f"output {key!r} of {graph.name} belongs to another trace")
    graph.state = state.entries()
    return run_passes(graph, [remove_dead_nodes], after="trace")


def _names(function: Callable[..., Any], count: int) -> list[str]:
    parameters = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return parameters[:count] if len(parameters) >= count else [f"arg{i}" for i in range(count)]


def _output(name: str, value: Any) -> Tensor:
    if value is None or isinstance(value, Mapping | list | tuple):
        raise TraceError(
            f"output {name!r} of a traced function is a {type(value).__name__}; outputs are tensors, "
            "in one tuple, list or dict that holds nothing else"
        )
    return as_tensor(value)


def _flatten(result: Any) -> tuple[list[str], list[Any], Callable[[Sequence[Any]], Any]]:
    if isinstance(result, Mapping):
        keys = list(result)
        return [str(key) for key in keys], list(result.values()), lambda v: dict(zip(keys, v, strict=True))
    if isinstance(result, tuple | list):
        kind = type(result) if type(result) in (tuple, list) else tuple
        return [f"out{i}" for i in range(len(result))], list(result), kind
    if isinstance(result, Tensor | Variable):
        return ["out"], [result], lambda values: values[0]
    raise TraceError(
        f"a traced function must return tensors (one, or a tuple, list or dict of them); "
        f"it returned {type(result).__name__}"
    )
