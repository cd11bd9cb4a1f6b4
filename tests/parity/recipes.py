"""Inputs, weights and settings of the stored PyTorch parity vectors (NumPy only).

The vectors in ``torch_vectors.npz`` and ``torch_ops.npz`` hold results only.  What goes *into*
each computation is described here and drawn again whenever it is needed, both by
``make_torch_vectors.py``, which computes the results with PyTorch, and by the tests, which compute
them with chainrule.

Every array has a label of its own, such as ``"op/conv_valid/kernel"``.  It is drawn from
``np.random.Generator(np.random.PCG64(seed))`` where the seed is the CRC-32 of that label, so that
adding, removing or reordering cases leaves all other arrays as they were.  Only
``Generator.random`` (uniform doubles in ``[0, 1)``) is used, followed by one multiplication and one
addition; no transcendental function takes part, so the arrays are the same to the last bit on every
platform.  ``fingerprint()`` condenses a recipe and its arrays to a SHA-256 digest; the digest is
stored next to the results, and a test compares it first: a difference means that the recipe was
edited, or that NumPy's stream changed, after the vectors were made.

Layouts are chainrule's throughout: activations NHWC, convolution kernels HWIO where I counts the
input channels of one group, dense kernels ``(in, out)``, flattening in row-major NHWC order.
All floating-point arrays are float64, all integer arrays int64.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
Arrays: TypeAlias = dict[str, NDArray[Any]]
Shape: TypeAlias = tuple[int, ...]
Padding: TypeAlias = tuple[tuple[int, int], tuple[int, int]]

NO_PADDING: Padding = ((0, 0), (0, 0))


def generator(label: str) -> np.random.Generator:
    """The random generator that belongs to ``label``."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(label.encode("ascii"))))


def uniform(label: str, shape: Shape, low: float, high: float) -> FloatArray:
    """Uniform float64 numbers in ``[low, high)``, always the same for the same label and shape."""
    unit: FloatArray = generator(label).random(shape)
    return np.asarray(low + (high - low) * unit, dtype=np.float64)


def integers(label: str, shape: Shape, count: int) -> NDArray[np.int64]:
    """Uniform int64 numbers in ``0 .. count - 1``, always the same for the same label and shape."""
    unit: FloatArray = generator(label).random(shape)
    return np.asarray(np.floor(unit * count), dtype=np.int64)


@dataclass(frozen=True)
class Uniform:
    """A float64 array of uniform numbers in ``[low, high)``.

    The stored results include its gradient unless ``differentiable`` is false.
    """

    shape: Shape
    low: float = -1.0
    high: float = 1.0
    differentiable: bool = True

    def draw(self, label: str) -> NDArray[Any]:
        return uniform(label, self.shape, self.low, self.high)


@dataclass(frozen=True)
class Integers:
    """An int64 array of uniform numbers in ``0 .. count - 1`` (class labels, indices)."""

    shape: Shape
    count: int
    differentiable: bool = False

    def draw(self, label: str) -> NDArray[Any]:
        return integers(label, self.shape, self.count)


Draw: TypeAlias = Uniform | Integers


def glorot(shape: Shape) -> Uniform:
    """Glorot-uniform limits for an HWIO convolution kernel or an ``(in, out)`` dense kernel."""
    receptive = math.prod(shape[:-2])
    limit = math.sqrt(6.0 / (receptive * shape[-2] + receptive * shape[-1]))
    return Uniform(shape, -limit, limit)


