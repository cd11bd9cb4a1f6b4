"""From a recipe to a graph and its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import ops
from chainrule.graph import BATCH, Graph, Spec
from chainrule.graph.dims import Dim
from tests.engines.native.fuzz.recipe import CLASSES, LEAVES, PICKS, Recipe, Step
from tests.ops.harness import Array

__all__ = ["KINDS", "build", "evaluate", "inputs_of", "specs_of"]

KINDS: dict[str, Callable[..., Any]] = {
    "conv2d": lambda x, k, **a: ops.conv2d(x, k, **a),
    "max_pool2d": lambda x, **a: ops.max_pool2d(x, **a),
    "avg_pool2d": lambda x, **a: ops.avg_pool2d(x, **a),
    "matmul": lambda x, y: ops.matmul(x, y),
    "batch_norm": lambda x, s, b: ops.batch_norm(x, s, b)[0],
    "batch_mean": lambda x, s, b: ops.batch_norm(x, s, b)[1],
    "batch_norm_inference": lambda x, s, b, m, v: ops.batch_norm_inference(x, s, b, m, ops.abs(v) + 0.5),
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / (ops.abs(y) + 1),
    "maximum": lambda x, y: ops.maximum(x, y),
    "minimum": lambda x, y: ops.minimum(x, y),
    "where": lambda x, y: ops.where(ops.greater(x, y), x, y * 0.5),
    "mask": lambda x, y: ops.cast(ops.logical_or(ops.less(x, y), ops.greater_equal(x, 0.5)), x.dtype),
    "scale": lambda x, by: x * by + 0.25,
    "power": lambda x: (ops.abs(x) + 0.5) ** 1.5,
    "square": lambda x: x * x,
    "sqrt": lambda x: ops.sqrt(ops.abs(x) + 0.5),
    "log": lambda x: ops.log(ops.abs(x) + 0.5),
    "exp": lambda x: ops.exp(ops.tanh(x)),
    "clip": lambda x: ops.clip(x, -0.7, 0.9),
    "leaky_relu": lambda x: ops.leaky_relu(x, 0.2),
    "prelu": lambda x, a: ops.prelu(x, a),
    **{
        name: getattr(ops, name)
        for name in ("relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "abs", "negative", "erf")
    },
    "stop_gradient": lambda x: ops.stop_gradient(x),
    "sum": lambda x, **a: ops.sum(x, **a) * 0.3,
    "mean": lambda x, **a: ops.mean(x, **a),
    "max": lambda x, **a: ops.max(x, **a),
    "var": lambda x, **a: ops.var(x, **a),
    "softmax": lambda x, **a: ops.softmax(x, **a),
    "log_softmax": lambda x, **a: ops.log_softmax(x, **a),
    "transpose": lambda x, axes: ops.transpose(x, axes),
    "flatten": lambda x: ops.reshape(x, (x.shape[0], -1)),
    "merge": lambda x: ops.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:])),
    "reshape": lambda x, shape: ops.reshape(x, (x.shape[0], *shape)),
    "expand_dims": lambda x, axis: ops.expand_dims(x, axis),
    "slice": lambda x, start, stop, step: ops.slice(x, (0, *start), (x.shape[0], *stop), (1, *step)),
    "pad": lambda x, widths: ops.pad(x, ((0, 0), *widths)),
    "concat": lambda x, y, axis: ops.concat([x, y], axis),
    "broadcast": lambda x, y: ops.broadcast_to(x, y.shape),
    "gather": lambda x, i, axis: ops.gather(x, i, axis),
    "argmax": lambda x, axis: ops.argmax(x, axis),
    "one_hot": lambda i, like: ops.one_hot(i, CLASSES, dtype=str(like.dtype)),
    "to_float": lambda i, like: ops.cast(i, like.dtype) * (1 / 8),
    "dropout": lambda x, rate, stream: ops.dropout(x, rate, **_key(), stream=stream),
    "noise": lambda x, stream: x + ops.random_normal(**_key(), shape=x.shape, stream=stream, dtype=str(x.dtype)) * 0.1,
    "uniform": lambda x, stream: x * ops.random_uniform(**_key(), shape=x.shape, stream=stream, dtype=str(x.dtype)),
}


def _key() -> dict[str, Any]:
    return {
        "seed": cr.tensor(np.array([11, 5], np.uint32)),
        "time": cr.tensor(np.array(3, np.uint32)),
        "first_row": cr.tensor(np.array(0, np.uint32)),
    }


def specs_of(recipe: Recipe, dtype: str) -> list[Spec]:
    n = BATCH if recipe.symbolic else recipe.sizes[0]
    return [
        Spec((n, *recipe.image), np.dtype(dtype)),
        Spec((n, recipe.width), np.dtype(dtype)),
        Spec((n,), np.dtype("int32")),
        Spec((PICKS,), np.dtype("int32")),
        Spec((n, *recipe.image), np.dtype("uint8")),
    ]


def inputs_of(recipe: Recipe, n: int, dtype: str) -> list[Array]:
    """Inputs for a batch size; the same numbers in both dtypes."""
    rng = np.random.Generator(np.random.PCG64([recipe.seed, n]))
    return [
        rng.normal(size=(n, *recipe.image)).astype("float32").astype(dtype),
        rng.normal(size=(n, recipe.width)).astype("float32").astype(dtype),
        rng.integers(0, CLASSES, n).astype("int32"),
        rng.integers(0, PICKS, PICKS).astype("int32"),
        rng.integers(0, 9, (n, *recipe.image)).astype("uint8"),
    ]


def evaluate(step: Step, values: Sequence[Any], recipe: Recipe, number: int) -> Any:
    """One step on tensors."""
    if step.kind == "variable":
        dtype = values[0].dtype
        rng = np.random.Generator(np.random.PCG64([recipe.seed, number]))
        array = (rng.normal(size=step.attrs["shape"]) * step.attrs["scale"]).astype("float32").astype(dtype)
        return cr.Variable(array, name=f"v{number}")
    return KINDS[step.kind](*(values[i] for i in step.inputs), **step.attrs)


def build(recipe: Recipe, dtype: str) -> Graph:
    """The graph of a recipe."""

    def fuzz(x: Any, w: Any, label: Any, picks: Any, pixels: Any) -> dict[str, Any]:
        values: list[Any] = [x, w, label, picks, pixels]
        for number, step in enumerate(recipe.steps[len(LEAVES) :], start=len(LEAVES)):
            values.append(evaluate(step, values, recipe, number))
        results = {f"v{i}": _tensor(values[i]) for i in recipe.outputs}
        if recipe.losses:
            results |= _train(recipe, values)
        return results or {"x": x}

    return cr.trace(fuzz, *specs_of(recipe, dtype), name=f"fuzz{recipe.seed}")


def _tensor(value: Any) -> Any:
    return value * 1 if isinstance(value, cr.Variable) else value


def _train(recipe: Recipe, values: Sequence[Any]) -> dict[str, Any]:
    x = values[0]
    loss = _loss(recipe, values)
    variables = [v for v in values if isinstance(v, cr.Variable)]
    if recipe.twice:
        (slope,) = cr.gradients(loss, [x])
        if slope is not None:
            loss = loss + ops.sum(slope * slope) * 0.1
    *found, by_input = cr.gradients(loss, [*variables, x])
    results = {"loss": loss}
    if by_input is not None:
        results["dx"] = by_input
    for number, (variable, gradient) in enumerate(zip(variables, found, strict=True)):
        if gradient is None:
            continue
        if recipe.update:
            _update(recipe.update, variable, gradient)
        else:
            results[f"d{number}"] = gradient
    return results


def _loss(recipe: Recipe, values: Sequence[Any]) -> Any:
    total: Any = 0.0
    for i in recipe.losses:
        value = _tensor(values[i])
        rng = np.random.Generator(np.random.PCG64([recipe.seed, i, 1]))
        shape = [1 if isinstance(size, Dim) else size for size in value.shape]
        weights = rng.normal(size=shape).astype("float32").astype(value.dtype)
        total = total + ops.sum(value * cr.tensor(weights))
    return total


def _update(kind: str, variable: cr.Variable, gradient: Any) -> None:
    def slot(name: str) -> cr.Variable:
        return cr.Variable(np.full(variable.shape, 0.1, variable.dtype), name=f"{variable.name}/{name}")

    if kind == "sgd":
        variable.assign(variable - gradient * 0.1)
    elif kind == "momentum":
        velocity = slot("velocity")
        velocity.assign(velocity * 0.9 - gradient * 0.1)
        variable.assign(variable + velocity)
    else:
        m, v = slot("m"), slot("v")
        m.assign(m * 0.9 + gradient * 0.1)
        v.assign(v * 0.99 + gradient * gradient * 0.01)
        variable.assign(variable - m * 0.1 / (ops.sqrt(v) + 1e-3))
