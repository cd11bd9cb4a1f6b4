"""Variables: the mutable boxes that hold parameters, optimizer slots, running statistics and counters.

Tensors never change; a [`Variable`][] does, by [`assign`][Variable.assign].  While a function is traced,
reading a variable makes it a state input of the graph and assigning it a state output, so the graph itself
stays pure: state in, state out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from chainrule.errors import DTypeError, ShapeError, TraceError
from chainrule.graph.dims import Shape, format_shape
from chainrule.graph.op import Array, Spec
from chainrule.graph.operators import Operators
from chainrule.graph.tensor import Tensor, TensorLike, as_tensor, frozen, tensor

__all__ = ["StateTrace", "Variable", "cache_aligned", "tracing_state"]


_CACHE_LINE = 64


def cache_aligned(array: Array) -> Array:
    """A writable, contiguous copy that begins on a cache line and owns all of its last one."""
    raw = np.empty(-(-max(array.nbytes, 1) // _CACHE_LINE) * _CACHE_LINE + _CACHE_LINE, np.uint8)
    skip = -raw.ctypes.data % _CACHE_LINE
    copy: Array = raw[skip : skip + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class StateTrace(Protocol):
    """What a running trace offers to variables."""

    def read_state(self, variable: Variable) -> Tensor: ...

    def write_state(self, variable: Variable, value: Tensor) -> None: ...


tracing_state: ContextVar[StateTrace | None] = ContextVar("tracing_state", default=None)


class Variable(Operators):
    """A named value that training changes.

    Args:
        initial: the first value, or a function of the `Spec` that makes it when it is first needed.
        spec: shape and dtype; taken from `initial` when that is an array.
        name: path such as ``"conv2d/kernel"``.
        trainable: whether gradients and optimizers follow it.

    >>> import chainrule as cr
    >>> w = cr.Variable([1.0, 2.0], name="w")
    >>> (w * w).sum().backward()
    >>> w.grad
    Tensor([2., 4.], dtype=float32)
    """

    __slots__ = ("_array", "_initial", "_leaf", "_memory", "_trainable", "grad", "name", "spec")

    def __init__(
        self,
        initial: TensorLike | Callable[[Spec], Array],
        spec: Spec | None = None,
        *,
        name: str = "variable",
        trainable: bool = True,
    ) -> None:
        self._array: Array | None = None
        self._memory: Array | None = None
        self._initial: Callable[[Spec], Array] | None = None
        if callable(initial) and not isinstance(initial, Tensor):
            if spec is None:
                raise ShapeError(f"variable {name!r}: an initializer needs the spec of what to make")
            self._initial, self.spec = initial, spec
        else:
            value = as_tensor(initial)
            self._array, self.spec = value.data, value.spec
        self.name = name
        self._trainable = trainable
        self.grad: Tensor | None = None
        self._leaf: Tensor | None = None

    @property
    def trainable(self) -> bool:
        """Whether gradients and optimizers follow this variable."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable, self._leaf = bool(value), None

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.spec.dtype

    @property
    def data(self) -> Array:
        """The present value as a read-only array."""
        if self._array is None:
            if self._memory is not None:
                self._array = frozen(self._memory.copy())
            else:
                assert self._initial is not None
                self._array = self._checked(np.asarray(self._initial(self.spec)))
        return self._array

    def memory(self) -> Array:
        """The variable's own writable memory, at one address for good, for an engine that updates it in place.

        Whoever writes to it says so with `memory_changed`; readers go on using `data`.
        """
        if self._memory is None:
            self._memory = cache_aligned(self.data)
        return self._memory

    def memory_changed(self) -> None:
        """Forget what was read before `memory` was written."""
        self._array, self._leaf = None, None

    def numpy(self) -> Array:
        """A copy of the present value."""
        return self.data.copy()

    def __tensor__(self) -> Tensor:
        trace = tracing_state.get()
        return self._as_leaf() if trace is None else trace.read_state(self)

    def _as_leaf(self) -> Tensor:
        if self._leaf is None:
            self._leaf = Tensor(self.spec, data=self.data, requires_grad=self.trainable)
            self._leaf.owner = self
        return self._leaf

    def assign(self, value: TensorLike) -> None:
        """Replace the value; inside a trace, make it the graph's state output.

        Raises:
            ShapeError, DTypeError: the value does not have the variable's shape and dtype.
            TraceError: the value belongs to another trace, or to one that has ended.
        """
        new = as_tensor(value) if isinstance(value, Operators) else tensor(np.asarray(value, dtype=self.dtype))
        trace = tracing_state.get()
        if trace is not None:
            self._check(new.spec)
            trace.write_state(self, new)
        elif new.is_traced:
            raise TraceError(
                f"variable {self.name!r} was assigned a traced tensor after its trace had ended; "
                "assign it inside the traced function"
            )
        else:
            self.set_array(new.data)

    def set_array(self, array: Array) -> None:
        """Replace the value by an array of the same shape and dtype, without a copy."""
        new = self._checked(array)
        self._array = self._leaf = None  # an interrupt before the last line finds what the memory holds then
        if self._memory is not None:
            self._memory[...] = new
        self._array = new

    def _checked(self, array: Array) -> Array:
        self._check(Spec(array.shape, array.dtype))
        return frozen(array)

    def _check(self, spec: Spec) -> None:
        if spec.shape != self.spec.shape:
            raise ShapeError(
                f"variable {self.name!r} has shape {format_shape(self.shape)}; "
                f"it cannot be assigned a value of shape {format_shape(spec.shape)}"
            )
        if spec.dtype != self.spec.dtype:
            raise DTypeError(f"variable {self.name!r} is {self.dtype}; it cannot be assigned {spec.dtype}")

    def __repr__(self) -> str:
        kind = "Variable" if self.trainable else "Variable, not trainable"
        return f"<{kind} {self.name!r} {self.spec}>"
