"""The laws of a graph, checked after every pass."""

from __future__ import annotations

from collections.abc import Hashable

from chainrule.errors import ChainruleError, GraphError
from chainrule.graph.dims import Dim
from chainrule.graph.graph import CONSTANT, INPUT, Graph
from chainrule.graph.op import Trait, get_op
from chainrule.graph.tensor import Node, Tensor

__all__ = ["LAWS", "PHASES", "verify"]

PHASES = frozenset({"forward", "backward", "update"})


def verify(graph: Graph, *, after: str) -> None:
    """Check every law of `LAWS`.

    Args:
        graph: the graph.
        after: the pass that produced it, named in the message.

    Raises:
        GraphError: naming the law, the node and the pass.
    """
    for law in LAWS:
        broken = law(graph)
        if broken is not None:
            raise GraphError(f"after {after}, graph {graph.name!r} breaks the law {law.__name__!r}: {broken}")


def inputs_come_first(graph: Graph) -> str | None:
    """Every input of a node is an output of an earlier node of the same graph."""
    earlier: set[int] = set()
    for node in graph.nodes:
        for item in node.inputs:
            if item.node is None or item.node.id not in earlier:
                return f"{node.where} reads {item.spec}, which no earlier node of the graph makes"
            if not 0 <= item.index < len(item.node.specs):
                return f"{node.where} reads output {item.index} of {item.node!r}"
        if node.id in earlier:
            return f"{node.where} stands in the graph twice"
        earlier.add(node.id)
    return None


def results_are_made_here(graph: Graph) -> str | None:
    """Every output and every state output is made by a node of the graph."""
    ids = {node.id for node in graph.nodes}
    ends = [(f"output {name!r}", item) for name, item in graph.outputs.items()]
    ends += [(f"input {name!r}", item) for name, item in graph.inputs.items()]
    ends += [(f"variable {entry.name!r}", item) for entry in graph.state for item in (entry.before, entry.after)]
    for name, item in ends:
        if item.node is None or item.node.id not in ids:
            return f"{name} is {item.spec}, which no node of the graph makes"
    return None


def ops_are_registered(graph: Graph) -> str | None:
    """Every op is the one that the registry holds under its name, or a structural one."""
    for node in graph.nodes:
        if node.op in (INPUT, CONSTANT):
            continue
        try:
            known = get_op(node.op.name)
        except ChainruleError:
            return f"{node.where} uses an op that is not registered"
        if known is not node.op:
            return f"{node.where} uses another op than the registered {node.op.name!r}"
    return None


def specs_follow_from_the_shape_rules(graph: Graph) -> str | None:
    """The recorded shapes and dtypes are what the op's shape rule gives for the inputs."""
    for node in graph.nodes:
        try:
            specs = node.op.output_specs([item.spec for item in node.inputs], node.attrs)
        except (ChainruleError, TypeError) as error:  # TypeError: an attribute too many or too few
            return f"{node.where} no longer accepts its inputs: {error}"
        if specs != node.specs:
            return f"{node.where} is recorded as {node.specs}, its shape rule says {specs}"
    return None


def attributes_are_plain_values(graph: Graph) -> str | None:
    """Attributes are hashable and hold no tensor, so that a graph can be a key."""
    for node in graph.nodes:
        for name, value in node.attrs.items():
            if isinstance(value, Tensor) or not isinstance(value, Hashable) or not _hashes(value):
                return f"attribute {name!r} of {node.where} is {type(value).__name__}, which cannot be a key"
    return None


def _hashes(value: Hashable) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def provenance_is_known(graph: Graph) -> str | None:
    """Every node says which pass it belongs to."""
    for node in graph.nodes:
        if node.provenance.phase not in PHASES:
            return f"{node.where} has the unknown pass {node.provenance.phase!r}"
    return None


def state_keeps_its_type(graph: Graph) -> str | None:
    """A variable leaves with the shape and dtype it came with; names are unique."""
    names: set[str] = set()
    for entry in graph.state:
        if entry.before.spec != entry.after.spec:
            return f"variable {entry.name!r} enters as {entry.before.spec} and leaves as {entry.after.spec}"
        if entry.name in names or entry.name in graph.inputs:
            return f"two variables or inputs are named {entry.name!r}; give the layers distinct names"
        names.add(entry.name)
    return None


def random_streams_are_distinct(graph: Graph) -> str | None:
    """No two random nodes draw from one stream under one key, or their numbers would be equal."""
    seen: dict[Hashable, Node] = {}
    for node in graph.nodes:
        if Trait.RANDOM not in node.op.traits:
            continue
        key = (node.attrs.get("stream"), tuple(item.key for item in node.inputs))
        if key in seen:
            return f"{node.where} and {seen[key].where} draw the same random stream {node.attrs.get('stream')}"
        seen[key] = node
    return None


def shapes_hold_the_batch_once(graph: Graph) -> str | None:
    """No tensor has two symbolic axes."""
    for node in graph.nodes:
        for spec in node.specs:
            if sum(isinstance(size, Dim) for size in spec.shape) > 1:
                return f"{node.where} makes {spec}, which holds the batch size twice"
    return None


LAWS = (
    inputs_come_first,
    results_are_made_here,
    ops_are_registered,
    specs_follow_from_the_shape_rules,
    attributes_are_plain_values,
    provenance_is_known,
    state_keeps_its_type,
    random_streams_are_distinct,
    shapes_hold_the_batch_once,
)
"""Each law as a function that returns what is broken, or None."""
