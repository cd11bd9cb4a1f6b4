"""A differential fuzzer: random graphs, machine code against the reference.

``python -m tests.engines.native.fuzz --count 10000 --seed 0 --jobs 2 --log FILE``

A graph is made from a seed: convolutions, products, normalisation, pooling, elementwise ops, reductions, movement,
draws; a loss, gradients, and an optimizer's update of the variables.  It is recorded as a list of steps, so that one
that fails can be made smaller.  What rounding may do to each result is measured: the reference runs again on inputs
that differ in their last bits.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import ops
from chainrule.engines.native.executable import Executable as Native
from chainrule.engines.reference import Executable as Reference
from chainrule.errors import ChainruleError
from chainrule.graph import BATCH, Graph, Spec, Tensor
from chainrule.graph.dims import Dim
from chainrule.plan.options import Options
from tests.ops.harness import Array

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
AMPLIFIED = 50.0
"""How many times the effect of changed last bits is allowed."""
ILL_CONDITIONED = 1e-2
"""A result that changed last bits move by more than this part of itself says nothing."""


# --- Recipes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One value of a graph: what makes it, from which earlier values."""

    kind: str
    inputs: tuple[int, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.attrs.items())
        return f"{self.kind}({', '.join([*(f'v{i}' for i in self.inputs), *([settings] if settings else [])])})"


@dataclass(frozen=True)
class Recipe:
    """A graph as data.

    Attributes:
        seed: of inputs and variables.
        image, width: of the inputs ``(n, *image)`` and ``(n, width)``.
        symbolic: whether n is the batch size N.
        sizes: values of n to run, the first being the largest.
        steps: values; those of the inputs come first.
        outputs, losses: numbers of values.
        update: name of the update, or "".
        twice: whether the loss is a function of the gradient of another one.
    """

    seed: int
    image: tuple[int, int, int]
    width: int
    symbolic: bool
    sizes: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    outputs: tuple[int, ...] = ()
    losses: tuple[int, ...] = ()
    update: str = ""
    twice: bool = False

    def __str__(self) -> str:
        kind = f"N = {', '.join(map(str, self.sizes))}" if self.symbolic else f"n = {self.sizes[0]}"
        lines = [f"seed {self.seed}, {kind}, image {self.image}, width {self.width}"]
        lines += [f"  v{number} = {step}" for number, step in enumerate(self.steps)]
        lines.append(f"  outputs {self.outputs}, loss of {self.losses}, update {self.update!r}, twice {self.twice}")
        return "\n".join(lines)


