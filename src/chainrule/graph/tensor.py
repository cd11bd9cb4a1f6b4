"""Tensors and nodes, and [`apply`][]: the one place where an op meets its inputs.

A [`Tensor`][] is an immutable value.  A *concrete* tensor holds a NumPy array; a *traced* tensor only stands
for a value of a graph that is being recorded.  Both know the [`Node`][] that made them, so the same gradient
rules run on both.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

import numpy as np

from chainrule.errors import ChainruleError, DTypeError, OpError, ShapeError, TraceError
from chainrule.graph.dims import Dim, Shape, Size, format_shape, is_static
from chainrule.graph.op import Array, Op, Spec
from chainrule.graph.operators import Operators, call_op

if TYPE_CHECKING:
    from chainrule.graph.graph import Graph

__all__ = [
    "Node",
    "Provenance",
    "Scalar",
    "Tensor",
    "TensorLike",
    "apply",
    "apply_all",
    "as_tensor",
    "current_layer",
    "lift",
    "no_grad",
    "recording",
    "scope",
    "tensor",
    "tracing_into",
]

SUPPORTED_DTYPES = frozenset(
    np.dtype(name) for name in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "bool")
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a node comes from: the layer's path, and the pass (forward, backward, update)."""

    layer: str = ""
    phase: str = "forward"


_NOWHERE = Provenance()
_PROVENANCE: ContextVar[Provenance] = ContextVar("provenance", default=_NOWHERE)
_RECORDING: ContextVar[bool] = ContextVar("recording", default=True)
_TRACED_INTO: ContextVar[Graph | None] = ContextVar("traced_into", default=None)


@contextmanager
def scope(*, layer: str | None = None, phase: str | None = None) -> Iterator[None]:
    """Nodes made inside carry this layer path and pass; None keeps what is in force."""
    now = _PROVENANCE.get()
    token = _PROVENANCE.set(Provenance(now.layer if layer is None else layer, now.phase if phase is None else phase))
    try:
        yield
    finally:
        _PROVENANCE.reset(token)


def current_layer() -> str:
    """Path of the layer whose `call` is running, or the empty string."""
    return _PROVENANCE.get().layer


@contextmanager
def recording(enabled: bool) -> Iterator[None]:
    """Whether eager ops inside are recorded for gradients."""
    token = _RECORDING.set(enabled)
    try:
        yield
    finally:
        _RECORDING.reset(token)


@contextmanager
def no_grad() -> Iterator[None]:
    """Eager ops inside are not recorded for `backward`.

    >>> import chainrule as cr
    >>> x = cr.tensor([1.0], requires_grad=True)
    >>> with cr.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """
    with recording(False):
        yield


@contextmanager
def tracing_into(graph: Graph) -> Iterator[None]:
    """Ops inside that fill a symbolic shape are recorded in this graph even if all their inputs are constants."""
    token = _TRACED_INTO.set(graph)
    try:
        yield
    finally:
        _TRACED_INTO.reset(token)


_NODE_IDS = itertools.count()


@dataclass(eq=False, slots=True)
class Node:
    """One application of an op.

    Attributes:
        op: the op.
        inputs: the tensors it was applied to.
        attrs: its attributes: hashable values, with `Dim` where a shape holds the batch size.
        specs: shape and dtype of every output.
        provenance: layer and pass.
        graph: the graph that a traced node belongs to; None for an eager node.
        values: the outputs of an eager node.
        id: increasing in the order of creation, so that inputs always have smaller ids.
    """

    op: Op
    inputs: tuple[Tensor, ...]
    attrs: Mapping[str, Any]
    specs: tuple[Spec, ...]
    provenance: Provenance
    graph: Graph | None = None
    values: tuple[Array, ...] | None = None
    id: int = field(default_factory=lambda: next(_NODE_IDS))

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """The output tensors."""
        if self.values is None:
            return tuple(Tensor(spec, node=self, index=i) for i, spec in enumerate(self.specs))
        return tuple(
            Tensor(spec, data=value, node=self, index=i)
            for i, (spec, value) in enumerate(zip(self.specs, self.values, strict=True))
        )

    @property
    def where(self) -> str:
        """The node in words, for messages."""
        return _where(self.op.name, self.provenance.layer)

    def flops(self) -> Size:
        """Floating-point operations of this node; a multiple of N in a traced graph."""
        return self.op.flops([t.spec for t in self.inputs], self.specs, self.attrs)

    def __repr__(self) -> str:
        inputs = ", ".join(repr(t.spec) for t in self.inputs)
        return f"{self.op.name}({inputs}) -> {', '.join(map(repr, self.specs))}"


