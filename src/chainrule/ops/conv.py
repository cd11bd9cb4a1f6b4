"""Two-dimensional convolution and its two gradients.

The three ops here are one trilinear form ``<g, conv(x, k)>`` read in three ways, so each one's VJP is made of
the other two, and gradients of any order exist.

- `conv2d`: x, k -> y.
- `conv2d_input_grad`: g, k -> x.  It is also the *transposed convolution*.
- `conv2d_kernel_grad`: x, g -> k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule.errors import ShapeError
from chainrule.graph.cases import case
from chainrule.graph.dims import Shape, Size, format_shape
from chainrule.graph.lowering import Attrs, Contraction, Indexed
from chainrule.graph.op import Array, Op, Spec, Trait, register
from chainrule.graph.tensor import Node, Tensor, apply, lift
from chainrule.ops._blas import product
from chainrule.ops._rules import one_dtype, require_float
from chainrule.ops._window import (
    Padding,
    Pads,
    Pair,
    explicit_padding,
    pair,
    require_image,
    tap,
    window_count,
)

__all__ = ["conv2d", "conv2d_input_grad", "conv2d_kernel_grad"]


def conv2d(
    x: Any,
    kernel: Any,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution as deep learning means it: a sliding inner product (cross-correlation).

    ``y[n, i, j, o] = sum over u, v, c of x[n, i*s + u*d - p, j*s + v*d - p, c] * kernel[u, v, c, o]``,
    with zeros outside the image, s the stride, d the dilation and p the padding before.

    Args:
        x: activations ``(batch, height, width, channels)``.
        kernel: ``(height, width, channels / groups, outputs)``.
        stride: step of the window, one integer or (vertical, horizontal).
        padding: ``"valid"``, ``"same"`` (as TensorFlow splits it), an integer, ``(h, w)``, or
            ``((top, bottom), (left, right))``.
        dilation: distance between kernel positions.
        groups: the channels are split into so many groups that see one another not; ``groups = channels``
            is a depthwise convolution.

    Returns:
        ``(batch, out_height, out_width, outputs)``.

    Gradients, with ``g = dy``:
        - ``dx[n, i*s + u*d - p, ..., c] += g[n, i, j, o] * kernel[u, v, c, o]``: the full correlation of g
          (spread by the stride) with the kernel turned by 180 degrees.
        - ``dkernel[u, v, c, o] = sum over n, i, j of x[n, i*s + u*d - p, ..., c] * g[n, i, j, o]``.

    Raises:
        ShapeError: wrong rank, channel counts that do not match, or an empty output.
        ConfigError: a stride, dilation or padding that is none.

    Source: LeCun et al., Proc. IEEE 1998; Dumoulin and Visin, arXiv 1603.07285.

    >>> import chainrule as cr
    >>> x = cr.tensor([[[[1.0], [2.0], [4.0]]]])
    >>> cr.ops.conv2d(x, cr.tensor([[[[1.0]], [[10.0]]]])).numpy().ravel().tolist()
    [21.0, 42.0]
    """
    x, kernel = lift(x, kernel)
    strides, dilations = pair(stride, "stride"), pair(dilation, "dilation")
    if x.ndim == 4 and kernel.ndim == 4:
        pads = explicit_padding(padding, x.shape[1:3], _taps(kernel.spec), strides, dilations)
    else:
        pads = ((0, 0), (0, 0))  # the shape rule names the wrong rank
    return apply(CONV2D, x, kernel, stride=strides, pads=pads, dilation=dilations, groups=int(groups))


