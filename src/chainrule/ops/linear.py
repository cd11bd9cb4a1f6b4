"""Matrix products and the dense layer's affine map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import case
from chainrule.graph.dims import Shape, Size, format_shape
from chainrule.graph.lowering import Attrs, Contraction, Indexed
from chainrule.graph.op import Array, Op, Spec, Trait, register
from chainrule.graph.tensor import Node, Tensor, apply, as_tensor, lift
from chainrule.ops._blas import product
from chainrule.ops._rules import broadcast_shapes, one_dtype, require_float
from chainrule.ops.broadcast import unbroadcast

__all__ = ["dense", "matmul"]


def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    """Matrix product ``y[..., i, j] = sum_k a[..., i, k] * b[..., k, j]``.

    Args:
        a: shape ``(..., i, k)``, or ``(..., k, i)`` with `transpose_a`.
        b: shape ``(..., k, j)``, or ``(..., j, k)`` with `transpose_b`.
        transpose_a, transpose_b: read the last two axes swapped.

    Returns:
        Shape ``(..., i, j)``; the leading axes broadcast.

    Gradients: ``da = dy @ b^T``, ``db = a^T @ dy``, each summed over broadcast leading axes.

    Raises:
        ShapeError: fewer than two axes, or the inner sizes differ.

    >>> import chainrule as cr
    >>> (cr.tensor([[1.0, 2.0]]) @ cr.tensor([[3.0], [4.0]])).numpy().tolist()
    [[11.0]]
    """
    a, b = lift(a, b)
    return apply(MATMUL, a, b, transpose_a=bool(transpose_a), transpose_b=bool(transpose_b))


def dense(x: Any, kernel: Any, bias: Any = None) -> Tensor:
    """Affine map ``y = x @ kernel + bias`` of each sample.

    Args:
        x: shape ``(..., inputs)``.
        kernel: shape ``(inputs, outputs)``.
        bias: shape ``(outputs,)``, or None.

    Gradients: ``dx = dy @ kernel^T``, ``dkernel = x^T @ dy``, ``dbias`` = sum of dy over the samples.

    Raises:
        ShapeError: the last axis of x is not the kernel's first.

    >>> import chainrule as cr
    >>> cr.ops.dense(cr.tensor([[1.0, 2.0]]), cr.tensor([[1.0], [1.0]]), cr.tensor([0.5])).numpy().tolist()
    [[3.5]]
    """
    product = matmul(as_tensor(x), kernel)
    return product if bias is None else product + bias


def _matrix(spec: Spec, transpose: bool) -> tuple[Size, Size]:
    if spec.rank < 2:
        raise ShapeError(f"a matrix product needs at least two axes, got {spec}")
    rows, columns = spec.shape[-2:]
    return (columns, rows) if transpose else (rows, columns)


def _matmul_spec(a: Spec, b: Spec, *, transpose_a: bool, transpose_b: bool) -> Spec:
    require_float(a, b)
    (i, inner_a), (inner_b, j) = _matrix(a, transpose_a), _matrix(b, transpose_b)
    if inner_a != inner_b:
        raise ShapeError(
            f"inner sizes differ: {format_shape(a.shape)}{'^T' if transpose_a else ''} @ "
            f"{format_shape(b.shape)}{'^T' if transpose_b else ''} sums over {inner_a} against {inner_b}"
        )
    lead: Shape = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return Spec((*lead, i, j), one_dtype(a, b))


def _swap(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _matmul_reference(a: Array, b: Array, *, transpose_a: bool, transpose_b: bool) -> Array:
    return product(_swap(a) if transpose_a else a, _swap(b) if transpose_b else b)


def _matmul_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    a, b = node.inputs
    ta, tb = node.attrs["transpose_a"], node.attrs["transpose_b"]
    da = matmul(b, g, tb, True) if ta else matmul(g, b, False, not tb)
    db = matmul(g, a, True, ta) if tb else matmul(a, g, not ta, False)
    return unbroadcast(da, a), unbroadcast(db, b)


def _matmul_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Any) -> Size:
    inner = _matrix(inputs[0], attrs["transpose_a"])[1]
    return outputs[0].size * inner * 2 if isinstance(inner, int) else inner * _static(outputs[0].size) * 2


def _static(size: Size) -> int:
    if not isinstance(size, int):
        raise ShapeError(f"the FLOPs of this product are not linear in the batch size ({size})")
    return size


def _matmul_form(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Attrs) -> Attrs | None:
    if any(spec.rank != 2 for spec in inputs):
        return None
    return {"transpose_a": attrs["transpose_a"], "transpose_b": attrs["transpose_b"]}


def _matmul_element(k: Any, point: Any, a: Any, b: Any, *, transpose_a: bool, transpose_b: bool) -> Any:
    *lead, row, column = point

    def matrix(x: Any) -> tuple[Any, ...]:
        """Which matrix of the stack `x`: axes of size 1 are broadcast."""
        sizes = x.shape[:-2]
        return tuple(0 if n == 1 else i for i, n in zip(lead[len(lead) - len(sizes) :], sizes, strict=True))

    def term(place: Any) -> Any:
        (inner,) = place
        left = (inner, row) if transpose_a else (row, inner)
        right = (column, inner) if transpose_b else (inner, column)
        return a[(*matrix(a), *left)] * b[(*matrix(b), *right)]

    return k.sum((a.shape[-2 if transpose_a else -1],), term, a.dtype)


MATMUL = register(
    Op(
        "matmul",
        matmul,
        _matmul_spec,
        _matmul_reference,
        _matmul_vjp,
        _matmul_flops,
        traits=frozenset({Trait.CONTRACTION, Trait.LINEAR, Trait.BATCH_REDUCING}),
        cases=(
            case((2, 3), (3, 4), transpose_a=False, transpose_b=False),
            case((3, 2), (3, 4), transpose_a=True, transpose_b=False),
            case((2, 3), (4, 3), transpose_a=False, transpose_b=True),
            case((3, 2), (4, 3), transpose_a=True, transpose_b=True),
            case((2, 2, 3), (3, 2), transpose_a=False, transpose_b=False, name="broadcast"),
            case((2, 1, 2, 3), (3, 3, 2), transpose_a=False, transpose_b=False, name="both broadcast"),
        ),
        lowering=(Contraction("matrix_product", _matmul_form), Indexed(_matmul_element, cheap=False, reads=8)),
    )
)
