"""Copies of one sample's map: into a frame of zeros before a product, and out of padded channels after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chainrule.engines.native.ir import Buffer, Function, Index, Module, Value
from chainrule.engines.native.types import Type

__all__ = ["MapCopy", "emit_map_copy"]


@dataclass(frozen=True, slots=True)
class MapCopy:
    """``void @f(ptr %source, ptr %target)``: a map of rows, columns and channels under other strides.

    Attributes:
        type: scalar type.
        rows, columns, channels: what is copied.
        source_strides, target_strides: (row, pixel) in elements; channels lie side by side.
        frame: zeros around the target: (top, bottom, left, right) in rows and pixels; the target pointer shows to the
            frame's first element.  A frame needs a target whose pixels lie side by side.
        zeros: channels of zeros after each pixel's own.
    """

    type: Type
    rows: int
    columns: int
    channels: int
    source_strides: tuple[int, int]
    target_strides: tuple[int, int]
    frame: tuple[int, int, int, int] = (0, 0, 0, 0)
    zeros: int = 0

    def source_size(self) -> int:
        """Elements of the source that are reached."""
        return (self.rows - 1) * self.source_strides[0] + (self.columns - 1) * self.source_strides[1] + self.channels

    def target_size(self) -> int:
        """Elements of the target that are reached, frame and zeros included."""
        top, bottom, left, right = self.frame
        rows, columns = self.rows + top + bottom, self.columns + left + right
        return (rows - 1) * self.target_strides[0] + (columns - 1) * self.target_strides[1] + self.channels + self.zeros


def emit_map_copy(module: Module, name: str, spec: MapCopy) -> None:
    """Add a `MapCopy` function to a module."""
    f = Function(module, name, [("ptr", "source"), ("ptr", "target")], internal=True)
    source = Buffer("%source", spec.type, spec.source_size(), f"{name} source")
    target = Buffer("%target", spec.type, spec.target_size(), f"{name} target")
    lanes = module.lanes(spec.type)
    top, bottom, left, right = spec.frame
    (source_row, source_pixel), (target_row, target_pixel) = spec.source_strides, spec.target_strides
    pixel = spec.channels + spec.zeros
    assert target_pixel == pixel or not any(spec.frame), "a frame needs pixels side by side"
    zero = f.constant(0, spec.type)

    def clear(place: Index, length: int) -> None:
        _run(f, length, lanes, lambda i, width: f.store(f.splat(zero, width), target, f.add(place, i)))

    def copy(start: Index, place: Index, length: int) -> None:
        def move(i: Index, width: int) -> None:
            f.store(f.load(source, f.add(start, i), width), target, f.add(place, i))

        _run(f, length, lanes, move)

    def row(i: Value, _: list[Value]) -> None:
        start = f.mul(i, source_row)
        place = f.mul(f.add(i, top), target_row)
        clear(place, left * pixel)
        inside = f.add(place, left * pixel)
        if not spec.zeros and source_pixel == target_pixel == spec.channels:
            copy(start, inside, spec.columns * spec.channels)
        else:

            def one(j: Value, _: list[Value]) -> None:
                at = f.add(inside, f.mul(j, target_pixel))
                copy(f.add(start, f.mul(j, source_pixel)), at, spec.channels)
                clear(f.add(at, spec.channels), spec.zeros)

            f.loop(0, spec.columns, one)
        clear(f.add(inside, spec.columns * target_pixel), right * pixel)

    _frame_rows(f, clear, 0, top, target_row)
    f.loop(0, spec.rows, row)
    _frame_rows(f, clear, top + spec.rows, top + spec.rows + bottom, target_row)


def _frame_rows(f: Function, clear: Callable[[Index, int], None], low: int, high: int, stride: int) -> None:
    if low < high:
        f.loop(low, high, lambda i, _: clear(f.mul(i, stride), stride))


def _run(f: Function, length: int, lanes: int, body: Callable[[Index, int], None]) -> None:
    """Call ``body(position, width)`` over a run: whole vectors, then single elements."""
    whole = length // lanes * lanes
    if whole:
        f.loop(0, whole, lambda i, _: body(i, lanes), step=lanes)
    if length > whole:
        f.loop(whole, length, lambda i, _: body(i, 1))
