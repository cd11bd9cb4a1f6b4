"""The one harness: every registered op, every case of its room, every engine.

Nothing here names an op.  Inputs and cotangents are random; gradients are held against central differences in
float64, and so are the gradients of gradients.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import chainrule as cr
from chainrule.engines import Executable
from chainrule.engines.native.executable import Executable as Native
from chainrule.graph import BATCH, Case, Op, Spec, apply_all, registered_ops, tensor
from chainrule.graph.tensor import Tensor

Array = NDArray[Any]

STEP = 1e-5
"""Half the distance of a central difference: truncation and rounding are both near 1e-10."""

FLOOR = 1e-3
"""Errors are relative to the largest gradient, but never to less than this."""


@dataclass(frozen=True)
class Trial:
    """One op with one of its cases."""

    op: Op
    case: Case
    number: int

    @property
    def name(self) -> str:
        return f"{self.op.name}[{self.case.name or self.number}]"

    def rng(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(zlib.crc32(self.name.encode()) + self.number))

    def arrays(self, dtype: str = "float64") -> list[Array]:
        """Random inputs."""
        return self.case.draw(self.rng(), dtype)


def trials() -> list[Trial]:
    """Every case of every op that the package itself registers."""
    return [
        Trial(op, case, number)
        for op in registered_ops()
        if op.function.__module__.startswith("chainrule.")
        for number, case in enumerate(op.cases)
    ]


def relative_error(found: Array, wanted: Array) -> float:
    """``max|found - wanted| / max(max|wanted|, FLOOR)``."""
    if found.shape != wanted.shape:
        raise AssertionError(f"shape {found.shape} against {wanted.shape}")
    if not found.size:
        return 0.0
    return float(np.max(np.abs(found - wanted)) / max(float(np.max(np.abs(wanted))), FLOOR))


def run_eagerly(op: Op, arrays: Sequence[Array], attrs: Any) -> list[Array]:
    """The op's outputs, computed at once."""
    return [output.data for output in apply_all(op, *(tensor(a) for a in arrays), **attrs)]


def run_traced(op: Op, arrays: Sequence[Array], attrs: Any) -> list[Array]:
    """The op's outputs through a graph and the reference engine."""
    specs = [Spec(a.shape, a.dtype) for a in arrays]
    graph = cr.trace(lambda *xs: list(apply_all(op, *xs, **attrs)), *specs, name=op.name)
    return list(Executable(graph)(*arrays))


def run_batched(op: Op, arrays: Sequence[Array], attrs: Any) -> list[Array]:
    """As `run_traced`, the first axis of every input being the symbolic batch size."""
    specs = [Spec((BATCH, *a.shape[1:]), a.dtype) for a in arrays]
    graph = cr.trace(lambda *xs: list(apply_all(op, *xs, **attrs)), *specs, name=op.name)
    return list(Executable(graph)(*arrays))


def run_native(op: Op, arrays: Sequence[Array], attrs: Any) -> list[Array]:
    """The op's outputs as machine code."""
    specs = [Spec(a.shape, a.dtype) for a in arrays]
    graph = cr.trace(lambda *xs: list(apply_all(op, *xs, **attrs)), *specs, name=op.name)
    return list(Native(graph)(*arrays))


