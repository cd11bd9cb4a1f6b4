"""Recipes at random: every seed gives one, always the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import chainrule as cr
from chainrule.errors import ChainruleError
from chainrule.graph import Tensor
from chainrule.graph.dims import Dim
from tests.engines.native.fuzz.graphs import evaluate, specs_of
from tests.engines.native.fuzz.recipe import CLASSES, LEAVES, PICKS, Recipe, Step

__all__ = ["make_recipe"]

UNARY = (
    *("relu", "relu", "relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "elu", "abs", "negative", "erf"),
    *("square", "sqrt", "log", "exp", "clip", "leaky_relu", "power", "stop_gradient"),
)
BINARY = ("add", "add", "add", "subtract", "multiply", "multiply", "divide", "maximum", "minimum", "where", "mask")


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

    def _same_size(self, x: int, outputs: int) -> int:
        """A convolution that keeps height and width."""
        taps, c = self.pick((1, 2, 3)), self.values[x].shape[-1]
        kernel = self.variable(taps, taps, c, outputs, scale=1.7 / float(np.sqrt(taps * taps * c)))
        y = self.add("conv2d", x, kernel, stride=1, padding="same", dilation=1, groups=1)
        return self.add("add", y, self.variable(outputs)) if self.chance(0.5) else y

    def branches(self) -> int:
        """Two or three branches that meet, as in a residual block."""
        x, outputs = self.choose(_is_image), self.pick((1, 2, 3, 8))
        total = self._same_size(x, outputs)
        for _ in range(self.pick((1, 1, 2))):
            other = x if self.values[x].shape == self.values[total].shape and self.chance(0.5) else None
            total = self.add("add", total, self._same_size(x, outputs) if other is None else other)
        if self.chance(0.6):
            total = self.add("relu", total)
        return self.pool(total) if self.chance(0.5) else total

    def growth(self) -> int:
        """A value that grows by what is computed from it, as in a densely connected block."""
        x = self.choose(_is_image)
        for _ in range(self.pick((2, 2, 3))):
            more = self._same_size(self.add("relu", x) if self.chance(0.5) else x, self.pick((1, 2, 4)))
            x = self.add("concat", x, more, axis=3)
        return x

    def running_sum(self) -> int:
        """A value added to itself, shifted, again and again."""
        x = self.choose(lambda v: v.ndim >= 2 and all(isinstance(size, int) for size in v.shape[1:]))
        for power in range(self.pick((2, 3, 4))):
            shape = self.values[x].shape
            step, last = 2**power, shape[-1]
            if step >= last:
                break
            rest = tuple(0 for _ in shape[1:])
            stop = (*shape[1:-1], last - step)
            y = self.add("slice", x, start=rest, stop=stop, step=tuple(1 for _ in rest))
            x = self.add("add", x, self.add("pad", y, widths=(*((0, 0) for _ in rest[1:]), (step, 0))))
        return x

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
        stream = 1000 * self.tried + int(self.rng.integers(1000))  # no two draws share one
        return self.add(kind, x, stream=stream, **({"rate": 0.4} if kind == "dropout" else {}))

    def pixels(self) -> int:
        return self.add("to_float", 4, 0)

    def make(self, moves: int) -> None:
        weights = {
            self.convolution: 7,
            self.branches: 1.5,
            self.growth: 0.7,
            self.running_sum: 0.5,
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

    cr.trace(function, *specs_of(recipe, "float64"), name="recipe")
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
