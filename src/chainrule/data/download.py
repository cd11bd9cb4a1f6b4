"""Data sets by name: fetched once from whichever address has them, and kept only if every byte is the published one.

A file is written under a hidden name beside its place, checked, flushed to the disk and renamed: under its own name it
is whole or absent.  `published.py` says what is right and who has it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import secrets
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chainrule.data.address import BLOCK, Refusal, receive
from chainrule.data.idx import idx_names
from chainrule.data.published import DATA_SETS, PublishedFile
from chainrule.errors import ConfigError, DataError
from chainrule.files import readable, reason, user_cache_folder

__all__ = ["Download", "data_folder", "fetch", "note"]

_GZIP_MAGIC = b"\x1f\x8b"
_PART, _PART_SECONDS = ".part", 86400.0  # a draft so old was left by a process that died


@dataclass(frozen=True)
class Download:
    """What is going on, as `fetch` reports it.

    Attributes:
        file: the path that the file will have.
        address: where it comes from.
        received: bytes so far; 0 when the address is about to be asked.
        total: bytes that the server announced, or None.
        done: whether the file is there now, whole and checked.
        failure: why this address was given up; empty unless it was.
    """

    file: str
    address: str
    received: int = 0
    total: int | None = None
    done: bool = False
    failure: str = ""


def note(event: Download) -> None:
    """Print what is fetched from where to standard error, a line for each address that is asked or given up."""
    if event.failure:
        print(f"chainrule: {event.address}: {event.failure}", file=sys.stderr, flush=True)
    elif not event.received and not event.done:
        print(f"chainrule: downloading {event.address} to '{readable(event.file)}'", file=sys.stderr, flush=True)


def data_folder(name: str) -> Path:
    """Where the files of a data set are kept: ``CHAINRULE_DATA_HOME/NAME``, else in the user's cache folder.

    Raises:
        ConfigError: the user has no home folder.
    """
    home = os.environ.get("CHAINRULE_DATA_HOME", "")
    try:
        if home:
            return Path(home).expanduser().absolute() / name
        return user_cache_folder(sys.platform, os.environ) / "data" / name
    except RuntimeError as error:  # Path.home knows no home
        raise ConfigError(f"no folder for the data set {name} ({error}); set CHAINRULE_DATA_HOME") from None


def fetch(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    mirrors: Sequence[str] | None = None,
    timeout: float = 30.0,
    report: Callable[[Download], None] = note,
) -> Path:
    """See to it that a folder holds the published files of a data set; those that are absent are downloaded.

    Args:
        name: a name from `DATA_SETS`.
        folder: where the files belong; by default that of `data_folder`.  It is made if it is absent.
        mirrors: addresses to take instead of the known ones; the files are looked for in ``MIRROR/NAME/``.  By default
            those in ``CHAINRULE_DATA_MIRROR``, separated by spaces, if it is set.
        timeout: seconds of silence after which an address is given up.
        report: told of every step; by default lines on standard error.

    Returns:
        The folder.

    Raises:
        ConfigError: no such data set.
        DataError: the folder cannot be made; a file could not be had, where the message says why and `report` was
            told of each address; or a file is there already and its content is not the published one, and stays.

    >>> fetch("cifar")
    Traceback (most recent call last):
        ...
    chainrule.errors.ConfigError: there is no data set 'cifar' to fetch; expected one of mnist, fashion-mnist
    """
    if name not in DATA_SETS:
        raise ConfigError(f"there is no data set {name!r} to fetch; expected one of {', '.join(DATA_SETS)}")
    place = data_folder(name) if folder is None else Path(folder)
    bases = _bases(name, mirrors)
    for file in DATA_SETS[name].files:
        present = _present(place, file)
        if present is not None:
            _check_present(present, file)
        else:
            _fetch_file(file, place, bases, timeout, report)
    return place


def _bases(name: str, mirrors: Sequence[str] | None) -> list[str]:
    if mirrors is None:
        mirrors = os.environ.get("CHAINRULE_DATA_MIRROR", "").split()
    return [f"{mirror.rstrip('/')}/{name}" for mirror in mirrors] or list(DATA_SETS[name].addresses)


# -- files that are there ---------------------------------------------------------------------------------------


def _present(folder: Path, file: PublishedFile) -> Path | None:
    found = (folder / name for name in idx_names(file.stem, file.rank))
    return next((path for path in found if os.path.lexists(path)), None)


def _check_present(path: Path, file: PublishedFile) -> None:
    try:
        with path.open("rb") as stream:
            problem = _problem(stream, file)
    except OSError as error:
        raise DataError(
            f"'{readable(path)}': cannot be read ({reason(error)}); expected the published {file.name}"
        ) from None
    if problem:
        raise DataError(
            f"'{readable(path)}' is not the published {file.name}: {problem}; move it away to have it downloaded"
        )


def _problem(stream: IO[bytes], file: PublishedFile) -> str:
    """What is wrong with a file's content, plain or packed; empty if it is the published one."""
    start = stream.read(len(_GZIP_MAGIC))
    stream.seek(0)
    digest, size = hashlib.sha256(), 0
    try:
        for block in _blocks(gzip.GzipFile(fileobj=stream, mode="rb") if start == _GZIP_MAGIC else stream):
            digest.update(block)
            size += len(block)
            if size > file.size:
                return f"it has more than the {file.size} bytes, unpacked, that were expected"
    except EOFError:
        return f"the gzip stream is truncated, after {size} of {file.size} bytes"
    except (gzip.BadGzipFile, zlib.error) as error:
        return f"the gzip stream is corrupted ({error})"
    if size < file.size:
        return f"it has {size} bytes, unpacked, and {file.size} were expected"
    if digest.hexdigest() != file.sha256:
        return f"its content has the SHA-256 {digest.hexdigest()}, unpacked, and {file.sha256} was expected"
    return ""


