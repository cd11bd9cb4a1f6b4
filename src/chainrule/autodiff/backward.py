"""The reverse walk: from the outputs back to what they depend on, calling each op's VJP once.

The walk names no op.  It works alike on eager tensors, where a VJP computes at once, and on traced ones, where
it records the backward pass into the same graph.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

from chainrule.errors import GradientError, OpError, ShapeError
from chainrule.graph.dims import format_shape
from chainrule.graph.tensor import Node, Tensor, as_tensor, no_grad, scope, tensor

__all__ = ["backward", "gradients"]


def gradients(
    outputs: Tensor | Sequence[Tensor],
    inputs: Sequence[Any],
    cotangents: Sequence[Tensor] | None = None,
) -> list[Tensor | None]:
    """The vector-Jacobian product: for each input, ``sum over outputs of cotangent^T d(output)/d(input)``.

    The result is made of ops, so it can be differentiated again.

    Args:
        outputs: one tensor, or several.
        inputs: tensors or variables that the outputs were computed from.
        cotangents: one for each output, of its shape; 1 for a scalar output by default.

    Returns:
        A gradient of each input's shape, or None where an output does not depend on it.

    Raises:
        GradientError: a non-scalar output without a cotangent, or an op on the way that has no VJP.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0, 2.0], requires_grad=True)
    >>> cr.gradients((x * x).sum(), [x])[0].numpy().tolist()
    [2.0, 4.0]
    """
    ends = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    seeds = [_unit(end) for end in ends] if cotangents is None else list(cotangents)
    targets = [as_tensor(item) for item in inputs]
    found = _walk(ends, seeds, {target.key for target in targets})
    return [found.get(target.key) for target in targets]


def backward(output: Tensor, cotangent: Any = None, *, create_graph: bool = False) -> None:
    """Add the gradient of `output` to ``.grad`` of every leaf it depends on; also ``output.backward()``.

    Args:
        output: an eager tensor.
        cotangent: weights of the output's elements; needed unless it is a scalar.
        create_graph: record the backward pass, so that gradients can be differentiated again.

    Raises:
        GradientError: nothing requires a gradient, or the tensor is traced.

    >>> import chainrule as cr
    >>> x = cr.tensor(3.0, requires_grad=True)
    >>> (x**2).backward()
    >>> x.grad.item()
    6.0
    """
    if output.is_traced:
        raise GradientError("backward() needs concrete tensors; inside a trace use cr.gradients(loss, inputs)")
    leaves = _leaves(output)
    if not leaves:
        raise GradientError(
            "backward() found no tensor that requires a gradient; "
            "make one with cr.tensor(..., requires_grad=True), or use a layer's parameters"
        )
    seed = _unit(output) if cotangent is None else as_tensor(cotangent, output)
    with nullcontext() if create_graph else no_grad():
        found = _walk([output], [seed], {leaf.key for leaf in leaves})
        for leaf in leaves:
            gradient = found.get(leaf.key)
            if gradient is not None:
                leaf.accumulate_grad(gradient)


def _unit(output: Tensor) -> Tensor:
    if output.shape != ():
        raise GradientError(
            f"the gradient of a tensor of shape {format_shape(output.shape)} needs a cotangent of that shape; "
            "only a scalar has one by default: take a sum or mean first"
        )
    if not output.spec.is_float:
        raise GradientError(f"only float tensors have gradients; got {output.spec}")
    one = tensor(1, output.dtype)
    graph = None if output.node is None else output.node.graph
    return one if graph is None or graph.sealed else graph.constant(one)  # it may be broadcast along the batch


def _leaves(output: Tensor) -> list[Tensor]:
    if output.node is None:
        return [output] if output.requires_grad else []
    found: dict[Hashable, Tensor] = {}
    for node in _ancestors([output]):
        for item in node.inputs:
            if item.node is None and item.requires_grad:
                found[item.key] = item
    return list(found.values())


def _ancestors(outputs: Iterable[Tensor]) -> list[Node]:
    """Every node that an output depends on, inputs before users."""
    found: dict[int, Node] = {}
    pending = [item.node for item in outputs]
    while pending:
        node = pending.pop()
        if node is not None and node.id not in found:
            found[node.id] = node
            pending.extend(item.node for item in node.inputs)
    return [found[key] for key in sorted(found)]


def _dependents(nodes: Sequence[Node], targets: set[Hashable]) -> list[Node]:
    """The nodes that depend on a target through inputs that carry gradients."""
    reached: set[int] = set()
    result = []
    for node in nodes:
        if any(t.key in targets or (t.node is not None and t.node.id in reached) for t in node.inputs):
            reached.add(node.id)
            result.append(node)
    return result


def _walk(outputs: Sequence[Tensor], seeds: Sequence[Tensor], targets: set[Hashable]) -> dict[Hashable, Tensor]:
    cotangents: dict[Hashable, Tensor] = {}
    for output, seed in zip(outputs, seeds, strict=True):
        if seed.spec != output.spec:
            raise ShapeError(f"the cotangent {seed.spec} does not match the output {output.spec}")
        _accumulate(cotangents, output.key, seed)
    for node in reversed(_dependents(_ancestors(outputs), targets)):
        keys = [(node.id, index) for index in range(len(node.specs))]
        arrived = [cotangents.get(key) for key in keys]
        if all(item is None for item in arrived) or node.op.vjp == "zero":
            continue
        for item, contribution in zip(node.inputs, _pull_back(node, arrived), strict=True):
            if contribution is not None:
                with scope(layer=_layer_of_sum(item, node), phase="backward"):
                    _accumulate(cotangents, item.key, contribution)
        for key in keys:
            if key not in targets:
                cotangents.pop(key, None)
    return cotangents


def _accumulate(cotangents: dict[Hashable, Tensor], key: Hashable, contribution: Tensor) -> None:
    present = cotangents.get(key)
    cotangents[key] = contribution if present is None else present + contribution


def _layer_of_sum(item: Tensor, reader: Node) -> str:
    """The layer that cotangents of `item` are summed in: the one that made it, or its reader's for a leaf."""
    maker = "" if item.node is None else item.node.provenance.layer
    return maker or reader.provenance.layer


def _pull_back(node: Node, cotangents: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
    """One op's VJP, held to its contract."""
    if node.op.vjp is None or isinstance(node.op.vjp, str):
        raise GradientError(
            f"{node.where} has no VJP, so no gradient passes it; "
            "register the op with a vjp rule, or vjp='zero' if its derivative is zero"
        )
    with scope(layer=node.provenance.layer, phase="backward"):
        result = node.op.vjp(node, *cotangents)
    if len(result) != len(node.inputs):
        raise OpError(f"the VJP of {node.op.name!r} gave {len(result)} cotangents for {len(node.inputs)} inputs")
    for item, contribution in zip(node.inputs, result, strict=True):
        if contribution is not None and contribution.spec != item.spec:
            raise OpError(f"the VJP of {node.op.name!r} gave {contribution.spec} for an input {item.spec}")
    return result


Tensor.backward = backward  # type: ignore[method-assign, assignment]