Scalar: TypeAlias = bool | int | float
TensorLike: TypeAlias = "Operators | Array | Scalar | Sequence[Any]"


class GradientSink(Protocol):
    """What a leaf tensor hands its gradient to, when a parameter made it."""

    grad: Tensor | None


class Tensor(Operators):
    """An immutable value with a shape and a dtype; made by [`tensor`][] and by ops.

    Arithmetic, comparison and indexing operators, and methods such as ``x.sum(axis=0)``, are the ops of the
    same name.  ``+=`` rebinds the name; it never changes a tensor.

    Attributes:
        shape: sizes; ``x.shape[0]`` is the symbolic batch size `N` in a trace.
        dtype: NumPy dtype.
        requires_grad: whether `backward` follows this tensor.
        grad: the accumulated gradient of a leaf tensor, or None.
    """

    __slots__ = ("__weakref__", "_data", "_requires_grad", "grad", "index", "node", "owner", "spec")

    if TYPE_CHECKING:  # attached by chainrule.autodiff

        def backward(self, cotangent: TensorLike | None = None, *, create_graph: bool = False) -> None: ...

    def __init__(
        self,
        spec: Spec,
        *,
        data: Array | None = None,
        node: Node | None = None,
        index: int = 0,
        requires_grad: bool = False,
    ) -> None:
        self.spec = spec
        self.node = node
        self.index = index
        self.grad: Tensor | None = None
        self.owner: GradientSink | None = None
        self._data = data
        self._requires_grad = requires_grad

    @property
    def shape(self) -> Shape:
        return self.spec.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    @property
    def size(self) -> Size:
        return self.spec.size

    @property
    def is_traced(self) -> bool:
        """Whether this stands for a value of a graph rather than holding one."""
        return self._data is None

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad or self.node is not None

    @property
    def key(self) -> Hashable:
        """Identity of the value: two tensors with equal keys are the same output of the same node."""
        return ("leaf", id(self)) if self.node is None else (self.node.id, self.index)

    @property
    def data(self) -> Array:
        """The values as a read-only array.

        Raises:
            TraceError: the tensor is traced.
        """
        if self._data is None:
            self._refuse("read as a NumPy array")
        return self._data

    def numpy(self) -> Array:
        """A copy of the values."""
        return self.data.copy()

    def item(self) -> Scalar:
        """The value of a tensor with one element."""
        if self.is_traced:
            self._refuse("converted to a Python number")
        if self.data.size != 1:
            raise ShapeError(f"item() needs a tensor with one element; got shape {format_shape(self.shape)}")
        value: Scalar = self.data.reshape(()).item()
        return value

    def accumulate_grad(self, gradient: Tensor) -> None:
        """Add to ``.grad`` of this leaf, or of the parameter that it is the value of."""
        sink: GradientSink = self if self.owner is None else self.owner
        sink.grad = gradient if sink.grad is None else sink.grad + gradient

    def detach(self) -> Tensor:
        """The same values, through which no gradient flows."""
        return call_op("stop_gradient", self)

    def _refuse(self, action: str) -> NoReturn:
        maker = f" (made by {self.node.where})" if self.node is not None else ""
        raise TraceError(
            f"a traced tensor {self.spec}{maker} cannot be {action}: while a function is traced its values "
            "do not exist yet; use chainrule ops such as cr.ops.where instead of Python control flow"
        )

    def __bool__(self) -> bool:
        if self.is_traced:
            self._refuse("used as a Python bool")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __round__(self, digits: int = 0) -> float:
        return round(float(self), digits)

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"only an integer tensor can be an index; got {self.spec}")
        return int(self.item())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype) if copy else np.asarray(self.data, dtype=dtype)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("len() of a tensor without axes")
        size = self.shape[0]
        if isinstance(size, Dim):
            self._refuse("measured by len(); use x.shape[0], which is symbolic")
        return size

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        if self._data is None:
            return f"Tensor({self.spec}, traced)"
        body = np.array2string(self._data, separator=", ", prefix="Tensor(")
        extra = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({body}, dtype={self.dtype}{extra})"

    def __hash__(self) -> int:
        return hash(self.key)


