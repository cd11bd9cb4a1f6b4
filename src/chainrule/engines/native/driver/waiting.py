"""How threads wait for one another: words that one changes and others watch."""

from __future__ import annotations

from chainrule.engines.native.driver.block import Field
from chainrule.engines.native.driver.code import Form

__all__ = ["emit_publish", "emit_wait"]


def emit_wait(form: Form) -> None:
    """Emit ``@name.wait``: wait until a masked word differs from `value`.

    It pauses, then gives way, then sleeps on the word's 32-bit `half`.
    """
    f = form.function("wait", "ptr call, ptr word, i64 mask, i64 value, ptr half, i64 expected")
    pauses = f.read(Field.PAUSES)
    patience = f.whole("add", pauses, f.read(Field.YIELDS))
    give_way, wait = f.read_pointer(Field.GIVE_WAY), f.read_pointer(Field.WAIT)
    sleepers = f.field(Field.SLEEPERS)
    f.jump("turn")
    f.label("turn")
    f.emit("%i = phi i64 [0, %entry], [%next, %again]")
    turn = f.argument("i")
    masked = f.whole("and", f.look("%word"), f.argument("mask"))
    f.branch(f.holds("eq", masked, f.argument("value")), "same", "changed")
    f.label("same")
    f.branch(f.holds("slt", turn, pauses), "pause", "longer")
    f.label("pause")
    form.target.emit_pause(f)
    f.jump("again")
    f.label("longer")
    f.branch(f.holds("slt", turn, patience), "yield", "sleep")
    f.label("yield")
    form.target.emit_give_way(f, give_way)
    f.jump("again")
    f.label("sleep")
    f.change("add", sleepers, 1, "seq_cst")
    form.target.emit_wait(f, wait, "%half", f.argument("expected"))
    f.change("sub", sleepers, 1, "seq_cst")
    f.jump("again")
    f.label("again")
    f.emit("%next = add i64 %i, 1")
    f.jump("turn")
    f.label("changed")


def emit_publish(form: Form) -> None:
    """Emit ``@name.publish``: set the claim word and wake those that sleep on it.

    A sleeper counts itself before it looks at the word, and here the word is set before the sleepers are
    counted, both sequentially consistent: one of the two sees the other.
    """
    f = form.function("publish", "ptr call, i64 claim")
    word, sleepers = f.field(Field.CLAIM), f.field(Field.SLEEPERS)
    wake = f.read_pointer(Field.WAKE)
    f.emit(f"store atomic i64 %claim, ptr {word} seq_cst, align 8")
    some = f.holds("ne", f.look(sleepers, "seq_cst"), 0)
    half = f.at_byte(word, 4)
    f.when(some, lambda: form.target.emit_wake(f, wake, half))
