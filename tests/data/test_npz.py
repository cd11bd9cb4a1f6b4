"""The npz reader: what it accepts, and every way an archive can be damaged."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chainrule.cli.images import read_images
from chainrule.data import load_npz
from chainrule.errors import DataError

X = np.arange(4 * 3 * 5, dtype=np.uint8).reshape(4, 3, 5)
Y = np.array([0, 2, 1, 2], np.uint8)


def arrays(**changes: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"x_train": X, "y_train": Y, "x_test": X[:2], "y_test": Y[:2]} | changes


def write(path: Path, packed: bool = False, /, **changes: NDArray[Any]) -> Path:
    save: Any = np.savez_compressed if packed else np.savez
    save(path, **arrays(**changes))
    return path


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """One file that the property tests overwrite again and again."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "scratch.npz"


@pytest.mark.parametrize("packed", [False, True], ids=["stored", "deflated"])
def test_grey_images(tmp_path: Path, packed: bool) -> None:
    data = load_npz(write(tmp_path / "tiny.npz", packed))
    assert data.describe() == "tiny: 4 training and 2 test images of 3x5x1 uint8, 3 classes"
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(data.x_train[..., 0], X)
    np.testing.assert_array_equal(data.y_train, Y)
    assert data.y_train.dtype == np.int64


@pytest.mark.parametrize(
    ("given_dtype", "dtype"),
    [("u1", "u1"), ("f4", "f4"), ("f8", "f4"), (">f4", "f4"), ("i8", "f4"), ("?", "f4")],
)
def test_dtypes(tmp_path: Path, given_dtype: str, dtype: str) -> None:
    x = np.asfortranarray((X[..., np.newaxis] % 2).astype(given_dtype))
    data = load_npz(write(tmp_path / "a.npz", x_train=x, x_test=x, y_test=Y))
    assert data.x_train.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(data.x_train[..., 0], X % 2)


def test_label_columns_as_in_cifar10(tmp_path: Path) -> None:
    data = load_npz(write(tmp_path / "a.npz", y_train=Y[:, np.newaxis]))
    np.testing.assert_array_equal(data.y_train, Y)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": Y[:3]}, "the train part: 4 samples but 3 labels"),
        ({"y_train": np.eye(3)[Y]}, "one-hot"),
        ({"y_test": np.array([0, -1])}, "y_test: label 1 is -1"),
        ({"y_test": np.array([0, 10**9])}, "y_test: label 1 is 1000000000"),
        ({"x_train": np.full((4, 3, 5), np.nan)}, "sample 0 holds NaN"),
        ({"x_train": X.astype(complex)}, "complex128"),
        ({"x_train": X.astype(str)}, "<U"),
        ({"x_train": X.reshape(4, 15)}, r"x_train has the shape \(4, 15\)"),
        ({"x_test": X[:2, :, :4]}, "same shape and dtype"),
        ({"x_test": X[:2].astype("f4")}, "same shape and dtype"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "at least one value"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, NDArray[Any]], words: str) -> None:
    path = write(tmp_path / "bad.npz", **changes)
    with pytest.raises(DataError, match=words) as caught:
        load_npz(path)
    assert str(path) in str(caught.value)


def test_missing_arrays(tmp_path: Path) -> None:
    path = tmp_path / "halves.npz"
    np.savez(path, x_train=X, y=Y)
    with pytest.raises(DataError) as caught:
        load_npz(path)
    assert str(caught.value) == (
        f"'{path}': the archive holds 'x_train', 'y' and lacks y_train, x_test, y_test; "
        "expected x_train, y_train, x_test, y_test"
    )


def test_an_object_array_is_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("the pickle was loaded",))

    trap = np.empty(4, object)
    trap[:] = [Trap()] * 4
    path = write(tmp_path / "trap.npz", x_train=trap)
    with pytest.raises(DataError, match="x_train has the dtype object, which needs pickle"):
        load_npz(path)


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load_npz(tmp_path / "absent.npz")
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(tmp_path)
    np.save(tmp_path / "single.npy", X)
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        load_npz(tmp_path / "single.npy")
    (tmp_path / "empty.npz").touch()
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        load_npz(tmp_path / "empty.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("x_train", b"no array")
    with pytest.raises(DataError, match="holds no arrays"):
        load_npz(tmp_path / "other.npz")


def test_an_absurd_shape_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "absurd.npz"
    with zipfile.ZipFile(write(tmp_path / "good.npz")) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            grown = good.read(name).replace(b"5), }          ", b"50000000000), }")
            bad.writestr(name, grown)
    with pytest.raises(DataError, match=r"announces .* \(600000000000 bytes\) but holds 60 bytes"):
        load_npz(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
@pytest.mark.slow
def test_every_reader_of_archives_meets_every_damage(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "packed.npz"
    with zipfile.ZipFile(write(tmp_path / "good.npz")) as good, zipfile.ZipFile(path, "w", kind) as packed:
        for name in good.namelist():
            packed.writestr(name, good.read(name))
    np.testing.assert_array_equal(read_images(str(path)), X[:2])
    whole = path.read_bytes()
    refused = []
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        for reader in (load_npz, read_images):
            try:
                reader(str(path))
            except DataError as error:
                refused.append(str(error))
    assert len(refused) > 10
    assert all("packed.npz" in message for message in refused)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["stored", "deflated"])
def test_every_truncation_is_an_error(scratch: Path, packed: bool) -> None:
    whole = write(scratch, packed).read_bytes()
    for size in range(len(whole)):
        scratch.write_bytes(whole[:size])
        with pytest.raises(DataError, match="scratch"):
            load_npz(scratch)


@pytest.mark.slow
@settings(deadline=None)  # the disk sets the pace
@given(position=st.integers(0, 100_000), value=st.integers(0, 255), packed=st.booleans())
def test_a_corrupted_byte_is_an_error_or_harmless(scratch: Path, position: int, value: int, packed: bool) -> None:
    content = bytearray(write(scratch, packed).read_bytes())
    content[position % len(content)] = value
    scratch.write_bytes(content)
    try:
        data = load_npz(scratch)
    except DataError:
        return
    np.testing.assert_array_equal(data.x_train[..., 0], X)
    np.testing.assert_array_equal(data.y_train, Y)
