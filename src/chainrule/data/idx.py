"""MNIST's idx format, and the data sets that come in it.

An idx file is a big-endian header and the values in row-major order; it may be gzip-compressed::

    2 bytes   zero
    1 byte    dtype code: 08 uint8, 09 int8, 0B int16, 0C int32, 0D float32, 0E float64
    1 byte    rank
    4 bytes   size, once per dimension
    ...       the values

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.data.dataset import Dataset
from chainrule.errors import DataError
from chainrule.files import readable, reason

__all__ = ["fashion_mnist", "idx_names", "mnist", "read_idx"]

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_RANK = 64  # NumPy's own limit
_CHUNK_BYTES = 1 << 20  # a header's claim costs no memory until that many bytes have arrived

_DIGIT_NAMES = tuple(str(digit) for digit in range(10))
_FASHION_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one idx file, plain or gzip-compressed (told by content, not by name).

    Args:
        path: The file.

    Returns:
        The values in the shape that the header states, in the machine's byte order: uint8, int8,
        int16, int32, float32 or float64.

    Raises:
        DataError: The file cannot be read, is no idx file, is truncated or corrupted, or goes on
            after its last value.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels-idx1-ubyte"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]))
        ...     read_idx(path)
        array([5, 0, 4], dtype=uint8)
    """
    source = Path(path)
    try:
        with source.open("rb") as file, _unpacked(file) as stream:
            return _read_array(stream, source)
    except EOFError as error:
        raise DataError(f"'{readable(source)}': the gzip stream is truncated; expected a complete idx file") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"'{readable(source)}': the gzip stream is corrupted ({error}); expected an intact idx file"
        ) from error
    except OSError as error:
        raise DataError(f"'{readable(source)}': cannot be read ({reason(error)}); expected an idx file") from error


