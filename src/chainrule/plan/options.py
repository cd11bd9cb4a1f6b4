"""Which passes of the planner run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """Which planner passes run; each can be switched off, which tests use to compare plans.

    Attributes:
        fuse: join ops in loop nests.
        place_last: compute with a max-pool's few gradients before placing them among zeros.
        sparse: let contractions read a max-pool's few gradients as they are.
        epilogues: join contractions with the nests that follow them.
        prologues: join contractions with the nests that make their operands.
        in_place: write new state over the old one.
        stages: run independent kernels side by side.
        reuse: let values that are never alive together share memory.
    """

    fuse: bool = True
    place_last: bool = True
    sparse: bool = True
    epilogues: bool = True
    prologues: bool = True
    in_place: bool = True
    stages: bool = True
    reuse: bool = True
