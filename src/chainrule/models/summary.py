"""A model in numbers: what `Model.summary` prints, and the same for programs."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chainrule.columns import shortened, table, text_width
from chainrule.errors import ConfigError
from chainrule.graph.dims import Shape, bind_size, format_shape
from chainrule.graph.trace import trace
from chainrule.layers.layer import observed_outputs

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["LayerRow", "Summary", "summarise", "summary_of"]


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: in its model.
        kind: its class.
        shape: of its output, with the symbolic batch size; None where it made none.
        parameters: how many numbers its weights hold.
        flops: of its forward pass for one sample.
    """

    name: str
    kind: str
    shape: Shape | None
    parameters: int
    flops: int


@dataclass(frozen=True)
class Summary:
    """A model in numbers.

    Attributes:
        name: the model's.
        layers: its input, then its layers in the order of execution.
        trained, fixed: parameters that training changes, and those that it does not.
        bytes: of all weights.
        flops: of the forward pass for one sample.
    """

    name: str
    layers: tuple[LayerRow, ...]
    trained: int
    fixed: int
    bytes: int
    flops: int

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """The table and the totals.

        Args:
            width: of a line, at most: kinds, then FLOPs are left out and names shortened where there is no room, down
                to nine columns.  By default as wide as needed.
        """
        rows: list[tuple[str, ...]] = [("layer", "kind", "output", "parameters", "FLOPs")]
        for row in self.layers:
            shape = "" if row.shape is None else format_shape(row.shape)
            rows.append((row.name, row.kind, shape, f"{row.parameters:,}", f"{row.flops:,}"))
        total = self.trained + self.fixed
        facts = (
            f"parameters: {total:,} ({self.trained:,} trained, {self.fixed:,} not), {_bytes(self.bytes)}",
            f"forward pass: {self.flops:,} FLOPs a sample",
        )
        head = f"model {self.name!r}"
        if width is None:
            return "\n".join([head, *table(rows, 2), *facts])
        totals = (line for fact in facts for line in textwrap.wrap(fact, width, subsequent_indent="  "))
        return "\n".join([shortened(head, width), *_fitted(rows, width), *totals])

    def to_json(self) -> dict[str, Any]:
        """The same as JSON can hold it; the batch size in a shape is null."""
        layers = [
            {
                "name": row.name,
                "class": row.kind,
                "output_shape": None if row.shape is None else [n if isinstance(n, int) else None for n in row.shape],
                "parameters": row.parameters,
                "flops": row.flops,
            }
            for row in self.layers
        ]
        totals = {
            "parameters": self.trained + self.fixed,
            "trained": self.trained,
            "not_trained": self.fixed,
            "bytes": self.bytes,
            "flops": self.flops,
        }
        return {"model": self.name, "layers": layers, "totals": totals}


def summary_of(model: Model) -> Summary:
    """Layers with output shape, number of parameters, and FLOPs of the forward pass for one sample.

    Raises:
        ConfigError: the input shape is not known yet.
    """
    if model.input_spec is None:
        raise ConfigError(
            f"model {model.name!r} does not know its input yet; start it with cr.Input(...) or call it once"
        )
    with observed_outputs() as seen:
        graph = trace(lambda x: model(x, training=False), model.input_spec, name=model.name)
    flops: Counter[str] = Counter()
    for node in graph.nodes:
        flops[node.provenance.layer] += bind_size(node.flops(), 1)
    shapes = {layer.path: spec.shape for layer, spec in seen}
    rows = [LayerRow("input", "Input", model.input_spec.shape, 0, 0)]
    for layer in model.layers:
        inside = sum(n for path, n in flops.items() if path == layer.path or path.startswith(f"{layer.path}/"))
        rows.append(LayerRow(layer.name, type(layer).__name__, shapes.get(layer.path), layer.count_params(), inside))
    return Summary(
        model.name,
        tuple(rows),
        sum(int(weight.spec.size) for weight in model.trainable_weights),
        sum(int(weight.spec.size) for weight in model.non_trainable_weights),
        sum(int(w.spec.size) * w.dtype.itemsize for w in model.weights),
        sum(flops.values()),
    )


def summarise(model: Model) -> str:
    """What `Model.summary` prints; see `summary_of`."""
    return str(summary_of(model))


def _fitted(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """The table in so many columns."""
    for kept, numbers in (((0, 1, 2, 3, 4), 2), ((0, 2, 3, 4), 2)):
        lines = table([tuple(row[i] for i in kept) for row in rows], numbers)
        if text_width(lines[1]) <= width:
            return lines
    return table([(row[0], *row[2:4]) for row in rows], 1, width)


def _bytes(count: int) -> str:
    """A size with its unit: kB and MB are powers of 1000.

    >>> _bytes(487720)
    '487.7 kB'
    """
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