def mnist(folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Read MNIST: handwritten digits, 60000 training and 10000 test images.

    Args:
        folder: The folder with the four idx files ``train-images-idx3-ubyte``,
            ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
            ``t10k-labels-idx1-ubyte``, each plain or with ``.gz``; ``train-images.idx3-ubyte`` and
            so on are accepted too. Without it, the published files are taken from the user's data
            folder, and downloaded there if they are absent; see [`chainrule.data.fetch`][].

    Returns:
        Images (samples, 28, 28, 1), uint8, 0 (background) to 255 (ink); labels int64, 0 to 9.

    Raises:
        DataError: A file is missing or damaged, holds images where labels belong or the reverse,
            or the numbers of images and labels differ; a file cannot be downloaded.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("train", "t10k"):
        ...         images = bytes([0, 0, 8, 3, *[0, 0, 0, 2] * 3]) + bytes(8)
        ...         labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3])
        ...         _ = (Path(folder) / f"{part}-images-idx3-ubyte").write_bytes(images)
        ...         _ = (Path(folder) / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        ...     mnist(folder).describe()
        'mnist: 2 training and 2 test images of 2x2x1 uint8, 10 classes'
    """
    return _read_folder("mnist", _place("mnist", folder), _DIGIT_NAMES)


def fashion_mnist(folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Read Fashion-MNIST: grey photos of clothing, 60000 training and 10000 test images.

    Args:
        folder: The folder with the four idx files, named as [`mnist`][] describes; without it, the
            user's data folder.

    Returns:
        Images (samples, 28, 28, 1), uint8, 0 to 255; labels int64, 0 (T-shirt/top) to 9 (ankle
        boot).

    Raises:
        DataError: As [`mnist`][] does.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("train", "t10k"):
        ...         images = bytes([0, 0, 8, 3, *[0, 0, 0, 1] * 3, 255])
        ...         labels = bytes([0, 0, 8, 1, 0, 0, 0, 1, 9])
        ...         _ = (Path(folder) / f"{part}-images-idx3-ubyte").write_bytes(images)
        ...         _ = (Path(folder) / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        ...     clothes = fashion_mnist(folder)
        >>> clothes.class_names[clothes.y_test[0]]
        'Ankle boot'
    """
    return _read_folder("fashion_mnist", _place("fashion-mnist", folder), _FASHION_NAMES)


def _place(name: str, folder: str | os.PathLike[str] | None) -> Path:
    """The folder that was named, or the one where the data set is kept, with its files."""
    if folder is not None:
        return Path(folder)
    from chainrule.data.download import fetch

    return fetch(name)


def _unpacked(file: io.BufferedReader) -> io.BufferedIOBase:
    """The file itself, or its decompressed content if it starts as gzip does."""
    if file.peek(2)[:2] == _GZIP_MAGIC:
        return gzip.GzipFile(fileobj=file)
    return file


def _read_array(stream: io.BufferedIOBase, source: Path) -> NDArray[Any]:
    dtype, rank = _read_magic(stream, source)
    shape = _read_shape(stream, rank, source)
    announced = math.prod(shape) * dtype.itemsize
    values = _read_up_to(stream, announced)
    content = f"{_times(shape)} {dtype.name} ({announced} bytes)"
    if len(values) < announced:
        raise DataError(
            f"'{readable(source)}': only {len(values)} bytes follow the header; expected {content}, so the "
            "file is truncated or its header is damaged"
        )
    if stream.read(1):  # reading to the end also makes gzip compare its checksum
        raise DataError(f"'{readable(source)}': more bytes follow the values; expected the file to end after {content}")
    array = np.frombuffer(values, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_magic(stream: io.BufferedIOBase, source: Path) -> tuple[np.dtype[Any], int]:
    """Dtype and rank from the first four bytes."""
    magic = stream.read(4)
    if not magic:
        raise DataError(f"'{readable(source)}': the file is empty; expected an idx file")
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(
            f"'{readable(source)}': the file starts with the bytes {magic.hex(' ')}, so it is not an idx "
            "file; expected 00 00, a dtype code and a rank"
        )
    code, rank = magic[2], magic[3]
    if code not in _DTYPES:
        known = ", ".join(f"{known:02x} ({_DTYPES[known].name})" for known in _DTYPES)
        raise DataError(f"'{readable(source)}': the idx dtype code is {code:02x}; expected one of {known}")
    if not 1 <= rank <= _MAX_RANK:
        raise DataError(f"'{readable(source)}': the idx rank is {rank}; expected 1 to {_MAX_RANK}")
    return _DTYPES[code], rank


def _read_shape(stream: io.BufferedIOBase, rank: int, source: Path) -> tuple[int, ...]:
    header = stream.read(4 * rank)
    if len(header) < 4 * rank:
        raise DataError(
            f"'{readable(source)}': the file ends in its header, after {4 + len(header)} bytes; expected "
            f"a header of {4 + 4 * rank} bytes for rank {rank}"
        )
    shape: tuple[int, ...] = struct.unpack(f">{rank}I", header)
    if 0 in shape:
        raise DataError(
            f"'{readable(source)}': the header states the shape {_times(shape)}, which holds no values; "
            "expected every dimension to be at least 1"
        )
    return shape


def _read_up_to(stream: io.BufferedIOBase, count: int) -> bytearray:
    """The next ``count`` bytes, or all that are left if there are fewer."""
    content = bytearray()
    while len(content) < count:
        chunk = stream.read(min(_CHUNK_BYTES, count - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def _read_folder(name: str, folder: Path, class_names: tuple[str, ...]) -> Dataset:
    if not folder.is_dir():
        came = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"'{readable(folder)}' {came}; expected a folder with the idx files of {name}")
    x_train, y_train = _read_part(folder, "train", len(class_names))
    x_test, y_test = _read_part(folder, "t10k", len(class_names))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"'{readable(folder)}': the training images are {_times(x_train.shape[1:3])} and the test "
            f"images {_times(x_test.shape[1:3])} pixels; expected the same size"
        )
    return Dataset(name, x_train, y_train, x_test, y_test, class_names)


def _read_part(folder: Path, part: str, classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (samples, height, width, 1) and labels (samples,) of ``train`` or ``t10k``."""
    images_file = _find(folder, f"{part}-images", rank=3)
    labels_file = _find(folder, f"{part}-labels", rank=1)
    images = _read_ranked(images_file, 3, "images (samples x height x width)")
    labels = _read_ranked(labels_file, 1, "labels (one number per sample)")
    if len(images) != len(labels):
        raise DataError(
            f"'{readable(labels_file)}' holds {len(labels)} labels but '{readable(images_file.name)}' holds "
            f"{len(images)} images; expected one label per image"
        )
    if labels.max() >= classes:
        bad = int(np.argmax(labels >= classes))
        raise DataError(f"'{readable(labels_file)}': label {bad} is {labels[bad]}; expected 0 to {classes - 1}")
    return images[..., np.newaxis], labels.astype(np.int64)


def idx_names(stem: str, rank: int) -> list[str]:
    """What the file with such content may be called.

    >>> idx_names("t10k-labels", 1)[:2]
    ['t10k-labels-idx1-ubyte', 't10k-labels-idx1-ubyte.gz']
    """
    plain = (f"{stem}-idx{rank}-ubyte", f"{stem}.idx{rank}-ubyte")
    return [name + suffix for name in plain for suffix in ("", ".gz")]


def _find(folder: Path, stem: str, rank: int) -> Path:
    accepted = idx_names(stem, rank)
    for name in accepted:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"'{readable(folder)}' holds no file with the {stem}; expected one of {', '.join(accepted)}")


def _read_ranked(source: Path, rank: int, content: str) -> NDArray[Any]:
    array = read_idx(source)
    if array.ndim != rank or array.dtype != np.uint8:
        raise DataError(
            f"'{readable(source)}': the file holds {_times(array.shape)} {array.dtype}, rank {array.ndim}; "
            f"expected {content}, uint8, rank {rank}, so the file may be mislabelled"
        )
    return array


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
