"""Both engines on the same inputs and state, and models to run them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import chainrule as cr
from chainrule import layers as kinds
from chainrule.engines.native.executable import Executable as Native
from chainrule.engines.reference import Executable as Reference
from chainrule.graph import BATCH, Graph, Spec
from chainrule.train.step import step_graph
from tests.ops.harness import NATIVE_TOLERANCE, Array, assert_agrees

SEED = np.array([7, 0], np.uint32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def assert_results_agree(found: Any, wanted: Any, tolerance: Mapping[str, float], what: str = "") -> None:
    """Arrays, or lists, tuples or dicts of them."""
    if isinstance(wanted, Mapping):
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            assert_results_agree(found[name], value, tolerance, f"{what} {name}".strip())
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
            assert_results_agree(a, b, tolerance, f"{what} {number}".strip())
    else:
        assert_agrees(np.asarray(found), np.asarray(wanted), tolerance, what)


class StepRun:
    """One training step of a compiled model, to be run by any engine on any state.

    Args:
        model: compiled, and built.
        x, y: data.
        batch_size: rows of a step.
    """

    def __init__(self, model: cr.Model, x: Array, y: Array, batch_size: int) -> None:
        self.x, self.y, self.batch_size = x, y, batch_size
        self.graph = step_of(model, x, y)

    def inputs(self, step: int) -> list[Array]:
        """Those of a step that goes over the data in order, again and again; the last batch of a pass may be short."""
        starts = range(0, len(self.x), self.batch_size)
        start = starts[step % len(starts)]
        rows = slice(start, start + self.batch_size)
        count = len(self.x[rows])
        return [
            *(self.x[rows], self.y[rows], np.asarray(0.01), SEED, np.asarray(0, np.uint32)),
            np.asarray(float(count)),
        ]

    def first_state(self) -> dict[str, Array]:
        return {entry.name: entry.variable.data for entry in self.graph.state}


def step_of(model: cr.Model, x: Array, y: Array) -> Graph:
    """The step's graph for data like these."""
    model.ensure_built(x)
    specs = [Spec((BATCH, *array.shape[1:]), array.dtype) for array in (x, y)]
    return step_graph(model, model.objective, specs[0], specs[1])


def assert_steps_agree(
    model: cr.Model,
    x: Array,
    y: Array,
    batch_size: int,
    steps: int = 3,
    tolerance: Mapping[str, float] = NATIVE_TOLERANCE,
    **settings: Any,
) -> None:
    """Every step begins from the reference's state, so that errors do not add up."""
    run = StepRun(model, x, y, batch_size)
    native, reference = Native(run.graph, batch=min(batch_size, len(x)), **settings), Reference(run.graph)
    state = run.first_state()
    for step in range(steps):
        inputs = run.inputs(step)
        wanted, after = reference.run(inputs, state)
        found, found_after = native.run(inputs, state)
        assert_results_agree(found, wanted, tolerance, f"step {step}, loss")
        assert_changes_agree(found_after, after, state, tolerance, f"step {step}")
        state = after


def assert_changes_agree(
    found: Mapping[str, Array],
    wanted: Mapping[str, Array],
    before: Mapping[str, Array],
    tolerance: Mapping[str, float],
    what: str,
) -> None:
    """New state agrees; and so do changes, which may be small, but for the rounding of the state itself."""
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert_agrees(found[name], value, tolerance, f"{what}, {name}")
        if value.dtype.kind == "f" and value.size:
            error = float(np.max(np.abs(found[name] - value)))
            change = float(np.max(np.abs(value - before[name])))
            rounding = 2 * float(np.finfo(value.dtype).eps) * float(np.max(np.abs(value)))
            allowed = 10 * tolerance[str(value.dtype)] * change + rounding
            assert error <= allowed, f"{what}, {name}: {error:.2g} beside a change of {change:.2g}"


def sequential(shape: Sequence[int], *hidden: Any, **settings: Any) -> cr.Sequential:
    """A compiled model under seed 0."""
    cr.set_seed(0)
    model = cr.Sequential([cr.Input(tuple(shape)), *hidden])
    compiled = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", **settings}
    model.compile(**compiled)
    return model


def small_network(engine: str | None = None) -> cr.Sequential:
    """Batch normalisation, dropout, overlapping and plain pooling: 200 steps take a fraction of a second."""
    return sequential(
        (8, 8, 1),
        kinds.Conv2D(5, 3, padding="same", activation="relu"),
        kinds.BatchNormalization(momentum=0.9),
        kinds.MaxPooling2D(2),
        kinds.Dropout(0.25),
        kinds.Conv2D(7, 3, activation="relu"),
        kinds.Flatten(),
        kinds.Dropout(0.5),
        kinds.Dense(4, activation="softmax"),
        optimizer=cr.optimizers.Adam(0.01),
        metrics=["accuracy"],
        engine=engine,
    )


def small_data(count: int = 50) -> tuple[Array, Array]:
    """Images for `small_network` whose class can be learned."""
    x = rng(3).normal(size=(count, 8, 8, 1)).astype(np.float32)
    y = (x[:, :4].mean((1, 2, 3)) > 0).astype(np.int32) + 2 * (x[:, 4:].mean((1, 2, 3)) > 0).astype(np.int32)
    return x, y
