"""Batch normalisation, in training and at inference.

Per channel (the last axis), over all other axes.  In training the batch's own mean and biased variance
normalise; at inference given ones do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import Arg, case
from chainrule.graph.dims import Size, format_shape
from chainrule.graph.lowering import Composed
from chainrule.graph.op import Array, Op, Spec, Trait, register
from chainrule.graph.tensor import Node, Tensor, apply, apply_all, lift
from chainrule.ops._rules import one_dtype, require_float
from chainrule.ops.exponential import sqrt
from chainrule.ops.reduce import count_of, mean, sum
from chainrule.ops.structure import cast

__all__ = ["batch_norm", "batch_norm_inference"]


def batch_norm(x: Any, scale: Any, shift: Any, epsilon: float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel by the batch: ``y = scale * (x - mean) / sqrt(var + epsilon) + shift``.

    ``mean`` and ``var = mean((x - mean)**2)`` (biased) run over every axis but the last.

    Args:
        x: ``(batch, ..., channels)``.
        scale, shift: ``(channels,)``: gamma and beta.
        epsilon: added to the variance.

    Returns:
        y, the batch mean ``(channels,)``, the batch's biased variance ``(channels,)``.

    Gradients, with m elements per channel, ``xhat = (x - mean) / sqrt(var + epsilon)`` and ``g = dy``:
        - ``dshift = sum(g)``, ``dscale = sum(g * xhat)``;
        - ``dx = scale / sqrt(var + epsilon) * (g - sum(g) / m - xhat * sum(g * xhat) / m)``.

    Source: Ioffe and Szegedy, ICML 2015.

    Raises:
        ShapeError: scale or shift do not hold one number per channel, or there is no element.

    >>> import chainrule as cr
    >>> y, mean, var = cr.ops.batch_norm(cr.tensor([[1.0], [3.0]]), cr.tensor([1.0]), cr.tensor([0.0]))
    >>> mean.item(), var.item()
    (2.0, 1.0)
    """
    y, batch_mean, batch_var = apply_all(BATCH_NORM, *lift(x, scale, shift), epsilon=float(epsilon))
    return y, batch_mean, batch_var


def batch_norm_inference(x: Any, scale: Any, shift: Any, mean: Any, var: Any, epsilon: float = 1e-3) -> Tensor:
    """Normalise each channel by given statistics: ``y = scale * (x - mean) / sqrt(var + epsilon) + shift``.

    Gradients: with ``inv = 1 / sqrt(var + epsilon)``: ``dx = dy * scale * inv``;
    ``dscale = sum(dy * (x - mean) * inv)``; ``dshift = sum(dy)``; ``dmean = -sum(dy) * scale * inv``;
    ``dvar = -sum(dy * (x - mean)) * scale * inv**3 / 2``.

    Raises:
        ShapeError: a statistic does not hold one number per channel.

    >>> import chainrule as cr
    >>> one, zero = cr.tensor([1.0]), cr.tensor([0.0])
    >>> cr.ops.batch_norm_inference(cr.tensor([[3.0]]), one, zero, one, one, 0.0).item()
    2.0
    """
    return apply(BATCH_NORM_INFERENCE, *lift(x, scale, shift, mean, var), epsilon=float(epsilon))


def _axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _check(x: Spec, **vectors: Spec) -> None:
    require_float(x, *vectors.values())
    one_dtype(x, *vectors.values())
    if x.rank < 2:
        raise ShapeError(f"batch normalisation needs (batch, ..., channels), got {format_shape(x.shape)}")
    for name, vector in vectors.items():
        if vector.shape != x.shape[-1:]:
            raise ShapeError(
                f"{name} has shape {format_shape(vector.shape)}; expected one number for each of the "
                f"{x.shape[-1]} channels of {format_shape(x.shape)}"
            )


def _training_spec(x: Spec, scale: Spec, shift: Spec, *, epsilon: float) -> tuple[Spec, Spec, Spec]:
    _check(x, scale=scale, shift=shift)
    if any(size == 0 for size in x.shape[:-1]):
        raise ShapeError(f"no elements to normalise over in {format_shape(x.shape)}")
    return x, scale, scale


def _inference_spec(x: Spec, scale: Spec, shift: Spec, mean: Spec, var: Spec, *, epsilon: float) -> Spec:
    _check(x, scale=scale, shift=shift, mean=mean, var=var)
    return x


