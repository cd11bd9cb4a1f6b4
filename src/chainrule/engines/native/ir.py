"""A builder of LLVM IR text: one `Module` of `Function`s, with typed values, buffers and structured loops.

Memory is reached by (buffer, index) only, never by a bare address.  So one generator gives the normal build, the
checked build in which every load and store is bounds-checked and names the op that strays, and object code for
other machines.

Index arithmetic folds Python integers, and an index carries its constant part apart (`Value.plus`), so that the
addresses of one register tile share one base.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chainrule.engines.native.types import BOOL, F32, I64, Type

__all__ = ["Buffer", "Function", "Index", "Module", "Value"]


@dataclass(frozen=True, slots=True)
class Value:
    """A value in a register: LLVM's name or literal, its type, and (indices only) a constant to be added."""

    text: str
    type: Type
    plus: int = 0

    def __str__(self) -> str:
        return f"{self.type.llvm} {self.text}"


Index: TypeAlias = "int | Value"


@dataclass(frozen=True, slots=True)
class Buffer:
    """A region of memory that a function may touch.

    Attributes:
        pointer: LLVM's name of its address.
        type: element type, as a scalar.
        size: number of elements, an integer or a run-time value; the checked build holds every access to it.
        name: what the checked build calls it.
    """

    pointer: str
    type: Type
    size: Index
    name: str


