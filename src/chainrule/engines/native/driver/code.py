"""What the functions of a driver are written with."""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.engines.native.driver.stages import Binding, Stage
from chainrule.engines.native.ir import Function, Module, Value
from chainrule.engines.native.platform import Platform
from chainrule.engines.native.types import BOOL, I64

__all__ = ["CallFunction", "Form"]


class CallFunction(Function):
    """A function of a driver; a parameter ``call`` is the call block, the others are 64-bit integers and addresses.

    Args:
        module: where it goes.
        name: its symbol.
        parameters: such as ``"ptr call, i64 step"``.
        result: LLVM's result type.
    """

    def __init__(self, module: Module, name: str, parameters: str, result: str = "void") -> None:
        pairs = [tuple(item.split()) for item in parameters.split(", ")]
        super().__init__(module, name, [(kind, label) for kind, label in pairs], result=result)

    @staticmethod
    def argument(name: str) -> Value:
        """A parameter that is an integer."""
        return Value(f"%{name}", I64)

    # -- memory ---------------------------------------------------------------------------------------------

    def pointer(self, instruction: str) -> str:
        """Append an instruction whose result has no type of ours; returns its name."""
        name = self.new("p")
        self.emit(f"{name} = {instruction}")
        return name

    def at_byte(self, pointer: str, distance: Value | int) -> str:
        """An address so many bytes further."""
        return self.pointer(f"getelementptr i8, ptr {pointer}, i64 {_text(distance)}")

    def entry(self, table: str, number: Value | int) -> str:
        """Where an entry of a table of pointers lies."""
        return self.pointer(f"getelementptr ptr, ptr {table}, i64 {_text(number)}")

    def word(self, words: str, number: Value | int) -> str:
        """Where a word of an array lies."""
        return self.pointer(f"getelementptr i64, ptr {words}, i64 {_text(number)}")

    def field(self, field: int) -> str:
        """Where a field of the block lies."""
        return self.at_byte("%call", field)

    def load_word(self, pointer: str) -> Value:
        """The 64-bit integer there."""
        return self.let(I64, f"load i64, ptr {pointer}, align 8")

    def load_pointer(self, pointer: str) -> str:
        """The address there."""
        return self.pointer(f"load ptr, ptr {pointer}, align 8")

    def read(self, field: int) -> Value:
        """A field that holds an integer."""
        return self.load_word(self.field(field))

    def read_pointer(self, field: int) -> str:
        """A field that holds an address."""
        return self.load_pointer(self.field(field))

    def put(self, item: Value | int, pointer: str) -> None:
        """Write a 64-bit integer there."""
        self.emit(f"store i64 {_text(item)}, ptr {pointer}, align 8")

    def put_pointer(self, item: str, pointer: str) -> None:
        """Write an address there."""
        self.emit(f"store ptr {item}, ptr {pointer}, align 8")

    def write(self, item: Value, field: int) -> None:
        """Write an integer to a field."""
        self.put(item, self.field(field))

    # -- what other threads write to as well ----------------------------------------------------------------

    def look(self, pointer: str, order: str = "acquire") -> Value:
        """The 64-bit integer there at this moment."""
        return self.let(I64, f"load atomic i64, ptr {pointer} {order}, align 8")

    def exchange(self, pointer: str, old: Value, new: Value) -> Value:
        """Write `new` where `old` still stands; returns whether it did."""
        pair = self.pointer(f"cmpxchg ptr {pointer}, {old}, {new} acq_rel monotonic, align 8")
        return self.let(BOOL, f"extractvalue {{ i64, i1 }} {pair}, 1")

    def change(self, operation: str, pointer: str, item: int, order: str = "acq_rel") -> Value:
        """``add``, ``sub`` or ``or`` an integer there, in one step for all threads; returns what was there."""
        return self.let(I64, f"atomicrmw {operation} ptr {pointer}, i64 {item} {order}")

    # -- integers and control -------------------------------------------------------------------------------

    def whole(self, instruction: str, a: Value | int, b: Value | int) -> Value:
        """An instruction of two 64-bit integers."""
        return self.let(I64, f"{instruction} i64 {_text(a)}, {_text(b)}")

    def whole_address(self, pointer: str) -> Value:
        """An address as a number."""
        return self.let(I64, f"ptrtoint ptr {pointer} to i64")

    def holds(self, predicate: str, a: Value, b: Value | int) -> Value:
        """A comparison of two 64-bit integers."""
        return self.let(BOOL, f"icmp {predicate} {a}, {_text(b)}")

    def jump(self, label: str) -> None:
        """Go on elsewhere."""
        self.emit(f"br label %{label}")

    def branch(self, condition: Value, then: str, otherwise: str) -> None:
        """Go on at one of two places."""
        self.emit(f"br {condition}, label %{then}, label %{otherwise}")


@dataclass(frozen=True, slots=True)
class Form:
    """What the functions of one driver have in common; the attributes are the arguments of `emit_driver`."""

    module: Module
    name: str
    stages: tuple[Stage, ...]
    table_size: int
    bindings: tuple[Binding, ...]
    target: Platform
    profile: bool

    def function(self, part: str, parameters: str, result: str = "void") -> CallFunction:
        """One of them, with `parameters` such as ``"ptr call, i64 step"``."""
        return CallFunction(self.module, self.symbol(part), parameters, result)

    def symbol(self, part: str) -> str:
        """What one of them is called; the one without a name is the driver's own."""
        return f"{self.name}.{part}" if part else self.name


def _text(item: Value | int) -> str:
    return item.text if isinstance(item, Value) else str(item)
