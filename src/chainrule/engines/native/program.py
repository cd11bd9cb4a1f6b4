"""A compiled graph as plain data: where every buffer lies, what the stages are.  This and object code are cached."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from chainrule.engines.native.driver import Stage, UnitCount, Work

__all__ = ["Place", "Program"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one buffer of the table lies.

    Attributes:
        kind: ``arena`` at a byte offset, ``state`` in a variable's memory, ``input`` at a byte offset of the step's
            record (data or, if `pointer`, an address), ``constant`` by number.
        name: of the storage, for messages.
        key: of the variable or the input.
        offset: see `kind`.
        pointer: see `kind`.
    """

    kind: Literal["arena", "state", "input", "constant"]
    name: str
    key: str = ""
    offset: int = 0
    pointer: bool = False


@dataclass(frozen=True)
class Program:
    """What an executable needs besides object code.

    Attributes:
        symbol: the driver's entry.
        batch: planned batch size.
        arena: bytes of the arena.
        scratch: private bytes of each thread.
        record: bytes of one step's record.
        table: the buffers.
        stages: the driver's stages.
        constants: dtype, shape and bytes of each constant.
        outputs: table entries of the outputs, in order.
        where: layers and ops of each stage.
        sites: what the checked build calls each access.
        checked, profile: how it was built.
        plan: SHA-256 of the plan in words.
    """

    symbol: str
    batch: int
    arena: int
    scratch: int
    record: int
    table: tuple[Place, ...]
    stages: tuple[Stage, ...]
    constants: tuple[tuple[str, tuple[int, ...], str], ...]
    outputs: tuple[int, ...]
    where: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    checked: bool = False
    profile: bool = False
    plan: str = ""

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """The constants."""
        return [
            np.frombuffer(base64.b64decode(text), dtype).reshape(shape).copy() for dtype, shape, text in self.constants
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Program:
        """The program that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: the data are something else.
        """
        fields = dict(data)
        fields["table"] = tuple(Place(**place) for place in data["table"])
        fields["stages"] = tuple(
            Stage(tuple(Work(one["kernel"], UnitCount(**one["units"]), one["most"]) for one in stage["work"]))
            for stage in data["stages"]
        )
        fields["constants"] = tuple((dtype, tuple(shape), text) for dtype, shape, text in data["constants"])
        fields["outputs"] = tuple(data["outputs"])
        fields["where"] = tuple(data["where"])
        fields["sites"] = tuple(data["sites"])
        return Program(**fields)


def constant_data(array: np.ndarray[Any, Any]) -> tuple[str, tuple[int, ...], str]:
    """A constant as `Program.constants` holds it."""
    solid = np.ascontiguousarray(array)
    return solid.dtype.str, array.shape, base64.b64encode(solid.tobytes()).decode("ascii")
