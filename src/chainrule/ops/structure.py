"""Ops that steer gradients and types: identity, stop-gradient, cast."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.graph.cases import Arg, case
from chainrule.graph.lowering import Elementwise, View
from chainrule.graph.op import Array, Op, Spec, Trait, no_flops, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor, check_dtype

__all__ = ["cast", "identity", "stop_gradient"]


def identity(x: Any) -> Tensor:
    """``y = x``, as a value of its own.  Gradient: ``dx = dy``.

    >>> import chainrule as cr
    >>> cr.ops.identity(cr.tensor([1.0])).numpy().tolist()
    [1.0]
    """
    return apply(IDENTITY, as_tensor(x))


def stop_gradient(x: Any) -> Tensor:
    """``y = x``, through which no gradient flows.  Gradient: zero.

    >>> import chainrule as cr
    >>> x = cr.tensor([2.0], requires_grad=True)
    >>> (x * cr.ops.stop_gradient(x)).sum().backward()
    >>> x.grad.numpy().tolist()
    [2.0]
    """
    return apply(STOP_GRADIENT, as_tensor(x))


def cast(x: Any, dtype: Any) -> Tensor:
    """`x` in another dtype.  Gradient: dy in x's dtype, where both are floats; else zero.

    Float to integer truncates towards zero.

    >>> import chainrule as cr
    >>> cr.ops.cast(cr.tensor([1, 2]), "float32").dtype
    dtype('float32')
    """
    x = as_tensor(x)
    wanted = np.dtype(dtype)
    return x if x.dtype == wanted else apply(CAST, x, dtype=wanted.name)


def _same(x: Spec) -> Spec:
    return x


def _identity_reference(x: Array) -> Array:
    return x


def _identity_vjp(node: Node, g: Tensor) -> tuple[Tensor]:
    return (g,)


def _cast_spec(x: Spec, *, dtype: str) -> Spec:
    check_dtype(np.dtype(dtype), "the cast's result")
    return x.with_dtype(dtype)


def _cast_reference(x: Array, *, dtype: str) -> Array:
    return x.astype(dtype)


def _cast_vjp(node: Node, g: Tensor) -> tuple[Tensor | None]:
    source = node.inputs[0].spec
    return (cast(g, source.dtype) if source.is_float and g.spec.is_float else None,)


def _cast_element(k: Any, x: Any, *, dtype: str) -> Any:
    return k.cast(x, dtype)


_MOVES = frozenset({Trait.ELEMENTWISE, Trait.LINEAR})

IDENTITY = register(
    Op(
        "identity",
        identity,
        _same,
        _identity_reference,
        _identity_vjp,
        no_flops,
        traits=_MOVES,
        cases=(case((2, 3)),),
        lowering=(View(),),
    )
)
STOP_GRADIENT = register(
    Op(
        "stop_gradient",
        stop_gradient,
        _same,
        _identity_reference,
        "zero",
        no_flops,
        traits=_MOVES,
        cases=(case((2, 3)), case(Arg((3,), 0, 5, "int32"))),
        lowering=(View(),),
    )
)
CAST = register(
    Op(
        "cast",
        cast,
        _cast_spec,
        _cast_reference,
        _cast_vjp,
        no_flops,
        traits=_MOVES,
        cases=(
            case((2, 3), dtype="float64"),
            case(Arg((3,), 0, 5, "uint8"), dtype="float64"),
            case((2, 3), dtype="int32"),
        ),
        lowering=(Elementwise(_cast_element),),
    )
)
