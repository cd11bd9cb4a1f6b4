"""Files of images without labels: pictures, NumPy's ``.npy`` and ``.npz``, and idx."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from chainrule.data import Pictures, read_idx
from chainrule.data.folder import pictures_below
from chainrule.data.npy import DAMAGE
from chainrule.data.pictures import Fit, is_picture
from chainrule.errors import DataError
from chainrule.files import readable, reason

__all__ = ["pictures_in", "read_images"]

_NPY, _ZIP = b"\x93NUMPY", b"PK"
_PREFERRED = ("x_test", "x", "images")  # names of the array that is meant, where an archive holds several


def read_images(path: str) -> NDArray[Any]:
    """The images in a file, told by its content.

    Args:
        path: an ``.npy`` file, an ``.npz`` archive (its array ``x_test``, ``x`` or ``images``, or its only
            one), or an idx file, plain or gzip-compressed.

    Raises:
        DataError: the file cannot be read, is damaged, or holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(len(_NPY))
            file.seek(0)
            if start == _NPY or start.startswith(_ZIP):
                return _read_numpy(file, path)
    except OSError as error:
        raise DataError(f"'{readable(path)}': cannot be read ({reason(error)}); expected a file of images") from error
    return read_idx(path)


def _read_numpy(file: IO[bytes], path: str) -> NDArray[Any]:
    try:
        content = np.load(file, allow_pickle=False)
        return content if isinstance(content, np.ndarray) else content[_chosen(content.files, path)]
    except DataError:
        raise
    except (*DAMAGE, OSError) as error:
        raise DataError(
            f"'{readable(path)}': the file is truncated, corrupted or holds no plain numbers ({error}); "
            "expected images as numpy.save or numpy.savez writes them"
        ) from error


def _chosen(names: list[str], path: str) -> str:
    for name in _PREFERRED:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise DataError(
        f"'{readable(path)}': the archive holds {', '.join(names) or 'no arrays'}; expected one array, "
        f"or one that is named {', '.join(_PREFERRED)}"
    )


def pictures_in(path: str, shape: tuple[int, ...], fit: str) -> Pictures | None:
    """The pictures that a path means: itself, or all in a folder, brought to a model's size; None if it is no picture.

    Args:
        path: a file or a folder.
        shape: height, width and channels that the model takes.
        fit: how a picture of another size is brought to it.

    Raises:
        DataError: the folder holds no pictures.
    """
    if os.path.isdir(path):
        files = pictures_below(Path(path))
        if not files:
            raise DataError(f"'{readable(path)}' holds no pictures")
    elif is_picture(os.path.basename(path)):
        files = [path]
    else:
        return None
    return Pictures(files, [0] * len(files), ("",), (shape[0], shape[1]), shape[2], cast(Fit, fit))
