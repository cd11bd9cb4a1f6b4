"""Compiled steps, kept on disk from one process to the next.

Objects are code, and whoever can write them runs as the user.  So the folder must belong to this user and be
writable by nobody else, symbolic links are refused, and every entry carries a checksum that covers its key.  A
cache that cannot be used is no error: steps are compiled anew, and a warning says so once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import secrets
import stat
import struct
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.__about__ import __version__
from chainrule.engines.native.jit import Target, llvm_version
from chainrule.errors import ConfigError
from chainrule.files import reason, user_cache_folder

__all__ = ["Entry", "ObjectCache", "cache_key", "open_cache"]

_DEFAULT_MEGABYTES = 512

# An entry: the mark of the format, SHA-256 of key and rest, length of the text, the text (plan and sizes of the objects
# as JSON), the objects.
_MARK = b"chrule02"
_HEAD = struct.Struct("<8s32sQ")

_SUFFIX, _DRAFT = ".step", ".draft"

# A draft so old was left by a process that died.
_DRAFT_SECONDS = 3600.0

_SILENCE = "CHAINRULE_CACHE=off turns the cache off, CHAINRULE_CACHE=<folder> moves it"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the cache keeps of one step.

    Attributes:
        plan: whatever the engine needs beside the code, made of JSON's types.
        objects: the object code, in parts that are linked together.
    """

    plan: Any
    objects: tuple[bytes, ...]


def cache_key(text: str, target: Target) -> str:
    """The name under which a step is kept.

    Args:
        text: all that the code depends on, in a canonical form: step graph, configuration, version of the generator.
        target: what the code is made for.

    Returns:
        64 hexadecimal digits; they also cover the versions of chainrule, llvmlite and LLVM.
    """
    parts = (__version__, llvm_version(), target.triple, target.cpu, target.features, text)
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode()
        digest.update(struct.pack("<Q", len(content)) + content)
    return digest.hexdigest()


class ObjectCache:
    """A folder of compiled steps, safe to use from several processes at a time.

    Args:
        folder: exists, belongs to this user, and nobody else can write to it.
        limit: its size in bytes; what was used least recently goes first.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def load(self, key: str) -> Entry | None:
        """The entry of a key, or None; a damaged one is deleted."""
        path = self._path(key)
        try:
            content = _read_own_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            _warn(f"the code cache '{self.folder}' cannot be read ({reason(error)}); steps are compiled anew")
            return None
        entry = None if content is None else _decode(key, content)
        with contextlib.suppress(OSError):
            if entry is None:
                path.unlink()
            else:
                os.utime(path)
        return entry

    def store(self, key: str, plan: Any, objects: Sequence[bytes]) -> None:
        """Keep a step.  Where that fails, as on a full disk, the step is compiled again next time."""
        whole = _encode(key, plan, objects)
        if len(whole) > self.limit:
            return
        draft = self.folder / f"{secrets.token_hex(8)}{_DRAFT}"
        try:
            _write_own_file(draft, whole)
            draft.replace(self._path(key))
            self._shrink()
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            _warn(f"the code cache '{self.folder}' cannot be written ({reason(error)}); steps are compiled each time")

    def usage(self) -> tuple[int, int]:
        """How many steps are kept, and their bytes."""
        sizes = [size for _, size, _ in self._steps()]
        return len(sizes), sum(sizes)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _shrink(self) -> None:
        """Delete what was used least recently until the rest fits, and drafts that nobody finished."""
        with os.scandir(self.folder) as items:
            for item in items:
                if item.name.endswith(_DRAFT):
                    with contextlib.suppress(FileNotFoundError):
                        if time.time() - item.stat(follow_symlinks=False).st_mtime > _DRAFT_SECONDS:
                            os.unlink(item.path)
        found = self._steps()
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size

    def _steps(self) -> list[tuple[int, int, str]]:
        """Time of last use, bytes and path of every step."""
        found = []
        with os.scandir(self.folder) as items:
            for item in items:
                if item.name.endswith(_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):  # other processes delete too
                        facts = item.stat(follow_symlinks=False)
                        found.append((facts.st_mtime_ns, facts.st_size, item.path))
        return found


def open_cache() -> ObjectCache | None:
    """The cache that the environment asks for, or None where there is none.

    ``CHAINRULE_CACHE`` is a folder or ``off``, ``CHAINRULE_CACHE_SIZE`` the limit in megabytes, 0 for no cache.

    Raises:
        ConfigError: the size is no whole number.
    """
    named = os.environ.get("CHAINRULE_CACHE", "")
    limit = _megabytes(os.environ.get("CHAINRULE_CACHE_SIZE", "")) * 10**6
    if named == "off" or not limit:
        return None
    try:
        folder = Path(named).expanduser().absolute() if named else user_cache_folder(sys.platform, os.environ)
        _make_folder(folder)
        problem = _distrust(folder)
    except (OSError, RuntimeError) as error:  # Path.home knows no home
        words = reason(error) if isinstance(error, OSError) else str(error)
        _warn(f"no folder for the code cache ({words}); steps are compiled anew in every process")
        return None
    if problem:
        _warn(f"the code cache '{folder}' is not used, since {problem}; steps are compiled anew in every process")
        return None
    return ObjectCache(folder, limit)


# --- The folder ----------------------------------------------------------------------------------


def _make_folder(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)


def _distrust(folder: Path) -> str:
    """Why code from a folder must not be run; empty where it may be."""
    facts = folder.lstat()
    if stat.S_ISLNK(facts.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(facts.st_mode):
        return "it is no folder"
    return _foreign(facts)


def _foreign(facts: os.stat_result) -> str:
    """How somebody else could have written a file or folder; on Windows, the user's profile is protected by itself."""
    if os.name != "posix":
        return ""
    if facts.st_uid != os.geteuid():
        return f"it belongs to the user with number {facts.st_uid}"
    if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can write to it (its mode is {stat.S_IMODE(facts.st_mode):o}; expected 700)"
    return ""