class Module:
    """Functions, globals and declarations that are compiled together.

    Args:
        lanes32: how many float32 the target's vectors hold.
        checked: whether loads and stores are bounds-checked.

    Attributes:
        has_fma: whether ``llvm.fma`` is an instruction of the target.
        has_rounding: whether ``llvm.floor`` and its like are.
        vector_registers: how many there are, for register tiles.
    """

    def __init__(self, lanes32: int = 8, checked: bool = False) -> None:
        self.lanes32 = lanes32
        self.checked = checked
        self.has_fma = True
        self.has_rounding = True
        self.vector_registers = 32 if lanes32 >= 16 else 16
        self.functions: dict[str, Function] = {}
        self.sites: list[str] = []
        self._declarations: dict[str, str] = {}
        self._globals: list[str] = []

    def lanes(self, type: Type) -> int:
        """How many elements of a type fill a vector register."""
        return max(1, self.lanes32 * 4 // type.bytes) if type.kind == "f" else self.lanes32

    def declare(self, name: str, signature: str) -> None:
        """Declare an external function or an intrinsic: ``declare("llvm.ctpop.i64", "i64 (i64)")``."""
        result, arguments = signature.split(" (", 1)
        self._declarations[name] = f"declare {result} @{name}({arguments}"

    def add_global(self, text: str) -> None:
        """Add a global definition once."""
        if text not in self._globals:
            self._globals.append(text)

    def site(self, text: str) -> int:
        """The number by which the checked build names an access."""
        self.sites.append(text)
        return len(self.sites)

    def text(self) -> str:
        """The whole module as LLVM IR."""
        if self.checked:
            self.add_global("@chainrule_stray = internal global [4 x i64] zeroinitializer")
        parts = [
            *self._globals,
            *(function.text() for function in self.functions.values()),
            *(self._declarations[name] for name in sorted(self._declarations)),
            'attributes #0 = { nounwind "no-trapping-math"="true" }',
        ]
        return "\n".join(parts) + "\n"


class Function:
    """One function under construction.

    Args:
        module: where it goes.
        name: its symbol.
        parameters: LLVM parameters as (type text, name) such as ``("ptr", "table")``.
        result: LLVM's result type.
        where: what the checked build calls the code, such as the op's provenance.
        attributes: LLVM's function attributes.
        internal: whether the symbol is for this module only.
    """

    def __init__(
        self,
        module: Module,
        name: str,
        parameters: Sequence[tuple[str, str]],
        *,
        result: str = "void",
        where: str = "",
        attributes: str = "#0",
        internal: bool = False,
    ) -> None:
        self.module, self.name, self.result, self.where = module, name, result, where or name
        self.lines: list[str] = []
        self._signature = ", ".join(f"{kind} %{parameter}" for kind, parameter in parameters)
        self._attributes, self._internal = attributes, internal
        self._count = 0
        self._entry_allocations: list[str] = []
        self.label("entry")
        assert name not in module.functions, f"two functions are called {name}"
        module.functions[name] = self

    # -- raw text -------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The function as LLVM IR; a void function ends with a return by itself."""
        body = [*self.lines[:1], *self._entry_allocations, *self.lines[1:]]
        if self.result == "void":
            body.append("  ret void")
        linkage = "internal " if self._internal else ""
        head = f"define {linkage}{self.result} @{quoted(self.name)}({self._signature}) {self._attributes} {{"
        return "\n".join([head, *body, "}"])

    def emit(self, line: str) -> None:
        """Append one instruction without a result."""
        self.lines.append("  " + line)

    def new(self, hint: str = "t") -> str:
        """A fresh name."""
        self._count += 1
        return f"%{hint}{self._count}"

    def let(self, type: Type, instruction: str) -> Value:
        """Append one instruction and name its result."""
        name = self.new()
        self.emit(f"{name} = {instruction}")
        return Value(name, type)

    def label(self, name: str) -> None:
        """Begin a basic block."""
        self.lines.append(f"{name}:")
        self.block = name

    def fresh_label(self, hint: str) -> str:
        """A label that no other block has."""
        self._count += 1
        return f"{hint}{self._count}"

    # -- constants ------------------------------------------------------------------------------------------

    def constant(self, value: float, type: Type) -> Value:
        """A literal, repeated over the lanes of a vector type."""
        if type.lanes > 1:
            if not value and not (type.is_float and str(value).startswith("-")):
                return Value("zeroinitializer", type)
            element = self.constant(value, type.scalar)
            return Value("<" + ", ".join([str(element)] * type.lanes) + ">", type)
        if type.is_float:
            number = float(value)
            if type == F32:
                number = _rounded32(number)
            return Value(f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}", type)
        if type.kind == "b":
            return Value("true" if value else "false", type)
        return Value(str(int(value)), type)

    def lane_numbers(self, type: Type) -> Value:
        """The vector ``0, 1, 2, ...`` of an integer type."""
        return Value("<" + ", ".join(f"{type.scalar.llvm} {i}" for i in range(type.lanes)) + ">", type)

    # -- index arithmetic -----------------------------------------------------------------------------------

    def index(self, value: Index) -> Value:
        """A 64-bit integer register holding an index with its constant part added."""
        if isinstance(value, int):
            return Value(str(value), I64)
        if not value.plus:
            return value
        return self.let(I64, f"add nsw i64 {value.text}, {value.plus}")

    def add(self, a: Index, b: Index) -> Index:
        """``a + b`` of indices; Python integers cost nothing."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int):
            a, b = b, a
        assert isinstance(a, Value)
        if isinstance(b, int):
            return Value(a.text, a.type, a.plus + b) if b else a
        total = self.let(I64, f"add nsw i64 {a.text}, {b.text}")
        return Value(total.text, total.type, a.plus + b.plus)

    def mul(self, a: Index, b: Index) -> Index:
        """``a * b`` of indices."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if isinstance(a, int):
            a, b = b, a
        assert isinstance(a, Value)
        if isinstance(b, int):
            if b in (0, 1):
                return a if b else 0
            product = self.let(I64, f"mul nsw i64 {a.text}, {b}")
            return Value(product.text, product.type, a.plus * b)
        return self.let(I64, f"mul nsw i64 {self.index(a).text}, {self.index(b).text}")

    def sub(self, a: Index, b: Index) -> Index:
        """``a - b`` of indices."""
        if isinstance(b, int):
            return self.add(a, -b)
        if isinstance(a, Value) and a.text == b.text:
            return a.plus - b.plus
        return self.let(I64, f"sub nsw i64 {self.index(a).text}, {self.index(b).text}")

    def div(self, a: Index, b: Index) -> Index:
        """``a // b`` of indices that are not negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        if b == 1:
            return a
        return self.let(I64, f"udiv i64 {self.index(a).text}, {self.index(b).text}")

    def rem(self, a: Index, b: Index) -> Index:
        """``a % b`` of indices that are not negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        if b == 1:
            return 0
        return self.let(I64, f"urem i64 {self.index(a).text}, {self.index(b).text}")

    def min(self, a: Index, b: Index) -> Index:
        """The smaller of two indices."""
        return self._extreme("smin", a, b, min)

    def max(self, a: Index, b: Index) -> Index:
        """The larger of two indices."""
        return self._extreme("smax", a, b, max)

    def _extreme(self, name: str, a: Index, b: Index, fold: Callable[[int, int], int]) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return fold(a, b)
        return self.intrinsic(name, I64, self.index(a), self.index(b))

    # -- memory ---------------------------------------------------------------------------------------------

    def load(self, buffer: Buffer, index: Index, lanes: int = 1) -> Value:
        """Element `index` of a buffer, or `lanes` consecutive ones."""
        type = buffer.type.of(lanes)
        pointer = self._address(buffer, index, lanes, "load")
        loaded = self.let(type, f"load {type.stored}, ptr {pointer}, align {buffer.type.bytes}")
        if type.kind != "b":
            return loaded
        zero = "zeroinitializer" if lanes > 1 else "0"
        return self.let(type, f"icmp ne {type.stored} {loaded.text}, {zero}")

    def store(self, value: Value, buffer: Buffer, index: Index) -> None:
        """Write a scalar or a vector at element `index`."""
        type = value.type
        assert type.scalar == buffer.type, f"{type} stored in {buffer.name}, which holds {buffer.type}"
        if type.kind == "b":
            value = self.let(type, f"zext {value} to {type.stored}")
        pointer = self._address(buffer, index, type.lanes, "store")
        self.emit(f"store {type.stored} {value.text}, ptr {pointer}, align {buffer.type.bytes}")

    def at(self, buffer: Buffer, index: Index, size: Index | None = None) -> Buffer:
        """The part of a buffer from element `index` on."""
        left = self.sub(buffer.size, index) if size is None else size
        return Buffer(self._offset(buffer.pointer, buffer.type, index), buffer.type, left, buffer.name)

    def scratch(self, type: Type, size: int, name: str) -> Buffer:
        """Elements on the stack, aligned to a cache line; for sizes well below a page or two."""
        pointer = self.new("scratch")
        self._entry_allocations.append(f"  {pointer} = alloca [{size} x {type.stored}], align 64")
        return Buffer(pointer, type.scalar, size, name)

    def prefetch(self, buffer: Buffer, index: Index, *, write: bool = False) -> None:
        """Ask for a cache line early."""
        self.module.declare("llvm.prefetch.p0", "void (ptr, i32, i32, i32)")
        pointer = self._offset(buffer.pointer, buffer.type, index)
        self.emit(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 {int(write)}, i32 3, i32 1)")

    def _address(self, buffer: Buffer, index: Index, lanes: int, what: str) -> str:
        if self.module.checked:
            index = self._checked(buffer, index, lanes, what)
        return self._offset(buffer.pointer, buffer.type, index)

    def _offset(self, pointer: str, type: Type, index: Index) -> str:
        element = type.scalar.stored
        if isinstance(index, Value):
            pointer = self.let(I64, f"getelementptr inbounds {element}, ptr {pointer}, i64 {index.text}").text
            index = index.plus
        if not index:
            return pointer
        return self.let(I64, f"getelementptr inbounds {element}, ptr {pointer}, i64 {index}").text

    def _checked(self, buffer: Buffer, index: Index, lanes: int, what: str) -> Index:
        """The index, or 0 after noting where the access strays."""
        place = self.index(index)
        last = self.index(self.sub(buffer.size, lanes))
        low = self.let(BOOL, f"icmp slt i64 {place.text}, 0")
        high = self.let(BOOL, f"icmp sgt i64 {place.text}, {last.text}")
        stray = self.let(BOOL, f"or i1 {low.text}, {high.text}")
        number = self.module.site(f"{self.where}: {what} of {buffer.name}")
        bad, good = self.fresh_label("stray"), self.fresh_label("inside")
        self.emit(f"br i1 {stray.text}, label %{bad}, label %{good}")
        before = self.block
        self.label(bad)
        for slot, item in enumerate((Value(str(number), I64), place, self.index(buffer.size))):
            self.emit(f"store i64 {item.text}, ptr getelementptr inbounds (i64, ptr @chainrule_stray, i64 {slot})")
        self.emit(f"br label %{good}")
        self.label(good)
        return self.let(I64, f"phi i64 [{place.text}, %{before}], [0, %{bad}]")

    # -- arithmetic -----------------------------------------------------------------------------------------

    def binary(self, instruction: str, a: Value, b: Value) -> Value:
        """An instruction of two operands of one type, such as ``fadd`` or ``xor``."""
        return self.let(a.type, f"{instruction} {a}, {b.text}")

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """``fcmp`` or ``icmp`` by the operands' type."""
        word = "fcmp" if a.type.is_float else "icmp"
        return self.let(BOOL.of(a.type.lanes), f"{word} {predicate} {a}, {b.text}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``condition ? a : b``, lane by lane."""
        return self.let(a.type, f"select {condition}, {a}, {b}")

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """``a * b + c``, rounded once."""
        return self.intrinsic("fma", a.type, a, b, c)

    def intrinsic(self, name: str, type: Type, *arguments: Value) -> Value:
        """An LLVM intrinsic overloaded on one type."""
        symbol = f"llvm.{name}.{type.suffix}"
        self.module.declare(symbol, f"{type.llvm} ({', '.join(a.type.llvm for a in arguments)})")
        return self.let(type, f"call {type.llvm} @{symbol}({', '.join(map(str, arguments))})")

    def call(self, symbol: str, type: Type, *arguments: Value) -> Value:
        """A function of this module."""
        return self.let(type, f"call {type.llvm} @{quoted(symbol)}({', '.join(map(str, arguments))})")

    def call_void(self, symbol: str, arguments: str) -> None:
        """A function without a result, its arguments as LLVM text."""
        self.emit(f"call void @{quoted(symbol)}({arguments})")

    def splat(self, value: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if lanes == 1:
            return value
        type = value.type.of(lanes)
        first = self.let(type, f"insertelement {type.llvm} poison, {value}, i64 0")
        return self.let(type, f"shufflevector {first}, {type.llvm} poison, <{lanes} x i32> zeroinitializer")

    def shuffle(self, a: Value, b: Value | None, order: Sequence[int]) -> Value:
        """Lanes of `a` (and, counted on, of `b`) in a given order."""
        type = a.type.of(len(order))
        mask = f"<{len(order)} x i32> <" + ", ".join(f"i32 {i}" for i in order) + ">"
        second = f"{a.type.llvm} poison" if b is None else str(b)
        return self.let(type, f"shufflevector {a}, {second}, {mask}")

    def extract(self, value: Value, lane: int) -> Value:
        """One lane of a vector."""
        return self.let(value.type.scalar, f"extractelement {value}, i64 {lane}")

    def insert(self, vector: Value, element: Value, lane: int) -> Value:
        """A vector with one lane replaced."""
        return self.let(vector.type, f"insertelement {vector}, {element}, i64 {lane}")

    def undefined(self, type: Type) -> Value:
        """A vector to be filled lane by lane."""
        return Value("poison", type)

    # -- control --------------------------------------------------------------------------------------------

    def loop(
        self,
        low: Index,
        high: Index,
        body: Callable[[Value, list[Value]], Sequence[Value] | None],
        carry: Sequence[Value] = (),
        *,
        step: int = 1,
        guard: bool | None = None,
    ) -> list[Value]:
        """``for i in range(low, high, step)``, with values carried from turn to turn.

        Args:
            low, high: bounds.
            body: ``body(i, carried)`` emits one turn and gives the carried values for the next one.
            carry: what the first turn carries.
            step: how far i moves.
            guard: whether the loop may run zero times; found out by itself where the bounds are integers.

        Returns:
            The carried values after the last turn.
        """
        if isinstance(low, int) and isinstance(high, int) and low >= high:
            return list(carry)
        if guard is None:
            guard = not (isinstance(low, int) and isinstance(high, int) and low < high)
        first, last = self.index(low), self.index(high)
        turn, done, before = self.fresh_label("loop"), self.fresh_label("done"), self.block
        if guard:
            runs = self.let(BOOL, f"icmp slt i64 {first.text}, {last.text}")
            self.emit(f"br i1 {runs.text}, label %{turn}, label %{done}")
        else:
            self.emit(f"br label %{turn}")
        self.label(turn)
        counter = Value(self.new("i"), I64)
        carried = [Value(self.new("c"), item.type) for item in carry]
        place = len(self.lines)
        results = list(body(counter, list(carried)) or [])
        assert len(results) == len(carried), f"{self.name}: the loop carries {len(carried)}, its body {len(results)}"
        following = self.let(I64, f"add nuw nsw i64 {counter.text}, {step}")
        again = self.let(BOOL, f"icmp slt i64 {following.text}, {last.text}")
        end = self.block
        heads = [f"  {counter.text} = phi i64 [{first.text}, %{before}], [{following.text}, %{end}]"]
        for item, start, result in zip(carried, carry, results, strict=True):
            heads.append(f"  {item.text} = phi {item.type.llvm} [{start.text}, %{before}], [{result.text}, %{end}]")
        self.lines[place:place] = heads
        self.emit(f"br i1 {again.text}, label %{turn}, label %{done}")
        self.label(done)
        if not guard:
            return results
        return [
            self.let(item.type, f"phi {item.type.llvm} [{start.text}, %{before}], [{item.text}, %{end}]")
            for start, item in zip(carry, results, strict=True)
        ]

    def when(self, condition: Value, body: Callable[[], None]) -> None:
        """Run `body` where a scalar condition holds; it may only write to memory."""
        inside, after = self.fresh_label("then"), self.fresh_label("after")
        self.emit(f"br {condition}, label %{inside}, label %{after}")
        self.label(inside)
        body()
        self.emit(f"br label %{after}")
        self.label(after)


def quoted(symbol: str) -> str:
    """A symbol as LLVM reads it, whatever characters it holds."""
    return symbol if _PLAIN.fullmatch(symbol) else f'"{symbol}"'


_PLAIN = re.compile(r"[A-Za-z_.$][A-Za-z0-9_.$]*")


def _rounded32(number: float) -> float:
    """The double that a literal of LLVM's 32-bit float must be: exactly a float32."""
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
    return rounded
