"""The tables in which threads look stages and kernels up, and the function that runs one unit of a stage.

Stages are data rather than code, so that the code generator has less to do: its time grows with the number of
functions.
"""

from __future__ import annotations

from chainrule.engines.native.driver.code import Form
from chainrule.engines.native.driver.profile import add_time
from chainrule.engines.native.driver.stages import UnitCount

__all__ = ["STAGE", "emit_units"]

STAGE = "{ ptr, i64, i64, i64 }"
"""A row of ``@name.stages``: the row of its first kernel, and the three numbers of its unit count."""

_KERNEL = "{ ptr, i64, i64, i64, i64, i64 }"
"""A row of ``@name.kernels``: the function, its first unit in the stage and the one after its last, its unit count."""

_WORDS = 6
_BEGIN, _END, _SCALE, _OFFSET, _CHUNK = range(1, _WORDS)
_NO_END = 2**63 - 1


def emit_units(form: Form) -> None:
    """Emit ``@name.kernels``, ``@name.stages`` and ``@name.unit``."""
    _emit_tables(form)
    _emit_unit(form)


def _emit_tables(form: Form) -> None:
    kernels, stages = list[str](), list[str]()
    for stage in form.stages:
        first = f"ptr getelementptr ({_KERNEL}, ptr @{form.symbol('kernels')}, i64 {len(kernels)})"
        stages.append(f"{STAGE} {{ {first}, {_numbers(stage.units)} }}")
        begin = 0
        for one in stage.work:
            end = _NO_END if one is stage.work[-1] else begin + one.most
            kernels.append(f"{_KERNEL} {{ ptr @{one.kernel}, i64 {begin}, i64 {end}, {_numbers(one.units)} }}")
            begin = end
    for name, kind, rows in (("kernels", _KERNEL, kernels), ("stages", STAGE, stages)):
        content = f"[{len(rows)} x {kind}] [{', '.join(rows)}]"
        form.module.add_global(f"@{form.symbol(name)} = internal constant {content}")


def _numbers(units: UnitCount) -> str:
    return f"i64 {units.scale}, i64 {units.offset}, i64 {units.chunk}"


def _emit_unit(form: Form) -> None:
    """Emit ``@name.unit``: from a stage's first kernel on, find whose unit it is; run it if the batch has so many."""
    f = form.function("unit", "ptr table, i64 n, ptr first, i64 unit, ptr scratch, ptr times")
    f.jump("look")
    f.label("look")
    f.emit("%row = phi ptr [%first, %entry], [%following, %look]")
    end = f.load_word(f.word("%row", _END))
    f.emit(f"%following = getelementptr i64, ptr %row, i64 {_WORDS}")
    f.branch(f.holds("slt", f.argument("unit"), end), "found", "look")
    f.label("found")
    begin, scale, offset, chunk = (f.load_word(f.word("%row", k)) for k in (_BEGIN, _SCALE, _OFFSET, _CHUNK))
    unit = f.whole("sub", f.argument("unit"), begin)
    size = f.whole("add", f.whole("mul", scale, f.argument("n")), offset)

    def run() -> None:
        before = form.target.emit_clock(f) if form.profile else None
        f.emit(
            f"call void {f.load_pointer('%row')}(ptr %table, i64 %n, {unit}, {f.whole('add', unit, 1)}, ptr %scratch)"
        )
        if before is not None:
            start = f.whole_address(f"@{form.symbol('kernels')}")
            number = f.whole("sdiv", f.whole("sub", f.whole_address("%row"), start), 8 * _WORDS)
            add_time(form, f, "%times", number, before)

    f.when(f.holds("slt", f.whole("mul", unit, chunk), size), run)
