"""Compute the stored parity vectors with PyTorch in float64.

Run it in an environment of its own; chainrule itself is neither needed nor imported::

    python -m venv ../torch-env
    ../torch-env/bin/pip install torch==2.13.0 numpy
    ../torch-env/bin/python tests/parity/make_torch_vectors.py

It writes ``torch_vectors.npz`` (networks and optimizers) and ``torch_ops.npz`` (single operations)
next to itself, or into ``--out DIRECTORY``.  With ``--gradcheck`` it also compares PyTorch's
gradient of every operation with central differences, which catches inputs that happen to lie on a
kink or in a tie.

``recipes.py`` holds the inputs, the weights and the layout conventions.  Every operation below
takes and returns arrays in chainrule's layouts and changes to PyTorch's inside, so that automatic
differentiation hands the gradients back in chainrule's layouts too.  One thread and deterministic
algorithms are used and the archives carry no time stamps: on one machine, two runs write the same
bytes.  On another processor the last bits of the results may differ.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
import torch.nn.functional as F  # type: ignore[import-not-found, unused-ignore]
from numpy.typing import NDArray
from torch import Tensor  # type: ignore[import-not-found, unused-ignore]

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout

from tests.parity.recipes import (
    NETWORK_CASES,
    NO_PADDING,
    OP_CASES,
    OPTIMIZER_CASES,
    Arrays,
    Layer,
    NetworkCase,
    OpCase,
    OptimizerCase,
    Padding,
    same_padding_2d,
)

TORCH_VERSION = "2.13.0"

# ------------------------------------------------------------------------------------------------
# Operations in chainrule's layouts
# ------------------------------------------------------------------------------------------------


def to_nchw(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2).contiguous()


def to_nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def pad_nchw(x: Tensor, padding: Padding, value: float = 0.0) -> Tensor:
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def conv2d(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    *,
    strides: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    padded = pad_nchw(to_nchw(x), padding)
    weight = kernel.permute(3, 2, 0, 1).contiguous()  # HWIO to OIHW
    return to_nhwc(F.conv2d(padded, weight, bias, strides, 0, dilation, groups))


def max_pool2d(x: Tensor, *, window: tuple[int, int], strides: tuple[int, int], padding: Padding) -> Tensor:
    padded = pad_nchw(to_nchw(x), padding, -math.inf)
    return to_nhwc(F.max_pool2d(padded, window, strides))


def avg_pool2d(
    x: Tensor,
    *,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
    count_include_pad: bool = True,
) -> Tensor:
    y = F.avg_pool2d(pad_nchw(to_nchw(x), padding), window, strides)
    if not count_include_pad:
        ones = torch.ones_like(to_nchw(x))
        y = y / F.avg_pool2d(pad_nchw(ones, padding), window, strides)
    (top, bottom), (left, right) = padding
    if top == bottom and left == right:  # PyTorch has this case built in
        own = F.avg_pool2d(to_nchw(x), window, strides, (top, left), count_include_pad=count_include_pad)
        assert torch.allclose(y, own, rtol=1e-14, atol=1e-14)
        y = own
    return to_nhwc(y)


def dense(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, kernel.T, bias)


def reduction(
    function: Callable[[Tensor, tuple[int, ...], bool], Tensor],
) -> Callable[..., Tensor]:
    def reduce(x: Tensor, *, axis: tuple[int, ...] | None, keepdims: bool) -> Tensor:
        return function(x, tuple(range(x.ndim)) if axis is None else axis, keepdims)

    return reduce


def prod(x: Tensor, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    (axis,) = axes
    return x.prod(axis, keepdim=keepdims)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    return F.batch_norm(flat, None, None, gamma, beta, training=True, eps=eps).reshape(x.shape)


def batch_norm_inference(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, *, eps: float
) -> Tensor:
    flat = x.reshape(-1, x.shape[-1])
    return F.batch_norm(flat, mean, variance, gamma, beta, eps=eps).reshape(x.shape)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], gamma, beta, eps)


def group_norm(x: Tensor, gamma: Tensor, beta: Tensor, *, groups: int, eps: float) -> Tensor:
    return to_nhwc(F.group_norm(to_nchw(x), groups, gamma, beta, eps))


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return to_nhwc(F.prelu(to_nchw(x), alpha))


def softplus(x: Tensor) -> Tensor:
    # F.softplus turns linear above its threshold; this is log(1 + exp(x)) everywhere.
    return torch.logaddexp(x, torch.zeros_like(x))


def upsample(x: Tensor, factor: tuple[int, int], mode: str) -> Tensor:
    scale = tuple(float(f) for f in factor)
    return to_nhwc(F.interpolate(to_nchw(x), scale_factor=scale, mode=mode))


def cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)


OPS: Mapping[str, Callable[..., Tensor]] = {
    "conv2d": conv2d,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "global_avg_pool2d": lambda x: x.mean((1, 2)),
    "global_max_pool2d": lambda x: x.amax((1, 2)),
    # Elementwise
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x, *, slope: F.leaky_relu(x, slope),
    "elu": lambda x, *, alpha: F.elu(x, alpha),
    "selu": F.selu,
    "gelu": lambda x, *, approximate: F.gelu(x, approximate="tanh" if approximate else "none"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": softplus,
    "softsign": F.softsign,
    "sigmoid": torch.sigmoid,
    "log_sigmoid": F.logsigmoid,
    "hard_sigmoid": F.hardsigmoid,
    "hard_silu": F.hardswish,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "abs": torch.abs,
    "negative": torch.neg,
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "clamp": lambda x, *, minimum, maximum: x.clamp(minimum, maximum),
    "pow_constant": lambda x, *, exponent: x.pow(exponent),
    "prelu": prelu,
    # Two arguments
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "power": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "matmul": torch.matmul,
    "dense": dense,
    # Reductions
    "sum": reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "mean": reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "var": reduction(lambda x, axes, keep: x.var(axes, correction=0, keepdim=keep)),
    "std": reduction(lambda x, axes, keep: x.std(axes, correction=0, keepdim=keep)),
    "max": reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "min": reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "prod": reduction(prod),
    "logsumexp": reduction(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "softmax": lambda x, *, axis: F.softmax(x, axis),
    "log_softmax": lambda x, *, axis: F.log_softmax(x, axis),
    # Normalisations
    "batch_norm": batch_norm,
    "batch_norm_inference": batch_norm_inference,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    # Losses
    "softmax_cross_entropy_sparse": cross_entropy,
    "sigmoid_cross_entropy": F.binary_cross_entropy_with_logits,
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": lambda prediction, target, *, delta: F.huber_loss(prediction, target, delta=delta),
    # Shapes
    "pad": lambda x, *, padding: to_nhwc(pad_nchw(to_nchw(x), padding)),
    "upsample_nearest": lambda x, *, factor: upsample(x, factor, "nearest"),
    "upsample_bilinear": lambda x, *, factor: upsample(x, factor, "bilinear"),
    "embedding": lambda table, indices: F.embedding(indices, table),
    "transpose": lambda x, *, axes: x.permute(axes),
    "cumsum": lambda x, *, axis: x.cumsum(axis),
    "concatenate": lambda a, b, *, axis: torch.cat((a, b), axis),
}


def leaf(array: NDArray[Any], differentiable: bool = True) -> Tensor:
    return torch.tensor(array, requires_grad=differentiable)


def plain(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = np.ascontiguousarray(tensor.detach().numpy())
    return array.reshape(tuple(tensor.shape))  # ascontiguousarray makes scalars 1-d


def op_vectors(case: OpCase, gradcheck: bool) -> Arrays:
    differentiable = case.differentiable()
    inputs = {key: leaf(array, key in differentiable) for key, array in case.arrays().items()}
    function = OPS[case.op]
    y = function(*inputs.values(), **case.options)
    cotangent = torch.tensor(case.cotangent(tuple(y.shape)))
    gradients = torch.autograd.grad(y, [inputs[key] for key in differentiable], cotangent)
    results: Arrays = {f"{case.name}/y": plain(y)}
    for key, gradient in zip(differentiable, gradients, strict=True):
        results[f"{case.name}/grad/{key}"] = plain(gradient)
    results[f"{case.name}/fingerprint"] = case.fingerprint()
    if gradcheck:
        torch.autograd.gradcheck(lambda *arguments: function(*arguments, **case.options), tuple(inputs.values()))
    return results


# ------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------


def layer_options(layer: Layer, x: Tensor) -> dict[str, Any]:
    """The layer's options with ``"same"`` and ``"valid"`` turned into explicit padding."""
    options = dict(layer.options)
    if options.get("padding") == "valid":
        options["padding"] = NO_PADDING
    elif options.get("padding") == "same":
        window = options["window"] if "window" in options else layer.params["kernel"].shape[:2]
        options["padding"] = same_padding_2d(tuple(x.shape[1:3]), window, options["strides"])
    return options


