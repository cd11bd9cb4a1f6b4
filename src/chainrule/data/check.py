"""What a data set of pictures is like: what is broken, what is twice there, how classes and pixels are spread."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chainrule.data.dataset import Dataset
from chainrule.data.folder import GREY, class_folders, pictures_below
from chainrule.data.idx import idx_names, mnist
from chainrule.data.listing import PART_NAMES, Listed, listed_files
from chainrule.data.look import Entry, Tally, entry_of, tally_array, tally_files
from chainrule.data.npz import load_npz
from chainrule.data.parts import part_folders
from chainrule.errors import DataError
from chainrule.files import openable, readable

__all__ = ["FolderReport", "PartReport", "check_data", "check_folder"]


@dataclass(frozen=True)
class PartReport:
    """One part of a data set: a folder with a folder for each class.

    Attributes:
        name: of the folder; empty where the data set has no parts.
        classes: pictures that can be read, by class.
        broken: each file that cannot be read, and why.
        sizes: how many pictures have each size, (height, width).
        modes: how many have each of Pillow's modes, such as ``RGB`` and ``L``.
        examples: a picture of each size and of each mode.
        mean, deviation: of each channel over all pixels, 0 to 1; grey pictures have one.
        duplicates: groups of files of this part with the same pixels.
    """

    name: str
    classes: Mapping[str, int]
    broken: Mapping[str, str]
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    examples: Mapping[tuple[int, int] | str, str]
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
                most, *_, least = sorted(part.sizes, key=lambda size: -part.sizes[size])
                such = " and ".join(f"{size[0]}x{size[1]} ({part.examples[size]})" for size in (most, least))
                many = f"pictures have {len(part.sizes)} sizes, such as {such}"
                found.append(f"{where}{many}; training needs a size (--size) to bring them to")
            if len(part.modes) > 1:
                names = sorted(part.modes)
                such = " and ".join(part.examples[name] for name in names[:2])
                found.append(f"{where}pictures have the modes {', '.join(names)}, such as {such}")
            if len(part.classes) == 1:
                found.append(f"{where}there is one class, {next(iter(part.classes))}; training needs two or more")
            small = [name for name, count in part.classes.items() if count < 2]
            if small:
                many = _count(len(small), "class", "classes")
                found.append(f"{where}{many} with fewer than 2 pictures, such as {small[0]}")
            if part.classes and max(part.classes.values()) > 10 * max(1, min(part.classes.values())):
                found.append(f"{where}the largest class has more than 10 times the pictures of the smallest")
            if part.duplicates:
                such = " and ".join(part.duplicates[0][:2])
                found.append(f"{where}{_pictures_are(part.duplicates)} there more than once, such as {such}")
        classes = [set(part.classes) for part in self.parts]
        if any(names != classes[0] for names in classes[1:]):
            found.append("the parts do not have the same classes")
        if self.shared:
            such = " and ".join(self.shared[0][:2])
            found.append(f"{_pictures_are(self.shared)} in more than one part, such as {such}")
        if self.conflicts:
            such = " and ".join(self.conflicts[0][:2])
            found.append(f"{_pictures_are(self.conflicts)} in several classes, such as {such}")
        return found


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def _pictures_are(groups: Sequence[Sequence[str]]) -> str:
    return f"{_count(len(groups), 'picture')} {'is' if len(groups) == 1 else 'are'}"


def check_data(path: str | os.PathLike[str], workers: int = 2) -> FolderReport:
    """Read every picture of a data set, whatever it comes in, and report on them.

    Args:
        path: a folder as for `check_folder`, a folder with the idx files of MNIST or the like, a csv list of pictures
            and classes, or an ``.npz`` file as for `load_npz`.
        workers: threads that read.

    Raises:
        DataError: it is none of these, or cannot be read.
    """
    place = Path(path)
    if place.suffix.lower() == ".npz" and not place.is_dir():
        return _arrays(place, load_npz(place))
    if place.suffix.lower() == ".csv" and not place.is_dir():
        return _listed(place, workers)
    if place.is_file():
        raise DataError(
            f"'{readable(place)}' is a file; expected a folder of pictures or idx files, a .csv list or an .npz file"
        )
    if any((place / name).is_file() for name in idx_names("train-images", 3)):
        return _arrays(place, mnist(place))
    return check_folder(place, workers)


def check_folder(folder: str | os.PathLike[str], workers: int = 2) -> FolderReport:
    """Read every picture of a data set, and report on them.

    Args:
        folder: a folder of classes, or one of parts (``train``, ``val``, ``test``) that hold folders of classes.
        workers: threads that read.

    Raises:
        DataError: there is no such folder, or it holds no classes.
    """
    root = Path(folder)
    places = {readable(place.name): place for place in part_folders(root).values()} or {"": root}
    return _report(root, {name: _part(root, place, workers) for name, place in places.items()})


def _part(root: Path, folder: Path, workers: int) -> Tally:
    kinds = class_folders(folder)
    entries = [entry_of(file, root, kind) for kind, place in kinds.items() for file in pictures_below(place)]
    if not entries:
        raise DataError(f"'{readable(folder)}' holds no pictures")
    return tally_files(entries, kinds, workers)


def _listed(path: Path, workers: int) -> FolderReport:
    rows = listed_files(path)
    parts = [part for part in ("", *PART_NAMES) if any(row.part == part for row in rows)]
    return _report(
        path, {part: _listed_part(path, [row for row in rows if row.part == part], workers) for part in parts}
    )


def _listed_part(path: Path, rows: Sequence[Listed], workers: int) -> Tally:
    entries = [Entry(os.path.join(path.parent, openable(row.file)), row.file, row.kind) for row in rows]
    return tally_files(entries, sorted({row.kind for row in rows}), workers)


def _arrays(path: Path, data: Dataset) -> FolderReport:
    images = data.x_train
    scale = 1 / 255 if images.dtype == np.uint8 else 1 / (float(np.abs(images).max()) or 1.0)
    parts = (("train", data.x_train, data.y_train), ("test", data.x_test, data.y_test))
    return _report(path, {name: tally_array(x, y, data.class_names, name, scale) for name, x, y in parts})


# -- from what was seen to a report --------------------------------------------------------------------------------


def _report(root: Path, found: Mapping[str, Tally]) -> FolderReport:
    everywhere: dict[bytes, list[tuple[str, str, str]]] = defaultdict(list)
    for name, part in found.items():
        for digest, files in part.content.items():
            everywhere[digest] += [(name, kind, file) for kind, file in files]
    groups = [files for files in everywhere.values() if len(files) > 1]
    return FolderReport(
        readable(root),
        [_part_report(name, part) for name, part in found.items()],
        [[file for _, _, file in files] for files in groups if len({part for part, _, _ in files}) > 1],
        [[file for _, _, file in files] for files in groups if len({kind for _, kind, _ in files}) > 1],
    )


def _part_report(name: str, found: Tally) -> PartReport:
    mean = found.total / max(1, found.pixels)
    spread = np.sqrt(np.maximum(found.square / max(1, found.pixels) - mean**2, 0))
    channels = 1 if all(mode in GREY for mode in found.modes) else len(mean)
    return PartReport(
        name,
        dict(found.classes),
        found.broken,
        dict(found.sizes),
        dict(found.modes),
        found.examples,
        tuple(map(float, mean[:channels])),
        tuple(map(float, spread[:channels])),
        [[file for _, file in files] for files in found.content.values() if len(files) > 1],
    )
