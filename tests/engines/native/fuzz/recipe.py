"""A random graph as data: a list of steps, so that one that fails can be made smaller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CLASSES", "LEAVES", "PICKS", "Recipe", "Step"]


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