def same_padding(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's ``same`` padding of one axis: ``ceil(size / stride)`` outputs, odd one last."""
    reach = (window - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def same_padding_2d(size: Shape, window: Shape, strides: Shape) -> Padding:
    """TensorFlow's ``same`` padding of (height, width)."""
    return (
        same_padding(size[0], window[0], strides[0]),
        same_padding(size[1], window[1], strides[1]),
    )


def _fingerprint(recipe: object, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    digest = hashlib.sha256(repr(recipe).encode())
    for name, array in arrays.items():
        little = array.astype(array.dtype.newbyteorder("<"))
        digest.update(f"{name} {array.shape} ".encode())
        digest.update(little.tobytes())
    return np.frombuffer(digest.digest(), dtype=np.uint8)


# ------------------------------------------------------------------------------------------------
# Operations
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OpCase:
    """One operation ``y = op(**inputs, **options)``, pulled back along a random cotangent.

    The stored results, in ``torch_ops.npz``, are ``<name>/y``, ``<name>/grad/<input>`` for every
    name in ``differentiable()`` and ``<name>/fingerprint``.  The gradients are those of
    ``sum(y * cotangent(y.shape))``.
    """

    name: str
    op: str
    inputs: Mapping[str, Draw]
    options: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> Arrays:
        """The inputs, by name, in the order of the operation's arguments."""
        return {key: draw.draw(f"op/{self.name}/{key}") for key, draw in self.inputs.items()}

    def differentiable(self) -> tuple[str, ...]:
        """Names of the inputs whose gradients are stored."""
        return tuple(key for key, draw in self.inputs.items() if draw.differentiable)

    def cotangent(self, shape: Shape) -> FloatArray:
        """The cotangent of the output, given the output's shape (``()`` for a scalar)."""
        return uniform(f"op/{self.name}/cotangent", shape, -1.0, 1.0)

    def fingerprint(self) -> NDArray[np.uint8]:
        """SHA-256 of the settings and the inputs, as 32 bytes."""
        return _fingerprint(self, self.arrays())


def _conv(
    name: str,
    x: Shape,
    kernel: Shape,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = NO_PADDING,
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> OpCase:
    return OpCase(
        name,
        "conv2d",
        {"x": Uniform(x), "kernel": glorot(kernel), "bias": Uniform((kernel[-1],), -0.5, 0.5)},
        {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups},
    )


def _pool(
    name: str,
    op: str,
    x: Shape,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding = NO_PADDING,
    **options: Any,
) -> OpCase:
    # Mostly negative values: padding a maximum with zeros instead of -inf would show.
    return OpCase(
        name,
        op,
        {"x": Uniform(x, -2.0, 0.5)},
        {"window": window, "strides": strides, "padding": padding, **options},
    )


def _unary(name: str, op: str, low: float = -3.0, high: float = 3.0, **options: Any) -> OpCase:
    return OpCase(name, op, {"x": Uniform((3, 4, 5), low, high)}, options)


def _binary(name: str, op: str, a: Draw, b: Draw) -> OpCase:
    return OpCase(name, op, {"a": a, "b": b})


def _reduce(name: str, op: str, axis: Shape | None, keepdims: bool) -> OpCase:
    return OpCase(name, op, {"x": Uniform((3, 4, 2, 5))}, {"axis": axis, "keepdims": keepdims})


CONV_CASES: tuple[OpCase, ...] = (
    _conv("conv_valid", (2, 7, 6, 3), (3, 3, 3, 5)),
    _conv("conv_1x1", (2, 5, 4, 17), (1, 1, 17, 3)),
    _conv("conv_1x1_stride_2", (2, 6, 5, 3), (1, 1, 3, 5), strides=(2, 2)),
    _conv("conv_5x3_one_channel", (2, 9, 8, 1), (5, 3, 1, 5), padding=((2, 2), (1, 1))),
    _conv("conv_to_one_channel", (2, 6, 7, 5), (3, 2, 5, 1)),
    _conv("conv_stride_2_same_even", (2, 8, 6, 3), (3, 3, 3, 5), (2, 2), ((0, 1), (0, 1))),
    _conv("conv_stride_2_same_odd", (2, 7, 5, 3), (3, 3, 3, 5), (2, 2), ((1, 1), (1, 1))),
    _conv("conv_stride_3_remainder", (2, 11, 10, 3), (2, 2, 3, 5), strides=(3, 3)),
    _conv("conv_strides_differ", (2, 9, 7, 3), (3, 3, 3, 2), (3, 1), ((1, 0), (2, 1))),
    _conv("conv_dilation_2", (2, 9, 8, 3), (3, 3, 3, 5), dilation=(2, 2)),
    _conv("conv_dilations_differ", (2, 9, 8, 3), (3, 2, 3, 2), (1, 1), ((1, 2), (0, 3)), (2, 3)),
    _conv("conv_groups_2", (2, 6, 7, 6), (3, 3, 3, 4), padding=((1, 1), (1, 1)), groups=2),
    _conv("conv_groups_3_stride_2", (2, 8, 7, 9), (3, 3, 3, 6), (2, 2), ((0, 1), (1, 1)), groups=3),
    _conv("conv_groups_2_dilated", (2, 8, 8, 4), (3, 3, 2, 6), (1, 1), ((2, 2), (2, 2)), (2, 2), 2),
    _conv("conv_depthwise", (2, 6, 6, 5), (3, 3, 1, 5), padding=((1, 1), (1, 1)), groups=5),
    _conv("conv_depthwise_17", (2, 7, 6, 17), (3, 3, 1, 17), (2, 2), ((1, 1), (0, 1)), groups=17),
    _conv("conv_depthwise_multiplier_2", (2, 6, 5, 3), (3, 3, 1, 6), groups=3),
    _conv("conv_asymmetric_padding", (2, 5, 6, 3), (3, 3, 3, 5), padding=((0, 2), (3, 1))),
    _conv("conv_kernel_is_input", (3, 4, 5, 3), (4, 5, 3, 5)),
)

POOL_CASES: tuple[OpCase, ...] = (
    _pool("max_pool_2x2", "max_pool2d", (2, 6, 8, 3), (2, 2), (2, 2)),
    _pool("max_pool_remainder", "max_pool2d", (2, 7, 5, 3), (2, 2), (2, 2)),
    _pool("max_pool_overlap_padded", "max_pool2d", (2, 9, 8, 3), (3, 3), (2, 2), ((1, 1), (1, 1))),
    _pool("max_pool_stride_1", "max_pool2d", (2, 6, 5, 3), (3, 2), (1, 1)),
    _pool("max_pool_asymmetric", "max_pool2d", (2, 8, 6, 3), (3, 3), (2, 2), ((0, 1), (0, 1))),
    _pool("max_pool_gaps", "max_pool2d", (2, 8, 7, 3), (2, 1), (3, 2)),
    _pool("avg_pool_2x2", "avg_pool2d", (2, 6, 8, 3), (2, 2), (2, 2), count_include_pad=True),
    _pool("avg_pool_remainder", "avg_pool2d", (2, 7, 5, 3), (2, 2), (2, 2), count_include_pad=True),
    _pool(
        "avg_pool_count_padding",
        "avg_pool2d",
        (2, 9, 8, 3),
        (3, 3),
        (2, 2),
        ((1, 1), (1, 1)),
        count_include_pad=True,
    ),
    _pool(
        "avg_pool_skip_padding",
        "avg_pool2d",
        (2, 9, 8, 3),
        (3, 3),
        (2, 2),
        ((1, 1), (1, 1)),
        count_include_pad=False,
    ),
    _pool(
        "avg_pool_asymmetric_skip_padding",
        "avg_pool2d",
        (2, 8, 6, 3),
        (3, 3),
        (2, 2),
        ((0, 1), (0, 1)),
        count_include_pad=False,
    ),
    OpCase("global_avg_pool", "global_avg_pool2d", {"x": Uniform((2, 5, 4, 3))}),
    OpCase("global_max_pool", "global_max_pool2d", {"x": Uniform((2, 5, 4, 3))}),
)

ELEMENTWISE_CASES: tuple[OpCase, ...] = (
    _unary("relu", "relu"),
    _unary("relu6", "relu6", -3.0, 9.0),
    _unary("leaky_relu", "leaky_relu", slope=0.2),
    _unary("elu", "elu", alpha=1.0),
    _unary("elu_alpha", "elu", alpha=0.7),
    _unary("selu", "selu"),
    _unary("gelu_erf", "gelu", approximate=False),
    _unary("gelu_tanh", "gelu", approximate=True),
    _unary("silu", "silu"),
    _unary("mish", "mish"),
    _unary("softplus", "softplus"),
    _unary("softplus_wide", "softplus", -700.0, 700.0),
    _unary("softsign", "softsign"),
    _unary("sigmoid", "sigmoid"),
    _unary("sigmoid_wide", "sigmoid", -700.0, 700.0),
    _unary("log_sigmoid", "log_sigmoid"),
    _unary("hard_sigmoid", "hard_sigmoid", -5.0, 5.0),
    _unary("hard_silu", "hard_silu", -5.0, 5.0),
    _unary("tanh", "tanh"),
    _unary("exp", "exp"),
    _unary("expm1", "expm1"),
    _unary("log", "log", 0.1, 3.0),
    _unary("log1p", "log1p", -0.8, 3.0),
    _unary("sqrt", "sqrt", 0.1, 3.0),
    _unary("rsqrt", "rsqrt", 0.1, 3.0),
    _unary("reciprocal", "reciprocal", 0.2, 3.0),
    _unary("square", "square"),
    _unary("abs", "abs"),
    _unary("negative", "negative"),
    _unary("sin", "sin"),
    _unary("cos", "cos"),
    _unary("erf", "erf"),
    _unary("clamp", "clamp", minimum=-0.5, maximum=0.75),
    _unary("pow_3", "pow_constant", exponent=3.0),
    _unary("pow_fraction", "pow_constant", 0.1, 3.0, exponent=1.7),
    OpCase("prelu", "prelu", {"x": Uniform((2, 3, 4, 5), -2.0, 2.0), "alpha": Uniform((5,), 0, 1)}),
)

BINARY_CASES: tuple[OpCase, ...] = (
    _binary("add", "add", Uniform((3, 4)), Uniform((3, 4))),
    _binary("add_broadcast", "add", Uniform((2, 1, 4, 1)), Uniform((3, 1, 5))),
    _binary("subtract_broadcast", "subtract", Uniform((3, 1)), Uniform((2, 1, 4))),
    _binary("multiply", "multiply", Uniform((3, 4)), Uniform((3, 4))),
    _binary("multiply_broadcast", "multiply", Uniform((2, 3, 1)), Uniform((5,))),
    _binary("divide_broadcast", "divide", Uniform((2, 3, 5)), Uniform((3, 1), 0.3, 2.0)),
    _binary("power_broadcast", "power", Uniform((3, 1), 0.2, 2.0), Uniform((2, 1, 4), -2.0, 3.0)),
    _binary("maximum_broadcast", "maximum", Uniform((4, 3, 5)), Uniform((3, 1))),
    _binary("minimum_broadcast", "minimum", Uniform((4, 3, 5)), Uniform((5,))),
    _binary("matmul", "matmul", Uniform((3, 4)), Uniform((4, 5))),
    _binary("matmul_batched", "matmul", Uniform((2, 3, 4)), Uniform((2, 4, 5))),
    _binary("matmul_batch_broadcast", "matmul", Uniform((3, 1, 2, 4)), Uniform((2, 4, 5))),
    _binary("matmul_shared_right", "matmul", Uniform((2, 3, 4)), Uniform((4, 5))),
    OpCase(
        "dense",
        "dense",
        {"x": Uniform((6, 7)), "kernel": glorot((7, 5)), "bias": Uniform((5,), -0.5, 0.5)},
    ),
)

REDUCE_CASES: tuple[OpCase, ...] = (
    _reduce("sum_all", "sum", None, False),
    _reduce("sum_axes", "sum", (0, 2), False),
    _reduce("mean_all", "mean", None, False),
    _reduce("mean_axes_kept", "mean", (1, 3), True),
    _reduce("var_all", "var", None, False),
    _reduce("var_last", "var", (3,), False),
    _reduce("var_batch_axes", "var", (0, 1, 2), False),
    _reduce("var_batch_axes_kept", "var", (0, 1, 2), True),
    _reduce("std_axes", "std", (0, 1), False),
    _reduce("max_all", "max", None, False),
    _reduce("max_axes", "max", (1, 2), False),
    _reduce("max_last_kept", "max", (3,), True),
    _reduce("min_axes", "min", (0, 3), False),
    _reduce("prod_last", "prod", (3,), False),
    _reduce("logsumexp_last", "logsumexp", (3,), False),
    _reduce("logsumexp_axes_kept", "logsumexp", (1, 2), True),
)

SOFTMAX_CASES: tuple[OpCase, ...] = (
    OpCase("softmax_last", "softmax", {"x": Uniform((3, 4, 5), -3, 3)}, {"axis": -1}),
    OpCase("softmax_axis_1", "softmax", {"x": Uniform((3, 4, 5), -3, 3)}, {"axis": 1}),
    OpCase("softmax_wide", "softmax", {"x": Uniform((4, 6), -900, 900)}, {"axis": -1}),
    OpCase("log_softmax_last", "log_softmax", {"x": Uniform((3, 4, 5), -3, 3)}, {"axis": -1}),
    OpCase("log_softmax_axis_1", "log_softmax", {"x": Uniform((3, 4, 5), -3, 3)}, {"axis": 1}),
    OpCase("log_softmax_wide", "log_softmax", {"x": Uniform((4, 6), -900, 900)}, {"axis": -1}),
)

NORM_CASES: tuple[OpCase, ...] = (
    OpCase(
        "batch_norm_nhwc",
        "batch_norm",
        {
            "x": Uniform((4, 3, 5, 6), -1, 3),
            "gamma": Uniform((6,), 0.5, 1.5),
            "beta": Uniform((6,)),
        },
        {"eps": 1e-3},
    ),
    OpCase(
        "batch_norm_features",
        "batch_norm",
        {"x": Uniform((7, 5), -1, 3), "gamma": Uniform((5,), 0.5, 1.5), "beta": Uniform((5,))},
        {"eps": 1e-5},
    ),
    OpCase(
        "batch_norm_inference",
        "batch_norm_inference",
        {
            "x": Uniform((3, 4, 2, 5)),
            "gamma": Uniform((5,), 0.5, 1.5),
            "beta": Uniform((5,)),
            "mean": Uniform((5,), differentiable=False),
            "variance": Uniform((5,), 0.2, 2.0, differentiable=False),
        },
        {"eps": 1e-3},
    ),
    OpCase(
        "layer_norm",
        "layer_norm",
        {"x": Uniform((4, 3, 6), -1, 3), "gamma": Uniform((6,), 0.5, 1.5), "beta": Uniform((6,))},
        {"eps": 1e-3},
    ),
    OpCase(
        "group_norm",
        "group_norm",
        {
            "x": Uniform((2, 4, 3, 6), -1, 3),
            "gamma": Uniform((6,), 0.5, 1.5),
            "beta": Uniform((6,)),
        },
        {"groups": 3, "eps": 1e-3},
    ),
)

LOSS_CASES: tuple[OpCase, ...] = (
    OpCase(
        "cross_entropy_sparse",
        "softmax_cross_entropy_sparse",
        {"logits": Uniform((7, 5), -4, 4), "labels": Integers((7,), 5)},
        {"label_smoothing": 0.0},
    ),
    OpCase(
        "cross_entropy_sparse_wide",
        "softmax_cross_entropy_sparse",
        {"logits": Uniform((7, 5), -900, 900), "labels": Integers((7,), 5)},
        {"label_smoothing": 0.0},
    ),
    OpCase(
        "cross_entropy_smoothed",
        "softmax_cross_entropy_sparse",
        {"logits": Uniform((7, 5), -4, 4), "labels": Integers((7,), 5)},
        {"label_smoothing": 0.1},
    ),
    OpCase(
        "binary_cross_entropy",
        "sigmoid_cross_entropy",
        {"logits": Uniform((7, 3), -4, 4), "targets": Uniform((7, 3), 0, 1, differentiable=False)},
    ),
    OpCase(
        "binary_cross_entropy_wide",
        "sigmoid_cross_entropy",
        {
            "logits": Uniform((7, 3), -900, 900),
            "targets": Uniform((7, 3), 0, 1, differentiable=False),
        },
    ),
    OpCase("mse", "mse", {"prediction": Uniform((6, 4)), "target": Uniform((6, 4))}),
    OpCase("mae", "mae", {"prediction": Uniform((6, 4)), "target": Uniform((6, 4))}),
    OpCase(
        "huber",
        "huber",
        {"prediction": Uniform((6, 4), -2, 2), "target": Uniform((6, 4), -2, 2)},
        {"delta": 0.8},
    ),
)

SHAPE_CASES: tuple[OpCase, ...] = (
    OpCase("pad_constant", "pad", {"x": Uniform((2, 3, 4, 3))}, {"padding": ((1, 2), (0, 3))}),
    OpCase("upsample_nearest", "upsample_nearest", {"x": Uniform((2, 3, 4, 3))}, {"factor": (2, 3)}),
    OpCase("upsample_bilinear", "upsample_bilinear", {"x": Uniform((2, 3, 4, 3))}, {"factor": (2, 3)}),
    OpCase("embedding", "embedding", {"table": Uniform((4, 3)), "indices": Integers((5, 6), 4)}),
    OpCase("transpose", "transpose", {"x": Uniform((2, 3, 4))}, {"axes": (2, 0, 1)}),
    OpCase("cumsum", "cumsum", {"x": Uniform((2, 3, 4))}, {"axis": 1}),
    OpCase(
        "concatenate",
        "concatenate",
        {"a": Uniform((2, 3, 4)), "b": Uniform((2, 1, 4))},
        {"axis": 1},
    ),
)

OP_CASES: tuple[OpCase, ...] = (
    CONV_CASES
    + POOL_CASES
    + ELEMENTWISE_CASES
    + BINARY_CASES
    + REDUCE_CASES
    + SOFTMAX_CASES
    + NORM_CASES
    + LOSS_CASES
    + SHAPE_CASES
)


# ------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One layer of a sequential network.

    ``kind`` names what it does and ``options`` how; ``params`` gives its trainable arrays in the
    usual order (kernel, bias; gamma, beta).  A parameter's full name is ``<layer>/<param>``.
    """

    name: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Uniform] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkCase:
    """A sequential network under the mean softmax cross-entropy of sparse labels.

    The stored results, in ``torch_vectors.npz`` under ``network/<name>/``, are ``loss``,
    ``logits``, ``grad/input``, ``grad/<parameter>`` for every name in ``parameter_names()``,
    ``stat/<layer>/mean`` and ``stat/<layer>/variance`` (biased) for every batch normalisation, and
    ``fingerprint``.
    """

    name: str
    input: Uniform
    classes: int
    layers: tuple[Layer, ...]

    def parameter_names(self) -> tuple[str, ...]:
        """Full names of the trainable arrays, in layer order."""
        return tuple(f"{layer.name}/{key}" for layer in self.layers for key in layer.params)

    def parameters(self) -> Arrays:
        """The trainable arrays by full name, in layer order."""
        return {
            f"{layer.name}/{key}": draw.draw(f"network/{self.name}/{layer.name}/{key}")
            for layer in self.layers
            for key, draw in layer.params.items()
        }

    def inputs(self) -> FloatArray:
        """The batch of inputs, NHWC."""
        return np.asarray(self.input.draw(f"network/{self.name}/input"), dtype=np.float64)

    def labels(self) -> NDArray[np.int64]:
        """One class index per example."""
        return integers(f"network/{self.name}/labels", self.input.shape[:1], self.classes)

    def fingerprint(self) -> NDArray[np.uint8]:
        """SHA-256 of the settings, inputs, labels and parameters, as 32 bytes."""
        arrays: Arrays = {"input": self.inputs(), "labels": self.labels(), **self.parameters()}
        return _fingerprint(self, arrays)


def _bias(size: int) -> Uniform:
    return Uniform((size,), -0.1, 0.1)


def _conv_layer(
    name: str,
    kernel: Shape,
    padding: str,
    strides: tuple[int, int] = (1, 1),
    groups: int = 1,
    use_bias: bool = True,
) -> Layer:
    params = {"kernel": glorot(kernel)}
    if use_bias:
        params["bias"] = _bias(kernel[-1])
    options = {"strides": strides, "padding": padding, "dilation": (1, 1), "groups": groups}
    return Layer(name, "conv2d", options, params)


def _dense_layer(name: str, inputs: int, outputs: int) -> Layer:
    return Layer(name, "dense", {}, {"kernel": glorot((inputs, outputs)), "bias": _bias(outputs)})


def _pool_layer(name: str, kind: str) -> Layer:
    return Layer(name, kind, {"window": (2, 2), "strides": (2, 2), "padding": "valid"})


def _normalised(name: str, size: int) -> NetworkCase:
    return NetworkCase(
        name,
        Uniform((6, size, size, 3)),
        5,
        (
            _conv_layer("conv", (3, 3, 3, 8), "same", (2, 2), use_bias=False),
            Layer(
                "norm",
                "batch_norm",
                {"eps": 1e-3},
                {"gamma": Uniform((8,), 0.5, 1.5), "beta": Uniform((8,), -0.5, 0.5)},
            ),
            Layer("relu", "relu"),
            _conv_layer("depthwise", (3, 3, 1, 8), "same", groups=8),
            _pool_layer("pool", "avg_pool2d"),
            Layer("leaky", "leaky_relu", {"slope": 0.2}),
            Layer("mean", "global_avg_pool2d"),
            _dense_layer("logits", 8, 5),
        ),
    )


NETWORK_CASES: tuple[NetworkCase, ...] = (
    NetworkCase(
        "classic",
        Uniform((8, 28, 28, 1), 0.0, 1.0),
        10,
        (
            _conv_layer("conv1", (3, 3, 1, 32), "valid"),
            Layer("relu1", "relu"),
            _pool_layer("pool1", "max_pool2d"),
            _conv_layer("conv2", (3, 3, 32, 64), "valid"),
            Layer("relu2", "relu"),
            _pool_layer("pool2", "max_pool2d"),
            Layer("flatten", "flatten"),
            _dense_layer("hidden", 1600, 64),
            Layer("relu3", "relu"),
            _dense_layer("logits", 64, 10),
        ),
    ),
    # 11 x 11 is padded evenly by "same" with stride 2, 12 x 12 only at the bottom and right.
    _normalised("normalised", 11),
    _normalised("normalised_even", 12),
)


# ------------------------------------------------------------------------------------------------
# Optimizers
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptimizerCase:
    """Ten steps of an optimizer down a quadratic bowl whose centre is jolted at every step.

    The gradient of parameter ``p`` before step ``t`` (counted from 0) is
    ``curvature * (p - target) + jolt[t]``; it stays well away from zero, so that an Adam with
    ``eps = 0`` is well defined and does not depend on where a definition puts its ``eps``.

    The stored results, in ``torch_vectors.npz`` under ``optimizer/<name>/``, are
    ``<parameter>/trajectory`` (the parameter after each step), ``<parameter>/final`` (its last
    entry) and ``fingerprint``.
    """

    name: str
    optimizer: str
    options: Mapping[str, Any]
    steps: int = 10
    shapes: Mapping[str, Shape] = field(default_factory=lambda: {"w": (3, 4), "b": (4,)})

    def initial(self) -> Arrays:
        """The parameters before the first step."""
        return {key: self._draw(key, "initial", shape) for key, shape in self.shapes.items()}

    def gradients(self, step: int, params: Mapping[str, NDArray[Any]]) -> Arrays:
        """The gradients at ``params`` before step number ``step`` (from 0)."""
        gradients: Arrays = {}
        for key, shape in self.shapes.items():
            away = self._draw(key, "away", shape, 1.0, 2.0)
            side = np.where(self._draw(key, "side", shape) < 0.0, -1.0, 1.0)
            target = self._draw(key, "initial", shape) + side * away
            curvature = self._draw(key, "curvature", shape, 0.5, 1.5)
            jolt = self._draw(key, "jolt", (self.steps, *shape), -0.1, 0.1)[step]
            gradients[key] = curvature * (params[key] - target) + jolt
        return gradients

    def fingerprint(self) -> NDArray[np.uint8]:
        """SHA-256 of the settings, the initial parameters and their first and last gradients."""
        initial = self.initial()
        arrays: Arrays = dict(initial)
        for step in (0, self.steps - 1):
            arrays |= {f"{key}/{step}": g for key, g in self.gradients(step, initial).items()}
        return _fingerprint(self, arrays)

    def _draw(self, key: str, what: str, shape: Shape, low: float = -1.0, high: float = 1.0) -> FloatArray:
        # The same for all optimizers: the label leaves out the case's name.
        return uniform(f"optimizer/{key}/{what}", shape, low, high)


_ADAM: Mapping[str, Any] = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 0.0}

OPTIMIZER_CASES: tuple[OptimizerCase, ...] = (
    OptimizerCase("sgd", "sgd", {"lr": 0.01, "momentum": 0.0, "nesterov": False}),
    OptimizerCase("sgd_momentum", "sgd", {"lr": 0.01, "momentum": 0.9, "nesterov": False}),
    OptimizerCase("sgd_nesterov", "sgd", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    OptimizerCase("adam", "adam", _ADAM),
    OptimizerCase("adam_fast", "adam", {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 0.0}),
    OptimizerCase("adamw", "adamw", {**_ADAM, "weight_decay": 0.1}),
    OptimizerCase("rmsprop", "rmsprop", {"lr": 1e-3, "rho": 0.9, "eps": 0.0}),
)
