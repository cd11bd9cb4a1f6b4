"""Each thread's own table of addresses: the call's, and in it what changes from step to step."""

from __future__ import annotations

from chainrule.engines.native.driver.block import Field
from chainrule.engines.native.driver.code import CallFunction, Form
from chainrule.engines.native.ir import Value

__all__ = ["copy_table", "emit_bind"]


def copy_table(form: Form, f: CallFunction, table: str) -> None:
    """Copy the call's table to a thread's own one."""
    source = f.read_pointer(Field.TABLE)

    def copy(i: Value, _: list[Value]) -> None:
        item = f.load_pointer(f.entry(source, i))
        f.put_pointer(item, f.entry(table, i))

    if form.table_size:
        f.loop(0, form.table_size, copy)


def emit_bind(form: Form) -> None:
    """Emit ``i64 @name.bind``: set what a step's record says in a thread's table; returns the batch size."""
    f = form.function("bind", "ptr call, i64 step, ptr table", "i64")
    distance = f.whole("mul", f.argument("step"), f.read(Field.RECORD_BYTES))
    record = f.at_byte(f.read_pointer(Field.RECORDS), distance)
    for binding in form.bindings:
        data = f.at_byte(record, binding.offset)
        if binding.indirect:
            data = f.load_pointer(data)
        f.put_pointer(data, f.entry("%table", binding.entry))
    f.emit(f"ret {f.load_word(record)}")