LEAVES = (
    Step("input", attrs={"name": "x"}),
    Step("input", attrs={"name": "w"}),
    Step("input", attrs={"name": "label"}),
    Step("input", attrs={"name": "picks"}),
    Step("input", attrs={"name": "pixels"}),
)
PICKS, CLASSES = 3, 5


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
UNARY = (
    *("relu", "relu", "relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "abs", "negative", "erf"),
    *("square", "sqrt", "log", "exp", "clip", "leaky_relu", "power", "stop_gradient"),
)
BINARY = ("add", "add", "add", "subtract", "multiply", "multiply", "divide", "maximum", "minimum", "where", "mask")


def _key() -> dict[str, Any]:
    return {
        "seed": cr.tensor(np.array([11, 5], np.uint32)),
        "time": cr.tensor(np.array(3, np.uint32)),
        "first_row": cr.tensor(np.array(0, np.uint32)),
    }


# --- Making a recipe ---------------------------------------------------------------------------------------


class _Maker:
    """Makes steps at random, inside a trace, so that every shape is known at once."""

    def __init__(self, recipe: Recipe, rng: np.random.Generator, values: list[Any]) -> None:
        self.recipe, self.rng, self.values = recipe, rng, values
        self.steps = list(LEAVES)
        self.tried = 0

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def add(self, kind: str, *inputs: int, **attrs: Any) -> int:
        """A further value.

        Raises:
            ChainruleError: the op does not take these.
        """
        step = Step(kind, inputs, attrs)
        self.tried += 1  # and not the number of the step: variables of a move that was given up keep their names
        value = evaluate(step, self.values, self.recipe, self.tried)
        self.steps.append(step)
        self.values.append(value)
        return len(self.steps) - 1

    def variable(self, *shape: int, scale: float = 0.5) -> int:
        return self.add("variable", shape=shape, scale=scale)

    def floats(self, test: Callable[[Any], bool] = lambda value: True) -> list[int]:
        """Values to go on with, late ones more often."""
        found = [
            i
            for i, v in enumerate(self.values)
            if self.steps[i].kind != "variable" and v.dtype.kind == "f" and test(v) and _elements(v, 5) <= 4000
        ]
        return found[-4:] + found[-2:] + found if found else []

    def choose(self, test: Callable[[Any], bool] = lambda value: True) -> int:
        found = self.floats(test)
        if not found:
            raise ChainruleError("nothing fits")
        return int(self.pick(found))

    # -- moves ----------------------------------------------------------------------------------------------

    def convolution(self) -> int:
        x = self.choose(_is_image)
        c = self.values[x].shape[-1]
        taps = (self.pick((1, 2, 3, 3)), self.pick((1, 2, 3, 3)))
        outputs = self.pick((1, 2, 3, 4, 5, 8, 9, 17))
        groups = 1
        if self.chance(0.15) and c > 1:
            groups = c if self.chance(0.5) else self.pick([g for g in range(1, c + 1) if c % g == 0])
            outputs = groups * self.pick((1, 2))
        stride = self.pick((1, 1, 1, 2, (1, 2), 3))
        padding = self.pick(("valid", "same", "same", ((1, 0), (2, 1))))
        dilation = 1 if stride != 1 else self.pick((1, 1, 1, 2))
        scale = 1.7 / float(np.sqrt(taps[0] * taps[1] * c / groups))
        kernel = self.variable(*taps, c // groups, outputs, scale=scale)
        y = self.add("conv2d", x, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
        if self.chance(0.75):
            y = self.add("add", y, self.variable(outputs))
        if self.chance(0.15):
            y = self.add("batch_norm", y, self.variable(outputs), self.variable(outputs))
        if self.chance(0.75):
            y = self.add(self.pick(("relu", "relu", "relu", "leaky_relu", "tanh")), y)
        if self.chance(0.6):
            y = self.pool(y)
        return y

    def pool(self, x: int | None = None) -> int:
        x = self.choose(_is_image) if x is None else x
        size = self.pick((2, 2, 2, 3, (2, 1), (1, 3)))
        stride = self.pick((None, None, None, 1, 2))
        padding = self.pick(("valid", "valid", "same"))
        return self.add(
            self.pick(("max_pool2d", "max_pool2d", "avg_pool2d")), x, size=size, stride=stride, padding=padding
        )

    def product(self) -> int:
        x = self.choose(lambda v: v.ndim >= 2 and isinstance(v.shape[-1], int))
        whole = all(isinstance(size, int) for size in self.values[x].shape[1:])
        if whole and self.values[x].ndim > 2 and self.chance(0.7):
            x = self.add("flatten", x)
        inner, outputs = self.values[x].shape[-1], self.pick((1, 2, 3, 5, 7, 8, 16, 17))
        y = self.add("matmul", x, self.variable(inner, outputs, scale=1.5 / float(np.sqrt(inner))))
        if self.chance(0.8):
            y = self.add("add", y, self.variable(outputs))
        return self.add(self.pick(("relu", "relu", "tanh")), y) if self.chance(0.7) else y

    def normalise(self) -> int:
        x = self.choose(lambda v: v.ndim >= 2 and isinstance(v.shape[-1], int))
        c = self.values[x].shape[-1]
        scale, shift = self.variable(c), self.variable(c)
        kind = self.pick(("batch_norm", "batch_norm", "batch_mean", "batch_norm_inference"))
        rest = (self.variable(c), self.variable(c)) if kind == "batch_norm_inference" else ()
        return self.add(kind, x, scale, shift, *rest)

    def unary(self) -> int:
        return self.add(self.pick(UNARY), self.choose())

    def scale(self) -> int:
        return self.add("scale", self.choose(), by=self.pick((0.5, -1.5, 0.0, 1.0)))

    def prelu(self) -> int:
        x = self.choose(lambda v: v.ndim >= 2 and isinstance(v.shape[-1], int))
        return self.add("prelu", x, self.variable(self.values[x].shape[-1]))

    def binary(self) -> int:
        x = self.choose()
        shape = self.values[x].shape
        partner = self.pick(("same", "same", "any", "variable"))
        if partner == "variable" and len(shape) > 1 and isinstance(shape[-1], int):
            y = self.variable(shape[-1])
        else:
            y = self.choose((lambda v: v.shape == shape) if partner == "same" else lambda v: _joins(v.shape, shape))
        return self.add(self.pick(BINARY), *((x, y) if self.chance(0.5) else (y, x)))

    def reduce(self) -> int:
        x = self.choose(lambda v: v.ndim >= 1)
        axes = [i for i in range(self.values[x].ndim) if self.chance(0.5)] or [self.values[x].ndim - 1]
        kind = self.pick(("sum", "sum", "mean", "max", "var"))
        y = self.add(kind, x, axis=tuple(axes), keepdims=self.chance(0.6))
        joined = self.chance(0.4) and _joins(self.values[x].shape, self.values[y].shape)
        return self.add(self.pick(BINARY), x, y) if joined else y

    def softmax(self) -> int:
        return self.add(self.pick(("softmax", "log_softmax")), self.choose(lambda v: v.ndim >= 2), axis=-1)

    def movement(self) -> int:
        kind = self.pick(("transpose", "flatten", "merge", "reshape", "expand_dims", "slice", "pad", "concat"))
        x = self.choose(lambda v: v.ndim >= 2 and all(isinstance(size, int) for size in v.shape[1:]))
        shape = self.values[x].shape
        if kind == "transpose":
            keep = [0] if self.chance(0.8) else []
            axes = [i for i in range(len(shape)) if i not in keep]
            return self.add(kind, x, axes=(*keep, *(int(i) for i in self.rng.permutation(axes))))
        if kind == "reshape":
            size = int(np.prod(shape[1:]))
            first = self.pick([d for d in range(1, size + 1) if size % d == 0])
            return self.add(kind, x, shape=(first, size // first))
        if kind == "expand_dims":
            return self.add(kind, x, axis=self.pick(range(1, len(shape) + 1)))
        if kind == "slice":
            start = tuple(int(self.rng.integers(size)) for size in shape[1:])
            stop = tuple(int(self.rng.integers(a + 1, size + 1)) for a, size in zip(start, shape[1:], strict=True))
            return self.add(kind, x, start=start, stop=stop, step=tuple(self.pick((1, 1, 2, 3)) for _ in start))
        if kind == "pad":
            return self.add(kind, x, widths=tuple((self.pick((0, 1, 2)), self.pick((0, 0, 1))) for _ in shape[1:]))
        if kind == "concat":
            axis = self.pick(range(1, len(shape)))
            return self.add(kind, x, self.choose(lambda v: v.shape == shape), axis=axis)
        return self.add(kind, x)

    def broadcast(self) -> int:
        y = self.choose(lambda v: v.ndim >= 2)
        shape = self.values[y].shape
        return self.add("broadcast", self.choose(lambda v: _fits(v.shape, shape)), y)

    def index(self) -> int:
        if self.chance(0.4):
            label = self.add("one_hot", 2, 0)
            return self.add("matmul", label, self.variable(CLASSES, self.pick((2, 5))))
        if self.chance(0.3):
            x = self.choose(lambda v: v.ndim >= 2 and v.shape[-1] == CLASSES)
            return self.add("one_hot", self.add("argmax", x, axis=-1), x)
        x = self.choose(lambda v: v.ndim >= 2 and any(isinstance(s, int) and s >= PICKS for s in v.shape[1:]))
        shape = self.values[x].shape
        axis = self.pick([i for i in range(1, len(shape)) if isinstance(shape[i], int) and shape[i] >= PICKS])
        return self.add("gather", x, 3, axis=axis)

    def draw(self) -> int:
        kind, x = self.pick(("dropout", "dropout", "noise", "uniform")), self.choose(lambda v: v.ndim >= 2)
        stream = int(self.rng.integers(1000))
        return self.add(kind, x, stream=stream, **({"rate": 0.4} if kind == "dropout" else {}))

    def pixels(self) -> int:
        return self.add("to_float", 4, 0)

    def make(self, moves: int) -> None:
        weights = {
            self.convolution: 7,
            self.pool: 1.5,
            self.product: 4,
            self.normalise: 2,
            self.unary: 4,
            self.scale: 1,
            self.prelu: 0.7,
            self.binary: 6,
            self.reduce: 2.5,
            self.softmax: 1,
            self.movement: 4,
            self.broadcast: 0.7,
            self.index: 1.2,
            self.draw: 1.2,
            self.pixels: 0.4,
        }
        total = np.array(list(weights.values()))
        done = 0
        for _ in range(6 * moves):
            move = list(weights)[int(self.rng.choice(len(weights), p=total / total.sum()))]
            before = len(self.steps)
            try:
                move()
                done += 1
            except ChainruleError:
                del self.steps[before:], self.values[before:]
            if done == moves:
                return


def _is_image(value: Any) -> bool:
    return value.ndim == 4 and all(isinstance(size, int) for size in value.shape[1:])


def _fits(small: Sequence[Any], large: Sequence[Any]) -> bool:
    tail = large[len(large) - len(small) :] if len(small) <= len(large) else ()
    return len(tail) == len(small) and all(a in (1, b) for a, b in zip(small, tail, strict=True))


def _joins(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two shapes can be broadcast together, to one that holds N once."""
    rank = max(len(a), len(b))
    pairs = list(zip((1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b), strict=True))
    whole = [y if x == 1 else x for x, y in pairs]
    return all(x == y or 1 in (x, y) for x, y in pairs) and sum(isinstance(size, Dim) for size in whole) <= 1


def _elements(value: Any, n: int) -> int:
    return int(np.prod([size.bind(n) if isinstance(size, Dim) else size for size in value.shape]))


def make_recipe(seed: int) -> Recipe:
    """The recipe of a seed, always the same."""
    rng = np.random.Generator(np.random.PCG64(seed))
    image = (int(rng.integers(1, 10)), int(rng.integers(1, 10)), int(rng.choice([1, 2, 3, 4, 5, 8])))
    largest = int(rng.choice([1, 2, 3, 5, 7, 33], p=[0.1, 0.2, 0.25, 0.2, 0.2, 0.05]))
    symbolic = bool(rng.random() < 0.7)
    sizes = tuple(dict.fromkeys((largest, int(rng.integers(1, largest + 1)))) if symbolic else (largest,))
    recipe = Recipe(seed, image, int(rng.choice([1, 3, 5, 8, 17])), symbolic, sizes)
    made: list[_Maker] = []

    def function(*inputs: Tensor) -> list[Tensor]:
        maker = _Maker(recipe, rng, list(inputs))
        maker.make(int(rng.integers(2, 9)))
        made.append(maker)
        return [inputs[0]]

    cr.trace(function, *_specs(recipe, "float64"), name="recipe")
    (maker,) = made
    last = len(maker.steps)
    floats = [i for i in range(len(LEAVES), last) if maker.values[i].dtype.kind == "f"]
    computed = [i for i in floats if maker.steps[i].kind != "variable"]
    used = {i for step in maker.steps for i in step.inputs}
    ends = [i for i in computed if i not in used]
    extra = [i for i in range(last) if rng.random() < 0.12]
    losses = tuple(ends or computed[-1:])
    outputs = tuple(dict.fromkeys([*ends[-1:], *extra]))
    update = str(rng.choice(["", "sgd", "momentum", "adam", "adam"])) if losses else ""
    twice = bool(rng.random() < 0.06)
    return replace(recipe, steps=tuple(maker.steps), outputs=outputs, losses=losses, update=update, twice=twice)


# --- From a recipe to a graph ------------------------------------------------------------------------------


def _specs(recipe: Recipe, dtype: str) -> list[Spec]:
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

    return cr.trace(fuzz, *_specs(recipe, dtype), name=f"fuzz{recipe.seed}")


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


# --- Comparing ---------------------------------------------------------------------------------------------


@dataclass
class Wanted:
    """What the reference gives, and how much of it is rounding.

    Attributes:
        values: results and new state by name.
        spread: the largest effect of changed last bits on each.
    """

    values: dict[str, Array]
    spread: dict[str, float]


def _flat(result: Any, state: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(v) for name, v in result.items()} | {f"state {name}": v for name, v in state.items()}


def _wide(graph: Graph, inputs: Sequence[Array], state: Mapping[str, Array]) -> dict[str, Array]:
    wider = [a.astype("float64") if a.dtype.kind == "f" else a for a in inputs]
    return _flat(*Reference(graph).run(wider, {name: v.astype("float64") for name, v in state.items()}))


def wanted_of(
    graph: Graph, wide: Graph | None, inputs: Sequence[Array], state: Mapping[str, Array], seed: int, runs: int
) -> Wanted:
    """What the reference gives, run again on inputs that differ in their last bits.

    Args:
        graph: the graph.
        wide: the same in float64, for a graph in float32.
        inputs, state: of `graph`.
        seed, runs: of the changes.
    """
    reference = Reference(graph)
    plain = _flat(*reference.run(inputs, state))
    values = plain if wide is None else _wide(wide, inputs, state)
    spread = dict.fromkeys(values, 0.0)
    rng = np.random.Generator(np.random.PCG64(seed))

    def moved(array: Array) -> Array:
        if array.dtype.kind != "f":
            return array
        changed = array * (1 + 8 * np.finfo(array.dtype).eps * rng.uniform(-1, 1, array.shape))
        return np.asarray(changed, array.dtype)

    others = [plain]
    for _ in range(runs):
        again = reference.run([moved(a) for a in inputs], {name: moved(v) for name, v in state.items()})
        others.append(_flat(*again))
    for other in others:
        for name, value in values.items():
            spread[name] = max(spread[name], _distance(other[name], value))
    return Wanted(values, spread)


def _distance(a: Array, b: Array) -> float:
    """The largest difference; infinite where NaN or infinities are in other places, or integers differ."""
    if not b.size:
        return 0.0
    if b.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else np.inf
    fa, fb = np.isfinite(a), np.isfinite(b)
    if not (fa == fb).all() or not np.array_equal(a[~fa].astype("f8"), b[~fb].astype("f8"), equal_nan=True):
        return np.inf
    return float(np.max(np.abs(a[fa].astype("f8") - b[fb].astype("f8")), initial=0.0))


def wrong(found: Mapping[str, Array], wanted: Wanted, dtype: str, told: Counter[str]) -> list[str]:
    """Names of the results that rounding does not explain."""
    names = []
    for name, value in wanted.values.items():
        if value.dtype.kind != "f":
            size = 0.0
        else:
            finite = value[np.isfinite(value)]
            size = float(np.max(np.abs(finite), initial=0.0))
        spread = wanted.spread[name]
        if spread > ILL_CONDITIONED * max(size, 1e-300) and spread > TOLERANCE[dtype]:
            told["ill-conditioned results"] += 1
            continue
        told["results"] += 1
        kind = np.dtype(dtype) if value.dtype.kind == "f" else value.dtype
        allowed = TOLERANCE[dtype] * size + AMPLIFIED * spread
        if found[name].dtype != kind or found[name].shape != value.shape:
            names.append(f"{name}: {found[name].dtype}{found[name].shape} for {kind}{value.shape}")
        elif _distance(found[name], value) > allowed:
            names.append(f"{name}: off by {_distance(found[name], value):.2g} of {size:.2g}, allowed {allowed:.2g}")
    return names


@dataclass(frozen=True)
class Variant:
    """One way to compile a graph."""

    name: str
    dtype: str = "float64"
    options: Options = field(default_factory=Options)
    checked: bool = False
    threads: int = 1


OFF = [name.name for name in fields(Options) if name.type in (bool, "bool")]
BASE = Variant("plain")
SINGLE = Variant("float32", "float32", threads=2)
VARIANTS = (
    Variant("checked", checked=True),
    *(Variant(f"without {name}", options=Options(**{name: False})) for name in OFF),
    Variant("checked float32", "float32", checked=True, threads=2),
    Variant("without anything", options=Options(**dict.fromkeys(OFF, False))),
    *(Variant(f"float32 without {name}", "float32", Options(**{name: False}), threads=2) for name in OFF),
)

EVERY = (BASE, SINGLE, *VARIANTS)


def disagreement(recipe: Recipe, variant: Variant, told: Counter[str] | None = None) -> str | None:
    """What is wrong with a recipe compiled in one way, or None."""
    told = Counter() if told is None else told
    graph = build(recipe, variant.dtype)
    wide = build(recipe, "float64") if variant.dtype == "float32" else None
    try:
        native = Native(
            graph,
            batch=recipe.sizes[0] if recipe.symbolic else None,
            options=variant.options,
            checked=variant.checked,
            threads=variant.threads,
        )
    except Exception:
        return "compiling: " + traceback.format_exc()
    state: Mapping[str, Array] = {entry.name: entry.variable.data for entry in graph.state}
    for n in recipe.sizes:
        inputs = inputs_of(recipe, n, variant.dtype)
        try:
            result, after = native.run(inputs, state)
        except Exception:
            return f"running with n = {n}: " + traceback.format_exc()
        found = _flat(result, after)
        wanted = wanted_of(graph, wide, inputs, state, recipe.seed, 2)
        bad = wrong(found, wanted, variant.dtype, told)
        if bad:  # perhaps the effect of rounding was not seen yet
            bad = wrong(found, wanted_of(graph, wide, inputs, state, recipe.seed + 1, 12), variant.dtype, Counter())
        if bad:
            return f"n = {n}: " + "; ".join(bad)
        state = after
        if any(not np.isfinite(v).all() for v in state.values() if v.dtype.kind == "f"):
            break
    return None


def variants_of(seed: int) -> list[Variant]:
    """The plain one, and another one in turn."""
    return [BASE, EVERY[1 + seed % (len(EVERY) - 1)]]


# --- Making a failure smaller ------------------------------------------------------------------------------


def minimised(recipe: Recipe, variant: Variant, seconds: float = 30.0) -> Recipe:
    """A smaller recipe that still fails."""
    end = time.monotonic() + seconds
    progress = True
    while progress and time.monotonic() < end:
        progress = False
        for smaller in _smaller(recipe):
            if time.monotonic() > end:
                break
            if _fails(smaller, variant):
                recipe, progress = smaller, True
                break
    return recipe


def _fails(recipe: Recipe, variant: Variant) -> bool:
    try:
        build(recipe, variant.dtype)
    except (ChainruleError, ValueError, TypeError, AttributeError, IndexError):
        return False
    try:
        return disagreement(recipe, variant) is not None
    except ChainruleError:
        return False


def _smaller(recipe: Recipe) -> Iterator[Recipe]:
    if len(recipe.sizes) > 1:
        yield from (replace(recipe, sizes=(size,)) for size in recipe.sizes)
    if recipe.sizes[0] > 1:
        yield replace(recipe, sizes=(recipe.sizes[0] // 2,))
    if recipe.symbolic:
        yield replace(recipe, symbolic=False, sizes=recipe.sizes[:1])
    if recipe.losses:
        yield replace(recipe, losses=(), update="", outputs=recipe.outputs or recipe.losses[-1:])
    if recipe.update:
        yield replace(recipe, update="")
    if recipe.twice:
        yield replace(recipe, twice=False)
    for name in ("outputs", "losses"):
        values: tuple[int, ...] = getattr(recipe, name)
        fewer = [(), *((value,) for value in values)] if len(values) > 1 else []
        fewer += [tuple(v for v in values if v != value) for value in values]
        yield from (replace(recipe, **{name: less}) for less in fewer)  # type: ignore[arg-type]
    for number in range(len(recipe.steps) - 1, len(LEAVES) - 1, -1):
        for source in (*recipe.steps[number].inputs, 0, 1):
            yield _without(recipe, number, source)
    used = {i for step in recipe.steps for i in step.inputs} | {*recipe.outputs, *recipe.losses}
    for number in range(len(recipe.steps) - 1, len(LEAVES) - 1, -1):
        if number not in used:
            yield _without(recipe, number, 0)


def _without(recipe: Recipe, number: int, source: int) -> Recipe:
    """Whoever uses a value uses another one instead."""

    def renamed(i: int) -> int:
        i = source if i == number else i
        return i - (i > number)

    steps = [
        replace(step, inputs=tuple(map(renamed, step.inputs))) for i, step in enumerate(recipe.steps) if i != number
    ]
    return replace(
        recipe,
        steps=tuple(steps),
        outputs=tuple(dict.fromkeys(map(renamed, recipe.outputs))),
        losses=tuple(dict.fromkeys(renamed(i) for i in recipe.losses if i != number or source > 4)),
    )


def try_seed(
    seed: int, variants: Sequence[Variant] | None = None, told: Counter[str] | None = None, minutes: float = 0.5
) -> str | None:
    """A report of what is wrong with a seed's graph, or None.

    Args:
        seed: of the graph.
        variants: ways to compile it; by default `variants_of` the seed.
        told: counts what was compared.
        minutes: how long to make a failure smaller.
    """
    recipe = make_recipe(seed)
    for variant in variants_of(seed) if variants is None else variants:
        found = disagreement(recipe, variant, told)
        if found is not None:
            small = minimised(recipe, variant, 60 * minutes)
            return (
                f"seed {seed}, {variant.name}: {found}\n"
                f"python -m tests.engines.native.fuzz --seed {seed} --count 1\nsmaller:\n{small}\n"
                f"{disagreement(small, variant)}\n{build(small, variant.dtype).show()}"
            )
    return None


# --- The long run ------------------------------------------------------------------------------------------


CHUNK = 25
"""Seeds of one process: a crash loses no more."""


def _work(first: int, count: int, every_variant: bool) -> None:
    """Try seeds, and say so line by line."""
    faulthandler.enable()
    told: Counter[str] = Counter()
    for seed in range(first, first + count):
        print(f"@seed {seed}", flush=True)
        try:
            report = try_seed(seed, EVERY if every_variant else None, told)
        except Exception:
            report = f"seed {seed}: the fuzzer itself failed: {traceback.format_exc()}"
        print(f"@{'failed' if report else 'passed'} {seed}", flush=True)
        if report:
            print(report, flush=True)
    for name, number in told.items():
        print(f"@count {number} {name}", flush=True)


def _chunk(every_variant: bool, seconds: float, bounds: tuple[int, int]) -> tuple[Counter[str], str]:
    """Run seeds in a process of their own; gives counts and the reports of failures."""
    first, count = bounds
    counts: Counter[str] = Counter()
    reports = ""
    while count > 0:
        command = [sys.executable, "-m", "tests.engines.native.fuzz", "--work", "--seed", str(first)]
        command += ["--count", str(count), *(["--every-variant"] if every_variant else [])]
        environment = {**os.environ, "CHAINRULE_CACHE": "off", "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, env=environment, check=False
            )
            text, code, errors = done.stdout, done.returncode, done.stderr
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode()  # bytes, whatever `text` asked for
            code, errors = -1, f"no end after {seconds:.0f} seconds"
        lines = text.splitlines()
        counts["passed"] += sum(line.startswith("@passed") for line in lines)
        counts["failed"] += sum(line.startswith("@failed") for line in lines)
        for line in lines:
            if line.startswith("@count"):
                _, number, name = line.split(" ", 2)
                counts[name] += int(number)
        reports += "".join(line + "\n" for line in lines if not line.startswith("@"))
        if code == 0:
            break
        seeds = [int(line.split()[1]) for line in lines if line.startswith("@seed")]
        last = seeds[-1] if seeds else first
        counts["crashed"] += 1
        reports += f"seed {last}: the process ended with {code}: {errors[-2000:]}\n"
        count -= last + 1 - first
        first = last + 1
    return counts, reports


def main(arguments: Sequence[str] | None = None) -> int:
    """Run many seeds and write what fails; gives 1 if something did."""
    parser = argparse.ArgumentParser(description="machine code against the reference on random graphs")
    parser.add_argument("--count", type=int, default=200, help="how many graphs")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so long")
    parser.add_argument("--log", type=Path, help="where to write reports and the summary")
    parser.add_argument("--every-variant", action="store_true", help="compile each graph in all ways")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        _work(given.seed, given.count, given.every_variant)
        return 0
    began = time.monotonic()
    end = given.seed + given.count
    chunks = [(first, min(CHUNK, end - first)) for first in range(given.seed, end, CHUNK)]
    counts: Counter[str] = Counter()
    run = functools.partial(_chunk, given.every_variant, 60.0 * CHUNK)

    def unless_late(bounds: tuple[int, int]) -> tuple[Counter[str], str]:
        if time.monotonic() - began > 60 * given.minutes:
            return Counter({"left out": bounds[1]}), ""
        return run(bounds)

    with ThreadPoolExecutor(given.jobs) as executor:
        for found, reports in executor.map(unless_late, chunks):
            counts += found
            _tell(given.log, reports)
    summary = ", ".join(f"{number} {name}" for name, number in counts.items())
    _tell(given.log, f"seeds from {given.seed}: {summary}; {time.monotonic() - began:.0f} seconds\n")
    return 1 if counts["failed"] or counts["crashed"] else 0


def _tell(log: Path | None, text: str) -> None:
    if text:
        print(text, end="", flush=True)
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(text)


if __name__ == "__main__":
    sys.exit(main())