def network_vectors(case: NetworkCase) -> Arrays:
    prefix = f"network/{case.name}"
    params = {name: leaf(array) for name, array in case.parameters().items()}
    inputs = leaf(case.inputs())
    results: Arrays = {}
    x = inputs
    for layer in case.layers:
        if layer.kind == "relu":  # no pre-activation so near the kink that rounding could cross it
            assert float(x.detach().abs().min()) > 1e-9, f"{prefix}: {layer.name}"
        if layer.kind == "batch_norm":
            flat = x.reshape(-1, x.shape[-1])
            results[f"{prefix}/stat/{layer.name}/mean"] = plain(flat.mean(0))
            results[f"{prefix}/stat/{layer.name}/variance"] = plain(flat.var(0, correction=0))
        if layer.kind == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:
            own = [params[f"{layer.name}/{key}"] for key in layer.params]
            x = OPS[layer.kind](x, *own, **layer_options(layer, x))
    loss = F.cross_entropy(x, torch.tensor(case.labels()))
    wanted = {"input": inputs, **params}
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    results[f"{prefix}/loss"] = plain(loss)
    results[f"{prefix}/logits"] = plain(x)
    for name, gradient in zip(wanted, gradients, strict=True):
        results[f"{prefix}/grad/{name}"] = plain(gradient)
    results[f"{prefix}/fingerprint"] = case.fingerprint()
    return results


