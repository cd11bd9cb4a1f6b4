"""Where a step's time goes: sums of clock readings, one for each stage and one for each kernel and thread."""

from __future__ import annotations

from chainrule.engines.native.driver.block import Field, profile_row, profile_start
from chainrule.engines.native.driver.code import CallFunction, Form
from chainrule.engines.native.ir import Value

__all__ = ["add_time", "stamp", "thread_times"]


def add_time(form: Form, f: CallFunction, times: str, slot: Value | int, before: Value) -> Value:
    """Add the time since `before` to one sum of the profile; returns the time now."""
    now = form.target.emit_clock(f)
    place = f.word(times, slot)
    spent = f.whole("sub", now, before)
    f.put(f.whole("add", f.load_word(place), spent), place)
    return now


def stamp(form: Form, f: CallFunction, field: int) -> None:
    """Note the time, where a profile is taken."""
    if form.profile:
        f.write(form.target.emit_clock(f), field)


def thread_times(form: Form, f: CallFunction) -> str:
    """This thread's row of the profile."""
    if not form.profile:
        return "null"
    distance = f.whole("mul", f.argument("thread"), profile_row(form.stages))
    start = f.whole("add", distance, profile_start(form.stages))
    return f.at_byte(f.read_pointer(Field.PROFILE), start)
