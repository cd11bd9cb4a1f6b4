"""The native engine's plan of a graph, with what each kernel costs and every level as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.engines.native.contractions import Generator
from chainrule.engines.native.emit import emit_plan
from chainrule.engines.native.jit import Target, emit_assembly, host_target
from chainrule.engines.native.platform import host
from chainrule.graph.dims import Size
from chainrule.graph.graph import Graph
from chainrule.graph.lowering import Contraction
from chainrule.graph.tensor import Node
from chainrule.plan.build import build_plan
from chainrule.plan.cost import KernelCost, kernel_costs
from chainrule.plan.dump import LEVELS
from chainrule.plan.expr import Storage
from chainrule.plan.maker import KernelMaker
from chainrule.plan.plan import Kernel, Plan, Product

__all__ = ["Priced"]

_PACKING = ", packing"


class _Recorder(Generator):
    """Remembers the FLOPs of the products that it makes, by their parts; what packs operands has none."""

    def __init__(self, lanes32: int) -> None:
        super().__init__(lanes32)
        self.flops: dict[Any, Size] = {}

    def products(
        self, node: Node, contraction: Contraction, operands: tuple[Storage, ...], result: Storage, maker: KernelMaker
    ) -> Sequence[Kernel]:
        kernels = super().products(node, contraction, operands, result, maker)
        parts = [k.body.part for k in kernels if isinstance(k.body, Product) and not k.where.endswith(_PACKING)]
        for part in parts:
            self.flops[part] = node.flops() // len(parts) if len(parts) > 1 else node.flops()
        return kernels


@dataclass(frozen=True)
class Priced:
    """A plan, what its kernels cost, and its levels.

    Attributes:
        graph: what was planned.
        plan: the plan.
        costs: by the names of kernels.
    """

    graph: Graph
    plan: Plan
    costs: Mapping[str, KernelCost]
    _generator: Generator
    _target: Target

    @classmethod
    def of(cls, graph: Graph, batch: int, gathered: Sequence[str] = ()) -> Priced:
        """Plan a graph for this machine as the engine does.

        Args:
            graph: a traced graph.
            batch: the largest batch size.
            gathered: inputs whose rows the step itself takes from a data set.

        Raises:
            EngineError: an op has no native lowering.
        """
        target = host_target()
        generator = _Recorder(target.lanes32)
        plan = build_plan(graph, generator, batch, gathered=gathered)
        return cls(graph, plan, kernel_costs(plan, generator.flops), generator, target)

    def level(self, name: str) -> str:
        """One of `plan.dump.LEVELS` as text."""
        texts: Mapping[str, Callable[[], str]] = {
            "graph": self.graph.show,
            "expanded": self.plan.graph.show,
            "plan": lambda: str(self.plan),
            "ir": self._ir,
            "assembly": lambda: emit_assembly(self._ir(), self._target),
        }
        assert set(texts) == set(LEVELS)
        return texts[name]()

    def _ir(self) -> str:
        return emit_plan(self.plan, self._generator, self._target, host())[0]
