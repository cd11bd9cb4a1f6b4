"""Files that appear whole or not at all, and their names as text."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from chainrule.errors import RunFolderError

__all__ = [
    "make_folder",
    "openable",
    "readable",
    "reason",
    "remove_drafts",
    "user_cache_folder",
    "write_bytes_atomic",
    "write_text_atomic",
]

_DRAFT = re.compile(r"\.[0-9a-f]{16}\.tmp")


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file; a reader sees the old file or the whole new one, even after a crash.

    Args:
        path: The file, in a folder that exists. An older file of that name is replaced.
        text: The content; line ends are written as they are.

    Raises:
        RunFolderError: The text has no UTF-8 form or the file cannot be written; an older one is
            left as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text_atomic(Path(folder) / "notes.txt", "epoch 1")
        ...     (Path(folder) / "notes.txt").read_text()
        'epoch 1'
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise RunFolderError(
            f"'{path}': cannot be written, since the text has the lone surrogate "
            f"{text[error.start]!a}; expected text that UTF-8 can hold"
        ) from error
    write_bytes_atomic(path, content)


def write_bytes_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file; a reader sees the old file or the whole new one, even after a crash.

    Args:
        path: The file, in a folder that exists. An older file of that name is replaced.
        content: The bytes.

    Raises:
        RunFolderError: The file cannot be written; an older one is left as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_bytes_atomic(Path(folder) / "weights.bin", bytes(4))
        ...     sorted(file.name for file in Path(folder).iterdir())
        ['weights.bin']
    """
    target = Path(path)
    draft = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        _write_durably(draft, content)
        draft.replace(target)
        _sync_folder(target.parent)
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"'{target}': cannot be written ({reason(error)}); expected a file name in a folder that can be written to"
        ) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Delete what a process that was killed left half written in a folder that nobody else writes into."""
    for path in folder.glob(".*.tmp"):
        if _DRAFT.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those that it lies in, where they are not there yet.

    Raises:
        RunFolderError: It cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_folder(Path(folder) / "a" / "b")
        ...     (Path(folder) / "a" / "b").is_dir()
        True
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"'{path}': cannot be made ({reason(error)}); expected the name of a folder") from None


def user_cache_folder(system: str, variables: Mapping[str, str]) -> Path:
    """Where the system wants caches of this user."""
    if system == "win32":
        return Path(variables.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "chainrule" / "cache"
    if system == "darwin":
        return Path.home() / "Library" / "Caches" / "chainrule"
    shelf = variables.get("XDG_CACHE_HOME", "")
    # The specification says that a relative path there counts for nothing.
    return (Path(shelf) if shelf.startswith("/") else Path.home() / ".cache") / "chainrule"


def readable(path: str | os.PathLike[str]) -> str:
    """A path as UTF-8 has it, whatever the locale (``LANG=C``) makes of its bytes: what is stored, compared or printed.

    Args:
        path: as the system gives it.  A text that the system could not have given is readable already.

    Example:
        >>> readable(Path("cat") / "1.png").replace(os.sep, "/")
        'cat/1.png'
    """
    try:
        return os.fsencode(path).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return os.fspath(path)


def openable(text: str) -> str:
    """The path that a text means which came from a file's content; the inverse of `readable`.

    Raises:
        UnicodeEncodeError: No file can be called so; a `ValueError`, as `open` raises for such names.

    Example:
        >>> openable(readable("猫.png")) == "猫.png"
        True
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def reason(error: Exception) -> str:
    """The operating system's words for an error, without number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system can; the content is already safe."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
