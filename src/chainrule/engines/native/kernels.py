"""What the written kernels have in common: a part knows its private memory and how to emit itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from chainrule.engines.native.ir import Buffer, Function, Index, Module, Value
from chainrule.engines.native.nests import emit_nest, size_value
from chainrule.engines.native.types import I64, Type, type_of
from chainrule.graph.dims import Dim, bind_size
from chainrule.plan.expr import Storage, walk
from chainrule.plan.nest import Nest
from chainrule.plan.plan import Kernel, Plan, Product

__all__ = [
    "LINE",
    "PARAMETERS",
    "RANGE",
    "Context",
    "Part",
    "Scratch",
    "call",
    "each_unit",
    "emit_epilogue",
    "emit_prologue",
    "lanes_of",
    "rounded",
    "table_buffer",
]

Spec = TypeVar("Spec", bound=Hashable)

LINE = 64
RANGE = (Value("%low", I64), Value("%high", I64))
"""The units that a kernel's function was called for."""


@runtime_checkable
class Part(Protocol):
    """One kernel of a contraction."""

    @property
    def scratch_bytes(self) -> int:
        """Private memory for each thread."""
        ...

    def emit(
        self, context: Context, f: Function, kernel: Kernel, buffers: Mapping[Storage, Buffer], batch: Value
    ) -> None:
        """Emit the body of the kernel's function, which works on units ``[%low, %high)``."""
        ...


PARAMETERS = (("ptr", "table"), ("i64", "n"), ("i64", "low"), ("i64", "high"), ("ptr", "scratch"))
"""Parameters of every kernel's function."""


@dataclass(frozen=True)
class Context:
    """What emitters of kernels need.

    Attributes:
        module: where functions go.
        entries: number of each storage in the table.
        plan: the plan.
        shared: functions that several kernels may call, by what they are.
    """

    module: Module
    entries: Mapping[Storage, int]
    plan: Plan
    shared: dict[Hashable, str] = field(default_factory=dict)

    def buffer(self, f: Function, storage: Storage, batch: Value) -> Buffer:
        """A storage's buffer, its address taken from the table."""
        size: Index = bind_size(storage.size, self.plan.batch)
        if self.module.checked and isinstance(storage.size, Dim):
            size = size_value(f, storage.size, batch)
        return table_buffer(f, str(self.entries[storage]), storage, size)

    def function(self, kernel: Kernel, part: str, spec: Spec, emit: Callable[[Module, str, Spec], None]) -> str:
        """The name of a function for a description; kernels that need the same one share it.

        In a checked build each has its own, which names the op.
        """
        if self.module.checked:
            name = f"{kernel.name}.{part}"
            emit(self.module, name, spec)
            return name
        key = (part, emit, spec)
        if key not in self.shared:
            self.shared[key] = f"shared.{part}.{len(self.shared)}"
            emit(self.module, self.shared[key], spec)
        return self.shared[key]


def table_buffer(f: Function, entry: str, storage: Storage, size: Index) -> Buffer:
    """The buffer whose address is an entry of the table."""
    slot = f.let(I64, f"getelementptr ptr, ptr %table, i64 {entry}").text
    pointer = f.let(I64, f"load ptr, ptr {slot}, align 8").text
    return Buffer(pointer, type_of(storage.dtype), size, storage.name)


def lanes_of(module: Module, nest: Nest) -> int:
    """How many lanes a nest has: by the widest float that it stores."""
    widest = max(store.value.dtype.itemsize if store.value.dtype.kind == "f" else 4 for store in nest.stores)
    return max(1, module.lanes32 * 4 // widest)


def emit_epilogue(context: Context, kernel: Kernel, name: str) -> None:
    """Add ``void @name(ptr table, i64 n, ptr area, i64 sample, i64 row)``: a product's epilogue for one row."""
    assert isinstance(kernel.body, Product)
    epilogue = kernel.body.epilogue
    assert epilogue is not None
    _emit_beside(context, kernel, name, epilogue.nest, epilogue.area, ("sample", "row"))


def emit_prologue(context: Context, kernel: Kernel, position: int) -> Callable[[Function, Buffer, Value], None] | None:
    """Add the function of a product's prologue for an operand, if it has one.

    Returns:
        ``make(f, area, sample)``, which calls it: the sample of the operand is made in the area.
    """
    assert isinstance(kernel.body, Product)
    prologue = next((p for p in kernel.body.prologues if p.position == position), None)
    if prologue is None:
        return None
    name = f"{kernel.name}.prologue{position}"
    _emit_beside(context, kernel, name, prologue.nest, prologue.area, ("sample",))

    def make(f: Function, area: Buffer, sample: Value) -> None:
        f.call_void(name, f"ptr %table, i64 %n, ptr {area.pointer}, i64 {sample.text}")

    return make


def _emit_beside(
    context: Context, kernel: Kernel, name: str, nest: Nest, area: Storage, places: tuple[str, ...]
) -> None:
    """A nest beside a product, as a function of the values of its first axes."""
    parameters = (("ptr", "table"), ("i64", "n"), ("ptr", "area"), *(("i64", place) for place in places))
    f = Function(context.module, name, parameters, where=kernel.where, internal=True)
    batch = Value("%n", I64)
    loads = {node.attr for node in walk(*nest.roots()) if node.op == "load"}
    storages = dict.fromkeys((*sorted(loads, key=repr), *(store.storage for store in nest.stores)))
    buffers = {storage: context.buffer(f, storage, batch) for storage in storages if storage != area}
    assert isinstance(area.size, int)
    buffers[area] = Buffer("%area", type_of(area.dtype), area.size, area.name)
    bound = tuple(Value(f"%{place}", I64) for place in places)
    emit_nest(f, nest, buffers, batch, 0, 0, lanes_of(context.module, nest), bound)


class Scratch:
    """Lays out a thread's private memory."""

    def __init__(self) -> None:
        self.bytes = 0

    def take(self, f: Function, type: Type, size: int, name: str) -> Buffer:
        """The next part of it."""
        pointer = f.let(I64, f"getelementptr i8, ptr %scratch, i64 {self.bytes}").text if self.bytes else "%scratch"
        self.bytes += rounded(size * type.bytes)
        return Buffer(pointer, type, size, name)


def rounded(size: int) -> int:
    """Bytes in whole cache lines, and one line more so that planes do not lie a multiple of 4 KB apart."""
    return -(-size // LINE) * LINE + LINE


def call(f: Function, name: str, *arguments: Buffer | Index) -> None:
    """Call a function of the module with buffers and indices."""
    texts = [f"ptr {a.pointer}" if isinstance(a, Buffer) else f"i64 {f.index(a).text}" for a in arguments]
    f.call_void(name, ", ".join(texts))


def each_unit(f: Function, body: Callable[[Value], None]) -> None:
    """Run the body for every unit of the kernel's range."""

    def turn(i: Value, _: list[Value]) -> None:
        body(i)

    f.loop(*RANGE, turn)
