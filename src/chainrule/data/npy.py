"""Samples and labels in two ``.npy`` files, which may be larger than memory."""

from __future__ import annotations

import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.data.source import ArraySource
from chainrule.errors import DataError
from chainrule.files import readable, reason

__all__ = ["DAMAGE", "load_npy"]

DAMAGE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise on a damaged ``.npy`` or ``.npz`` file, beside an `OSError`."""

_KEPT = (np.dtype(np.uint8), np.dtype(np.float32))


def load_npy(
    x_path: str | os.PathLike[str], y_path: str | os.PathLike[str], class_names: Sequence[str] = ()
) -> ArraySource:
    """Samples and labels as ``numpy.save`` writes them; samples stay in their file until they are needed.

    Pickled content is never loaded.

    Args:
        x_path: samples along the first axis.  Grey pictures may be (samples, height, width); they get a channel.
        y_path: class numbers from 0, (samples,) or (samples, 1).
        class_names: the name of each class; by default its number.

    Returns:
        A source of uint8 and float32 samples as they are, and of all other kinds of numbers as float32.

    Raises:
        DataError: a file cannot be read, is damaged or holds no plain numbers, or the two do not fit one another.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "x.npy", np.zeros((4, 8, 8), np.uint8))
        ...     np.save(Path(folder) / "y.npy", np.array([0, 1, 1, 0]))
        ...     source = load_npy(Path(folder) / "x.npy", Path(folder) / "y.npy")
        ...     len(source), source.shape, source.class_names
        (4, (8, 8, 1), ('0', '1'))
    """
    samples, labels = _mapped(Path(x_path)), _labels(Path(y_path))
    if samples.ndim < 2 or 0 in samples.shape:
        raise DataError(
            f"'{readable(x_path)}' holds an array of shape {samples.shape}; expected samples along the first axis"
        )
    if len(samples) != len(labels):
        raise DataError(
            f"'{readable(x_path)}' holds {len(samples)} samples and '{readable(y_path)}' {len(labels)} labels"
        )
    classes = 1 + int(labels.max())
    if class_names and len(class_names) < classes:
        raise DataError(f"'{readable(y_path)}' holds the class {classes - 1}; expected 0 to {len(class_names) - 1}")
    if samples.ndim == 3:
        samples = samples[..., np.newaxis]
    names = tuple(class_names) or tuple(str(number) for number in range(classes))
    dtype = samples.dtype if samples.dtype in _KEPT else np.dtype(np.float32)
    return ArraySource(samples, labels, names, dtype, name=f"'{readable(x_path)}'")


def _mapped(path: Path) -> NDArray[Any]:
    """The array in a file, of which only what is read comes into memory."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        why = " ".join(str(error).split())
        raise DataError(
            f"'{readable(path)}': the file is truncated, corrupted or holds no plain numbers ({why})"
        ) from None
    except OSError as error:
        raise DataError(f"'{readable(path)}': cannot be read ({reason(error)}); expected an .npy file") from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise DataError(f"'{readable(path)}' is an archive of arrays; expected an .npy file, which holds one")
    if found.dtype.kind not in "buif":
        raise DataError(f"'{readable(path)}' holds {found.dtype}; expected numbers")
    return found


def _labels(path: Path) -> NDArray[np.int64]:
    found = _mapped(path)
    if found.dtype.kind not in "ui" or found.shape[1:] not in ((), (1,)) or not found.size:
        raise DataError(
            f"'{readable(path)}' holds {found.dtype} of shape {found.shape}; expected an integer for each sample"
        )
    if found.min() < 0:
        raise DataError(
            f"'{readable(path)}': label {int(np.argmin(found))} is {found.min()}; expected class numbers from 0"
        )
    return np.array(found, np.int64).reshape(-1)
