"""Run folders that never touch what existed, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import tempfile
from pathlib import Path

from chainrule.errors import RunFolderError

__all__ = ["create_run_folder", "write_bytes_atomic", "write_text_atomic"]


def create_run_folder(
    path: str | os.PathLike[str] | None,
    name: str,
    root: str | os.PathLike[str] = Path("runs"),
) -> Path:
    """Create the folder of a new run.

    Args:
        path: The folder; it must not exist yet, or be empty. Missing parents are created. With
            ``None``, the first of ``root/NAME-1``, ``root/NAME-2``, ... that does not exist; two
            runs that start at the same time get different folders.
        name: The run's name, a plain file name.
        root: Where the numbered folders lie.

    Returns:
        The folder, empty and writable.

    Raises:
        RunFolderError: The folder holds something, or cannot be created or written to.

    Example:
        >>> with tempfile.TemporaryDirectory() as root:
        ...     first = create_run_folder(None, "mnist", root=root)
        ...     second = create_run_folder(None, "mnist", root=root)
        >>> first.name, second.name
        ('mnist-1', 'mnist-2')
    """
    try:
        folder = _create_numbered(name, Path(root)) if path is None else _create_given(Path(path))
        _check_writable(folder)
    except RunFolderError:
        raise
    except (OSError, ValueError) as error:
        came = Path(root) / f"{name}-N" if path is None else path
        raise RunFolderError(
            f"run folder '{came}' cannot be created or written to ({reason(error)}); expected a "
            "path in a folder that can be written to"
        ) from error
    return folder


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file; a reader sees the old file or the whole new one, even after a crash.

    Args:
        path: The file, in a folder that exists. An older file of that name is replaced.
        text: The content; line ends are written as they are.

    Raises:
        RunFolderError: The text has no UTF-8 form or the file cannot be written; an older one is
            left as it was.

    Example:
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


def reason(error: Exception) -> str:
    """The operating system's words for an error, without number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _create_numbered(name: str, root: Path) -> Path:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise RunFolderError(f"the run name is {name!r}; expected a plain file name")
    root.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            folder = root / f"{name}-{number}"
            folder.mkdir()
            return folder
    raise AssertionError("itertools.count does not end")


def _create_given(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if folder.is_dir():
            _check_empty(folder)
        elif os.path.lexists(folder):
            raise RunFolderError(f"run folder '{folder}' is not a folder; expected a new or empty folder") from None
        else:
            raise
    return folder


def _check_empty(folder: Path) -> None:
    found = sorted(entry.name for entry in folder.iterdir())
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise RunFolderError(
            f"run folder '{folder}' already holds '{found[0]}'{more}; expected a new or empty "
            "folder, so that nothing is overwritten"
        )


def _check_writable(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


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
