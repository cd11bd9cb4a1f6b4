"""A data set of pictures in parts, which are folders or named in a list: train, test, and one to validate on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from chainrule.data.folder import Pictures, class_folders, listed_pictures, picture_folder
from chainrule.data.listing import PART_NAMES, listed_files
from chainrule.data.pictures import Fit
from chainrule.errors import DataError
from chainrule.files import readable

__all__ = ["PictureParts", "part_folders", "picture_folders", "picture_lists"]


class PictureParts(NamedTuple):
    """The parts of a data set, with the same classes and shape; those that it lacks are None."""

    train: Pictures
    test: Pictures | None
    validation: Pictures | None


def picture_folders(
    root: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    fit: Fit = "cover",
) -> PictureParts:
    """The pictures of a folder with the parts ``train``, ``test`` and ``val``, each with a folder for each class.

    Args:
        root: the folder; parts may also be called training, testing, valid and validation, in any case.  Without a
            part ``train`` its folders are classes, and all of it is training data.
        size: height and width of a sample; by default that of the first training picture, which all others must have.
        channels: 1 for grey, 3 for colour; by default grey if the first training picture of each class is grey.
        fit: how a picture of another size is brought to `size`; see `read_picture`.

    Raises:
        DataError: a folder cannot be read or holds no picture; two folders are the same part, or a folder beside the
            parts is none; a part has a class that the training part lacks, or pictures of another size.
    """
    places = part_folders(Path(root))
    if not places:
        return PictureParts(picture_folder(root, size, channels, fit), None, None)
    train = picture_folder(places["train"], size, channels, fit)
    others: dict[str, Pictures | None] = {"test": None, "validation": None}
    for part in others.keys() & places.keys():
        found = picture_folder(places[part], size, train.shape[2], fit, train.class_names)
        others[part] = _of_the_same_shape(found, train)
    return PictureParts(train, others["test"], others["validation"])


def picture_lists(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    fit: Fit = "cover",
) -> PictureParts:
    """The pictures of a csv file as for `picture_list`, whose column ``part`` (or split) says train, val or test.

    Args:
        path: the csv file; the parts may be called what `picture_folders` accepts.  Without the column all of it is
            training data.
        size, channels, fit: as for `picture_folders`.

    Raises:
        DataError: the list cannot be read or understood, or has no training picture; a part has a class that the
            training part lacks, or pictures of another size.
    """
    source = Path(path)
    rows = listed_files(source)
    own = {part: [row for row in rows if (row.part or "train") == part] for part in PART_NAMES}
    if not own["train"]:
        raise DataError(f"'{readable(source)}' lists no picture of the part train")
    train = listed_pictures(source, own["train"], size, channels, fit)
    others: dict[str, Pictures | None] = {"test": None, "validation": None}
    for part in others:
        if own[part]:
            found = listed_pictures(source, own[part], size, train.shape[2], fit, train.class_names)
            others[part] = _of_the_same_shape(found, train)
    return PictureParts(train, others["test"], others["validation"])


def _of_the_same_shape(found: Pictures, train: Pictures) -> Pictures:
    if found.shape != train.shape:
        raise DataError(
            f"'{readable(found.files[0])}' is {found.shape[0]}x{found.shape[1]} pixels, the first training picture "
            f"{train.shape[0]}x{train.shape[1]}; give a size (--size) to bring all of them to"
        )
    return found


def part_folders(root: Path) -> dict[str, Path]:
    """The folders of a data set's parts, ``train``, ``validation`` and ``test``; none where its folders are classes.

    Raises:
        DataError: it cannot be read or holds no folders, or they are parts in part only.
    """
    inside = class_folders(root)
    found: dict[str, Path] = {}
    rest = []
    for name, place in inside.items():
        part = next((part for part, names in PART_NAMES.items() if name.lower() in names), None)
        if part is None or not _holds_folders(place):
            rest.append(name)
        elif part in found:
            raise DataError(
                f"'{readable(root)}' holds two folders for the part {part}: '{readable(found[part].name)}' and '{name}'"
            )
        else:
            found[part] = place
    if "train" not in found and rest:
        return {}
    if "train" not in found:
        raise DataError(f"'{readable(root)}' holds the parts {', '.join(found)} and lacks the folder 'train'")
    if rest:
        raise DataError(
            f"'{readable(root)}': beside 'train' lies {rest[0]!r}, which is no part with folders of classes; expected "
            "train, val and test, or folders of classes alone"
        )
    return {part: found[part] for part in PART_NAMES if part in found}


def _holds_folders(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
