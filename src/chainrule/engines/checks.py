"""What every engine asks of the arrays that a graph is run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from chainrule.errors import DataError, DTypeError, EngineError, ShapeError
from chainrule.graph.dims import Dim, bind_shape, format_shape
from chainrule.graph.graph import Graph
from chainrule.graph.op import Array, Spec
from chainrule.graph.tensor import Tensor, frozen

__all__ = ["Stop", "batch_of", "checked_data", "checked_input", "checked_inputs", "checked_order", "checked_per_step"]


class Stop:
    """How a long call is asked to end after the step it is in.

    Attributes:
        requested: whether it was asked.
        signal: the number of the signal that asked; None if none did.
    """

    def __init__(self) -> None:
        self.requested = False
        self.signal: int | None = None
        self._running: Callable[[], None] | None = None

    def request(self, signal: int | None = None) -> None:
        """Ask, because of a signal if one is named; safe in a signal handler and from any thread."""
        self.signal = signal
        self.requested = True
        running = self._running
        if running is not None:
            running()

    @contextmanager
    def stopping(self, end: Callable[[], None]) -> Iterator[None]:
        """While a call runs: how to end it; at once if that was asked already."""
        self._running = end
        if self.requested:
            end()
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


def checked_order(order: Any) -> Array:
    """Row numbers as one int64 after the other.

    Raises:
        ShapeError, DTypeError: this is no list of whole numbers.
    """
    array = np.asarray(order)
    if array.ndim != 1:
        raise ShapeError(f"the row numbers have shape {format_shape(array.shape)}; expected one axis")
    if array.size and array.dtype.kind not in "iu":
        raise DTypeError(f"the row numbers are {array.dtype}; expected integers")
    return np.ascontiguousarray(array, np.int64)


def checked_data(specs: Mapping[str, Spec], data: Mapping[str, Any], order: Array) -> dict[str, Array]:
    """The data sets of the inputs that take the rows `order` of theirs, each in row-major order.

    Raises:
        EngineError, ShapeError, DTypeError, DataError: naming the input.
    """
    highest = int(order.view(np.uint64).max()) if len(order) else -1  # negative numbers are the highest then
    result = {}
    for name, spec in specs.items():
        if name not in data:
            raise EngineError(f"no data set was given for input {name!r}; got {', '.join(data) or 'none'}")
        array = checked_input(name, spec, data[name])
        if highest >= len(array):
            row = order[(order < 0) | (order >= len(array))][0]
            raise DataError(f"input {name!r} has no row {row}; expected 0 to {len(array) - 1}, its data set's rows")
        result[name] = np.asarray(array, order="C")
    return result


def checked_per_step(name: str, spec: Spec, values: Mapping[str, Any], steps: int) -> tuple[Array, int]:
    """An input's values for several steps in row-major order, and how many bytes it is from one step's to the next.

    Raises:
        EngineError, ShapeError: naming the input; what is given is neither one value for all steps nor one for each.
    """
    if name not in values:
        raise EngineError(f"no value was given for input {name!r}; got {', '.join(values) or 'none'}")
    array = np.asarray(values[name], spec.dtype, order="C")
    shape = bind_shape(spec.shape, 0)
    if array.shape == shape:
        return array, 0
    if array.shape[1:] != shape or len(array) < steps:
        expected = f"{format_shape(shape)}, or {format_shape((steps, *shape))} for {steps} steps"
        raise ShapeError(f"input {name!r} has shape {format_shape(array.shape)}; expected {expected}")
    return array, array.strides[0]
