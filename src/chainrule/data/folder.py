"""Pictures in a folder for each class, or listed with their classes in a csv file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from chainrule.data.listing import Listed, listed_files
from chainrule.data.pictures import Fit, is_picture, picture_size, read_picture
from chainrule.data.source import Source
from chainrule.errors import ConfigError, DataError
from chainrule.files import openable, readable, reason
from chainrule.graph.op import Array

__all__ = ["GREY", "Pictures", "class_folders", "listed_pictures", "picture_folder", "picture_list", "pictures_below"]

GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
"""Pillow's modes without colour."""

_TOGETHER = 64  # headers that a thread reads at once
_END_BYTES = 1 << 16  # of a file's start and end count for its identity


class Pictures(Source):
    """Picture files with class numbers; each is decoded when it is needed.

    Args:
        files: paths.
        labels: the class number of each.
        class_names: the name of each class.
        size: height and width of a sample; by default that of the first file, which all others must have.
        channels: 1 for grey, 3 for colour; None for what the first picture of each class is: grey if all of them are.
        fit: how a picture of another size is brought to `size`; see `read_picture`.

    Raises:
        DataError: there are no files, or the first cannot be read.
    """

    def __init__(
        self,
        files: Sequence[str],
        labels: Sequence[int],
        class_names: Sequence[str],
        size: tuple[int, int] | None = None,
        channels: int | None = 3,
        fit: Fit = "cover",
    ) -> None:
        if channels not in (1, 3, None):
            raise ConfigError(f"pictures have 1 channel (grey) or 3 (colour), got {channels!r}")
        if fit not in ("cover", "contain", "stretch"):
            raise ConfigError(f"fit must be 'cover', 'contain' or 'stretch', got {fit!r}")
        if not files:
            raise DataError("there are no pictures")
        self.files, self.labels = tuple(files), np.asarray(labels, np.int64)
        self.class_names = tuple(class_names)
        self.fit: Fit = fit
        self._size = size
        channels = self._channels() if channels is None else channels
        height, width = size if size is not None else picture_size(self.files[0])[:2]
        self.shape, self.dtype = (height, width, channels), np.dtype(np.uint8)

    def _channels(self) -> int:
        """1 if the first picture of each class is grey, else 3."""
        firsts = np.unique(self.labels, return_index=True)[1]
        return 1 if all(picture_size(self.files[first])[2] in GREY for first in firsts) else 3

    def read(self, number: int) -> Array:
        path = self.files[number]
        found = read_picture(path, self.shape[2], self._size, self.fit)
        self._check_size(path, found.shape[0], found.shape[1])
        return found

    def check(self, workers: int = 2, numbers: Array | None = None) -> None:
        """Read the header of every file: all are pictures, and of one size where none was given."""
        rows = np.arange(len(self)) if numbers is None else numbers
        pieces = (rows[low : low + _TOGETHER] for low in range(0, len(rows), _TOGETHER))
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(self._check_some, pieces):  # in order: the first is named, the rest left
                pass

    def _check_some(self, numbers: Array) -> None:
        for number in numbers:
            height, width, _ = picture_size(self.files[number])
            if self._size is None:
                self._check_size(self.files[number], height, width)

    def _check_size(self, path: str, height: int, width: int) -> None:
        if (height, width) != self.shape[:2]:
            raise DataError(
                f"'{readable(path)}' is {height}x{width} pixels, the first picture {self.shape[0]}x{self.shape[1]}; "
                "give a size (--size) to bring all of them to"
            )

    def identity(self, number: int) -> bytes:
        """Folder, name and size of a file, and the SHA-256 of its first and last 64 KiB (all of a small one)."""
        path = self.files[number]
        try:
            size, digest = _ends(path)
        except (OSError, ValueError) as error:
            raise DataError(f"'{readable(path)}': cannot be read ({reason(error)})") from None
        place = os.path.join(os.path.basename(os.path.dirname(path)), os.path.basename(path))
        return os.fsencode(place) + b":%d:" % size + digest