def _where(op: str, layer: str) -> str:
    return f"layer {layer!r} ({op})" if layer else op


def check_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Refuse dtypes that no engine knows."""
    if dtype not in SUPPORTED_DTYPES:
        raise DTypeError(
            f"{what} has dtype {dtype}; expected one of " + ", ".join(sorted(str(known) for known in SUPPORTED_DTYPES))
        )


def frozen(array: Array) -> Array:
    """A read-only view, so that no tensor changes behind a gradient's back."""
    view = array.view()
    view.flags.writeable = False
    return view


def tensor(value: TensorLike, dtype: Any = None, *, requires_grad: bool = False) -> Tensor:
    """A concrete tensor with a copy of the values.

    Args:
        value: numbers, nested lists, or an array.
        dtype: the dtype; by default Python floats become float32, Python integers int32, and arrays keep theirs.
        requires_grad: whether `backward` leaves a gradient in ``.grad``.

    Raises:
        DTypeError: a dtype that the engines do not know, integers beyond int32 without a dtype, or a gradient
            asked of integers.

    >>> tensor([1.0, 2.0])
    Tensor([1., 2.], dtype=float32)
    """
    if isinstance(value, Operators):
        array = as_tensor(value).numpy()
    else:
        array = _array(value)
        if dtype is None and not isinstance(value, np.ndarray | np.generic):
            dtype = {"f": "float32", "i": "int32"}.get(array.dtype.kind)
            if dtype == "int32" and not np.array_equal(array.astype(dtype), array):
                raise DTypeError("an integer does not fit int32, the dtype of Python integers; say dtype='int64'")
    if dtype is not None:
        array = _converted(array, dtype)
    check_dtype(array.dtype, "the tensor's value")
    if requires_grad and array.dtype.kind != "f":
        raise DTypeError(f"only float tensors have gradients; got {array.dtype}")
    return Tensor(Spec(array.shape, array.dtype), data=frozen(array), requires_grad=requires_grad)


