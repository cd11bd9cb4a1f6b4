"""A loaded driver, and the memory of its calls."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.engines.native.driver import (
    CLOSED,
    IDLE_CLAIM,
    LARGEST_SEQUENCE,
    LINE,
    Field,
    Stage,
    profile_row,
    profile_start,
    rounded,
)
from chainrule.engines.native.jit import Library
from chainrule.engines.native.platform import host
from chainrule.errors import EngineError

__all__ = ["CallBlock", "Driver", "StageTime"]

# How a thread waits: so many pauses (some ten microseconds), so many times giving way, then sleep.
_PAUSES = 400
_YIELDS = 100

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class StageTime:
    """What a profile says of one stage, summed over the steps.

    Attributes:
        name: the stage.
        seconds: how long the stage lasted.
        kernels: (symbol, seconds summed over the threads) of each of its kernels.
    """

    name: str
    seconds: float
    kernels: tuple[tuple[str, float], ...]


class Driver:
    """A driver that is loaded and can be run.

    Args:
        library: has the symbols `driver_symbols(name)`.
        name, stages, table_size, profile: as given to `emit_driver`.
        scratch_bytes: private memory that the kernels of one thread need.
        checked: whether the module was.
    """

    def __init__(
        self,
        library: Library,
        name: str,
        stages: Sequence[Stage],
        table_size: int,
        scratch_bytes: int,
        *,
        profile: bool = False,
        checked: bool = False,
    ) -> None:
        self.stages, self.table_size, self.scratch_bytes = tuple(stages), table_size, scratch_bytes
        self.profile = profile
        self.entry = library.function(name, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self._stray = library.function(f"{name}.stray", ctypes.c_void_p) if checked else None

    def stray(self) -> tuple[int, int, int] | None:
        """A stray access of the checked build since the last question: (site, index, size), or None.

        The site counts from one in `Module.sites`; index and size are in elements.
        """
        assert self._stray is not None, "only a checked build notes stray accesses"
        note = (ctypes.c_int64 * 4).from_address(self._stray())
        site, index, size, _ = note
        note[0] = 0
        return (site, index, size) if site else None


class CallBlock:
    """The memory that the threads of one call share, and each one's own; used for one call after another.

    Fill `table` with addresses, set the steps with `set_records`, and run it with `threads.run`.  ``with block:``
    holds it for one call.

    Attributes:
        table: addresses of the buffers, uint64 ``(table_size,)``; each thread copies it when it enters.
        steps: how many steps the call has.
        seconds_per_step, latest_steps: what the last entry into native code took, and how many steps it ran.
        address: where the block lies.
        stopping: whether the call was asked to stop.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.table = np.zeros(max(driver.table_size, 1), np.uint64)
        self.steps = 0
        self.seconds_per_step = 0.0
        self.latest_steps = 0
        self.stopping = False
        self._memory, self.address = _aligned(Field.SIZE)
        self._words = self._memory.data.cast("q")  # quicker than an array, one element at a time
        self._records: Array = np.zeros((0, 8), np.uint8)
        # Memory stands beside its address, so that an interrupt never parts the two.
        self._private = _aligned(0)
        self._generation = 0
        # Who holds the block; a dict, since its setdefault is one step for all threads.  Not a lock: an interrupt
        # between taking and releasing would leave it taken for ever, where the same thread may simply come again.
        self._holder: dict[str, int] = {}
        # Rows of times: one of stages, then one of kernels for each thread.
        self._profile = _aligned(0)
        self._ticks = self._nanoseconds = 0
        services = host().services()
        self._set(Field.TABLE, self.table.ctypes.data)
        self._set(Field.GIVE_WAY, services.give_way)
        self._set(Field.WAIT, services.wait)
        self._set(Field.WAKE, services.wake)
        self._set(Field.PAUSES, _PAUSES)
        self._set(Field.YIELDS, _YIELDS)
        self._set(Field.GATE, CLOSED)

    @property
    def done(self) -> int:
        """How many steps of the call are complete."""
        return self._get(Field.DONE)

    def stop(self) -> None:
        """Ask the running call to end after the step it is in; any thread may ask."""
        self.stopping = True
        self._set(Field.STOP, 1)

    def pause(self) -> None:
        """Let the caller come out of native code after the step it is in; the call goes on when it is opened again."""
        self._set(Field.STOP, 1)

    def set_records(self, records: Array) -> None:
        """Say what the steps of the next call are; every step begins anew at the first record.

        Args:
            records: one row per step, each beginning with the batch size as int64 and holding what the bindings
                name.  The block keeps the array, not what pointers in it show to.
        """
        assert records.ndim, "one row per step"
        assert records.flags.c_contiguous, "records lie one after another"
        assert records.strides[0] % 8 == 0, "each record is aligned"
        with self:
            self._records, self.steps = records, len(records)
            self._set(Field.RECORDS, records.__array_interface__["data"][0])  # quicker than ctypes.data
            self._set(Field.RECORD_BYTES, records.strides[0])
            self._set(Field.DONE, 0)

    def __enter__(self) -> None:
        """Hold the block for one call.

        Raises:
            EngineError: another thread holds it.
        """
        here = threading.get_ident()
        if self._holder.setdefault("thread", here) != here:
            raise EngineError("this step is already running in another thread; expected one call at a time")

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Hold the block no more."""
        self._holder.pop("thread", None)

    @property
    def holder(self) -> int | None:
        """The thread that holds the block."""
        return self._holder.get("thread")

    def begin(self) -> None:
        """Go back to the first step."""
        self._set(Field.DONE, 0)
        self.stopping = False

    def open(self, steps: int, threads: int) -> int:
        """Open the gate for the next steps and so many threads; returns the generation that workers must know."""
        self._reserve(threads)
        first = self.done
        self._generation = (self._generation + 1) % 2**31
        self._set(Field.FIRST, first)
        self._set(Field.LIMIT, min(first + min(steps, LARGEST_SEQUENCE // len(self.driver.stages)), self.steps))
        self._set(Field.THREADS, threads)
        self._set(Field.CLAIM, IDLE_CLAIM)
        self._set(Field.FINISHED, 0)
        self._set(Field.SLEEPERS, 0)
        self._set(Field.STOP, 0)
        if self.stopping:  # looked at last: whoever asks meanwhile sets the field after this did
            self._set(Field.STOP, 1)
        self._set(Field.GATE, self._generation << 32)
        return self._generation

    def is_open(self, generation: int) -> bool:
        """Whether the gate is open for a generation: the caller has not been through it and closed it."""
        return self._get(Field.GATE) & -CLOSED == generation << 32

    @property
    def closed(self) -> bool:
        """Whether the caller has been through the gate and closed it."""
        return self._get(Field.GATE) & CLOSED != 0

    def call_off(self) -> None:
        """Let the threads at an open gate come out again before the first step, once the caller has entered."""
        self._set(Field.LIMIT, self._get(Field.FIRST))

    def account(self, steps: int, nanoseconds: int) -> None:
        """Note how long the caller was inside, and for how many steps."""
        if steps:
            self.latest_steps, self.seconds_per_step = steps, nanoseconds / steps * 1e-9
        if self.driver.profile:
            self._ticks += self._get(Field.ENDED) - self._get(Field.BEGAN)
            self._nanoseconds += nanoseconds

    def times(self) -> list[StageTime]:
        """The profile of all calls since the last `clear_times`."""
        assert self.driver.profile, "the driver was emitted without a profile"
        second, stages = self._tick_seconds(), self.driver.stages
        walls, sums = self._profile[0].view(np.int64)[: len(stages)], self._kernel_ticks().sum(0)
        result, slot = [], 0
        for stage, wall in zip(stages, walls, strict=True):
            parts = tuple((kernel, float(sums[slot + i]) * second) for i, kernel in enumerate(stage.kernels))
            result.append(StageTime(stage.name, float(wall) * second, parts))
            slot += len(stage.kernels)
        return result

    def thread_seconds(self) -> list[float]:
        """How long each thread was in kernels, in the calls since the last `clear_times`."""
        return [float(ticks) * self._tick_seconds() for ticks in self._kernel_ticks().sum(1)]

    def clear_times(self) -> None:
        """Begin a new profile."""
        self._profile[0][:] = 0
        self._ticks = self._nanoseconds = 0

    def _tick_seconds(self) -> float:
        """The unit of the platform's clock, as measured in these calls."""
        return 1e-9 * self._nanoseconds / max(self._ticks, 1)

    def _kernel_ticks(self) -> Array:
        """Time in kernels ``(threads, kernels)``."""
        stages = self.driver.stages
        rows = self._profile[0][profile_start(stages) :]
        return rows.view(np.int64).reshape(-1, profile_row(stages) // 8)

    def _reserve(self, threads: int) -> None:
        """Have private memory for so many threads; it is kept."""
        each = rounded(8 * self.driver.table_size) + rounded(self.driver.scratch_bytes)
        if len(self._private[0]) < threads * each:
            self._private = _aligned(threads * each)
        self._set(Field.PRIVATE, self._private[1])
        self._set(Field.PRIVATE_BYTES, each)
        if self.driver.profile:
            size = profile_start(self.driver.stages) + threads * profile_row(self.driver.stages)
            former, _ = self._profile
            if len(former) < size:
                larger = _aligned(size)
                larger[0][: len(former)] = former
                self._profile = larger
            self._set(Field.PROFILE, self._profile[1])

    def _get(self, field: int) -> int:
        return self._words[field // 8]

    def _set(self, field: int, value: int) -> None:
        self._words[field // 8] = value


def _aligned(size: int) -> tuple[Array, int]:
    """Zeroed bytes that begin on a pair of cache lines, and their address."""
    raw = np.zeros(size + LINE, np.uint8)
    skip = -raw.ctypes.data % LINE
    return raw[skip : skip + size], int(raw.ctypes.data) + skip