def _blocks(stream: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while block := stream.read(BLOCK):
        yield block


# -- files that are not -----------------------------------------------------------------------------------------


def _fetch_file(
    file: PublishedFile, folder: Path, bases: Sequence[str], timeout: float, report: Callable[[Download], None]
) -> None:
    _make_folder(folder)
    failures: dict[str, str] = {}
    try:
        _remove_old_drafts(folder, file)
        for base in bases:
            event = Download(str(folder / f"{file.name}.gz"), f"{base}/{file.name}.gz")
            report(event)
            try:
                target = _try(file, folder, event, timeout, report)
            except Refusal as refusal:
                failures[event.address] = str(refusal)
                report(Download(event.file, event.address, failure=str(refusal)))
            else:
                size = target.stat().st_size
                report(Download(str(target), event.address, size, size, done=True))
                return
    except OSError as error:
        raise DataError(f"'{readable(folder / file.name)}.gz': cannot be written ({reason(error)})") from None
    # Each address and its failure has been reported; here each reason stands once.
    where = next(iter(failures)) if len(failures) == 1 else f"any of {len(failures)} addresses"
    raise DataError(
        f"'{readable(folder / file.name)}.gz' could not be downloaded from {where} "
        f"({'; '.join(dict.fromkeys(failures.values()))}); name a folder that has the files (--data FOLDER), or an "
        "address that has them in CHAINRULE_DATA_MIRROR"
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = "it is a file" if isinstance(error, FileExistsError) else reason(error)
        raise DataError(f"'{readable(folder)}': cannot be made ({why}); expected the name of a folder") from None


def _try(
    file: PublishedFile, folder: Path, event: Download, timeout: float, report: Callable[[Download], None]
) -> Path:
    """Have a file from one address; gives its path."""

    def progress(received: int, total: int | None) -> None:
        report(Download(event.file, event.address, received, total))

    draft = folder / f".{file.name}.{secrets.token_hex(8)}{_PART}"
    try:
        with draft.open("x+b") as stream:
            receive(event.address, file.size, stream, timeout=timeout, progress=progress)
            stream.seek(0)
            packed = stream.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            stream.seek(0)
            if problem := _problem(stream, file):
                raise Refusal(problem)
            os.fsync(stream.fileno())
        target = folder / (file.name + ".gz" * packed)
        _settle(draft, target, file)
        return target
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _settle(draft: Path, target: Path, file: PublishedFile) -> None:
    """Give a checked file its name, unless another process was quicker; nothing is overwritten."""
    try:
        os.link(draft, target)
    except FileExistsError:
        _check_present(target, file)
    except OSError:  # a file system without links
        if target.exists():
            _check_present(target, file)
        else:
            draft.replace(target)


def _remove_old_drafts(folder: Path, file: PublishedFile) -> None:
    ours = re.compile(rf"\.{re.escape(file.name)}\.[0-9a-f]{{16}}{re.escape(_PART)}")  # the folder may hold much else
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process deletes too
            if ours.fullmatch(path.name) and time.time() - path.stat().st_mtime > _PART_SECONDS:
                path.unlink()
