"""The table that `Model.summary` prints."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chainrule.errors import ConfigError
from chainrule.graph.dims import bind_size, format_shape
from chainrule.graph.trace import trace
from chainrule.layers.layer import observed_outputs

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["summarise"]


def summarise(model: Model) -> str:
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
    shapes = {layer.path: spec for layer, spec in seen}
    rows: list[tuple[str, ...]] = [("layer", "kind", "output", "parameters", "FLOPs")]
    rows.append(("input", "Input", format_shape(model.input_spec.shape), "0", "0"))
    for layer in model.layers:
        spec = shapes.get(layer.path)
        inside = sum(n for path, n in flops.items() if path == layer.path or path.startswith(f"{layer.path}/"))
        rows.append(
            (
                layer.name,
                type(layer).__name__,
                format_shape(spec.shape) if spec is not None else "",
                f"{layer.count_params():,}",
                f"{inside:,}",
            )
        )
    trainable = sum(int(weight.spec.size) for weight in model.trainable_weights)
    fixed = sum(int(weight.spec.size) for weight in model.non_trainable_weights)
    size = sum(int(w.spec.size) * w.dtype.itemsize for w in model.weights)
    return "\n".join(
        [
            f"model {model.name!r}",
            *_table(rows),
            f"parameters: {trainable + fixed:,} ({trainable:,} trained, {fixed:,} not), {_bytes(size)}",
            f"forward pass: {sum(flops.values()):,} FLOPs a sample",
        ]
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i >= 3 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _bytes(count: int) -> str:
    """A size with its unit: kB and MB are powers of 1000.

    >>> _bytes(487720)
    '487.7 kB'
    """
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
