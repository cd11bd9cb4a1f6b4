"""Prologues and epilogues: ops beside a contraction run sample by sample, block by block, while data is in the cache.

An epilogue consumes blocks of the contraction's rows, such as bias, activation and pooling.  A prologue makes one
sample of an operand in private memory, such as a gradient placed behind a max-pool.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chainrule.graph.dims import Size, bind_size
from chainrule.plan.expr import Expr, Rules, Storage, substitute, walk
from chainrule.plan.nest import Nest, Store, axis_size
from chainrule.plan.plan import Epilogue, Kernel, Product, Prologue

__all__ = ["RowMap", "with_epilogues", "with_prologues"]


@dataclass(frozen=True, slots=True)
class RowMap:
    """How a contraction's result lies in memory, and how it can be delivered in blocks of rows.

    Attributes:
        samples: size of the first axis.
        rows, columns, channels: of one sample's map.
        wide: channels of a pixel in a block, those that only fill a panel included.
    """

    samples: Size
    rows: int
    columns: int
    channels: int
    wide: int


def with_epilogues(kernels: Sequence[Kernel], kept: Collection[Storage]) -> list[Kernel]:
    """Join each contraction with the nest that alone reads its result, where rows go with rows.

    A nest that reads several contractions, such as the sum of two branches, joins the first of them.

    Args:
        kernels: nests not yet simplified.
        kept: results that must lie in memory.
    """
    readers: dict[Storage, list[Kernel]] = {}
    for kernel in kernels:
        for storage in kernel.reads:
            readers.setdefault(storage, []).append(kernel)
    joined: dict[str, Kernel] = {}
    gone: set[str] = set()
    for kernel in kernels:
        rows = getattr(kernel.body.part, "row_map", None) if isinstance(kernel.body, Product) else None
        result = kernel.writes[0]
        after = readers.get(result, [])
        if rows is None or result in kept or len(after) != 1 or after[0].name in joined:
            continue
        made = _joined(kernel, after[0], rows)
        if made is not None:
            gone.add(kernel.name)
            joined[after[0].name] = made
    return [joined.get(kernel.name, kernel) for kernel in kernels if kernel.name not in gone]


def _joined(kernel: Kernel, after: Kernel, rows: RowMap) -> Kernel | None:
    assert isinstance(kernel.body, Product)
    nest, result = after.body, kernel.writes[0]
    if not isinstance(nest, Nest) or len(nest.axes) < 2 or axis_size(nest.axes[0]) != rows.samples:
        return None
    block = _block(nest, result, rows)
    if block is None:
        return None
    step, first, count = block
    area = Storage(f"block:{result.name}", result.dtype, count * rows.columns * rows.wide)
    changed = _on_block(nest, result, rows, step, first, area)
    reads = tuple(dict.fromkeys((*kernel.reads, *(s for s in after.reads if s != result))))
    return replace(
        kernel,
        name=f"{kernel.name}_{after.name}",
        body=replace(kernel.body, epilogue=Epilogue(changed, area, step, first, count)),
        reads=reads,
        writes=after.writes,
        where=f"{kernel.where}, {after.where}",
    )


def _loads(nest: Nest, storage: Storage) -> list[Expr]:
    return [node for node in walk(*nest.roots()) if node.op == "load" and node.attr == storage]


def _block(nest: Nest, result: Storage, rows: RowMap) -> tuple[int, int, int] | None:
    """(step, first, count): row p of the nest needs the rows ``p * step + first`` and the ``count - 1`` after it."""
    length = rows.columns * rows.channels
    sample, row = nest.axes[0], nest.axes[1]
    height = axis_size(row)
    if not isinstance(height, int):
        return None
    steps: set[int] = set()
    lows: list[int] = []
    highs: list[int] = []
    for load in _loads(nest, result):
        rest = _without(load.args[0], {sample: rows.rows * length, row: None})
        if rest is None or rest[0].low is None or rest[0].high is None or rest[1] % length:
            return None
        steps.add(rest[1] // length)
        lows.append(rest[0].low // length)
        highs.append(rest[0].high // length)
    if len(steps) != 1:
        return None
    (step,) = steps
    first, last = min(lows), max(highs)
    count = last - first + 1
    if first < 0 or (height - 1) * step + last >= rows.rows or (count > step and height > 1):
        return None
    return step, first, count


def _without(index: Expr, expected: dict[Any, int | None]) -> tuple[Expr, int] | None:
    """An index without two of its variables, and the coefficient of the one whose coefficient is free.

    None if a coefficient is not the expected one, or a variable also stands inside a division.
    """
    rules = index.rules
    terms, constant = Rules.terms(index)
    free = 0
    for variable, coefficient in expected.items():
        atom = rules.make("variable", (), np.dtype("int64"), variable)
        found = terms.pop(atom, 0)
        if coefficient is None:
            free = found
        elif found != coefficient:
            return None
        if any(node is atom for term in terms for node in walk(term)):
            return None
    rest = rules.constant(constant, "int64")
    for atom, coefficient in terms.items():
        rest = rest + atom * coefficient
    return rest, free


def _on_block(nest: Nest, result: Storage, rows: RowMap, step: int, first: int, area: Storage) -> Nest:
    """The nest with loads of the result turned to loads of the block."""
    length = rows.columns * rows.channels
    replaced: dict[Expr, Expr] = {}
    for load in _loads(nest, result):
        rest = _without(load.args[0], {nest.axes[0]: rows.rows * length, nest.axes[1]: None})
        assert rest is not None
        place = rest[0] - first * length
        if rows.wide != rows.channels:
            place = (place // rows.channels) * rows.wide + place % rows.channels
        replaced[load] = load.rules.load(area, place)
    known: dict[Expr, Expr] = {}
    stores = tuple(Store(s.storage, s.index, substitute(s.value, replaced, known)) for s in nest.stores)
    return replace(nest, stores=stores)


def with_prologues(kernels: Sequence[Kernel], kept: Collection[Storage]) -> list[Kernel]:
    """Join each contraction with nests that make an operand which it alone reads.

    A part says with ``sample_operands`` which operands it takes from private memory, as positions and elements of a
    sample.

    Args:
        kernels: nests not yet simplified.
        kept: results that must lie in memory.
    """
    result = list(kernels)
    for kernel in kernels:
        wanted = getattr(kernel.body.part, "sample_operands", {}) if isinstance(kernel.body, Product) else {}
        for position, size in wanted.items():
            place = next(i for i, k in enumerate(result) if k.name == kernel.name)
            made = _with_prologue(result, result[place], position, size, kept)
            if made is not None:
                joined, gone = made
                result[place] = joined
                result = [k for k in result if k.name != gone]
    return result


def _with_prologue(
    kernels: Sequence[Kernel], kernel: Kernel, position: int, size: int, kept: Collection[Storage]
) -> tuple[Kernel, str] | None:
    assert isinstance(kernel.body, Product)
    operand = kernel.body.operands[position]
    maker = next((k for k in kernels if operand in k.writes), None)
    readers = [k for k in kernels if operand in k.reads]
    if maker is None or len(readers) != 1 or operand in kept or kernel.body.operands.count(operand) != 1:
        return None
    nest = maker.body
    if not isinstance(nest, Nest) or len(nest.stores) != 1 or len(nest.axes) < 2:
        return None
    store = nest.stores[0]
    index = _without(store.index, {nest.axes[0]: size, nest.axes[1]: None})
    if index is None or bind_size(axis_size(nest.axes[0]), 1) * size != bind_size(operand.size, 1):
        return None
    area = Storage(f"sample:{operand.name}", operand.dtype, size)
    row = operand_row(nest.axes[1], store.index.rules)
    local = replace(store, storage=area, index=index[0] + row * index[1])
    prologue = Prologue(position, replace(nest, stores=(local,)), area)
    joined = replace(
        kernel,
        name=f"{maker.name}_{kernel.name}",
        body=replace(kernel.body, prologues=(*kernel.body.prologues, prologue)),
        reads=tuple(dict.fromkeys((*(s for s in kernel.reads if s != operand), *maker.reads))),
        where=f"{maker.where}, {kernel.where}",
    )
    return joined, maker.name


def operand_row(axis: Any, rules: Rules) -> Expr:
    """A nest's axis as an index."""
    atom = rules.make("variable", (), np.dtype("int64"), axis)
    return rules.constant(0, "int64") + atom
