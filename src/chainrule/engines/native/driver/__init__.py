"""The driver: the function that every thread enters to run the steps of a call together.

A step is a sequence of stages, a stage a number of units of work that may run in any order, and the next stage
begins when all of them are finished.  All threads meet in one *claim word* per call::

    claim = sequence number of the stage, counted over the steps (high half) | next unit (low half)

A thread claims a unit by compare-and-swap, so one that slept through a stage can never take a unit of a later one
for its own.  Whoever finishes the last unit of a stage *advances*: it is alone then, runs the stages of one unit at
once, and publishes the next large stage.  So a barrier counts finished units, not arrived threads; a thread that
never arrives holds nobody up, and one that comes late finds its place from the sequence number alone.

At the end of a step the advancing thread, and no other, decides whether there is another one and publishes that in
the claim word too: all threads agree on where to stop.

The *gate* lets worker threads in and out: the caller closes it, and returns when the last worker has left.  A
worker that comes after that, or with the number of an earlier call, touches nothing.
"""

from chainrule.engines.native.driver.assemble import driver_symbols, emit_driver
from chainrule.engines.native.driver.block import (
    CLOSED,
    IDLE_CLAIM,
    LARGEST_SEQUENCE,
    LINE,
    Field,
    profile_row,
    profile_start,
    rounded,
)
from chainrule.engines.native.driver.stages import Binding, Stage, UnitCount, Work

__all__ = [
    "CLOSED",
    "IDLE_CLAIM",
    "LARGEST_SEQUENCE",
    "LINE",
    "Binding",
    "Field",
    "Stage",
    "UnitCount",
    "Work",
    "driver_symbols",
    "emit_driver",
    "profile_row",
    "profile_start",
    "rounded",
]
