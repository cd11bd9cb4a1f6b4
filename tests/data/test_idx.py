"""The idx reader: every dtype, the real files, and every way a file can be damaged."""

from __future__ import annotations

import contextlib
import gzip
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chainrule.data import fashion_mnist, mnist, read_idx
from chainrule.errors import DataError

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([7, 0, 9], np.uint8)


def zipped(content: bytes) -> bytes:
    """A gzip file without the time, so that the same test has the same name in every process."""
    return gzip.compress(content, mtime=0)


def as_idx(array: NDArray[Any]) -> bytes:
    code = CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_folder(folder: Path, **changes: bytes) -> Path:
    """A small MNIST folder; a keyword such as ``train_images`` replaces one file's content."""
    folder.mkdir(exist_ok=True)
    for part in ("train", "t10k"):
        images = changes.get(f"{part}_images", as_idx(IMAGES))
        labels = changes.get(f"{part}_labels", as_idx(LABELS))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return folder


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """One file that the property tests overwrite again and again."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "scratch"


def error_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    message = str(caught.value)
    assert str(path) in message
    assert "expected" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 3, 2), (1, 2, 1, 3)])
def test_round_trip(tmp_path: Path, kind: str, shape: tuple[int, ...], packed: bool) -> None:
    values = np.array([0, 1, 2, 100, 127, 3]).astype(kind).reshape(shape)
    values = -values if values.dtype.kind != "u" else values + np.uint8(128)
    path = tmp_path / "any-name"
    path.write_bytes(zipped(as_idx(values)) if packed else as_idx(values))
    array = read_idx(path)
    assert array.dtype == values.dtype
    assert array.dtype.isnative
    np.testing.assert_array_equal(array, values)
    array += 1  # the caller owns it


def test_gzip_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    (tmp_path / "plain.gz").write_bytes(as_idx(LABELS))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), LABELS)


def test_two_gzip_members_are_one_stream(tmp_path: Path) -> None:
    content = as_idx(IMAGES)
    (tmp_path / "two").write_bytes(zipped(content[:30]) + zipped(content[30:]))
    np.testing.assert_array_equal(read_idx(str(tmp_path / "two")), IMAGES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (zipped(b""), "empty"),
        (b"\0", "starts with the bytes 00"),
        (b"\x89PNG\r\n\x1a\n", "89 50 4e 47"),
        (b"PK\x03\x04" + bytes(50), "not an idx file"),
        (b"\0\0\x0a\x01" + bytes(8), "dtype code is 0a"),
        (b"\0\0\x08\x00", "rank is 0"),
        (b"\0\0\x08\xff" + bytes(2000), "rank is 255"),
        (b"\0\0\x08\x03" + bytes(7), "ends in its header, after 11 bytes"),
        (as_idx(IMAGES)[:4] + struct.pack(">3I", 3, 0, 5), "3x0x5, which holds no values"),
        (as_idx(IMAGES)[:-1], "only 59 bytes follow"),
        (as_idx(IMAGES) + b"\0", "more bytes follow"),
        (zipped(as_idx(IMAGES) + b"\0"), "more bytes follow"),
        (zipped(as_idx(IMAGES))[:-1], "gzip stream is truncated"),
        (zipped(as_idx(IMAGES)) + b"tail", "gzip stream is corrupted"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in error_of(tmp_path / "damaged", content)


def test_absurd_sizes_allocate_nothing(tmp_path: Path) -> None:
    header = b"\0\0\x0e\x40" + b"\xff" * 256
    assert "only 8 bytes follow" in error_of(tmp_path / "plain", header + bytes(8))
    assert "only 8 bytes follow" in error_of(tmp_path / "gzip", zipped(header + bytes(8)))


def test_gzip_checksum_is_compared(tmp_path: Path) -> None:
    content = bytearray(zipped(as_idx(IMAGES)))
    content[-8] ^= 1
    assert "CRC" in error_of(tmp_path / "crc", bytes(content))


def test_unreadable_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.slow
def test_every_truncation_is_an_error(scratch: Path, packed: bool) -> None:
    whole = zipped(as_idx(IMAGES)) if packed else as_idx(IMAGES)
    for size in range(len(whole)):
        error_of(scratch, whole[:size])


@settings(deadline=None)  # the disk sets the pace
@given(position=st.integers(0, 15), value=st.integers(0, 255))
@pytest.mark.slow
def test_a_corrupted_header_never_gives_other_values(scratch: Path, position: int, value: int) -> None:
    content = bytearray(as_idx(IMAGES))
    unchanged = content[position] == value
    content[position] = value
    if unchanged:
        return
    if bytes(content[:4]) == b"\0\0\x09\x03":  # the one header that fits too: int8 for uint8
        return
    error_of(scratch, bytes(content))


@settings(deadline=None)  # the disk sets the pace
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
@pytest.mark.slow
def test_a_corrupted_gzip_byte_is_an_error_or_harmless(scratch: Path, position: int, value: int) -> None:
    content = bytearray(zipped(as_idx(IMAGES)))
    content[position % len(content)] = value
    scratch.write_bytes(content)
    try:
        array = read_idx(scratch)
    except DataError:
        return
    np.testing.assert_array_equal(array, IMAGES)  # such as the time stamp in gzip's header


@settings(deadline=None)  # the disk sets the pace
@given(st.binary(max_size=64), st.booleans())
@pytest.mark.slow
def test_any_bytes_give_an_array_or_a_data_error(scratch: Path, content: bytes, prefixed: bool) -> None:
    scratch.write_bytes(b"\0\0\x08\x01" * prefixed + content)
    with contextlib.suppress(DataError):
        read_idx(scratch)


def test_mnist_folder(tmp_path: Path) -> None:
    data = mnist(write_folder(tmp_path / "set"))
    assert data.describe() == "mnist: 3 training and 3 test images of 4x5x1 uint8, 10 classes"
    np.testing.assert_array_equal(data.x_train[..., 0], IMAGES)
    np.testing.assert_array_equal(data.y_test, LABELS)
    assert data.y_train.dtype == np.int64


@pytest.mark.parametrize("joint", ["-idx", ".idx"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_file_names(tmp_path: Path, joint: str, packed: bool) -> None:
    for part in ("train", "t10k"):
        for stem, array in ((f"{part}-images", IMAGES), (f"{part}-labels", LABELS)):
            name = f"{stem}{joint}{array.ndim}-ubyte{'.gz' if packed else ''}"
            (tmp_path / name).write_bytes(zipped(as_idx(array)) if packed else as_idx(array))
    assert len(mnist(tmp_path).x_train) == 3


def test_missing_file_names_the_folder_and_the_accepted_names(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        mnist(folder)
    for word in (str(folder), "t10k-labels-idx1-ubyte.gz", "t10k-labels.idx1-ubyte,"):
        assert word in str(caught.value)


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        mnist(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        fashion_mnist(tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": as_idx(LABELS)}, "may be mislabelled"),
        ({"train_labels": as_idx(IMAGES)}, "may be mislabelled"),
        ({"train_images": as_idx(IMAGES.astype("f4"))}, "60 float32|float32, rank 3"),
        ({"t10k_labels": as_idx(LABELS[:2])}, "holds 2 labels but 't10k-images.*' holds 3 images"),
        ({"train_labels": as_idx(LABELS + np.uint8(1))}, "label 2 is 10; expected 0 to 9"),
        ({"t10k_images": as_idx(IMAGES[:, :, :4].copy())}, "4x5 .* 4x4 pixels"),
        ({"train_images": as_idx(IMAGES)[:-1]}, "truncated"),
    ],
)
def test_damaged_folder(tmp_path: Path, changes: dict[str, bytes], words: str) -> None:
    with pytest.raises(DataError, match=words):
        mnist(write_folder(tmp_path / "set", **changes))


@pytest.mark.slow
def test_real_mnist(data_set: Callable[[str], Path]) -> None:
    data = mnist(data_set("mnist"))
    assert data.describe() == ("mnist: 60000 training and 10000 test images of 28x28x1 uint8, 10 classes")
    assert data.y_train[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert np.bincount(data.y_test).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert data.x_train.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the published mean


@pytest.mark.slow
def test_real_fashion_mnist(data_set: Callable[[str], Path]) -> None:
    data = fashion_mnist(data_set("fashion-mnist"))
    assert np.bincount(data.y_train).tolist() == [6000] * 10
    assert data.class_names[data.y_train[0]] == "Ankle boot"
    assert data.x_train.mean() / 255 == pytest.approx(0.2860, abs=1e-4)
