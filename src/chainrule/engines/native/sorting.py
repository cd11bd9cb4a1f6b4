"""The stable order of 64-bit keys: a bottom-up merge sort by one thread."""

from __future__ import annotations

from collections.abc import Mapping

from chainrule.engines.native.ir import Buffer, Function, Index, Value
from chainrule.engines.native.nests import size_value
from chainrule.engines.native.types import BOOL, I32, I64
from chainrule.plan.expr import Storage
from chainrule.plan.plan import Sort

__all__ = ["emit_sort"]

_PASSES = 40
"""Runs double in length so many times at most."""


def emit_sort(f: Function, sort: Sort, buffers: Mapping[Storage, Buffer], batch: Value) -> None:
    """Write the number of the i-th smallest key to element i of the result; equal keys keep their order.

    The spare memory holds keys and numbers twice, and runs are merged from one half into the other:
    ``keys, numbers, keys, numbers``, each as long as there are keys.
    """
    keys, spare, result = (buffers[s] for s in (sort.keys, sort.spare, sort.result))
    count = size_value(f, sort.count, batch)
    half = f.mul(count, 2)

    def begin(i: Value, _: list[Value]) -> None:
        f.store(f.load(keys, i), spare, i)
        f.store(Value(i.text, spare.type), spare, f.add(i, count))

    f.loop(0, count, begin)

    def merge_all(number: Value, carried: list[Value]) -> list[Value]:
        width, source = carried
        runs = f.let(BOOL, f"icmp slt i64 {width.text}, {f.index(count).text}")
        target = f.sub(half, source)
        double = f.mul(width, 2)

        def merge_pairs() -> None:
            pairs = f.div(f.add(f.add(count, double), -1), double)
            f.loop(0, pairs, lambda i, _: _merge(f, spare, source, target, f.mul(i, double), width, count))

        f.when(runs, merge_pairs)
        after = f.select(runs, f.index(target), source)
        return [f.index(double), after]

    _, place = f.loop(0, _PASSES, merge_all, [Value("1", I64), Value("0", I64)])

    def finish(i: Value, _: list[Value]) -> None:
        number = f.load(spare, f.add(f.add(place, count), i))
        f.store(f.let(I32, f"trunc i64 {number.text} to i32"), result, i)

    f.loop(0, count, finish)


def _merge(f: Function, spare: Buffer, source: Index, target: Index, low: Index, width: Index, count: Index) -> None:
    """Merge the runs ``[low, middle)`` and ``[middle, high)`` of one half into the other half."""
    middle = f.min(f.add(low, width), count)
    high = f.index(f.min(f.add(middle, width), count))
    last = f.add(high, -1)

    def key(place: Index) -> Value:
        return f.load(spare, f.add(source, f.min(place, last)))

    def turn(i: Value, carried: list[Value]) -> list[Value]:
        a, b = carried
        a_left = f.let(BOOL, f"icmp slt i64 {a.text}, {f.index(middle).text}")
        b_done = f.let(BOOL, f"icmp sge i64 {b.text}, {high.text}")
        smaller = f.compare("ule", key(a), key(b))
        either = f.binary("or", b_done, smaller)
        take = f.binary("and", a_left, either)
        chosen = f.select(take, a, b)
        f.store(f.load(spare, f.add(source, chosen)), spare, f.add(target, i))
        number = f.load(spare, f.add(f.add(source, count), chosen))
        f.store(number, spare, f.add(f.add(target, count), i))
        step = f.let(I64, f"zext {take} to i64")
        other = f.let(I64, f"sub i64 1, {step.text}")
        return [f.index(f.add(a, step)), f.index(f.add(b, other))]

    f.loop(low, high, turn, [f.index(low), f.index(middle)])