def _ends(path: str) -> tuple[int, bytes]:
    """The size of a file, and the SHA-256 of its first and last part."""
    with open(path, "rb", buffering=0) as file:
        start = file.read(_END_BYTES)
        size = len(start)
        digest = hashlib.sha256(start)
        if size == _END_BYTES:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(_END_BYTES, size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    return size, digest.digest()


def picture_folder(
    folder: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = 3,
    fit: Fit = "cover",
    class_names: Sequence[str] | None = None,
) -> Pictures:
    """The pictures of a folder that holds a folder for each class, both in the order of their names.

    Args:
        folder: such as one with ``cat/1.jpg`` and ``dog/2.png``; deeper folders belong to their class.
        size, channels, fit: as for `Pictures`.
        class_names: the classes and their order, where the folder may lack some; by default the folders found.

    Raises:
        DataError: there is no such folder, or no class, or a class without a picture; a folder of no known class.
    """
    root = Path(folder)
    found = class_folders(root)
    names = list(found) if class_names is None else list(class_names)
    unknown = [name for name in found if name not in names]
    if unknown:
        raise DataError(f"'{readable(root)}': the folder {unknown[0]!r} is none of the classes {', '.join(names)}")
    files: list[str] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        own = pictures_below(found[name]) if name in found else []
        if not own and class_names is None:
            raise DataError(f"'{readable(found[name])}' holds no picture; expected one or more of the class {name!r}")
        files += own
        labels += [number] * len(own)
    if not files:
        raise DataError(f"'{readable(root)}' holds no pictures of the classes {', '.join(names)}")
    return Pictures(files, labels, names, size, channels, fit)


def class_folders(root: Path) -> dict[str, Path]:
    """The folders of a folder by name, hidden ones left out.

    Raises:
        DataError: there is no such folder, or it holds none.
    """
    try:
        with os.scandir(root) as found_there:
            entries = sorted(found_there, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        raise DataError(f"'{readable(root)}': cannot be read ({reason(error)}); expected a folder of classes") from None
    found = {
        readable(entry.name): Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")
    }
    if not found:
        loose = sum(is_picture(entry.name) for entry in entries)
        hint = f"; its {loose} pictures lie in no class's folder" if loose else ""
        raise DataError(f"'{readable(root)}' holds no folders; expected one for each class{hint}")
    return found


def pictures_below(folder: Path) -> list[str]:
    """The pictures of a folder and of those in it, in the order of their names."""
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort(key=os.fsencode)
        found += [os.path.join(place, name) for name in sorted(names, key=os.fsencode) if is_picture(name)]
    return found


def picture_list(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = 3,
    fit: Fit = "cover",
    class_names: Sequence[str] | None = None,
) -> Pictures:
    """The pictures that a csv file lists: a header, then a file and its class in each row.

    Args:
        path: UTF-8; the columns are called ``file`` (or path, filename, image) and ``class`` (or label).  Files are
            found from the csv file's folder.
        size, channels, fit: as for `Pictures`.
        class_names: the classes and their order; by default those found, in the order of their names.

    Raises:
        DataError: the file cannot be read, a column is missing, or a row cannot be understood; the row is named.  Or
            the list has several parts; see `picture_lists`.
    """
    source = Path(path)
    rows = listed_files(source)
    if rows[0].part:
        raise DataError(
            f"'{readable(source)}' has a column that says which part of the data set a picture is in; expected one "
            "part, or picture_lists, which reads all of them"
        )
    return listed_pictures(source, rows, size, channels, fit, class_names)


def listed_pictures(
    source: Path,
    rows: Sequence[Listed],
    size: tuple[int, int] | None,
    channels: int | None,
    fit: Fit,
    class_names: Sequence[str] | None = None,
) -> Pictures:
    """Rows of a csv file as pictures; see `picture_list`."""
    names = sorted({row.kind for row in rows}) if class_names is None else list(class_names)
    numbers = {name: number for number, name in enumerate(names)}
    for row in rows:
        if row.kind not in numbers:
            raise DataError(
                f"'{readable(source)}', row {row.line}: the class {row.kind!r} is none of {', '.join(names)}"
            )
    files = [os.path.join(source.parent, openable(row.file)) for row in rows]
    return Pictures(files, [numbers[row.kind] for row in rows], names, size, channels, fit)
