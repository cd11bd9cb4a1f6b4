"""LLVM: IR text to object code, and object code into this process.

llvmlite is imported when it is first needed; its library is large.  No process-global LLVM option is touched, so
other users of llvmlite in the same process are not affected.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import struct
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.errors import EngineError

__all__ = [
    "Library",
    "NativeFunction",
    "Target",
    "compile_object",
    "compile_objects",
    "emit_assembly",
    "has_fma",
    "host_lanes32",
    "host_target",
    "llvm_version",
    "undefined_symbols",
]

# One caller at a time uses LLVM, whose threads may compile side by side.  The lock is held over a fork, so that a child
# never inherits LLVM in the middle of something.
_LOCK = threading.RLock()

# What code may call from outside: LLVM makes these of fills and copies.  Anything else, above all a function of
# libm, whose bits differ between systems, is a bug in an emitter.
_ALLOWED = ("memcpy", "memmove", "memset")

_NAMES = itertools.count()

# Code to be unloaded, and modules to be freed, by whoever holds the lock next.
_UNUSED: deque[Any] = deque()

# Threads that may still compile for someone who was interrupted.
_HELPERS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Target:
    """What code is made for.

    Attributes:
        triple: LLVM's name of processor and system.
        cpu: LLVM's name of the model, such as ``znver3`` or ``x86-64``.
        features: LLVM's list of instruction sets, such as ``+avx2,+fma``.
    """

    triple: str
    cpu: str
    features: str

    def has(self, feature: str) -> bool:
        """Whether an instruction set is in the list."""
        return f"+{feature}" in self.features.split(",")

    @property
    def is_x86(self) -> bool:
        return self.triple.startswith("x86_64")

    @property
    def lanes32(self) -> int:
        """How many float32 a vector should hold.

        16 with AVX-512 (F, BW, DQ and VL): twice the work per instruction and twice the registers.  Some older
        servers lower their clock for it, by less than what products gain.  8 with AVX2; otherwise 4 (SSE2, NEON).
        """
        if self.is_x86 and all(map(self.has, ("avx512f", "avx512bw", "avx512dq", "avx512vl"))):
            return 16
        return 8 if self.is_x86 and self.has("avx2") else 4


def has_fma(target: Target) -> bool:
    """Whether ``llvm.fma`` is an instruction; where it is not, code must multiply and add."""
    return target.has("fma") if target.is_x86 else target.triple.startswith(("aarch64", "arm64"))


@functools.cache
def host_target() -> Target:
    """This machine."""
    llvm = _llvm()
    with _LOCK:
        triple = llvm.get_process_triple()
        # ELF is the format that LLVM's in-process linker knows best; Windows does not mind.
        triple += "-elf" if os.name == "nt" else ""
        return Target(triple, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


def host_lanes32() -> int:
    """How many float32 a vector of this machine should hold; see `Target.lanes32`."""
    return host_target().lanes32


def llvm_version() -> str:
    """The versions of llvmlite and of LLVM, such as ``0.50.0/22.1.0``."""
    llvm = _llvm()
    import llvmlite

    return f"{llvmlite.__version__}/{'.'.join(map(str, llvm.llvm_version_info))}"


def compile_object(text: str, target: Target | None = None, opt: int = 1) -> bytes:
    """Object code for LLVM IR; the same text gives the same bytes.

    Args:
        text: a module.
        target: what for; this machine if None.
        opt: effort of the code generator, 0 to 3; above 1 the code stays the same and takes longer to make.  No passes
            over the module are run.

    Raises:
        EngineError: the IR is malformed, or the code would call a function that is not in it.
    """
    return compile_objects([text], target, opt)[0]


def compile_objects(texts: Sequence[str], target: Target | None = None, opt: int = 1, threads: int = 1) -> list[bytes]:
    """Object code for modules that may call one another's functions.

    Args:
        texts: the modules.
        target, opt: as for `compile_object`.
        threads: how many threads compile, each a module at a time.

    Raises:
        EngineError: as for `compile_object`.
    """
    target = target or host_target()
    with _LOCK:
        _settle()
        found = _side_by_side([_parse(text) for text in texts], target, opt, threads)
    tables = [_symbols(content) for content in found]
    known = {*_ALLOWED, *(name for defined, _ in tables for name in defined)}
    strangers = sorted({name for _, undefined in tables for name in undefined} - known)
    if strangers:
        raise EngineError(f"the generated code calls {', '.join(strangers)}; expected nothing outside of itself")
    return found


@dataclass(frozen=True, slots=True)
class _Emitted:
    """What LLVM made of a module: a buffer of its own, or none and the reason."""

    buffer: Any
    message: bytes


def _side_by_side(modules: Sequence[Any], target: Target, opt: int, threads: int) -> list[bytes]:
    """Object code for each module, this thread being one of several that make it.

    The others call the code generator and nothing else, so they wait for no lock, and own what they use, so whoever is
    interrupted need not wait for them.
    """
    emit, free = _emitter()
    found: dict[int, _Emitted] = {}
    waiting = deque(range(len(modules)))

    def work(machine: Any) -> None:
        while waiting:
            try:
                number = waiting.popleft()
            except IndexError:  # another thread took the last one
                break
            found[number] = _emitted(emit, machine, modules[number])
        _idle(target, opt).append(machine)

    def help(machine: Any) -> None:
        work(machine)
        # Where this was the last to know the modules, they must not be freed here, which waits for llvmlite's lock.
        _UNUSED.append(modules)

    helpers: list[threading.Thread] = []
    try:
        while free and len(helpers) < min(threads, len(modules)) - 1:
            machine = _idle_machine(target, opt)
            helper = threading.Thread(target=help, args=(machine,))
            _HELPERS.add(helper)
            try:
                helper.start()
            except RuntimeError:  # no more threads can be started
                _idle(target, opt).append(machine)
                break
            helpers.append(helper)
        work(_idle_machine(target, opt))
    finally:
        waiting.clear()
    for helper in helpers:
        helper.join()
    if len(found) < len(modules):  # a helper came to grief
        machine = _idle_machine(target, opt)
        for number in set(range(len(modules))) - set(found):
            found[number] = _emitted(emit, machine, modules[number])
        _idle(target, opt).append(machine)
    return [_content(found[number]) for number in range(len(modules))]


def _emitter() -> tuple[Callable[..., Any], bool]:
    """llvmlite's way into the code generator, and whether several threads may be in it.

    llvmlite lets one thread at a time into LLVM.  LLVM itself asks for no such thing where every thread has a context
    and a code generator of its own.
    """
    from llvmlite.binding import ffi

    locked = ffi.lib.LLVMPY_TargetMachineEmitToMemory
    inner = getattr(locked, "_cfn", None)  # a version of llvmlite that keeps it elsewhere compiles in one thread
    return (locked, False) if inner is None else (inner, True)


def _emitted(emit: Callable[..., Any], machine: Any, module: Any) -> _Emitted:
    message = ctypes.c_char_p(None)
    buffer = emit(machine, module, 1, ctypes.byref(message))
    return _Emitted(buffer, message.value or b"")


def _content(emitted: _Emitted) -> bytes:
    """An object's bytes; the buffer is freed.

    Raises:
        EngineError: LLVM gave a reason instead.
    """
    from llvmlite.binding import ffi

    if not emitted.buffer:
        raise EngineError(f"LLVM cannot compile the generated code: {emitted.message.decode(errors='replace')}")
    try:
        start, size = ffi.lib.LLVMPY_GetBufferStart(emitted.buffer), ffi.lib.LLVMPY_GetBufferSize(emitted.buffer)
        return ctypes.string_at(start, size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(emitted.buffer)


def emit_assembly(text: str, target: Target | None = None, opt: int = 1) -> str:
    """The assembly of LLVM IR, for tests and for the curious; arguments and errors as in `compile_object`."""
    target = target or host_target()
    with _LOCK:
        _settle()
        machine = _idle_machine(target, opt)
        assembly: str = machine.emit_assembly(_parse(text))
        _idle(target, opt).append(machine)
        return assembly


def undefined_symbols(content: bytes) -> list[str]:
    """The names that an ELF object leaves to the linker, sorted; nothing is known of other formats."""
    return sorted(_symbols(content)[1])


def _symbols(content: bytes) -> tuple[set[str], set[str]]:
    """The names that an ELF object defines, and those that it leaves to the linker."""
    defined: set[str] = set()
    undefined: set[str] = set()
    if content[:4] != b"\x7fELF":
        return defined, undefined
    (sections,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", content, sections + size * i) for i in range(count)]
    for _, kind, _, _, offset, length, link, _, _, entry in headers:
        if kind != 2:  # not a symbol table
            continue
        names = headers[link][4]
        # The first symbol of every table is empty.
        for place in range(offset + entry, offset + length, entry):
            name, _, _, section = struct.unpack_from("<IBBH", content, place)
            start = names + name
            (defined if section else undefined).add(content[start : content.index(b"\0", start)].decode())
    return defined, undefined


class _Code:
    """Code in this process, unloaded after this object is gone; under the lock, like everything that LLVM does."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def __del__(self) -> None:
        if sys.is_finalizing():  # at the end of the process LLVM may be gone, and memory is freed anyway
            return
        # Never wait here: this may be a thread that whoever holds the lock waits for.
        _UNUSED.append(self._tracker)

    def address(self, name: str) -> int:
        """The address of a symbol."""
        found: int = self._tracker[name]
        return found


