"""A graph that fails, made smaller and told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from chainrule.errors import ChainruleError
from tests.engines.native.fuzz.comparing import Variant, disagreement, variants_of
from tests.engines.native.fuzz.graphs import build
from tests.engines.native.fuzz.making import make_recipe
from tests.engines.native.fuzz.recipe import LEAVES, Recipe

__all__ = ["minimised", "try_seed"]


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
    yield from (replace(recipe, outputs=fewer) for fewer in _fewer(recipe.outputs))
    yield from (replace(recipe, losses=fewer) for fewer in _fewer(recipe.losses))
    for number in range(len(recipe.steps) - 1, len(LEAVES) - 1, -1):
        for source in (*recipe.steps[number].inputs, 0, 1):
            yield _without(recipe, number, source)
    used = {i for step in recipe.steps for i in step.inputs} | {*recipe.outputs, *recipe.losses}
    for number in range(len(recipe.steps) - 1, len(LEAVES) - 1, -1):
        if number not in used:
            yield _without(recipe, number, 0)


def _fewer(values: tuple[int, ...]) -> list[tuple[int, ...]]:
    """None or one of several values, or all but one."""
    alone: list[tuple[int, ...]] = [(), *((value,) for value in values)] if len(values) > 1 else []
    return alone + [tuple(v for v in values if v != value) for value in values]


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