# ------------------------------------------------------------------------------------------------
# Optimizers
# ------------------------------------------------------------------------------------------------


def make_optimizer(case: OptimizerCase, params: list[Tensor]) -> torch.optim.Optimizer:
    options = case.options
    if case.optimizer == "sgd":
        return torch.optim.SGD(
            params,
            lr=options["lr"],
            momentum=options["momentum"],
            nesterov=options["nesterov"],
            foreach=False,
        )
    if case.optimizer == "rmsprop":
        return torch.optim.RMSprop(params, lr=options["lr"], alpha=options["rho"], eps=options["eps"], foreach=False)
    betas = (options["beta1"], options["beta2"])
    if case.optimizer == "adam":
        return torch.optim.Adam(params, lr=options["lr"], betas=betas, eps=options["eps"], foreach=False)
    if case.optimizer == "adamw":
        return torch.optim.AdamW(
            params,
            lr=options["lr"],
            betas=betas,
            eps=options["eps"],
            weight_decay=options["weight_decay"],
            foreach=False,
        )
    raise ValueError(case.optimizer)


def keras_form(case: OptimizerCase) -> dict[str, list[NDArray[Any]]]:
    """The trajectories by the update rules as Keras writes them, in NumPy."""
    options = case.options
    lr = options["lr"]
    params = case.initial()
    first = {key: np.zeros_like(value) for key, value in params.items()}
    second = {key: np.zeros_like(value) for key, value in params.items()}
    history: dict[str, list[NDArray[Any]]] = {key: [] for key in params}
    for step in range(case.steps):
        for key, g in case.gradients(step, params).items():
            w, m, v = params[key], first[key], second[key]
            if case.optimizer == "sgd":
                momentum = options["momentum"]
                m = momentum * m - lr * g
                w = w + (momentum * m - lr * g if options["nesterov"] else m)
            elif case.optimizer == "rmsprop":
                v = options["rho"] * v + (1 - options["rho"]) * g * g
                w = w - lr * g / np.sqrt(v + options["eps"])
            else:
                beta1, beta2 = options["beta1"], options["beta2"]
                w = w - lr * options.get("weight_decay", 0.0) * w
                m = beta1 * m + (1 - beta1) * g
                v = beta2 * v + (1 - beta2) * g * g
                rate = lr * math.sqrt(1 - beta2 ** (step + 1)) / (1 - beta1 ** (step + 1))
                w = w - rate * m / (np.sqrt(v) + options["eps"])
            params[key], first[key], second[key] = w, m, v
            history[key].append(w)
    return history


