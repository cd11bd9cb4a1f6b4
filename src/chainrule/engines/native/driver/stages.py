"""What a driver runs: stages of units of work, and what of the table changes from step to step."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Binding", "Stage", "UnitCount", "Work"]


@dataclass(frozen=True, slots=True)
class UnitCount:
    """How many units of work there are: ``ceil(max(scale * n + offset, 0) / chunk)``, n the run-time batch size."""

    scale: int
    offset: int
    chunk: int

    def of(self, n: int) -> int:
        """The number of units for a batch size."""
        return -(-max(self.scale * n + self.offset, 0) // self.chunk)


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel's part of a stage.

    Attributes:
        kernel: symbol in the module, ``void (ptr table, i64 n, i64 low, i64 high, ptr scratch)``.
        units: how many units of work it has.
        most: how many it has at the planned batch size; fewer than 2**32.
    """

    kernel: str
    units: UnitCount
    most: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Kernels whose units may run side by side; all units are finished before the next stage begins.

    Where there are several kernels, their units are counted one kernel after the other as for the planned batch size;
    those beyond a smaller batch find nothing to do.
    """

    work: tuple[Work, ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The symbols of the kernels."""
        return tuple(one.kernel for one in self.work)

    @property
    def name(self) -> str:
        """What the profile calls the stage."""
        return ", ".join(self.kernels)

    @property
    def units(self) -> UnitCount:
        """How many units there are in all."""
        if len(self.work) == 1:
            return self.work[0].units
        return UnitCount(0, sum(one.most for one in self.work), 1)


@dataclass(frozen=True, slots=True)
class Binding:
    """An entry of the table that changes from step to step.

    Attributes:
        entry: its number in the table.
        offset: bytes from the start of the step's record.
        indirect: whether the record holds a pointer there, instead of the data itself.
    """

    entry: int
    offset: int
    indirect: bool
