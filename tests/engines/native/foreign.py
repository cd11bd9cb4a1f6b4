"""Steps made for AArch64 Linux, run by qemu's user emulation: a whole static program, written and linked here."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.engines.native.driver import IDLE_CLAIM, LINE, Field, rounded
from chainrule.engines.native.jit import Target, compile_object
from chainrule.engines.native.program import Program

__all__ = ["emulator", "link", "run_step"]

Array = np.ndarray[Any, Any]

BASE = 0x400000
"""Where the program lies."""


def emulator() -> str | None:
    """qemu's user emulation of AArch64, if the machine has it; ``CHAINRULE_QEMU_AARCH64`` may name it."""
    named = os.environ.get("CHAINRULE_QEMU_AARCH64")
    return named or shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


def run_step(
    text: str,
    program: Program,
    target: Target,
    inputs: Mapping[str, Array],
    state: Mapping[str, Array],
    batch: int,
    folder: Path,
) -> tuple[list[bytes], dict[str, bytes]]:
    """One step on one thread: the bytes of its outputs, which begin as they lie in the arena, and of the new state.

    Args:
        text: the step's module.
        program: what describes it.
        target: what it was made for.
        inputs, state: arrays by name.
        batch: samples in the step.
        folder: for the program's files.
    """
    whole = _with_main(text, program, inputs, state, batch)
    path, results = folder / "step", folder / "results"
    path.write_bytes(link(compile_object(whole, target)))
    path.chmod(0o755)
    found = emulator()
    assert found is not None
    with results.open("wb") as file:
        done = subprocess.run([found, str(path)], stdout=file, stderr=subprocess.PIPE, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    content = results.read_bytes()
    arena, rest = content[: program.arena], content[program.arena :]
    new: dict[str, bytes] = {}
    for name, array in state.items():
        new[name], rest = rest[: array.nbytes], rest[array.nbytes :]
    places = [program.table[number] for number in program.outputs]
    return [arena[place.offset :] if place.kind == "arena" else new[place.key] for place in places], new


# --- The program's own part ------------------------------------------------------------------------------------------


def _with_main(text: str, program: Program, inputs: Mapping[str, Array], state: Mapping[str, Array], batch: int) -> str:
    """The module with its data, and an entry that calls the driver and writes arena and state to standard output."""
    private = rounded(8 * len(program.table)) + rounded(program.scratch)
    names = {f"state_{i}": array for i, array in enumerate(state.values())}
    names |= {f"input_{i}": array for i, array in enumerate(inputs.values())}
    names |= {f"constant_{i}": array for i, array in enumerate(program.arrays())}
    state_name = {name: f"@state_{i}" for i, name in enumerate(state)}
    input_name = {name: f"@input_{i}" for i, name in enumerate(inputs)}
    table = 8 * len(program.table)
    sizes = {
        "arena": program.arena,
        "private": private,
        "block": Field.SIZE,
        "table": table,
        "record": program.record,
    }
    parts = [text]
    parts += [
        f"@{name} = internal global [{max(size, 1)} x i8] zeroinitializer, align {LINE}" for name, size in sizes.items()
    ]
    parts += [f"@{name} = internal global {_bytes(array)}, align {LINE}" for name, array in names.items()]
    parts.append(f"@system = internal constant [{len(_WORDS)} x i32] [{', '.join(f'i32 {word}' for word in _WORDS)}]")
    main: list[str] = []
    for number, place in enumerate(program.table):
        if place.kind == "arena":
            _store(main, "ptr", f"getelementptr (i8, ptr @arena, i64 {place.offset})", "table", 8 * number)
        elif place.kind == "constant":
            _store(main, "ptr", f"@constant_{place.offset}", "table", 8 * number)
        elif place.kind == "state":
            _store(main, "ptr", state_name[place.key], "table", 8 * number)
        else:
            _store(main, "ptr", input_name[place.key], "record", place.offset)
    _store(main, "i64", batch, "record", 0)
    block: list[tuple[int, str, str | int]] = [
        (Field.TABLE, "ptr", "@table"),
        (Field.RECORDS, "ptr", "@record"),
        (Field.RECORD_BYTES, "i64", program.record),
        (Field.LIMIT, "i64", 1),
        (Field.THREADS, "i64", 1),
        (Field.PRIVATE, "ptr", "@private"),
        (Field.PRIVATE_BYTES, "i64", private),
        (Field.CLAIM, "i64", IDLE_CLAIM),
        (Field.GATE, "i64", 1 << 32),
    ]
    for field, kind, value in block:
        _store(main, kind, value, "block", field)
    main.append(f"%done = call i64 @{program.symbol}(ptr @block, i64 0, i64 1)")
    for name, size in (("arena", program.arena), *((f"state_{i}", a.nbytes) for i, a in enumerate(state.values()))):
        main.append(f"call i64 {_SYSTEM}(i64 64, i64 1, ptr @{name}, i64 {size})")
    main.append("%status = sub i64 1, %done")
    main.append(f"call i64 {_SYSTEM}(i64 93, i64 %status, ptr null, i64 0)")
    parts.append("define void @_start() nounwind {\n  " + "\n  ".join(main) + "\n  unreachable\n}")
    parts.append(_MEMORY)
    return "\n".join(parts) + "\n"


_SYSTEM = "@system"
_WORDS = (0xAA0003E8, 0xAA0103E0, 0xAA0203E1, 0xAA0303E2, 0xD4000001, 0xD65F03C0)
"""A system call as code, since LLVM here has no assembler for this processor: mov x8, x0; mov x0, x1; mov x1, x2;
mov x2, x3; svc 0; ret."""

_MEMORY = "\n".join(
    f"""define ptr @{name}(ptr %to, {source}, i64 %size) nounwind "no-builtins" {{
entry:
  %none = icmp eq i64 %size, 0
  br i1 %none, label %out, label %turn
turn:
  %i = phi i64 [0, %entry], [%next, %turn]
  {place}
  %target = getelementptr i8, ptr %to, i64 %at
  {value}
  store volatile i8 %byte, ptr %target
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %size
  br i1 %more, label %turn, label %out
out:
  ret ptr %to
}}"""
    for name, source, place, value in (
        (
            "memcpy",
            "ptr %from",
            "%at = add i64 %i, 0",
            "%s = getelementptr i8, ptr %from, i64 %at\n  %byte = load volatile i8, ptr %s",
        ),
        ("memset", "i32 %value", "%at = add i64 %i, 0", "%byte = trunc i32 %value to i8"),
    )
)
"""What the code generator may call; byte by byte, so that it does not call itself."""


def _store(main: list[str], kind: str, value: str | int, target: str, offset: int) -> None:
    main.append(f"store {kind} {value}, ptr getelementptr (i8, ptr @{target}, i64 {offset}), align 8")


def _bytes(array: Array) -> str:
    content = np.ascontiguousarray(array).tobytes() or b"\0"
    return f'[{len(content)} x i8] c"' + "".join(f"\\{byte:02X}" for byte in content) + '"'


# --- The linker ------------------------------------------------------------------------------------------------------

_ALLOCATED, _NO_BITS, _RELOCATIONS, _SYMBOLS = 2, 8, 4, 2


@dataclass
class _Section:
    kind: int
    flags: int
    content: bytes
    size: int
    link: int
    info: int
    align: int
    address: int = 0


def link(content: bytes) -> bytes:
    """A static program for AArch64 Linux from one object that needs nothing else; it begins at ``_start``."""
    sections = _sections(content)
    placed = [s for s in sections if s.flags & _ALLOCATED]
    header = 64 + 56
    address = BASE + header
    for section in sorted(placed, key=lambda s: s.kind == _NO_BITS):
        section.address = address = -(-address // max(section.align, 1)) * max(section.align, 1)
        address += section.size
    held = max((s.address + s.size for s in placed if s.kind != _NO_BITS), default=BASE + header)
    image = bytearray(held - BASE)
    for section in placed:
        if section.kind != _NO_BITS:
            begin = section.address - BASE
            image[begin : begin + section.size] = section.content
    names, values = _symbols(sections)
    for section in sections:
        if section.kind == _RELOCATIONS and sections[section.info].flags & _ALLOCATED:
            _relocate(image, section.content, sections[section.info].address, values)
    start = values[names.index("_start")]
    elf = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack("<16sHHIQQQIHHHHHH", elf, 2, 183, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, len(image), address - BASE, 0x1000)
    image[: len(head)] = head
    return bytes(image)


def _sections(content: bytes) -> list[_Section]:
    (offset,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    found = []
    for number in range(count):
        _, kind, flags, _, start, length, linked, info, align, _ = struct.unpack_from(
            "<IIQQQQIIQQ", content, offset + size * number
        )
        data = b"" if kind == _NO_BITS else content[start : start + length]
        found.append(_Section(kind, flags, data, length, linked, info, align))
    return found


def _symbols(sections: Sequence[_Section]) -> tuple[list[str], list[int]]:
    table = next(s for s in sections if s.kind == _SYMBOLS)
    text = sections[table.link].content
    names, values = [], []
    for place in range(0, table.size, 24):
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", table.content, place)
        word = text[name : text.index(b"\0", name)].decode()
        assert section or not place, f"{word} is not in the object"
        names.append(word)
        values.append(value + (sections[section].address if 0 < section < len(sections) else 0))
    return names, values


def _relocate(image: bytearray, entries: bytes, start: int, values: Sequence[int]) -> None:
    """Put addresses into code and data; see "ELF for the Arm 64-bit Architecture", section 5.7."""
    shifts = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}  # the low 12 bits, in units of what is loaded
    for place in range(0, len(entries), 24):
        offset, info, addend = struct.unpack_from("<QQq", entries, place)
        kind, at = info & 0xFFFFFFFF, start + offset
        wanted = values[info >> 32] + addend
        spot = at - BASE
        if kind == 257:  # ABS64
            struct.pack_into("<Q", image, spot, wanted)
            continue
        (word,) = struct.unpack_from("<I", image, spot)
        if kind == 275:  # ADR_PREL_PG_HI21
            pages = (wanted >> 12) - (at >> 12)
            word |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
        elif kind in shifts:
            word |= ((wanted & 0xFFF) >> shifts[kind]) << 10
        elif kind in (282, 283):  # JUMP26, CALL26
            word |= (wanted - at) >> 2 & 0x3FFFFFF
        elif kind == 261:  # PREL32, in tables for unwinding
            word = (wanted - at) & 0xFFFFFFFF
        else:
            raise AssertionError(f"relocation {kind} is not known")
        struct.pack_into("<I", image, spot, word)