def _settle() -> None:
    """Wait for threads that still compile for someone who was interrupted, and give up what is no longer used.

    The lock is held.  Those threads wait for nobody.
    """
    for helper in list(_HELPERS):
        if helper.is_alive():
            helper.join()
    with contextlib.suppress(IndexError):  # nothing is left
        while True:
            item = _UNUSED.popleft()
            if hasattr(item, "close"):
                item.close()


class NativeFunction:
    """A function of a `Library`, called without the interpreter lock; keeps the code loaded."""

    __slots__ = ("_call", "_code", "address")

    def __init__(self, code: _Code, address: int, result: Any, arguments: Sequence[Any]) -> None:
        self._code, self.address = code, address
        self._call = ctypes.CFUNCTYPE(result, *arguments)(address)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class Library:
    """Objects in this process, linked together.

    The code is unloaded when neither the library nor any of its functions is referred to; a function that runs is.

    Args:
        objects: what `compile_objects` gave for this machine.
        symbols: the functions that will be asked for.

    Raises:
        EngineError: this is no object code for this machine, or a symbol is not in it.
    """

    def __init__(self, objects: Sequence[bytes], symbols: Sequence[str]) -> None:
        with _LOCK:
            _settle()
            jit = _jit()
            builder = _llvm().JITLibraryBuilder()
            for content in objects:
                builder.add_object_img(content)
            for name in symbols:
                builder.export_symbol(name)
            for name, address in _helpers().items():
                builder.import_symbol(name, address)
            try:
                self._code = _Code(builder.link(jit, f"chainrule{next(_NAMES)}"))
            except RuntimeError as error:
                raise EngineError(f"object code cannot be loaded: {error}") from error

    def function(self, name: str, result: Any, *arguments: Any) -> NativeFunction:
        """A function by its symbol.

        Args:
            name: one of the symbols given to the library.
            result, arguments: ctypes types; None for no result.
        """
        return NativeFunction(self._code, self._code.address(name), result, arguments)


