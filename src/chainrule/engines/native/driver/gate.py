"""What a thread does on its way in and out: the function that all of them enter."""

from __future__ import annotations

from chainrule.engines.native.driver.block import CLOSED, INSIDE, LOW_HALF, Field, rounded
from chainrule.engines.native.driver.code import CallFunction, Form
from chainrule.engines.native.driver.profile import stamp
from chainrule.engines.native.driver.tables import copy_table
from chainrule.engines.native.ir import Value

__all__ = ["emit_gate"]


def emit_gate(form: Form) -> None:
    """Emit ``i64 @name``."""
    f = form.function("", "ptr call, i64 thread, i64 generation", "i64")
    gate = f.field(Field.GATE)
    is_caller = f.holds("eq", f.argument("thread"), 0)
    f.branch(is_caller, "inside", "arrive")
    _arrive(f, gate)
    _inside(form, f, is_caller)
    _leave(form, f, gate)
    _close(form, f, gate)


def _arrive(f: CallFunction, gate: str) -> None:
    """A worker counts itself in, if the gate is open and the generation its own."""
    f.label("arrive")
    seen = f.look(gate)
    stage = f.whole("lshr", seen, 31)
    open_ = f.whole("shl", f.argument("generation"), 1)  # with the closed bit zero
    f.branch(f.holds("eq", stage, open_), "enter", "late")
    f.label("enter")
    entered = f.exchange(gate, seen, f.whole("add", seen, 1))
    f.branch(entered, "inside", "arrive")
    f.label("late")
    f.emit("ret i64 0")


def _inside(form: Form, f: CallFunction, is_caller: Value) -> None:
    """All that a thread does in the call."""
    f.label("inside")
    saved = form.target.emit_fast_floats(f)
    _stamp_caller(form, f, is_caller, Field.BEGAN)
    distance = f.whole("mul", f.argument("thread"), f.read(Field.PRIVATE_BYTES))
    table = f.at_byte(f.read_pointer(Field.PRIVATE), distance)
    copy_table(form, f, table)
    scratch = f.at_byte(table, rounded(8 * form.table_size))
    f.call_void(form.symbol("work"), f"ptr %call, i64 %thread, ptr {table}, ptr {scratch}")
    _stamp_caller(form, f, is_caller, Field.ENDED)
    form.target.emit_restore_floats(f, saved)
    f.branch(is_caller, "close", "leave")


def _leave(form: Form, f: CallFunction, gate: str) -> None:
    """A worker counts itself out, and wakes the caller if that waits for nobody else."""
    f.label("leave")
    state = f.whole("and", f.change("sub", gate, 1), LOW_HALF)
    last = f.holds("eq", state, CLOSED | 1)
    # The caller may already be gone; its block is alive as long as this worker holds its job.
    wake = f.read_pointer(Field.WAKE)
    f.when(last, lambda: form.target.emit_wake(f, wake, gate))
    f.emit("ret i64 0")


def _close(form: Form, f: CallFunction, gate: str) -> None:
    """The caller lets nobody in any more and waits until everybody is out."""
    f.label("close")
    f.change("or", gate, CLOSED)
    f.jump("empty")
    f.label("empty")
    now = f.look(gate)
    f.branch(f.holds("eq", f.whole("and", now, INSIDE), 0), "out", "others")
    f.label("others")
    state = f.whole("and", now, LOW_HALF)
    f.call_void(form.symbol("wait"), f"ptr %call, ptr {gate}, i64 {LOW_HALF}, {state}, ptr {gate}, {state}")
    f.jump("empty")
    f.label("out")
    f.emit(f"ret {f.read(Field.DONE)}")


def _stamp_caller(form: Form, f: CallFunction, is_caller: Value, field: int) -> None:
    """Note the time on thread 0, where a profile is taken."""
    if form.profile:
        f.when(is_caller, lambda: stamp(form, f, field))
