"""Operators and methods of tensors and parameters: each is the registered op of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chainrule.graph.op import get_op

if TYPE_CHECKING:
    from chainrule.graph.tensor import Tensor, TensorLike

__all__ = ["Operators", "call_op"]


def call_op(name: str, *args: Any, **kwargs: Any) -> Tensor:
    """Call the public function of a registered op by name."""
    result: Tensor = get_op(name).function(*args, **kwargs)
    return result


class Operators:
    """Mixin: Python's operators, and methods such as ``x.sum(axis=0)``."""

    __slots__ = ()

    __array_ufunc__ = None  # makes NumPy arrays defer to the operators below

    if TYPE_CHECKING:  # attached by chainrule.ops, which knows how to slice and gather

        def __getitem__(self, index: Any) -> Tensor: ...

    def __neg__(self) -> Tensor:
        return call_op("negative", self)

    def __abs__(self) -> Tensor:
        return call_op("abs", self)

    def __add__(self, other: TensorLike) -> Tensor:
        return call_op("add", self, other)

    def __radd__(self, other: TensorLike) -> Tensor:
        return call_op("add", other, self)

    def __sub__(self, other: TensorLike) -> Tensor:
        return call_op("subtract", self, other)

    def __rsub__(self, other: TensorLike) -> Tensor:
        return call_op("subtract", other, self)

    def __mul__(self, other: TensorLike) -> Tensor:
        return call_op("multiply", self, other)

    def __rmul__(self, other: TensorLike) -> Tensor:
        return call_op("multiply", other, self)

    def __truediv__(self, other: TensorLike) -> Tensor:
        return call_op("divide", self, other)

    def __rtruediv__(self, other: TensorLike) -> Tensor:
        return call_op("divide", other, self)

    def __pow__(self, other: TensorLike) -> Tensor:
        return call_op("power", self, other)

    def __rpow__(self, other: TensorLike) -> Tensor:
        return call_op("power", other, self)

    def __matmul__(self, other: TensorLike) -> Tensor:
        return call_op("matmul", self, other)

    def __rmatmul__(self, other: TensorLike) -> Tensor:
        return call_op("matmul", other, self)

    def __lt__(self, other: TensorLike) -> Tensor:
        return call_op("less", self, other)

    def __le__(self, other: TensorLike) -> Tensor:
        return call_op("less_equal", self, other)

    def __gt__(self, other: TensorLike) -> Tensor:
        return call_op("greater", self, other)

    def __ge__(self, other: TensorLike) -> Tensor:
        return call_op("greater_equal", self, other)

    def __eq__(self, other: object) -> Any:
        return call_op("equal", self, other)

    def __ne__(self, other: object) -> Any:
        return call_op("not_equal", self, other)

    def __invert__(self) -> Tensor:
        return call_op("logical_not", self)

    def __and__(self, other: TensorLike) -> Tensor:
        return call_op("logical_and", self, other)

    def __or__(self, other: TensorLike) -> Tensor:
        return call_op("logical_or", self, other)

    @property
    def T(self) -> Tensor:
        """The matrix transpose: the axes in reverse order."""
        return call_op("transpose", self)

    def astype(self, dtype: Any) -> Tensor:
        """This tensor in another dtype."""
        return call_op("cast", self, dtype)

    def reshape(self, *shape: Any) -> Tensor:
        """See `ops.reshape`."""
        return call_op("reshape", self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """See `ops.transpose`."""
        return call_op("transpose", self, axes[0] if len(axes) == 1 else (axes or None))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `ops.sum`."""
        return call_op("sum", self, axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `ops.mean`."""
        return call_op("mean", self, axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `ops.max`."""
        return call_op("max", self, axis, keepdims=keepdims)

    def var(self, axis: Any = None, keepdims: bool = False) -> Tensor:
        """See `ops.var`."""
        return call_op("var", self, axis, keepdims=keepdims)