# --- Files ---------------------------------------------------------------------------------------


def _read_own_file(path: Path) -> bytes | None:
    """The content of a file that nobody else can have written; None for anything else."""
    if path.is_symlink():
        return None
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or _foreign(facts):
            return None
        return file.read()


def _write_own_file(path: Path, content: bytes) -> None:
    """Write a new file that only this user can read.  Not forced to the disk: the checksum finds what a crash tore."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)


def _encode(key: str, plan: Any, objects: Sequence[bytes]) -> bytes:
    text = json.dumps([plan, [len(one) for one in objects]], separators=(",", ":")).encode()
    content = b"".join(objects)
    return _HEAD.pack(_MARK, _checksum(key, text, content), len(text)) + text + content


def _decode(key: str, whole: bytes) -> Entry | None:
    """What `_encode` encoded; None if a bit of it is another."""
    if len(whole) < _HEAD.size:
        return None
    mark, checksum, length = _HEAD.unpack_from(whole)
    text, content = whole[_HEAD.size : _HEAD.size + length], whole[_HEAD.size + length :]
    if mark != _MARK or len(text) != length or checksum != _checksum(key, text, content):
        return None
    plan, sizes = json.loads(text)
    ends = list(itertools.accumulate(sizes, initial=0))
    return Entry(plan, tuple(content[start:end] for start, end in itertools.pairwise(ends)))


def _checksum(key: str, text: bytes, content: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(struct.pack("<Q", len(text)))
    digest.update(text)
    digest.update(content)
    return digest.digest()


def _megabytes(text: str) -> int:
    if not text:
        return _DEFAULT_MEGABYTES
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(f"CHAINRULE_CACHE_SIZE is {text!r}; expected a whole number of megabytes")
    return int(text)


@functools.cache
def _warn(text: str) -> None:
    """Warn, once in a process."""
    warnings.warn(f"{text}; {_SILENCE}", RuntimeWarning, stacklevel=3)
