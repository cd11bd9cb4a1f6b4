"""Where the time of a training step goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.checks import check_positive
from chainrule.engines import Stop
from chainrule.errors import ConfigError
from chainrule.graph.dims import BATCH
from chainrule.graph.op import Spec
from chainrule.random import get_seed, words
from chainrule.train.step import step_graph
from chainrule.train.targets import prepared_inputs, prepared_targets

if TYPE_CHECKING:
    from chainrule.engines.native.executable import KernelTime
    from chainrule.models.model import Model

__all__ = ["StepProfile", "profile_step"]


@dataclass(frozen=True)
class StepProfile:
    """The time of a step, kernel by kernel.

    Attributes:
        batch_size: samples of the step.
        seconds: of a whole step.
        kernels: longest first, each with the layers and ops that it computes; seconds are of one step.
    """

    batch_size: int
    seconds: float
    kernels: tuple[KernelTime, ...]

    def __str__(self) -> str:
        lines = [f"{self.seconds * 1e3:.3f} ms a step of {self.batch_size} samples"]
        for row in self.kernels:
            share = row.seconds / max(self.seconds, 1e-12)
            lines.append(f"{row.seconds * 1e3:9.3f} ms {share:6.1%}  {row.where}  [{row.kernel}]")
        return "\n".join(lines)


def profile_step(model: Model, x: Any, y: Any, batch_size: int, steps: int) -> StepProfile:
    """See `Model.profile`."""
    from chainrule.engines.native.executable import Executable, KernelTime

    if model.engine == "reference":
        raise ConfigError(
            "only the native engine has kernels to profile; this model was compiled for the reference one"
        )
    check_positive(batch_size, "batch_size")
    check_positive(steps, "steps")
    images = prepared_inputs(x, "x")
    model.ensure_built(images)
    prediction = model.predict(images[:1]).shape
    labels = prepared_targets(y, images, prediction, model.objective.loss, "y")
    specs = [Spec((BATCH, *array.shape[1:]), array.dtype) for array in (images, labels)]
    graph = step_graph(model, model.objective, *specs)
    saved = [(entry.variable, entry.variable.numpy()) for entry in graph.state]
    run = Executable(graph, at_least=batch_size, gathered=("x", "y"), profile=True)
    rows = np.resize(np.arange(len(images)), batch_size)
    seed, _, first_row = (item.data for item in words(get_seed()))
    scalars = {
        "learning_rate": np.asarray(model.objective.optimizer.learning_rate, np.float64),
        "seed": seed,
        "first_row": first_row,
        "count": np.asarray(batch_size, np.float64),
    }
    try:
        for _ in range(2):
            run.run_steps({"x": images, "y": labels}, rows, batch_size, scalars, Stop())
        run.forget_times()
        began = time.perf_counter()
        run.run_steps({"x": images, "y": labels}, np.tile(rows, steps), batch_size, scalars, Stop())
        seconds = (time.perf_counter() - began) / steps
    finally:
        for variable, value in saved:
            variable.set_array(value)
    kernels = tuple(KernelTime(row.kernel, row.where, row.seconds / steps) for row in run.times())
    return StepProfile(batch_size, seconds, kernels)