def conv2d_input_grad(
    g: Any,
    kernel: Any,
    input_shape: Shape,
    stride: int | Sequence[int] = 1,
    pads: Pads = ((0, 0), (0, 0)),
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv2d` with respect to its input; the transposed convolution.

    ``dx[n, i*s + u*d - p, j*s + v*d - p, c] = sum over i, j, u, v, o of g[n, i, j, o] * kernel[u, v, c, o]``.

    Args:
        g: ``(batch, out_height, out_width, outputs)``.
        kernel: as in `conv2d`.
        input_shape: the shape of x, which strides leave open.
        stride, pads, dilation, groups: as in `conv2d`, the padding explicit.

    Gradients: ``dg = conv2d(ddx, kernel)``, ``dkernel = conv2d_kernel_grad(ddx, g)``.

    >>> import chainrule as cr
    >>> g, k = cr.tensor([[[[1.0], [2.0]]]]), cr.tensor([[[[1.0]], [[10.0]]]])
    >>> cr.ops.conv2d_input_grad(g, k, (1, 1, 3, 1)).numpy().ravel().tolist()
    [1.0, 12.0, 20.0]
    """
    return apply(
        CONV2D_INPUT_GRAD,
        *lift(g, kernel),
        input_shape=tuple(input_shape),
        stride=pair(stride, "stride"),
        pads=pads,
        dilation=pair(dilation, "dilation"),
        groups=int(groups),
    )


def conv2d_kernel_grad(
    x: Any,
    g: Any,
    kernel_shape: Shape,
    stride: int | Sequence[int] = 1,
    pads: Pads = ((0, 0), (0, 0)),
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv2d` with respect to its kernel.

    ``dkernel[u, v, c, o] = sum over n, i, j of x[n, i*s + u*d - p, j*s + v*d - p, c] * g[n, i, j, o]``.

    Args:
        x, g: input and output cotangent of `conv2d`.
        kernel_shape: ``(height, width, channels / groups, outputs)``.
        stride, pads, dilation, groups: as in `conv2d`, the padding explicit.

    Gradients: ``dx = conv2d_input_grad(g, ddkernel)``, ``dg = conv2d(x, ddkernel)``.

    >>> import chainrule as cr
    >>> x, g = cr.tensor([[[[1.0], [2.0], [4.0]]]]), cr.tensor([[[[1.0], [10.0]]]])
    >>> cr.ops.conv2d_kernel_grad(x, g, (1, 2, 1, 1)).numpy().ravel().tolist()
    [21.0, 42.0]
    """
    return apply(
        CONV2D_KERNEL_GRAD,
        *lift(x, g),
        kernel_shape=tuple(kernel_shape),
        stride=pair(stride, "stride"),
        pads=pads,
        dilation=pair(dilation, "dilation"),
        groups=int(groups),
    )


def _taps(kernel: Spec) -> Pair:
    height, width = kernel.shape[:2]
    if not isinstance(height, int) or not isinstance(width, int):
        raise ShapeError(f"the kernel {kernel} must have a known size")
    return height, width


def _output_spec(x: Spec, kernel: Spec, *, stride: Pair, pads: Pads, dilation: Pair, groups: int) -> Spec:
    require_image(x)
    if kernel.rank != 4:
        raise ShapeError(
            f"the kernel has shape {format_shape(kernel.shape)} of rank {kernel.rank}; expected rank 4: "
            "(height, width, channels / groups, outputs)"
        )
    require_float(x, kernel)
    channels, outputs = int(x.shape[3]), int(kernel.shape[3])
    if groups < 1 or channels % groups or outputs % groups:
        raise ShapeError(f"{groups} groups do not divide {channels} input and {outputs} output channels")
    if kernel.shape[2] != channels // groups:
        raise ShapeError(
            f"the input has {channels} channels in {groups} group(s), so the kernel needs "
            f"{channels // groups} input channels; it has {kernel.shape[2]} (kernel {format_shape(kernel.shape)})"
        )
    count = window_count(x.shape[1:3], _taps(kernel), stride, pads, dilation)
    return Spec((x.shape[0], *count, outputs), one_dtype(x, kernel))


def _input_grad_spec(g: Spec, kernel: Spec, *, input_shape: Shape, **attrs: Any) -> Spec:
    x = Spec(input_shape, g.dtype)
    if _output_spec(x, kernel, **attrs) != g:
        raise ShapeError(
            f"the cotangent {g} is not what a convolution of {format_shape(input_shape)} "
            f"with {format_shape(kernel.shape)} gives"
        )
    return x


def _kernel_grad_spec(x: Spec, g: Spec, *, kernel_shape: Shape, **attrs: Any) -> Spec:
    kernel = Spec(kernel_shape, x.dtype)
    if _output_spec(x, kernel, **attrs) != g:
        raise ShapeError(
            f"the cotangent {g} is not what a convolution of {format_shape(x.shape)} "
            f"with {format_shape(kernel_shape)} gives"
        )
    return kernel


def _padded(x: Array, pads: Pads) -> Array:
    return np.pad(x, ((0, 0), *pads, (0, 0))) if any(map(any, pads)) else x


def _columns(x: Array, taps: Pair, count: Pair, stride: Pair, pads: Pads, dilation: Pair, groups: int) -> Array:
    """What each window sees: ``(groups, windows, taps * channels per group)``."""
    padded = _padded(x, pads)
    batch, channels = x.shape[0], x.shape[3]
    columns = np.empty((groups, batch, *count, taps[0] * taps[1], channels // groups), x.dtype)
    for number, offset in enumerate(np.ndindex(taps)):
        seen = tap(padded, (offset[0], offset[1]), count, stride, dilation)
        for group in range(groups):
            first = group * (channels // groups)
            columns[group, ..., number, :] = seen[..., first : first + channels // groups]
    return columns.reshape(groups, batch * count[0] * count[1], taps[0] * taps[1] * (channels // groups))


def _kernel_matrix(kernel: Array, groups: int) -> Array:
    """The kernel as ``(groups, taps * channels per group, outputs per group)``."""
    height, width, channels, outputs = kernel.shape
    matrix = kernel.reshape(height * width * channels, groups, outputs // groups)
    return np.ascontiguousarray(matrix.transpose(1, 0, 2))


def _by_group(g: Array, groups: int) -> Array:
    """Output cotangents as ``(groups, windows, outputs per group)``."""
    return np.ascontiguousarray(g.reshape(math.prod(g.shape[:3]), groups, g.shape[3] // groups).transpose(1, 0, 2))


def _conv2d_reference(x: Array, kernel: Array, *, stride: Pair, pads: Pads, dilation: Pair, groups: int) -> Array:
    taps = kernel.shape[:2]
    count = window_count(x.shape[1:3], taps, stride, pads, dilation)
    columns = _columns(x, taps, count, stride, pads, dilation, groups)
    result = product(columns, _kernel_matrix(kernel, groups))
    return result.transpose(1, 0, 2).reshape(x.shape[0], *count, kernel.shape[3])


def _input_grad_reference(
    g: Array,
    kernel: Array,
    *,
    input_shape: tuple[int, ...],
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    groups: int,
) -> Array:
    (top, bottom), (left, right) = pads
    batch, height, width, channels = input_shape
    taps, count = kernel.shape[:2], g.shape[1:3]
    spread = product(_by_group(g, groups), _kernel_matrix(kernel, groups).transpose(0, 2, 1))
    spread = spread.reshape(groups, batch, *count, taps[0] * taps[1], channels // groups)
    result = np.zeros((batch, height + top + bottom, width + left + right, channels), g.dtype)
    for number, offset in enumerate(np.ndindex(taps)):
        target = tap(result, (offset[0], offset[1]), (count[0], count[1]), stride, dilation)
        for group in range(groups):
            first = group * (channels // groups)
            target[..., first : first + channels // groups] += spread[group, ..., number, :]
    return result[:, top : top + height, left : left + width]


def _kernel_grad_reference(
    x: Array,
    g: Array,
    *,
    kernel_shape: tuple[int, ...],
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    groups: int,
) -> Array:
    taps = (kernel_shape[0], kernel_shape[1])
    columns = _columns(x, taps, (g.shape[1], g.shape[2]), stride, pads, dilation, groups)
    result = product(columns.transpose(0, 2, 1), _by_group(g, groups))
    return result.transpose(1, 0, 2).reshape(kernel_shape)


def _conv2d_vjp(node: Node, g: Tensor) -> tuple[Tensor, Tensor]:
    x, kernel = node.inputs
    return (
        apply(CONV2D_INPUT_GRAD, g, kernel, input_shape=x.shape, **node.attrs),
        apply(CONV2D_KERNEL_GRAD, x, g, kernel_shape=kernel.shape, **node.attrs),
    )


def _window_attrs(node: Node) -> dict[str, Any]:
    return {name: node.attrs[name] for name in ("stride", "pads", "dilation", "groups")}


def _input_grad_vjp(node: Node, dx: Tensor) -> tuple[Tensor, Tensor]:
    g, kernel = node.inputs
    attrs = _window_attrs(node)
    return (
        apply(CONV2D, dx, kernel, **attrs),
        apply(CONV2D_KERNEL_GRAD, dx, g, kernel_shape=kernel.shape, **attrs),
    )


def _kernel_grad_vjp(node: Node, dkernel: Tensor) -> tuple[Tensor, Tensor]:
    x, g = node.inputs
    attrs = _window_attrs(node)
    return (
        apply(CONV2D_INPUT_GRAD, g, dkernel, input_shape=x.shape, **attrs),
        apply(CONV2D, x, dkernel, **attrs),
    )


def _flops(y: Spec, kernel: Spec) -> Size:
    """Every output element is a sum over the kernel's taps and channels; padding is counted."""
    height, width, channels, _ = kernel.shape
    return y.size * (2 * int(height) * int(width) * int(channels))


def _conv2d_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return _flops(outputs[0], inputs[1])


def _input_grad_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return _flops(inputs[0], inputs[1])


def _kernel_grad_flops(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: object) -> Size:
    return _flops(inputs[1], outputs[0])


def _form(x: Spec, kernel: Spec, y: Spec, attrs: Attrs) -> Attrs | None:
    """A convolution without groups as plain facts: ``image`` is (height, width), ``count`` the windows on each."""
    if attrs["groups"] != 1:
        return None
    return {
        "stride": attrs["stride"],
        "pads": attrs["pads"],
        "dilation": attrs["dilation"],
        "groups": 1,
        "taps": kernel.shape[:2],
        "channels": x.shape[3],
        "outputs": kernel.shape[3],
        "image": x.shape[1:3],
        "count": y.shape[1:3],
    }


def _conv2d_form(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Attrs) -> Attrs | None:
    return _form(inputs[0], inputs[1], outputs[0], attrs)


def _input_grad_form(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Attrs) -> Attrs | None:
    return _form(outputs[0], inputs[1], inputs[0], attrs)


def _kernel_grad_form(inputs: Sequence[Spec], outputs: Sequence[Spec], attrs: Attrs) -> Attrs | None:
    return _form(inputs[0], outputs[0], inputs[1], attrs)


def _conv2d_element(
    k: Any, point: Any, x: Any, kernel: Any, *, stride: Pair, pads: Pads, dilation: Pair, groups: int
) -> Any:
    """One output element: a sum over taps and the channels of its group."""
    n, i, j, o = point
    height, width, channels, outputs = kernel.shape
    first = o // (outputs // groups) * channels

    def term(place: Any) -> Any:
        u, v, c = place
        seen = _pixel(k, x, n, (i, j), (u, v), first + c, stride, pads, dilation)
        return seen * kernel[u, v, c, o]

    return k.sum((height, width, channels), term, x.dtype)


def _pixel(
    k: Any, x: Any, n: Any, window: Any, offset: Any, channel: Any, stride: Pair, pads: Pads, dilation: Pair
) -> Any:
    """What a tap of a window sees: zero in the padding."""
    inside, place = k.constant(True, "bool"), []
    for axis in range(2):
        place.append(window[axis] * stride[axis] + offset[axis] * dilation[axis] - pads[axis][0])
        inside = inside & (place[axis] >= 0) & (place[axis] < k.size(x.shape[axis + 1]))
    return k.guard(inside, x[n, place[0], place[1], channel], 0)


def _input_grad_element(
    k: Any,
    point: Any,
    g: Any,
    kernel: Any,
    *,
    input_shape: Shape,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    groups: int,
) -> Any:
    """One element of dx: a sum over taps, where a window has this tap here, and the outputs of its group."""
    n, h, w, c = point
    height, width, channels, outputs = kernel.shape
    group = c // channels
    first = group * (outputs // groups)

    def term(place: Any) -> Any:
        u, v, o = place
        inside, window = k.constant(True, "bool"), []
        for axis, (pixel, offset) in enumerate(((h, u), (w, v))):
            start = pixel + pads[axis][0] - offset * dilation[axis]
            window.append(k.floor_divide(start, stride[axis]))
            inside = inside & k.modulo(start, stride[axis]).equals(0)
            inside = inside & (start >= 0) & (window[axis] < k.size(g.shape[axis + 1]))
        return k.guard(inside, g[n, window[0], window[1], first + o] * kernel[u, v, c - group * channels, first + o], 0)

    return k.sum((height, width, outputs // groups), term, g.dtype)


def _kernel_grad_element(
    k: Any,
    point: Any,
    x: Any,
    g: Any,
    *,
    kernel_shape: Shape,
    stride: Pair,
    pads: Pads,
    dilation: Pair,
    groups: int,
) -> Any:
    """One element of dkernel: a sum over samples and windows."""
    u, v, c, o = point
    batch, rows, columns, outputs = g.shape
    first = o // (outputs // groups) * kernel_shape[2]

    def term(place: Any) -> Any:
        n, i, j = place
        return _pixel(k, x, n, (i, j), (u, v), first + c, stride, pads, dilation) * g[n, i, j, o]

    return k.sum((batch, rows, columns), term, x.dtype)


_NONE = ((0, 0), (0, 0))
_CONFIGURATIONS: tuple[tuple[str, Shape, Shape, dict[str, Any]], ...] = (
    ("plain", (2, 5, 4, 3), (3, 2, 3, 2), {}),
    ("pointwise", (2, 3, 3, 4), (1, 1, 4, 3), {}),
    ("stride", (2, 6, 5, 2), (3, 3, 2, 3), {"stride": (2, 2)}),
    ("stride larger than kernel", (1, 7, 7, 2), (2, 2, 2, 2), {"stride": (3, 3)}),
    ("unequal strides", (1, 5, 6, 1), (2, 3, 1, 2), {"stride": (1, 2)}),
    ("padding", (1, 4, 4, 2), (3, 3, 2, 2), {"pads": ((1, 1), (1, 1))}),
    ("uneven padding", (1, 4, 3, 2), (3, 2, 2, 2), {"pads": ((0, 2), (1, 0)), "stride": (2, 1)}),
    ("padding larger than kernel", (1, 2, 2, 1), (2, 2, 1, 1), {"pads": ((3, 3), (3, 3)), "stride": (2, 2)}),
    ("dilation", (1, 6, 7, 2), (3, 2, 2, 2), {"dilation": (2, 3)}),
    ("groups", (2, 4, 4, 4), (3, 3, 2, 6), {"groups": 2}),
    ("depthwise", (2, 4, 4, 3), (3, 3, 1, 3), {"groups": 3, "pads": ((1, 1), (1, 1))}),
    ("depthwise multiplier", (1, 4, 4, 3), (2, 2, 1, 6), {"groups": 3, "stride": (2, 2)}),
    ("one pixel", (3, 1, 1, 5), (1, 1, 5, 1), {}),
    ("kernel larger than the map", (1, 2, 1, 1), (3, 3, 1, 2), {"pads": ((1, 1), (1, 1))}),
)


def _attrs(changes: dict[str, Any]) -> dict[str, Any]:
    return {"stride": (1, 1), "pads": _NONE, "dilation": (1, 1), "groups": 1, **changes}


def _cases(arrange: Any) -> tuple[Any, ...]:
    result = []
    for name, x, kernel, changes in _CONFIGURATIONS:
        attrs = _attrs(changes)
        specs = (Spec(x, np.dtype("float64")), Spec(kernel, np.dtype("float64")))
        inputs, extra = arrange(x, kernel, _output_spec(*specs, **attrs).shape)
        result.append(case(*inputs, name=name, **extra, **attrs))
    return tuple(result)


_TRAITS = frozenset({Trait.CONTRACTION, Trait.LINEAR})

CONV2D = register(
    Op(
        "conv2d",
        conv2d,
        _output_spec,
        _conv2d_reference,
        _conv2d_vjp,
        _conv2d_flops,
        traits=_TRAITS | {Trait.PER_SAMPLE},
        cases=_cases(lambda x, kernel, y: ((x, kernel), {})),
        lowering=(Contraction("convolution", _conv2d_form), Indexed(_conv2d_element, cheap=False, reads=8)),
    )
)
CONV2D_INPUT_GRAD = register(
    Op(
        "conv2d_input_grad",
        conv2d_input_grad,
        _input_grad_spec,
        _input_grad_reference,
        _input_grad_vjp,
        _input_grad_flops,
        traits=_TRAITS | {Trait.PER_SAMPLE},
        cases=_cases(lambda x, kernel, y: ((y, kernel), {"input_shape": x})),
        lowering=(
            Contraction("convolution_input_gradient", _input_grad_form),
            Indexed(_input_grad_element, cheap=False, reads=8),
        ),
    )
)
CONV2D_KERNEL_GRAD = register(
    Op(
        "conv2d_kernel_grad",
        conv2d_kernel_grad,
        _kernel_grad_spec,
        _kernel_grad_reference,
        _kernel_grad_vjp,
        _kernel_grad_flops,
        traits=_TRAITS | {Trait.REDUCTION, Trait.BATCH_REDUCING},
        cases=_cases(lambda x, kernel, y: ((x, y), {"kernel_shape": kernel})),
        lowering=(
            Contraction("convolution_kernel_gradient", _kernel_grad_form),
            Indexed(_kernel_grad_element, cheap=False, reads=8),
        ),
    )
)