def optimizer_vectors(case: OptimizerCase) -> Arrays:
    prefix = f"optimizer/{case.name}"
    params = {key: leaf(array) for key, array in case.initial().items()}
    optimizer = make_optimizer(case, list(params.values()))
    history: dict[str, list[NDArray[Any]]] = {key: [] for key in params}
    for step in range(case.steps):
        gradients = case.gradients(step, {key: plain(value) for key, value in params.items()})
        for key, gradient in gradients.items():
            assert np.abs(gradient).min() > 0.05, f"{prefix}: gradient near zero"
            params[key].grad = torch.tensor(gradient)
        optimizer.step()
        for key, value in params.items():
            history[key].append(plain(value).copy())
    results: Arrays = {}
    for key, expected in keras_form(case).items():
        trajectory = np.stack(history[key])
        np.testing.assert_allclose(trajectory, np.stack(expected), rtol=1e-13, atol=1e-14)
        results[f"{prefix}/{key}/trajectory"] = trajectory
        results[f"{prefix}/{key}/final"] = trajectory[-1]
    results[f"{prefix}/fingerprint"] = case.fingerprint()
    return results


# ------------------------------------------------------------------------------------------------
# Archives
# ------------------------------------------------------------------------------------------------


def write_npz(path: Path, arrays: Arrays) -> None:
    """Like ``np.savez_compressed``, with fixed time stamps, attributes and compression level."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                assert array.dtype == np.float64, name
                assert np.isfinite(array).all(), name
            data = io.BytesIO()
            np.save(data, np.asarray(array, order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = 0o644 << 16
            archive.writestr(info, data.getvalue(), compresslevel=9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the stored PyTorch parity vectors.")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--gradcheck", action="store_true", help="also check every gradient")
    arguments = parser.parse_args()

    version = str(torch.__version__).partition("+")[0]
    if version != TORCH_VERSION:
        raise SystemExit(f"the vectors are made with torch {TORCH_VERSION}, this is {version}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    meta: Arrays = {"meta/torch": np.array(version)}
    ops = dict(meta)
    for op_case in OP_CASES:
        ops |= op_vectors(op_case, arguments.gradcheck)
    vectors = dict(meta)
    for network_case in NETWORK_CASES:
        vectors |= network_vectors(network_case)
    for optimizer_case in OPTIMIZER_CASES:
        vectors |= optimizer_vectors(optimizer_case)

    arguments.out.mkdir(parents=True, exist_ok=True)
    for file_name, arrays in (("torch_vectors.npz", vectors), ("torch_ops.npz", ops)):
        path = arguments.out / file_name
        write_npz(path, arrays)
        print(f"{file_name}: {len(arrays)} arrays, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
