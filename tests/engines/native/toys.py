"""Small kernels with a driver, and what they compute in plain Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chainrule.engines.native.call import CallBlock, Driver
from chainrule.engines.native.driver import Binding, Stage, UnitCount, Work, driver_symbols, emit_driver
from chainrule.engines.native.ir import Buffer, Function, Module, Value
from chainrule.engines.native.jit import Library, compile_object
from chainrule.engines.native.platform import Platform, host
from chainrule.engines.native.types import F64, I64, Type

SLOTS = 64
WORD = 2**64
KERNEL = [("ptr", "table"), ("i64", "n"), ("i64", "low"), ("i64", "high"), ("ptr", "scratch")]
N, LOW, HIGH = (Value(f"%{name}", I64) for name in ("n", "low", "high"))

# Knuth's linear congruential generator: enough work to keep two threads busy at the same time.
MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407


def entry(f: Function, number: int, size: int, type: Type = I64) -> Buffer:
    """The buffer in an entry of the table."""
    place, pointer = f.new("place"), f.new("buffer")
    f.emit(f"{place} = getelementptr ptr, ptr %table, i64 {number}")
    f.emit(f"{pointer} = load ptr, ptr {place}, align 8")
    return Buffer(pointer, type, size, f"entry{number}")


def constant(value: int) -> Value:
    return Value(str(value - WORD if value >= WORD // 2 else value), I64)


def emit_toys(rounds: int, target: Platform, *, checked: bool = False, profile: bool = False) -> tuple[Module, Toys]:
    """A module of three stages: mix each slot, change it in one of two kernels side by side, sum in order.

    Table: slots, sum, delta of the step (in its record), weight of the step (where its record points to).
    """
    module = Module(checked=checked)
    f = Function(module, "mix", KERNEL)
    slots, delta = entry(f, 0, SLOTS), f.load(entry(f, 2, 1), 0)

    def mix(unit: Value, _: list[Value]) -> None:
        def turn(_: Value, carried: list[Value]) -> list[Value]:
            product = f.binary("mul", carried[0], constant(MULTIPLIER))
            return [f.binary("add", product, constant(INCREMENT))]

        start = f.binary("add", f.load(slots, unit), delta)
        f.store(f.loop(0, rounds, turn, [start])[0], slots, unit)

    f.loop(LOW, HIGH, mix)
    _emit_change(module, "low", 0)
    _emit_change(module, "high", 2)
    f = Function(module, "sum", KERNEL)
    slots, total, weight = entry(f, 0, SLOTS), entry(f, 1, 1), f.load(entry(f, 3, 1), 0)

    def add(slot: Value, carried: list[Value]) -> list[Value]:
        return [f.binary("add", f.binary("mul", carried[0], weight), f.load(slots, slot))]

    f.store(f.loop(0, N, add, [f.load(total, 0)])[0], total, 0)
    stages = (
        Stage((Work("mix", UnitCount(1, 0, 1), SLOTS),)),
        Stage((Work("low", UnitCount(1, 0, 4), SLOTS // 4), Work("high", UnitCount(1, 0, 4), SLOTS // 4))),
        Stage((Work("sum", UnitCount(0, 1, 1), 1),)),
    )
    bindings = [Binding(2, 8, False), Binding(3, 16, True)]
    emit_driver(module, "toys", stages, 4, bindings, target, profile=profile)
    return module, Toys(stages, rounds)


def _emit_change(module: Module, name: str, first: int) -> None:
    """Two of the four slots of each unit, from the `first` on: the slot, six times and one more, by way of scratch."""
    f = Function(module, name, KERNEL)
    slots, scratch = entry(f, 0, SLOTS), Buffer("%scratch", I64, 4, "scratch")
    base = f.mul(LOW, 4)

    def change(slot: Value, _: list[Value]) -> None:
        place = f.sub(slot, base)
        f.store(f.binary("mul", f.load(slots, slot), constant(5)), scratch, place)
        grown = f.binary("add", f.load(slots, slot), f.load(scratch, place))
        f.store(f.binary("add", grown, constant(1)), slots, slot)

    f.loop(f.add(base, first), f.min(f.add(base, first + 2), N), change)


class Toys:
    """The toys, loaded; `expected` is what they should give."""

    def __init__(self, stages: tuple[Stage, ...], rounds: int) -> None:
        self.stages, self.rounds = stages, rounds

    def load(self, content: bytes, *, checked: bool = False, profile: bool = False) -> Driver:
        library = Library([content], driver_symbols("toys", checked=checked))
        return Driver(library, "toys", self.stages, 4, 32, checked=checked, profile=profile)

    def expected(self, sizes: Sequence[int], weights: Sequence[int]) -> int:
        """The sum after one step for each batch size; the delta of a step is its number."""
        power, offset = 1, 0
        for _ in range(self.rounds):
            power, offset = power * MULTIPLIER % WORD, (offset * MULTIPLIER + INCREMENT) % WORD
        slots, total = [0] * SLOTS, 0
        for step, n in enumerate(sizes):
            weight = weights[step % len(weights)]
            for slot in range(n):
                mixed = (slots[slot] + step) * power + offset
                slots[slot] = (mixed * 6 + 1) % WORD
                total = (total * weight + slots[slot]) % WORD
        return total


class ToyCall:
    """A call block of the toys with its data, and the steps to run."""

    def __init__(self, driver: Driver, sizes: Sequence[int], weights: Sequence[int] = (31, 37, 41)) -> None:
        self.driver, self.block = driver, CallBlock(driver)
        self.slots, self.total = np.zeros(SLOTS, np.int64), np.zeros(1, np.int64)
        self.weights = np.array(weights, np.int64)
        self.block.table[:2] = self.slots.ctypes.data, self.total.ctypes.data
        records = np.zeros((len(sizes), 3), np.int64)
        records[:, 0], records[:, 1] = sizes, np.arange(len(sizes))
        records[:, 2] = self.weights.ctypes.data + 8 * (np.arange(len(sizes)) % len(weights))
        self.block.set_records(records)

    def clear(self) -> None:
        """Begin anew."""
        self.slots[:], self.total[:] = 0, 0

    @property
    def result(self) -> int:
        return int(self.total[0]) % WORD


def load_toys(rounds: int = 1, *, checked: bool = False, profile: bool = False) -> tuple[Driver, Toys]:
    """The toys on this machine."""
    module, toys = emit_toys(rounds, host(), checked=checked, profile=profile)
    return toys.load(compile_object(module.text()), checked=checked, profile=profile), toys


def load_tiny(rounds: int = 0) -> Driver:
    """One stage of one unit: multiply a float64 in place by another, after some time."""
    module = Module()
    f = Function(module, "product", KERNEL)
    left, right = entry(f, 0, 1, F64), entry(f, 1, 1, F64)

    def spend(_: Value, carried: list[Value]) -> list[Value]:
        return [f.binary("mul", carried[0], constant(MULTIPLIER))]

    # The loop's result is always odd, and so counts for nothing; but it must be waited for.
    odd = f.loop(0, rounds, spend, [constant(1)])[0] if rounds else constant(1)
    place = f.binary("sub", f.binary("and", odd, constant(1)), constant(1))
    f.store(f.binary("fmul", f.load(left, place), f.load(right, 0)), left, place)
    stages = (Stage((Work("product", UnitCount(0, 1, 1), 1),)),)
    emit_driver(module, "tiny", stages, 2, [], host())
    return Driver(Library([compile_object(module.text())], driver_symbols("tiny")), "tiny", stages, 2, 0)
