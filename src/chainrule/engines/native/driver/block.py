"""The memory that the threads of a call share: where everything lies in it, and what its words mean."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.engines.native.driver.stages import Stage

__all__ = [
    "CLOSED",
    "END",
    "HIGH_HALF",
    "IDLE",
    "IDLE_CLAIM",
    "INSIDE",
    "LARGEST_SEQUENCE",
    "LINE",
    "LOW_HALF",
    "Field",
    "profile_row",
    "profile_start",
    "rounded",
]


class Field:
    """Where in the call block each field lies, in bytes; what threads write to has a cache line pair of its own."""

    TABLE = 0  # the table that each thread copies
    RECORDS = 8  # the first step's record
    RECORD_BYTES = 16
    FIRST = 24  # the first step of this entry
    LIMIT = 32  # one more than its last step
    THREADS = 40
    PRIVATE = 48  # the memory of thread 0
    PRIVATE_BYTES = 56  # and how far it is to that of thread 1
    GIVE_WAY = 64
    WAIT = 72
    WAKE = 80
    PAUSES = 88
    YIELDS = 96
    PROFILE = 104
    STOP = 128
    CLAIM = 256
    FINISHED = 384
    GATE = 512
    SLEEPERS = 640
    DONE = 768  # how many steps are complete
    STAMP = 776  # when the present stage began
    BEGAN = 784  # when thread 0 came
    ENDED = 792  # and when it left
    SIZE = 896


# The claim word's sequence numbers before the first stage and after the last one.
IDLE = 2**32 - 2
END = 2**32 - 1

LARGEST_SEQUENCE = IDLE - 1
"""How many stages one entry into native code may run."""

IDLE_CLAIM = (IDLE << 32) - 2**64
"""The claim word before the first stage, as an int64."""

LOW_HALF = 2**32 - 1
HIGH_HALF = LOW_HALF << 32

# The gate: generation << 32 | closed << 31 | workers inside.
CLOSED = 1 << 31
"""The bit that closes the gate."""

INSIDE = CLOSED - 1

LINE = 128
"""What two threads write to lies so many bytes apart: processors fetch pairs of cache lines."""


def rounded(size: int) -> int:
    """Bytes rounded up, so that no two threads share a pair of cache lines."""
    return -(-size // LINE) * LINE


def profile_start(stages: Sequence[Stage]) -> int:
    """Bytes of a profile before the threads' rows: the time of each stage."""
    return rounded(8 * len(stages))


def profile_row(stages: Sequence[Stage]) -> int:
    """Bytes of one thread's row in a profile: its time in each kernel."""
    return rounded(8 * sum(len(stage.kernels) for stage in stages))