def _training_reference(x: Array, scale: Array, shift: Array, *, epsilon: float) -> tuple[Array, ...]:
    axes = tuple(range(x.ndim - 1))
    exact_mean = np.mean(x, axis=axes, dtype=np.float64)
    centred = x - exact_mean.astype(x.dtype)
    variance = np.mean(np.square(centred, dtype=np.float64), axis=axes)
    y = centred * (scale / np.sqrt(variance + epsilon)).astype(x.dtype) + shift
    return y, exact_mean.astype(x.dtype), variance.astype(x.dtype)


def _inference_reference(x: Array, scale: Array, shift: Array, mean: Array, var: Array, *, epsilon: float) -> Array:
    factor = scale / np.sqrt(var + x.dtype.type(epsilon))
    result: Array = (x - mean) * factor + shift
    return result


def _training_vjp(
    node: Node, g: Tensor | None, g_mean: Tensor | None, g_var: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, scale, _ = node.inputs
    _, batch_mean, batch_var = node.outputs
    axes = _axes(x)
    centred = x - batch_mean
    dx = dscale = dshift = None
    if g is not None:
        inverse = 1 / sqrt(batch_var + node.attrs["epsilon"])
        normal = centred * inverse
        dshift, dscale = sum(g, axes), sum(g * normal, axes)
        count = count_of(x, axes)
        dx = (g - dshift / count - normal * (dscale / count)) * (scale * inverse)
    for extra in (
        None if g_mean is None else g_mean / count_of(x, axes),
        None if g_var is None else centred * (g_var * 2 / count_of(x, axes)),
    ):
        if extra is not None:
            dx = x * 0 + extra if dx is None else dx + extra
    return dx, dscale, dshift


def _inference_vjp(node: Node, g: Tensor) -> tuple[Tensor, ...]:
    x, scale, _, given_mean, var = node.inputs
    axes = _axes(x)
    inverse = 1 / sqrt(var + node.attrs["epsilon"])
    centred = x - given_mean
    dshift, spread = sum(g, axes), sum(g * centred, axes)
    factor = scale * inverse
    dvar = -spread * factor * (inverse * inverse) * 0.5
    return g * factor, spread * inverse, dshift, -dshift * factor, dvar


def _training_composed(x: Tensor, scale: Tensor, shift: Tensor, *, epsilon: float) -> tuple[Tensor, ...]:
    """The mean is taken in float64, since its error is the error of every centred element."""
    axes = _axes(x)
    batch_mean = cast(mean(cast(x, "float64"), axes), x.dtype)
    centred = x - batch_mean
    batch_var = mean(centred * centred, axes)
    return centred * (scale / sqrt(batch_var + epsilon)) + shift, batch_mean, batch_var


def _inference_composed(
    x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor, *, epsilon: float
) -> Tensor:
    return (x - mean) * (scale / sqrt(var + epsilon)) + shift


def _flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return inputs[0].size * 7


def _inference_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return inputs[0].size * 3


_POSITIVE = Arg((3,), 0.3, 2.0)

BATCH_NORM = register(
    Op(
        "batch_norm",
        batch_norm,
        _training_spec,
        _training_reference,
        _training_vjp,
        _flops,
        traits=frozenset({Trait.REDUCTION, Trait.BATCH_REDUCING}),
        cases=(
            case((4, 3), (3,), (3,), epsilon=1e-3),
            case((2, 3, 2, 3), (3,), (3,), epsilon=1e-2),
            case((5, 1), (1,), (1,), epsilon=0.1),
        ),
        lowering=(Composed(_training_composed),),
    )
)
BATCH_NORM_INFERENCE = register(
    Op(
        "batch_norm_inference",
        batch_norm_inference,
        _inference_spec,
        _inference_reference,
        _inference_vjp,
        _inference_flops,
        traits=frozenset({Trait.PER_SAMPLE}),
        cases=(
            case((4, 3), (3,), (3,), (3,), _POSITIVE, epsilon=1e-3),
            case((2, 2, 2, 3), (3,), (3,), (3,), _POSITIVE, epsilon=1e-2),
        ),
        lowering=(Composed(_inference_composed),),
    )
)
