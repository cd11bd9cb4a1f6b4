"""The plan of a graph: kernels in stages, and where every value lies in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.graph.dims import Size, bind_size
from chainrule.graph.graph import Graph
from chainrule.plan.expr import Storage
from chainrule.plan.nest import Nest

__all__ = ["ALIGNMENT", "Kernel", "Plan", "Product", "Sort", "Stage", "storage_bytes"]

ALIGNMENT = 64
"""Every storage begins on a cache line."""


@dataclass(frozen=True)
class Product:
    """One kernel of a contraction, written by an engine's generator.

    Attributes:
        part: what the engine needs to emit it; equal parts are the same code.
        operands: what it reads.
        result: what it writes, if there is no epilogue.
        epilogue: what is done with the result while it is computed.
        prologues: how operands are made that do not lie in memory.
    """

    part: Any
    operands: tuple[Storage, ...]
    result: Storage
    epilogue: Epilogue | None = None
    prologues: tuple[Prologue, ...] = ()


@dataclass(frozen=True)
class Prologue:
    """A nest that makes one sample of a contraction's operand in private memory.

    Attributes:
        position: which operand.
        nest: its first axis is the sample; it stores to `area`.
        area: one sample.
    """

    position: int
    nest: Nest
    area: Storage


@dataclass(frozen=True)
class Epilogue:
    """A nest that consumes a contraction's result block by block.

    Attributes:
        nest: its first two axes are the sample and a row p of what it computes; it loads from `area`.
        area: the block, in private memory.
        step, first, count: row p needs the contraction's rows ``p * step + first`` and the ``count - 1`` after it.
    """

    nest: Nest
    area: Storage
    step: int
    first: int
    count: int


@dataclass(frozen=True)
class Sort:
    """The stable order of uint64 keys: the numbers of the elements of `keys`, smallest key first."""

    keys: Storage
    spare: Storage
    result: Storage
    count: Size


@dataclass(frozen=True)
class Kernel:
    """One piece of work, cut into units that any thread may claim.

    Attributes:
        name: unique; says what it computes and for which layer.
        body: what is done.
        units: number of units is ``ceil(extent / chunk)`` for the run-time extent.
        extent, chunk: see `units`.
        reads, writes: storages.
        where: layer and op, for messages and profiles.
    """

    name: str
    body: Nest | Product | Sort
    extent: Size
    chunk: int
    reads: tuple[Storage, ...]
    writes: tuple[Storage, ...]
    where: str = ""

    def units(self, batch: int) -> int:
        """How many units there are for a batch size."""
        return -(-max(0, bind_size(self.extent, batch)) // self.chunk)

    def __str__(self) -> str:
        if isinstance(self.body, Nest):
            return f"{self.body}    # {self.where}"
        reads = ", ".join(map(repr, self.reads))
        epilogue = self.body.epilogue if isinstance(self.body, Product) else None
        if isinstance(self.body, Product) and self.body.prologues:
            made = "\n".join(str(prologue.nest) for prologue in self.body.prologues)
            return f"{self.name}: {', '.join(map(repr, self.writes))} <- {reads}    # {self.where}\n{made}"
        if epilogue is not None:
            rows = f"rows {epilogue.step}*row + {epilogue.first} .. + {epilogue.count - 1} of {self.body.result}"
            return f"{self.name} <- {reads}, by {rows}    # {self.where}\n{epilogue.nest}"
        return f"{self.name}: {', '.join(map(repr, self.writes))} <- {reads}    # {self.where}"


@dataclass(frozen=True)
class Stage:
    """Kernels without dependences among them; a barrier follows."""

    kernels: tuple[Kernel, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that an engine needs to emit and to run a graph.

    Attributes:
        graph: the expanded graph that the plan computes.
        batch: the largest batch size that it serves.
        stages: what is done, in order.
        offsets: byte offset of every storage in the arena.
        arena: bytes of the arena.
        inputs: storage of each run-time input.
        constants: what the storages of constants hold.
        state: storage of each variable.
        outputs: storage of each output.
        overwrites: storages that lie in a variable's memory, with the variable's own storage.
    """

    graph: Graph
    batch: int
    stages: tuple[Stage, ...]
    offsets: Mapping[Storage, int]
    arena: int
    inputs: Mapping[str, Storage]
    constants: Mapping[Storage, np.ndarray[Any, Any]]
    state: Mapping[str, Storage]
    outputs: Mapping[str, Storage]
    overwrites: Mapping[Storage, Storage]

    @property
    def kernels(self) -> Sequence[Kernel]:
        """Every kernel, stage by stage."""
        return [kernel for stage in self.stages for kernel in stage.kernels]

    def __str__(self) -> str:
        lines = [
            f"plan of {self.graph.name}: {len(self.kernels)} kernels in {len(self.stages)} stages, batch {self.batch}"
        ]
        lines.append(f"arena {self.arena:,} bytes")
        for number, stage in enumerate(self.stages):
            lines.append(f"stage {number}")
            lines.extend("  " + line for kernel in stage.kernels for line in str(kernel).split("\n"))
        return "\n".join(lines)


def storage_bytes(storage: Storage, batch: int) -> int:
    """Bytes of a storage for a batch size, rounded up to whole cache lines."""
    size = max(1, bind_size(storage.size, batch)) * storage.dtype.itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT
