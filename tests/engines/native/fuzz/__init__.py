"""A differential fuzzer: random graphs, machine code against the reference.

``python -m tests.engines.native.fuzz --count 10000 --seed 0 --jobs 2 --log FILE``

A graph is made from a seed: convolutions, products, normalisation, pooling, elementwise ops, reductions, movement,
draws; a loss, gradients, and an optimizer's update of the variables.  It is recorded as a list of steps (`recipe`),
made at random (`making`), from which the graph is built (`graphs`); so one that fails can be made smaller
(`minimising`).  What rounding may do to each result is measured (`comparing`): the reference runs again on inputs
that differ in their last bits.
"""

from tests.engines.native.fuzz.comparing import BASE, EVERY, Variant, Wanted, disagreement, variants_of, wrong
from tests.engines.native.fuzz.graphs import KINDS, build
from tests.engines.native.fuzz.making import make_recipe
from tests.engines.native.fuzz.minimising import minimised, try_seed
from tests.engines.native.fuzz.recipe import LEAVES, Recipe, Step

__all__ = [
    "BASE",
    "EVERY",
    "KINDS",
    "LEAVES",
    "Recipe",
    "Step",
    "Variant",
    "Wanted",
    "build",
    "disagreement",
    "make_recipe",
    "minimised",
    "try_seed",
    "variants_of",
    "wrong",
]
