"""A model's graphs, compiled: one for each kind of use and each kind of data, kept while they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chainrule.augment.base import Augmentation
from chainrule.engines import Engine, executable
from chainrule.graph.graph import Graph
from chainrule.graph.op import Spec
from chainrule.train.step import (
    Objective,
    accumulation_graph,
    evaluation_graph,
    prediction_graph,
    step_graph,
    update_graph,
)

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = ["Plans", "planned_size"]

_SMALLEST = 32
_MOST_KEPT = 8  # executables, each with its arena; others are taken from the cache again


class Plans:
    """The executables of one model.

    Args:
        model: the model.
        objective: loss, metrics and optimizer; None for a model that only predicts.
    """

    def __init__(self, model: Model, objective: Objective | None) -> None:
        self._model, self._objective = model, objective
        self._kept: dict[tuple[Any, ...], Engine] = {}

    def of(self, kind: str, specs: Mapping[str, Spec], planned: int, augment: Sequence[Augmentation] = ()) -> Engine:
        """The executable of a kind of graph.

        Args:
            kind: ``step``, ``accumulate``, ``update``, ``evaluate`` or ``predict``.
            specs: the inputs that are batches, by name.
            planned: the batch size to plan for.
            augment: random changes of the samples.
        """
        frozen = tuple(weight.trainable for weight in self._model.weights)
        key = (kind, tuple(specs.items()), frozen, planned, tuple(map(repr, augment)))
        found = self._kept.pop(key, None)
        if found is None:
            graph = self._graph(kind, specs, augment)
            found = executable(graph, self._model.engine, gathered=tuple(specs), batch_size=planned)
        self._kept[key] = found  # the last one is the one used last
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return found

    def _graph(self, kind: str, specs: Mapping[str, Spec], augment: Sequence[Augmentation]) -> Graph:
        if kind == "predict":
            return prediction_graph(self._model, specs["x"])
        assert self._objective is not None, "the model refuses to train before compile"
        if kind == "update":
            return update_graph(self._model, self._objective)
        weighted = "sample_weight" in specs
        if kind == "evaluate":
            return evaluation_graph(self._model, self._objective, specs["x"], specs["y"], weighted=weighted)
        build = step_graph if kind == "step" else accumulation_graph
        return build(self._model, self._objective, specs["x"], specs["y"], weighted=weighted, augment=augment)


def planned_size(batch_size: int, samples: int) -> int:
    """The batch size to plan for.

    It follows from the call alone, not from calls before it, and so do the bits of what is computed.  Fewer samples
    than a batch need no plan for all of it; numbers of samples that differ little share one.
    """
    return min(batch_size, max(_SMALLEST, 1 << (samples - 1).bit_length()))