# --- LLVM's own objects --------------------------------------------------------------------------


@functools.cache
def _llvm() -> Any:
    """llvmlite, ready for this machine."""
    import llvmlite.binding as llvm

    with _LOCK:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def _all_targets() -> None:
    """Make LLVM ready for other machines too."""
    _llvm().initialize_all_targets()
    _llvm().initialize_all_asmprinters()


def _idle_machine(target: Target, opt: int) -> Any:
    """A code generator that is nobody else's until it is given back, not even a signal handler's."""
    try:
        return _idle(target, opt).pop()
    except IndexError:
        return _new_machine(target, opt)


@functools.cache
def _idle(target: Target, opt: int) -> list[Any]:
    """Code generators that wait for their next use."""
    return []


def _new_machine(target: Target, opt: int) -> Any:
    """A code generator.  All of an object lies together in memory, so addresses are relative and short."""
    llvm = _llvm()
    if target.triple != host_target().triple:
        _all_targets()
    try:
        found = llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        raise EngineError(f"LLVM knows no target {target.triple!r}") from error
    # llvmlite would append its own -elf for the default code model on Windows; this is said in the triple instead.
    return found.create_target_machine(
        cpu=target.cpu, features=target.features, opt=opt, reloc="pic", codemodel="small"
    )


def _parse(text: str) -> Any:
    """A verified module, in a context of its own: the global one would keep what it has seen."""
    llvm = _llvm()
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise EngineError(f"LLVM refuses the generated code: {error}") from error
    return module


@functools.cache
def _jit() -> Any:
    """The linker of this process; it lives as long as the process."""
    return _llvm().create_lljit_compiler(_new_machine(host_target(), 2), use_jit_link=True)


@functools.cache
def _helpers() -> dict[str, int]:
    """The addresses of what code may call from outside."""
    libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
    return {name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0 for name in _ALLOWED}


def _pause() -> None:
    """Before a fork: let nobody in, and wait until the last is out."""
    _LOCK.acquire()
    _settle()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
