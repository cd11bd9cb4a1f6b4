"""What a folder of pictures is like: what is broken, what is twice there, how classes and pixels are spread."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from chainrule.data.folder import class_folders, pictures_below
from chainrule.data.pictures import picture_size, read_picture
from chainrule.errors import DataError

__all__ = ["FolderReport", "PartReport", "check_folder"]

_PARTS = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))
"""What folders of parts are called."""


@dataclass(frozen=True)
class PartReport:
    """One part of a data set: a folder with a folder for each class.

    Attributes:
        name: of the folder; empty where the data set has no parts.
        classes: pictures that can be read, by class.
        broken: each file that cannot be read, and why.
        sizes: how many pictures have each size, (height, width).
        modes: how many have each of Pillow's modes, such as ``RGB`` and ``L``.
        mean, deviation: of each colour over all pixels, 0 to 1.
        duplicates: groups of files of this part with the same pixels.
    """

    name: str
    classes: Mapping[str, int]
    broken: Mapping[str, str]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    duplicates: Sequence[Sequence[str]]

    @property
    def pictures(self) -> int:
        """How many can be read."""
        return sum(self.classes.values())


@dataclass(frozen=True)
class FolderReport:
    """A whole data set.

    Attributes:
        folder: where it lies.
        parts: its parts.
        shared: groups of files with the same pixels that lie in more than one part.
        conflicts: groups of files with the same pixels in several classes.
    """

    folder: str
    parts: Sequence[PartReport]
    shared: Sequence[Sequence[str]]
    conflicts: Sequence[Sequence[str]]

    def problems(self) -> list[str]:
        """What should be looked at, a sentence each; empty if nothing."""
        found = []
        for part in self.parts:
            where = f"{part.name}: " if part.name else ""
            if part.broken:
                name, why = next(iter(part.broken.items()))
                found.append(f"{where}{_count(len(part.broken), 'file')} cannot be read, such as {name}: {why}")
            if len(part.sizes) > 1:
                found.append(f"{where}pictures have {len(part.sizes)} sizes; training needs a size to bring them to")
            if len(part.modes) > 1:
                found.append(f"{where}pictures have the modes {', '.join(sorted(part.modes))}")
            small = [name for name, count in part.classes.items() if count < 2]
            if small:
                many = _count(len(small), "class", "classes")
                found.append(f"{where}{many} with fewer than 2 pictures, such as {small[0]}")
            if part.classes and max(part.classes.values()) > 10 * max(1, min(part.classes.values())):
                found.append(f"{where}the largest class has more than 10 times the pictures of the smallest")
            if part.duplicates:
                found.append(f"{where}{_count(len(part.duplicates), 'picture')} there more than once")
        classes = [set(part.classes) for part in self.parts]
        if any(names != classes[0] for names in classes[1:]):
            found.append("the parts do not have the same classes")
        if self.shared:
            such = " and ".join(self.shared[0][:2])
            found.append(f"{_count(len(self.shared), 'picture')} in more than one part, such as {such}")
        if self.conflicts:
            such = " and ".join(self.conflicts[0][:2])
            found.append(f"{_count(len(self.conflicts), 'picture')} in several classes, such as {such}")
        return found


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


@dataclass
class _Found:
    """What was seen so far of one part."""

    classes: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    pixels: int = 0
    total: np.ndarray[tuple[int], np.dtype[np.float64]] = field(default_factory=lambda: np.zeros(3))
    square: np.ndarray[tuple[int], np.dtype[np.float64]] = field(default_factory=lambda: np.zeros(3))
    content: dict[bytes, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))


def check_folder(folder: str | os.PathLike[str], workers: int = 2) -> FolderReport:
    """Read every picture of a data set, and report on them.

    Args:
        folder: a folder of classes, or one of parts (``train``, ``validation``, ``test``) that hold folders of classes.
        workers: threads that read.

    Raises:
        DataError: there is no such folder, or it holds no classes.
    """
    root = Path(folder)
    found = {name: _part(root, place, workers) for name, place in _parts(root)}
    everywhere: dict[bytes, list[tuple[str, str, str]]] = defaultdict(list)
    for name, part in found.items():
        for digest, files in part.content.items():
            everywhere[digest] += [(name, kind, file) for kind, file in files]
    groups = [files for files in everywhere.values() if len(files) > 1]
    return FolderReport(
        str(root),
        [_report(name, part) for name, part in found.items()],
        [[file for _, _, file in files] for files in groups if len({part for part, _, _ in files}) > 1],
        [[file for _, _, file in files] for files in groups if len({kind for _, kind, _ in files}) > 1],
    )


def _parts(root: Path) -> list[tuple[str, Path]]:
    """The parts of a data set by name; one without a name where its folders are classes."""
    inside = class_folders(root)
    known = [name for names in _PARTS for name in inside if name.lower() in names]
    if len(known) == len(inside) and all(_holds_folders(inside[name]) for name in known):
        return [(name, inside[name]) for name in known]
    return [("", root)]


def _holds_folders(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() for entry in entries)


def _part(root: Path, folder: Path, workers: int) -> _Found:
    found = _Found()
    for kind, place in class_folders(folder).items():
        found.classes[kind] = 0
        files = pictures_below(place)
        with ThreadPoolExecutor(workers) as pool:
            for file, seen in zip(files, pool.map(_look, files), strict=True):
                name = os.path.relpath(file, root)
                if isinstance(seen, str):
                    found.broken[name] = seen
                else:
                    _add(found, kind, name, seen)
    return found


@dataclass(frozen=True)
class _Look:
    """What one picture adds."""

    size: tuple[int, int]
    mode: str
    digest: bytes
    total: np.ndarray[tuple[int], np.dtype[np.float64]]
    square: np.ndarray[tuple[int], np.dtype[np.float64]]


def _look(file: str) -> _Look | str:
    try:
        height, width, mode = picture_size(file)
        pixels = read_picture(file)
    except DataError as error:
        return str(error).removeprefix(f"'{file}'").lstrip(": ")
    shares = pixels.reshape(-1, 3) / 255.0
    digest = hashlib.sha256(f"{height}x{width}".encode() + pixels.tobytes()).digest()
    return _Look((height, width), mode, digest, shares.sum(axis=0), (shares**2).sum(axis=0))


def _add(found: _Found, kind: str, name: str, seen: _Look) -> None:
    found.classes[kind] += 1
    found.sizes[seen.size] += 1
    found.modes[seen.mode] += 1
    found.pixels += seen.size[0] * seen.size[1]
    found.total += seen.total
    found.square += seen.square
    found.content[seen.digest].append((kind, name))


def _report(name: str, found: _Found) -> PartReport:
    mean = found.total / max(1, found.pixels)
    spread = np.sqrt(np.maximum(found.square / max(1, found.pixels) - mean**2, 0))
    return PartReport(
        name,
        dict(found.classes),
        found.broken,
        dict(found.sizes),
        dict(found.modes),
        tuple(map(float, mean)),
        tuple(map(float, spread)),
        [_names(files) for files in found.content.values() if len(files) > 1],
    )


def _names(files: Iterable[tuple[str, str]]) -> list[str]:
    return [file for _, file in files]