NATIVE_TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""Sums are done in another order, exp and its like are polynomials."""


@dataclass(frozen=True)
class Runner:
    """One way to run an op.

    Attributes:
        run: ``run(op, arrays, attrs)``.
        tolerance: of floats, by dtype, as in `assert_agrees`; none: the bits are the same.
        dtypes: of floats, that each case alone is run in.
    """

    run: Callable[[Op, Sequence[Array], Any], list[Array]]
    tolerance: Mapping[str, float] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32", "float64")


ENGINES: dict[str, Runner] = {
    "eager": Runner(run_eagerly),
    "reference": Runner(run_traced),
    # Compiling takes its time: tests/engines/native/test_registry_native.py does float64, many cases at once.
    "native": Runner(run_native, NATIVE_TOLERANCE, ("float32",)),
}


def assert_agrees(found: Array, wanted: Array, tolerance: Mapping[str, float], what: str = "") -> None:
    """Shape and dtype are the same; floats agree to the tolerance of their dtype, anything else to the bit.

    NaN and infinities are in the same places.  The error is relative to the largest finite number, as in
    `relative_error`.
    """
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), what
    allowed = tolerance.get(str(wanted.dtype), 0.0)
    if not allowed:
        np.testing.assert_array_equal(found, wanted, err_msg=what)
        return
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(np.where(finite, 0, found), np.where(finite, 0, wanted), err_msg=what)
    error = relative_error(found[finite].astype("float64"), wanted[finite].astype("float64"))
    assert error < allowed, f"{what}: relative error {error:.2g}; expected less than {allowed:.2g}"


@dataclass
class Pullback:
    """An op's VJP as a function of arrays: cotangents of the float inputs from those of the float outputs."""

    op: Op
    attrs: Any
    arrays: list[Array]
    cotangents: list[Array | None]
    floats: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.floats = [i for i, a in enumerate(self.arrays) if a.dtype.kind == "f"]

    def tensors(
        self, arrays: Sequence[Array], cotangents: Sequence[Array | None]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
        """Inputs and cotangents as leaves, and the input cotangents."""
        inputs = [tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        outputs = apply_all(self.op, *inputs, **self.attrs)
        pairs = [
            (output, tensor(c, requires_grad=True))
            for output, c in zip(outputs, cotangents, strict=True)
            if c is not None
        ]
        leaves = [inputs[i] for i in self.floats]
        seeds = [seed for _, seed in pairs]
        return leaves, seeds, cr.gradients([output for output, _ in pairs], leaves, seeds)

    def value(self, arrays: Sequence[Array]) -> float:
        """The scalar ``sum of <cotangent, output>``."""
        outputs = run_eagerly(self.op, arrays, self.attrs)
        return float(sum(np.sum(o * c) for o, c in zip(outputs, self.cotangents, strict=True) if c is not None))

    def first_order_error(self) -> float:
        """Largest relative error of the VJP against central differences."""
        _, _, found = self.tensors(self.arrays, self.cotangents)
        worst = 0.0
        for gradient, place in zip(found, self.floats, strict=True):
            wanted = central_differences(self.value, self.arrays, place)
            worst = max(worst, relative_error(_dense(gradient, wanted), wanted))
        return worst

    def second_order_error(self) -> float:
        """Largest relative error of the VJP's own VJP against central differences of the VJP."""
        leaves, seeds, found = self.tensors(self.arrays, self.cotangents)
        rng = np.random.Generator(np.random.PCG64(1))
        weights = [rng.normal(size=() if g is None else g.shape) for g in found]
        pairs = [(g, w) for g, w in zip(found, weights, strict=True) if g is not None]
        second = cr.gradients([g for g, _ in pairs], [*leaves, *seeds], [tensor(w) for _, w in pairs])
        filled = [i for i, c in enumerate(self.cotangents) if c is not None]
        state: list[Array] = [*self.arrays, *(self._cotangent(i) for i in filled)]

        def value(arrays: Sequence[Array]) -> float:
            count = len(self.arrays)
            cotangents = list(self.cotangents)
            for place, array in zip(filled, arrays[count:], strict=True):
                cotangents[place] = array
            _, _, gradients = self.tensors(arrays[:count], cotangents)
            return float(sum(np.sum(g.data * w) for g, w in zip(gradients, weights, strict=True) if g is not None))

        places = [*self.floats, *range(len(self.arrays), len(state))]
        worst = 0.0
        for gradient, place in zip(second, places, strict=True):
            wanted = central_differences(value, state, place)
            worst = max(worst, relative_error(_dense(gradient, wanted), wanted))
        return worst

    def _cotangent(self, place: int) -> Array:
        cotangent = self.cotangents[place]
        assert cotangent is not None
        return cotangent


def _dense(gradient: Tensor | None, like: Array) -> Array:
    return np.zeros_like(like) if gradient is None else gradient.data


def central_differences(function: Callable[[Sequence[Array]], float], arrays: Sequence[Array], place: int) -> Array:
    """The gradient of a scalar function by one of its arrays."""
    result = np.zeros(arrays[place].shape)
    for index in np.ndindex(result.shape):
        values = []
        for sign in (1.0, -1.0):
            moved = list(arrays)
            moved[place] = arrays[place].copy()
            moved[place][index] += sign * STEP
            values.append(function(moved))
        result[index] = (values[0] - values[1]) / (2 * STEP)
    return result


def pullback(trial: Trial) -> Pullback:
    """The trial's VJP with random cotangents for every float output."""
    arrays = trial.arrays()
    rng = trial.rng()
    outputs = run_eagerly(trial.op, arrays, trial.case.attrs)
    cotangents = [rng.normal(size=o.shape) if o.dtype.kind == "f" else None for o in outputs]
    return Pullback(trial.op, trial.case.attrs, arrays, cotangents)