def _array(value: Any) -> Array:
    """Numbers, nested lists or an array as an array in the machine's byte order."""
    try:
        array = np.array(value)
    except ValueError as error:
        raise ShapeError(f"the values do not form an array: {error}") from None
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _converted(array: Array, dtype: Any) -> Array:
    """The array in another dtype.

    Raises:
        DTypeError: there is no such dtype, or an integer dtype that does not hold the values.
    """
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise DTypeError(f"{dtype!r} is no dtype; expected one such as 'float32'") from None
    with np.errstate(all="ignore"):
        result = array.astype(wanted)
        if wanted.kind in "iu" and array.dtype.kind in "iuf" and not np.array_equal(result, array):
            raise DTypeError(f"the values do not fit {wanted}; expected whole numbers in its range")
    return result


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor; a Python number takes the dtype of `like`.

    Objects with a ``__tensor__`` method (parameters) are asked for their tensor.
    """
    if isinstance(value, Tensor):
        return value
    convert = getattr(value, "__tensor__", None)
    if convert is not None:
        result: Tensor = convert()
        return result
    if like is not None and isinstance(value, bool | int | float):
        if isinstance(value, float) and not like.spec.is_float:
            raise DTypeError(
                f"the number {value} cannot combine with a tensor of dtype {like.dtype}; "
                "use .astype('float32') on the tensor first"
            )
        try:
            return tensor(np.asarray(value, dtype=like.dtype))
        except OverflowError:
            raise DTypeError(f"the number {value} does not fit the dtype {like.dtype} of the other operand") from None
    if isinstance(value, Dim):
        int(value)  # raises: a symbolic size is no value
    return tensor(value)


def lift(*values: Any) -> tuple[Tensor, ...]:
    """Several operands as tensors; Python numbers take the dtype of the first real tensor."""
    like = next(
        (as_tensor(v) for v in values if not isinstance(v, bool | int | float)),
        None,
    )
    return tuple(as_tensor(value, like) for value in values)


def apply(op: Op, *inputs: Tensor, **attrs: Any) -> Tensor:
    """Apply an op with one output: at once for concrete inputs, recorded for traced ones.

    Raises:
        ShapeError, DTypeError: the inputs do not fit; the message names the layer.
        TraceError: the inputs belong to different traces, or to one that has ended.
    """
    return apply_all(op, *inputs, **attrs)[0]


def apply_all(op: Op, *inputs: Tensor, **attrs: Any) -> tuple[Tensor, ...]:
    """As [`apply`][], giving every output."""
    provenance = _PROVENANCE.get()
    try:
        specs = op.output_specs([t.spec for t in inputs], attrs)
    except (ShapeError, DTypeError) as error:
        raise _named(error, op, provenance) from None
    graph = _common_graph(op, inputs)
    if graph is None and not all(is_static(spec.shape) for spec in specs):
        graph = _TRACED_INTO.get()
    if graph is not None:
        lifted = tuple(t if t.is_traced else graph.constant(t) for t in inputs)
        node = Node(op, lifted, attrs, specs, provenance, graph=graph)
        graph.append(node)
        return node.outputs
    return _run(op, inputs, attrs, specs, provenance)


def _run(
    op: Op,
    inputs: tuple[Tensor, ...],
    attrs: Mapping[str, Any],
    specs: tuple[Spec, ...],
    provenance: Provenance,
) -> tuple[Tensor, ...]:
    with np.errstate(all="ignore"):
        values = tuple(frozen(value) for value in op.evaluate([t.data for t in inputs], attrs))
    check_values(op, values, specs)
    follow = op.vjp != "zero" and _RECORDING.get() and any(t.requires_grad for t in inputs)
    if not follow:
        return tuple(Tensor(spec, data=value) for spec, value in zip(specs, values, strict=True))
    return Node(op, inputs, attrs, specs, provenance, values=values).outputs


def check_values(op: Op, values: Sequence[Array], specs: Sequence[Spec]) -> None:
    """An op's NumPy rule must give what its shape rule promised."""
    for value, spec in zip(values, specs, strict=True):
        if value.shape != spec.shape or value.dtype != spec.dtype:
            raise OpError(
                f"op {op.name!r} contradicts itself: its shape rule says {spec}, "
                f"its NumPy rule gave {Spec(value.shape, value.dtype)}"
            )


def _common_graph(op: Op, inputs: Sequence[Tensor]) -> Graph | None:
    graph: Graph | None = None
    for item in inputs:
        if not item.is_traced:
            continue
        assert item.node is not None
        assert item.node.graph is not None
        if graph is not None and item.node.graph is not graph:
            raise TraceError(f"{op.name} received tensors of two different traces")
        graph = item.node.graph
    if graph is not None and graph.sealed:
        raise TraceError(
            f"{op.name} received a traced tensor after its trace had ended; "
            "return values from the traced function instead of storing them"
        )
    return graph


def _named(error: ChainruleError, op: Op, provenance: Provenance) -> ChainruleError:
    return type(error)(f"{_where(op.name, provenance.layer)}: {error}")
