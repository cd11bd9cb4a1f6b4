"""Run folders that never touch what existed."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from pathlib import Path

from chainrule.errors import RunFolderError
from chainrule.files import reason

__all__ = ["create_run_folder"]


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
