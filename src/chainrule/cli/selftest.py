"""A few seconds' proof that training works on this machine: gradients, engines, threads, files, speed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainrule import random
from chainrule.engines import Stop
from chainrule.engines.native.executable import Executable
from chainrule.engines.native.threads import get_threads
from chainrule.engines.reference import Executable as Reference
from chainrule.graph.dims import BATCH, bind_size
from chainrule.graph.graph import Graph
from chainrule.graph.op import Array, Spec
from chainrule.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D
from chainrule.models import Model, Sequential, load_model
from chainrule.networks import digits
from chainrule.train.step import gradient_graph, step_graph

__all__ = ["Outcome", "Trouble", "self_test"]

_STEP = 1e-5  # half the distance of a central difference: truncation and rounding are both near 1e-10
_GRADIENT_TOLERANCE = 1e-6
_ENGINE_TOLERANCE = 1e-4  # float32 sums in another order, over three steps
_BATCH_SIZE = 32
_SECONDS = 0.15  # the timed step is repeated that long

State = Mapping[str, Array]


class Trouble(Exception):
    """What a test found to be otherwise than it should be."""


@dataclass(frozen=True)
class Outcome:
    """What came of one test.

    Attributes:
        name: what was tested.
        ok: whether it is as it should be.
        detail: numbers, or what differs.
        seconds: how long the test took.
    """

    name: str
    ok: bool
    detail: str
    seconds: float


def self_test(peak: float | None = None) -> list[Outcome]:
    """Run every test; one that fails keeps none of the others from running.

    Args:
        peak: GFLOP/s of this machine, for the share that a training step reaches; None where it is not known.
    """
    seed = random.get_seed()
    random.set_seed(0)
    try:
        shared = _Step()
        tests: dict[str, Callable[[], str]] = {
            "gradients": gradients_agree,
            "engines": shared.engines_agree,
            "threads": shared.threads_agree,
            "files": files_keep_models,
            "training step": lambda: shared.speed(peak),
        }
        return [_outcome(name, test) for name, test in tests.items()]
    finally:
        random.set_seed(seed)


def _outcome(name: str, test: Callable[[], str]) -> Outcome:
    start = time.perf_counter()
    try:
        detail, ok = test(), True
    except Exception as error:  # whatever went wrong is what this is to find out
        kind = "" if isinstance(error, Trouble) else f"{type(error).__name__}: "
        detail, ok = f"{kind}{' '.join(str(error).split())}", False
    return Outcome(name, ok, detail, time.perf_counter() - start)


# -- gradients ----------------------------------------------------------------------------------------------


def gradients_agree() -> str:
    """The native engine's gradients of a small float64 network, against central differences of its loss.

    Raises:
        Trouble: naming the weight.
    """
    model = Sequential(
        [
            Input((6, 6, 1), dtype="float64"),
            Conv2D(2, 3, activation="tanh"),
            MaxPooling2D(2),
            Flatten(),
            Dense(3, activation="softmax"),
        ],
        name="small",
    )
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    x, y = Spec((BATCH, 6, 6, 1), np.dtype(np.float64)), Spec((BATCH,), np.dtype(np.int32))
    graph = gradient_graph(model, model.objective, x, y)
    rng = np.random.default_rng(0)
    batch = [rng.normal(size=(4, 6, 6, 1)), rng.integers(0, 3, 4).astype(np.int32), *_key(), np.asarray(4.0)]
    state = _values(graph)
    found, _ = Executable(graph).run(batch, state)
    reference = Reference(graph)
    worst = 0.0
    for weight in model.trainable_weights:
        wanted = _central_differences(lambda s: float(reference.run(batch, s)[0]["loss"]), state, weight.name)
        error = _distance(found[weight.name], wanted)
        if not error <= _GRADIENT_TOLERANCE:
            raise Trouble(f"the gradient of {weight.name} is {error:.1e} away from central differences")
        worst = max(worst, error)
    return f"{model.count_params()} weights, float64, {worst:.0e} from central differences"


def _central_differences(loss: Callable[[State], float], state: State, name: str) -> Array:
    result = np.zeros(state[name].shape)
    for place in np.ndindex(result.shape):
        ends = []
        for sign in (1, -1):
            moved = state[name].copy()
            moved[place] += sign * _STEP
            ends.append(loss({**state, name: moved}))
        result[place] = (ends[0] - ends[1]) / (2 * _STEP)
    return result


# -- one step of a network that has every usual layer --------------------------------------------------------


class _Step:
    """The training step of the network for digits, on made-up images; compiled when it is first needed."""

    def __init__(self) -> None:
        self._native: Executable | None = None
        rng = np.random.default_rng(1)
        self.x = rng.integers(0, 17, (_BATCH_SIZE, 8, 8, 1)).astype(np.float32)
        self.y = rng.integers(0, 10, _BATCH_SIZE).astype(np.int32)

    @property
    def native(self) -> Executable:
        """The step as machine code."""
        if self._native is None:
            model = digits()
            model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
            specs = [Spec((BATCH, *array.shape[1:]), array.dtype) for array in (self.x, self.y)]
            graph = step_graph(model, model.objective, *specs)
            self._native = Executable(graph, batch=_BATCH_SIZE, gathered=("x", "y"))
        return self._native

    def engines_agree(self) -> str:
        """Three steps on the native engine and on the reference.

        Raises:
            Trouble: naming the variable that differs.
        """
        graph = self.native.graph
        ours, theirs = self._steps(self.native), self._steps(Reference(graph))
        worst = 0.0
        for name, value in theirs.items():
            error = _distance(ours[name], value)
            if not error <= _ENGINE_TOLERANCE:
                raise Trouble(f"{name} is {error:.1e} away from the reference engine's after 3 steps")
            worst = max(worst, error)
        return f"3 steps, {len(theirs)} variables, {worst:.0e} from the reference"

    def threads_agree(self) -> str:
        """The same steps on one thread and on several.

        Raises:
            Trouble: naming the variable of which a bit differs.
        """
        many = max(2, get_threads())
        found = []
        for count in (1, many):
            self.native.threads = count
            found.append(self._steps(self.native))
        self.native.threads = None
        for name, value in found[0].items():
            if value.tobytes() != found[1][name].tobytes():
                raise Trouble(f"{name} has other bits on {many} threads than on 1")
        return f"the same bits on 1 and {many} threads"

    def speed(self, peak: float | None) -> str:
        """How long a step takes."""
        native = self.native
        saved = [(entry.variable, entry.variable.numpy()) for entry in native.graph.state]
        scalars = dict(zip(("learning_rate", "seed", "first_row", "count"), self._scalars(), strict=True))
        data = {"x": self.x, "y": self.y}
        rows = np.arange(_BATCH_SIZE)
        try:
            native.run_steps(data, np.tile(rows, 5), _BATCH_SIZE, scalars, Stop())
            steps, start = 0, time.perf_counter()
            while time.perf_counter() - start < _SECONDS:
                steps += native.run_steps(data, np.tile(rows, 5), _BATCH_SIZE, scalars, Stop())
            seconds = (time.perf_counter() - start) / steps
        finally:
            for variable, value in saved:
                variable.set_array(value)
        gflops = bind_size(native.graph.flops(), _BATCH_SIZE) / seconds / 1e9
        share = "" if peak is None else f", {gflops / peak:.0%} of peak"
        return (
            f"{seconds * 1e3:.2f} ms for {_BATCH_SIZE} digits, {_BATCH_SIZE / seconds:,.0f} samples/s, "
            f"{gflops:.0f} GFLOP/s{share}"
        )

    def _steps(self, engine: Executable | Reference) -> dict[str, Array]:
        state = _values(engine.graph)
        for _ in range(3):
            _, state = engine.run([self.x, self.y, *self._scalars()], state)
        return state

    def _scalars(self) -> list[Array]:
        return [np.asarray(0.01), *_key(), np.asarray(float(_BATCH_SIZE))]


# -- files --------------------------------------------------------------------------------------------------


def files_keep_models() -> str:
    """A model that was saved and loaded has the same weights and gives the same predictions, to the bit.

    Raises:
        Trouble: naming the weight.
    """
    model = digits()
    x = np.random.default_rng(2).integers(0, 17, (2, 8, 8, 1)).astype(np.float32)
    with _folder() as folder:
        path = model.save(folder / "model.safetensors")
        size = path.stat().st_size
        same = load_model(path)
    for before, after in zip(model.weights, same.weights, strict=True):
        if before.name != after.name or before.numpy().tobytes() != after.numpy().tobytes():
            raise Trouble(f"{before.name} came back from its file as another")
    if _prediction(model, x).tobytes() != _prediction(same, x).tobytes():
        raise Trouble("a model that was loaded gives other predictions")
    return f"a model of {model.count_params():,} weights, {size / 1e3:.0f} kB, saved and loaded to the bit"


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chainrule-") as folder:
        yield Path(folder)


def _prediction(model: Model, x: Array) -> Array:
    result: Array = model(x, training=False).numpy()
    return result


# -- helpers ------------------------------------------------------------------------------------------------


def _key() -> Sequence[Any]:
    """The run-time part of a random key: seed and first row."""
    seed, _, first_row = (item.data for item in random.words(0))
    return seed, first_row


def _values(graph: Graph) -> dict[str, Array]:
    return {entry.name: entry.variable.numpy() for entry in graph.state}


def _distance(found: Array, wanted: Array) -> float:
    """The largest difference, seen beside the largest value; NaN if there is one."""
    scale = max(1e-6, float(np.abs(wanted.astype(np.float64)).max(initial=0)))
    difference = np.abs(np.asarray(found, np.float64) - np.asarray(wanted, np.float64))
    return float(difference.max(initial=0)) / scale
