"""What every engine asks of the arrays that a graph is run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from chainrule.errors import DTypeError, EngineError, ShapeError
from chainrule.graph.dims import Dim, format_shape
from chainrule.graph.graph import Graph
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Tensor, frozen

__all__ = ["Stop", "batch_of", "checked_input", "checked_inputs"]


class Stop:
    """How a long call is asked to end after the step it is in.

    Attributes:
        requested: whether it was asked.
    """

    def __init__(self) -> None:
        self.requested = False
        self._running: Callable[[], None] | None = None

    def request(self) -> None:
        """Ask; safe in a signal handler and from any thread."""
        self.requested = True
        running = self._running
        if running is not None:
            running()

    @contextmanager
    def stopping(self, end: Callable[[], None]) -> Iterator[None]:
        """While a call runs: how to end it."""
        self._running = end
        try:
            yield
        finally:
            self._running = None


def batch_of(graph: Graph, inputs: Mapping[str, Array]) -> int:
    """The batch size that the inputs agree on; 0 where none holds it.

    Raises:
        ShapeError: they disagree.
    """
    sizes: dict[str, int] = {}
    for name, item in graph.inputs.items():
        for size, actual in zip(item.shape, inputs[name].shape, strict=True):
            if isinstance(size, Dim):
                sizes[name] = (actual - size.offset) // size.scale
                if size.bind(sizes[name]) != actual:
                    raise ShapeError(f"input {name!r}: size {actual} is not of the form {size}")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise ShapeError(f"the inputs of {graph.name} disagree on the batch size ({listed})")
    return next(iter(sizes.values()), 0)


def checked_inputs(graph: Graph, given: Sequence[Any]) -> dict[str, Array]:
    """The run-time inputs by name, each an array of the expected shape and dtype.

    Raises:
        EngineError: there are more or fewer than the graph takes.
        ShapeError, DTypeError: naming the input.
    """
    if len(given) != len(graph.inputs):
        raise EngineError(
            f"{graph.name} takes {len(graph.inputs)} inputs ({', '.join(graph.inputs)}); got {len(given)}"
        )
    return {
        name: checked_input(name, item.spec, value)
        for (name, item), value in zip(graph.inputs.items(), given, strict=True)
    }


def checked_input(name: str, spec: Spec, given: Any) -> Array:
    """An input as an array of the expected shape and dtype.

    Raises:
        ShapeError, DTypeError: naming the input.
    """
    array = np.asarray(given.data if isinstance(given, Tensor) else given)
    fits = len(array.shape) == len(spec.shape) and all(
        isinstance(size, Dim) or size == actual for size, actual in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise ShapeError(f"input {name!r} has shape {format_shape(array.shape)}; expected {format_shape(spec.shape)}")
    if array.dtype != spec.dtype:
        raise DTypeError(f"input {name!r} is {array.dtype}; expected {spec.dtype}")
    return frozen(array)
