"""Stored results of PyTorch in float64 (see README.md here): operations, whole networks, optimizers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import ops
from chainrule.graph import tensor
from tests.ops.harness import relative_error
from tests.parity.recipes import NETWORK_CASES, OP_CASES, OPTIMIZER_CASES, Layer, NetworkCase, OpCase, OptimizerCase

FOLDER = Path(__file__).parent

Function = Callable[..., cr.Tensor]


@cache
def _stored(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / name, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def _conv(x: Any, kernel: Any, bias: Any, *, strides: Any, padding: Any, dilation: Any, groups: int) -> cr.Tensor:
    return ops.conv2d(x, kernel, strides, padding, dilation, groups) + bias


def _max_pool(x: Any, *, window: Any, strides: Any, padding: Any) -> Any:
    return ops.max_pool2d(x, window, strides, padding)


def _avg_pool(x: Any, *, window: Any, strides: Any, padding: Any, count_include_pad: bool) -> cr.Tensor:
    return ops.avg_pool2d(x, window, strides, padding, count_include_pad)


def _embedding(table: Any, indices: Any) -> cr.Tensor:
    return ops.gather(table, indices)


def _pad(x: Any, *, padding: Any) -> cr.Tensor:
    return ops.pad(x, [(0, 0), *padding, (0, 0)])


def _sparse(logits: Any, labels: Any, *, label_smoothing: float) -> cr.Tensor:
    smooth = ops.one_hot(labels, int(logits.shape[-1]), "float64")
    return cr.losses.categorical_crossentropy(smooth, logits, True, label_smoothing)


OPERATIONS: dict[str, Function] = {
    "conv2d": _conv,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "global_avg_pool2d": lambda x: ops.mean(x, (1, 2)),
    "global_max_pool2d": lambda x: ops.max(x, (1, 2)),
    "relu": ops.relu,
    "relu6": lambda x: ops.clip(x, 0, 6),
    "silu": ops.silu,
    "softplus": ops.softplus,
    "sigmoid": ops.sigmoid,
    "log_sigmoid": lambda x: -ops.softplus(-x),
    "tanh": ops.tanh,
    "leaky_relu": lambda x, slope: ops.leaky_relu(x, slope),
    "elu": ops.elu,
    "gelu": ops.gelu,
    "prelu": ops.prelu,
    "exp": ops.exp,
    "log": ops.log,
    "sqrt": ops.sqrt,
    "rsqrt": lambda x: 1 / ops.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "square": lambda x: x * x,
    "abs": ops.abs,
    "negative": ops.negative,
    "erf": ops.erf,
    "clamp": lambda x, minimum, maximum: ops.clip(x, minimum, maximum),
    "pow_constant": lambda x, exponent: x**exponent,
    "add": ops.add,
    "subtract": ops.subtract,
    "multiply": ops.multiply,
    "divide": ops.divide,
    "power": ops.power,
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "matmul": ops.matmul,
    "dense": ops.dense,
    "sum": ops.sum,
    "mean": ops.mean,
    "var": ops.var,
    "std": lambda x, axis, keepdims: ops.sqrt(ops.var(x, axis, keepdims)),
    "max": ops.max,
    "min": lambda x, axis, keepdims: -ops.max(-x, axis, keepdims),
    "softmax": ops.softmax,
    "log_softmax": ops.log_softmax,
    "batch_norm": lambda x, gamma, beta, eps: ops.batch_norm(x, gamma, beta, eps)[0],
    "batch_norm_inference": lambda x, gamma, beta, mean, variance, eps: ops.batch_norm_inference(
        x, gamma, beta, mean, variance, eps
    ),
    "softmax_cross_entropy_sparse": _sparse,
    "sigmoid_cross_entropy": lambda logits, targets: cr.losses.binary_crossentropy(targets, logits, True),
    "mse": lambda prediction, target: cr.losses.mean_squared_error(target, prediction),
    "mae": lambda prediction, target: ops.mean(ops.abs(prediction - target)),
    "pad": _pad,
    "embedding": _embedding,
    "transpose": ops.transpose,
    "concatenate": lambda a, b, axis: ops.concat([a, b], axis),
}

NOT_YET = frozenset(
    [
        "selu",
        "mish",
        "softsign",
        "hard_sigmoid",
        "hard_silu",
        "expm1",
        "log1p",
        "sin",
        "cos",
        "prod",
        "logsumexp",
        "layer_norm",
        "group_norm",
        "huber",
        "upsample_nearest",
        "upsample_bilinear",
        "cumsum",
    ]
)
"""Operations that have stored vectors and that the library does not offer."""


def test_every_stored_operation_is_tested_or_listed() -> None:
    assert {case.op for case in OP_CASES} == set(OPERATIONS) | NOT_YET
    assert not set(OPERATIONS) & NOT_YET


@pytest.mark.parametrize("case", [c for c in OP_CASES if c.op in OPERATIONS], ids=lambda c: c.name)
def test_operation(case: OpCase) -> None:
    stored = _stored("torch_ops.npz")
    np.testing.assert_array_equal(case.fingerprint(), stored[f"{case.name}/fingerprint"])
    inputs = {name: tensor(array, requires_grad=name in case.differentiable()) for name, array in case.arrays().items()}
    y = OPERATIONS[case.op](*inputs.values(), **case.options)
    assert relative_error(y.data, stored[f"{case.name}/y"]) < 1e-11
    names = case.differentiable()
    shape = tuple(int(size) for size in y.shape)
    found = cr.gradients([y], [inputs[name] for name in names], [tensor(case.cotangent(shape))])
    for name, gradient in zip(names, found, strict=True):
        wanted = stored[f"{case.name}/grad/{name}"]
        got = np.zeros_like(wanted) if gradient is None else gradient.data
        assert relative_error(got, wanted) < 1e-10, name


def _layer(layer: Layer) -> Any:
    options, kinds = dict(layer.options), cr.layers
    bias = "bias" in layer.params
    if layer.kind == "conv2d":
        kernel = layer.params["kernel"].shape
        return kinds.Conv2D(
            kernel[3],
            kernel[:2],
            strides=options.get("strides", 1),
            padding=options["padding"],
            groups=options.get("groups", 1),
            use_bias=bias,
            name=layer.name,
        )
    makers: dict[str, Callable[[], Any]] = {
        "max_pool2d": lambda: kinds.MaxPooling2D(options["window"], options["strides"]),
        "avg_pool2d": lambda: kinds.AveragePooling2D(options["window"], options["strides"]),
        "batch_norm": lambda: kinds.BatchNormalization(epsilon=options["eps"], name=layer.name),
        "relu": kinds.ReLU,
        "leaky_relu": lambda: kinds.LeakyReLU(options["slope"]),
        "flatten": kinds.Flatten,
        "global_avg_pool2d": kinds.GlobalAveragePooling2D,
        "dense": lambda: kinds.Dense(layer.params["kernel"].shape[1], use_bias=bias, name=layer.name),
    }
    return makers[layer.kind]()


def _network(case: NetworkCase) -> cr.Sequential:
    shape = case.input.shape[1:]
    model = cr.Sequential([cr.Input(shape, dtype="float64"), *(_layer(layer) for layer in case.layers)])
    values = case.parameters()
    for weight in model.trainable_weights:
        weight.assign(values[weight.name])
    assert [w.name for w in model.trainable_weights] == list(values)
    return model


@pytest.mark.parametrize("case", NETWORK_CASES, ids=lambda c: c.name)
def test_whole_model_gradient(case: NetworkCase) -> None:
    """Loss, logits, and the gradient of every parameter and of the input, each under 1e-7."""
    stored, root = _stored("torch_vectors.npz"), f"network/{case.name}"
    np.testing.assert_array_equal(case.fingerprint(), stored[f"{root}/fingerprint"])
    model = _network(case)
    x = tensor(case.inputs(), requires_grad=True)
    logits = model(x, training=True)
    loss = cr.losses.sparse_categorical_crossentropy(case.labels(), logits, from_logits=True)
    loss.backward()
    assert relative_error(logits.data, stored[f"{root}/logits"]) < 1e-7
    assert relative_error(loss.data, stored[f"{root}/loss"]) < 1e-7
    assert x.grad is not None
    assert relative_error(x.grad.data, stored[f"{root}/grad/input"]) < 1e-7
    for weight in model.trainable_weights:
        assert weight.grad is not None
        assert relative_error(weight.grad.data, stored[f"{root}/grad/{weight.name}"]) < 1e-7, weight.name
    for layer in model.layers:
        if isinstance(layer, cr.layers.BatchNormalization):
            for found, name, start in (
                (layer.moving_mean, "mean", 0.0),
                (layer.moving_variance, "variance", 1.0),
            ):
                wanted = start * layer.momentum + stored[f"{root}/stat/{layer.name}/{name}"] * (1 - layer.momentum)
                assert relative_error(found.numpy(), wanted) < 1e-12


def test_traced_step_gives_the_same_gradients_as_torch() -> None:
    """The `grad` entry of the compiled step, on the classic network."""
    case, stored = NETWORK_CASES[0], _stored("torch_vectors.npz")
    model = _network(case)
    model.compile("adam", cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    from chainrule.train.step import gradient_graph

    x, y = case.inputs(), case.labels().astype(np.int32)
    graph = gradient_graph(
        model, model.objective, cr.input_spec((None, *x.shape[1:]), "float64"), cr.input_spec((None,), "int32")
    )
    found = cr.engines.Executable(graph)(x, y, np.zeros(2, np.uint32), np.uint32(0), np.float64(len(x)))
    assert relative_error(found.pop("loss"), stored["network/classic/loss"]) < 1e-7
    for name, gradient in found.items():
        assert relative_error(gradient, stored[f"network/classic/grad/{name}"]) < 1e-7, name


def _optimizer(case: OptimizerCase) -> Any:
    options = case.options
    if case.optimizer == "sgd":
        return cr.optimizers.SGD(options["lr"], options["momentum"], options["nesterov"])
    if case.optimizer == "adam":
        return cr.optimizers.Adam(options["lr"], options["beta1"], options["beta2"], options["eps"])
    return cr.optimizers.RMSprop(options["lr"], options["rho"], epsilon=options["eps"])


@pytest.mark.parametrize("case", [c for c in OPTIMIZER_CASES if c.optimizer != "adamw"], ids=lambda c: c.name)
def test_optimizer_trajectory(case: OptimizerCase) -> None:
    stored = _stored("torch_vectors.npz")
    np.testing.assert_array_equal(case.fingerprint(), stored[f"optimizer/{case.name}/fingerprint"])
    optimizer = _optimizer(case)
    variables = {name: cr.Variable(array, name=name) for name, array in case.initial().items()}
    for step in range(case.steps):
        slopes = case.gradients(step, {name: v.numpy() for name, v in variables.items()})
        for name, variable in variables.items():
            variable.grad = tensor(slopes[name])
        optimizer.step(list(variables.values()))
        for name, variable in variables.items():
            wanted = stored[f"optimizer/{case.name}/{name}/trajectory"][step]
            assert relative_error(variable.numpy(), wanted) < 1e-12, (step, name)
