"""``chainrule plan``: how the training step of a model becomes machine code."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.cli.chosen import chosen_model
from chainrule.cli.layout import columns, pairs
from chainrule.cli.names import known_name
from chainrule.cli.output import say
from chainrule.cli.usual import compile_as_usual, training_step
from chainrule.columns import table
from chainrule.engines.native.jit import host_target
from chainrule.engines.native.priced import Priced
from chainrule.errors import ConfigError
from chainrule.graph.dims import bind_size
from chainrule.plan.dump import LEVELS
from chainrule.plan.nest import Nest
from chainrule.plan.plan import Kernel, Sort, storage_bytes

__all__ = ["run"]

_BATCH_SIZE = 32
_GATHERED = ("x", "y")  # as in `fit`: the step itself takes its rows from the data set
_HEADER = ("stage", "kernel", "kind", "FLOPs", "bytes", "share")
_WIDE = 70  # columns that all of it needs
_PLACE = re.compile(r"layer '([^']*)' \(([^)]*)\)(, packing)?")


def run(arguments: argparse.Namespace) -> int:
    """Print the plan as a table, as JSON, or one level of it as text.

    Raises:
        ChainruleError: there is no such model, network or level, or the model cannot be planned.
    """
    if arguments.level is not None:
        known_name("level", arguments.level, LEVELS)
        if arguments.json:
            raise ConfigError("--level prints text and --json an object; give one of them")
    opened = chosen_model(arguments)
    model = opened.model
    if not model.is_compiled:
        compile_as_usual(model)
    batch = arguments.batch_size or (opened.settings or {}).get("batch_size", _BATCH_SIZE)
    priced = Priced.of(training_step(model), batch, _GATHERED)
    if arguments.level is not None:
        say(priced.level(arguments.level))
        return 0
    rows = _rows(priced)
    if arguments.json:
        say(json.dumps(_as_json(model.name, priced, rows), indent=2))
    else:
        _print(model.name, priced, rows)
    return 0


@dataclass(frozen=True)
class _Row:
    """One kernel.

    Attributes:
        stage: kernels of a stage may run side by side.
        kernel: of the plan.
        kind: ``product``, ``loops`` or ``sort``.
        layers, ops: what it computes, each once.
        flops, bytes: what it costs.
        share: of all FLOPs.
    """

    stage: int
    kernel: Kernel
    kind: str
    layers: tuple[str, ...]
    ops: tuple[str, ...]
    flops: int
    bytes: int
    share: float

    @property
    def label(self) -> str:
        """What it computes, such as ``conv2d: conv2d, relu``."""
        if not self.ops:
            return self.kernel.name.split(".")[0].replace("_", " ")
        return f"{', '.join(self.layers)}: {', '.join(self.ops)}"


def _rows(priced: Priced) -> list[_Row]:
    total = max(1, sum(cost.flops for cost in priced.costs.values()))
    rows = []
    for number, stage in enumerate(priced.plan.stages):
        for kernel in stage.kernels:
            cost = priced.costs[kernel.name]
            places = _PLACE.findall(kernel.where)
            layers = tuple(dict.fromkeys(layer or "model" for layer, _, _ in places))
            ops = tuple(dict.fromkeys(f"{op} packing" if packing else op for _, op, packing in places))
            share = cost.flops / total
            rows.append(_Row(number, kernel, _kind(kernel), layers, ops, cost.flops, cost.bytes, share))
    return rows


def _kind(kernel: Kernel) -> str:
    if isinstance(kernel.body, Nest):
        return "loops"
    return "sort" if isinstance(kernel.body, Sort) else "product"


# -- as a table ---------------------------------------------------------------------------------------------


def _print(name: str, priced: Priced, rows: Sequence[_Row]) -> None:
    width, plan = columns(), priced.plan
    narrow = width < _WIDE
    cells: list[tuple[str, ...]] = [("", "kernel", "FLOPs", "share") if narrow else _HEADER]
    for row in rows:
        share = f"{row.share:.1%}"
        if narrow:
            cells.append((str(row.stage), row.label, _short(row.flops), share))
        else:
            cells.append((str(row.stage), row.label, row.kind, _short(row.flops), _short(row.bytes), share))
    target = host_target()
    flops = sum(row.flops for row in rows)
    say(textwrap.fill(f"training step of {name!r}, {plan.batch} samples", width))
    say("\n".join(table(cells, 2 if narrow else 3, width, flexible=1)))
    facts = [
        ("kernels", f"{len(rows)} in {len(plan.stages)} stages; those of one stage may run side by side"),
        ("work", f"{flops:,} FLOPs, {bind_size(priced.graph.flops(), plan.batch):,} by the step's graph"),
        ("memory", f"arena {_short(plan.arena)}B, state {_short(_state_bytes(priced))}B"),
        ("processor", f"{target.cpu}, {target.lanes32} float32 in a vector"),
    ]
    say("\n".join(pairs(facts, width)))


def _state_bytes(priced: Priced) -> int:
    """What weights, slots of the optimizer and totals of metrics take."""
    return sum(storage_bytes(storage, priced.plan.batch) for storage in priced.plan.state.values())


def _short(number: int) -> str:
    """A number with three digits and a power of 1000.

    >>> _short(18874368), _short(512)
    ('18.9 M', '512 ')
    """
    value, unit = float(number), ""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1000
    digits = 0 if not unit else max(0, 3 - len(str(int(value))))
    return f"{value:.{digits}f} {unit}"


# -- as JSON ------------------------------------------------------------------------------------------------


def _as_json(name: str, priced: Priced, rows: Sequence[_Row]) -> dict[str, Any]:
    target, plan = host_target(), priced.plan
    kernels = [
        {
            "stage": row.stage,
            "name": row.kernel.name,
            "kind": row.kind,
            "layers": list(row.layers),
            "ops": list(row.ops),
            "units": row.kernel.units(plan.batch),
            "flops": row.flops,
            "bytes": row.bytes,
            "share": round(row.share, 6),
        }
        for row in rows
    ]
    return {
        "model": name,
        "batch_size": plan.batch,
        "processor": {"model": target.cpu, "float32_lanes": target.lanes32},
        "stages": len(plan.stages),
        "kernels": kernels,
        "totals": {
            "flops": sum(row.flops for row in rows),
            "graph_flops": bind_size(priced.graph.flops(), plan.batch),
            "arena_bytes": plan.arena,
            "state_bytes": _state_bytes(priced),
        },
    }
