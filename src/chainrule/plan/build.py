"""The planner: expand, fuse, lower, stage, place; every level verified and printable."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from chainrule.graph.graph import Graph
from chainrule.graph.lowering import Contraction
from chainrule.graph.passes import remove_dead_nodes, run_passes
from chainrule.graph.tensor import Node
from chainrule.plan.dump import dump
from chainrule.plan.epilogue import with_epilogues, with_prologues
from chainrule.plan.expand import chooser, expanded, shared
from chainrule.plan.fuse import fused
from chainrule.plan.gathering import ORDER, source_of
from chainrule.plan.lower import Generators, Lowering
from chainrule.plan.nest import Nest, merged, split
from chainrule.plan.options import Options
from chainrule.plan.placed import placed_last
from chainrule.plan.plan import Kernel, Plan, Product, Stage
from chainrule.plan.schedule import arena_offsets, in_place, staged
from chainrule.plan.verify import KERNEL_LAWS, verify_plan

__all__ = ["build_plan"]


def build_plan(
    graph: Graph,
    generators: Generators,
    batch: int,
    options: Options | None = None,
    gathered: Container[str] = (),
) -> Plan:
    """Plan a graph for batches of up to `batch` samples.

    Args:
        graph: a traced graph.
        generators: the engine's written kernels.
        batch: the largest batch size.
        options: passes to leave out.
        gathered: inputs whose rows the step itself takes from a data set, by number.

    Raises:
        EngineError: an op has no native lowering.
        GraphError: a pass broke a law.
    """
    options = options or Options()
    dump("graph", graph.show)
    takes_placed = generators.takes_placed if options.sparse else _never
    choose = chooser(generators.supports, takes_placed)
    graph = expanded(graph, choose)
    if options.place_last:

        def place_last(graph: Graph) -> Graph:
            return placed_last(graph, choose)

        graph = run_passes(graph, [place_last, shared, remove_dead_nodes], after="expansion")
    dump("expanded", graph.show)
    lowering = Lowering(fused(graph, choose, batch, fuse=options.fuse), generators, batch, gathered)
    work = lowering.run()
    inputs = {name: work.leaf(item) for name, item in graph.inputs.items() if name not in gathered}
    inputs |= {source_of(name): source for name, source in work.sources.items()}
    if work.order is not None:
        inputs[ORDER] = work.order
    state = {entry.name: work.leaf(entry.before) for entry in graph.state}
    bare = Plan(graph, batch, (), {}, 0, inputs, dict(work.constants), state, work.outputs, {})
    kept = {*work.outputs.values(), *work.updates}
    _verify(bare, work.kernels, "lowering")
    if options.epilogues:
        work.kernels = with_epilogues(work.kernels, kept)
        _verify(bare, work.kernels, "epilogues")
    if options.prologues:
        work.kernels = with_prologues(work.kernels, kept)
        _verify(bare, work.kernels, "prologues")
    overwrites = in_place(work.kernels, work.updates) if options.in_place else {}
    for new, old in work.updates.items():
        if new not in overwrites:
            overwrites[lowering.finish(new, old)] = old
    stages = staged([_simplified(kernel, batch, generators.lanes) for kernel in work.kernels], overwrites)
    if not options.stages:
        stages = [Stage((kernel,)) for stage in stages for kernel in stage.kernels]
    outside = {*inputs.values(), *state.values(), *work.constants, *overwrites}
    offsets, size = arena_offsets(stages, batch, outside, work.outputs.values(), reuse=options.reuse)
    plan = replace(bare, stages=tuple(stages), offsets=offsets, arena=size, overwrites=overwrites)
    verify_plan(plan)
    dump("plan", lambda: str(plan))
    return plan


def _verify(bare: Plan, kernels: Sequence[Kernel], after: str) -> None:
    """Check kernels in order, with what else a plan says already."""
    verify_plan(replace(bare, stages=tuple(Stage((kernel,)) for kernel in kernels)), after=after, laws=KERNEL_LAWS)


def _never(node: Node, contraction: Contraction, placing: Node, position: int) -> bool:
    return False


def _simplified(kernel: Kernel, batch: int, lanes: int) -> Kernel:
    """The kernel with its nest's axes joined and its units cut."""
    if isinstance(kernel.body, Nest):
        nest = split(merged(kernel.body), batch, lanes)
        return replace(kernel, body=nest, extent=nest.extent, chunk=nest.chunk)
    if isinstance(kernel.body, Product):
        epilogue = kernel.body.epilogue
        if epilogue is not None:
            epilogue = replace(epilogue, nest=merged(epilogue.nest, fixed=2))
        prologues = tuple(replace(p, nest=merged(p.nest, fixed=1)) for p in kernel.body.prologues)
        return replace(kernel, body=replace(kernel.body, epilogue=epilogue, prologues=prologues))
    return kernel
