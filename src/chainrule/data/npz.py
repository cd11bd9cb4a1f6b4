"""Data sets in NumPy's archive format, as ``numpy.savez`` and ``numpy.savez_compressed`` write."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from chainrule.checks import check_inputs, check_labels_sparse, check_same_length
from chainrule.data.dataset import Dataset
from chainrule.data.npy import DAMAGE
from chainrule.errors import DataError
from chainrule.files import readable, reason

__all__ = ["load_npz"]

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_MAX_CLASSES = 100_000  # a larger label is a mistake; ImageNet-21k has 21841 classes


def load_npz(path: str | os.PathLike[str]) -> Dataset:
    """Read a data set from a ``.npz`` file with the arrays x_train, y_train, x_test and y_test.

    Pickled content is never loaded.

    Args:
        path: The file. Images are (samples, height, width, channels), or (samples, height, width)
            for grey ones; labels are class numbers from 0, (samples,) or (samples, 1).

    Returns:
        Images (samples, height, width, channels): uint8 and float32 as they are, every other
        number type as float32, in the units of the file. Labels (samples,), int64. The data set is
        named after the file, and a class after its number.

    Raises:
        DataError: The file cannot be read, is truncated or corrupted, lacks an array, holds Python
            objects, NaN or infinite values, or its shapes do not fit one another.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "squares.npz"
        ...     x, y = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 1, 0])
        ...     np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
        ...     load_npz(path).describe()
        'squares: 4 training and 2 test images of 8x8x1 uint8, 2 classes'
    """
    source = Path(path)
    arrays = _read_arrays(source)
    x_train, y_train = _check_part(arrays, "train", source)
    x_test, y_test = _check_part(arrays, "test", source)
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise DataError(
            f"'{readable(source)}': x_train holds samples of {x_train.shape[1:]} {x_train.dtype} and x_test "
            f"of {x_test.shape[1:]} {x_test.dtype}; expected the same shape and dtype"
        )
    classes = 1 + int(max(y_train.max(), y_test.max()))
    names = tuple(str(number) for number in range(classes))
    return Dataset(readable(source.stem), x_train, y_train, x_test, y_test, names)


def _read_arrays(source: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(source) as archive, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Reading `.npy`")  # files from Python 2
            _check_keys(archive, source)
            return {key: _read_array(archive, key, source) for key in _KEYS}
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"'{readable(source)}': the file is truncated, corrupted or not an .npz archive ({error}); "
            f"expected one with the arrays {', '.join(_KEYS)}"
        ) from error
    except OSError as error:
        raise DataError(f"'{readable(source)}': cannot be read ({reason(error)}); expected an .npz archive") from error


def _check_keys(archive: zipfile.ZipFile, source: Path) -> None:
    names = [Path(name) for name in archive.namelist()]
    found = [str(name.with_suffix("")) for name in names if name.suffix == ".npy"]
    missing = [key for key in _KEYS if key not in found]
    if missing:
        came = ", ".join(repr(key) for key in found[:10]) or "no arrays"
        raise DataError(
            f"'{readable(source)}': the archive holds {came}{', ...' if found[10:] else ''} and lacks "
            f"{', '.join(missing)}; expected {', '.join(_KEYS)}"
        )


def _read_array(archive: zipfile.ZipFile, key: str, source: Path) -> NDArray[Any]:
    member = archive.getinfo(f"{key}.npy")
    with archive.open(member) as stream:
        _check_header(stream, member.file_size, f"'{readable(source)}': {key}")
    with archive.open(member) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
        stream.read(1)  # reading to the end makes zipfile compare its checksum
    return array


def _check_header(stream: IO[bytes], file_size: int, what: str) -> None:
    """Compare the array's header with the member's size, before anything is allocated."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(stream)
    if version not in readers:
        raise DataError(f"{what} has the .npy version {version}; expected a plain number array")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise DataError(
            f"{what} has the dtype {dtype}, which needs pickle and is never loaded; expected integers or floats"
        )
    announced, held = math.prod(shape) * dtype.itemsize, file_size - stream.tell()
    if announced != held:
        raise DataError(
            f"{what} announces {shape} {dtype} ({announced} bytes) but holds {held} bytes; "
            "expected the same, so the file is damaged"
        )


def _check_part(arrays: dict[str, NDArray[Any]], part: str, source: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (samples, height, width, channels) and labels (samples,) of ``train`` or ``test``."""
    x = check_inputs(arrays[f"x_{part}"], name=f"'{readable(source)}': x_{part}")
    y = check_labels_sparse(arrays[f"y_{part}"], _MAX_CLASSES, name=f"'{readable(source)}': y_{part}")
    check_same_length(x, y, name=f"'{readable(source)}': the {part} part")
    if x.ndim not in (3, 4):
        raise DataError(
            f"'{readable(source)}': x_{part} has the shape {x.shape}; expected (samples, height, width, "
            "channels) or (samples, height, width)"
        )
    if x.dtype not in (np.uint8, np.float32):
        x = x.astype(np.float32)
    return (x[..., np.newaxis] if x.ndim == 3 else x), y
