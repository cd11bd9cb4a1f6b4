"""A driver from its parts."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.engines.native.driver.code import Form
from chainrule.engines.native.driver.gate import emit_gate
from chainrule.engines.native.driver.stages import Binding, Stage
from chainrule.engines.native.driver.tables import emit_bind
from chainrule.engines.native.driver.units import emit_units
from chainrule.engines.native.driver.waiting import emit_publish, emit_wait
from chainrule.engines.native.driver.work import emit_work
from chainrule.engines.native.ir import Function, Module
from chainrule.engines.native.platform import Platform

__all__ = ["driver_symbols", "emit_driver"]


def driver_symbols(name: str, *, checked: bool = False) -> tuple[str, ...]:
    """The symbols that `emit_driver` defines for others, in the order that `Driver` takes them."""
    return (name, f"{name}.stray") if checked else (name,)


def emit_driver(
    module: Module,
    name: str,
    stages: Sequence[Stage],
    table_size: int,
    bindings: Sequence[Binding],
    target: Platform,
    *,
    profile: bool = False,
) -> None:
    """Emit ``i64 @name(ptr call, i64 thread, i64 generation)``, which every thread of a call enters.

    It returns the number of complete steps.  A checked module gets ``ptr @name.stray()`` too.

    Args:
        module: where the kernels are.
        name: the symbol.
        stages: at least one.
        table_size: number of pointers in the table.
        bindings: what of the table each step's record sets.  A record begins with the batch size, an i64.
        target: the platform that the code is for.
        profile: whether the time of each stage and kernel is taken.
    """
    assert stages, "a driver needs at least one stage"
    form = Form(module, name, tuple(stages), table_size, tuple(bindings), target, profile)
    emit_units(form)
    emit_wait(form)
    emit_publish(form)
    emit_bind(form)
    emit_work(form)
    emit_gate(form)
    if module.checked:
        stray = Function(module, form.symbol("stray"), [], result="ptr")
        stray.emit("ret ptr @chainrule_stray")
