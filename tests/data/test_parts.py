"""Folders of parts, names of every kind, fingerprints that notice content, and arrays in files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chainrule.data import ArraySource, load_npy, picture_folder, picture_folders, picture_list, picture_lists
from chainrule.errors import DataError


def save(path: Path, seed: int, size: tuple[int, ...] = (8, 8, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)).save(path)
    return path


def parts(root: Path, *names: str, size: tuple[int, ...] = (8, 8, 3)) -> Path:
    for number in range(4 * len(names)):
        save(root / names[number // 4] / ("猫", "dog")[number % 2] / f"{number}.png", number, size)
    return root


# --- Folders of parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "VAL"])
def test_parts_share_their_classes(tmp_path: Path, validation: str) -> None:
    root = parts(tmp_path, "train", "test", validation)
    for path in (root / validation / "dog").iterdir():
        path.unlink()
    (root / validation / "dog").rmdir()
    found = picture_folders(root)
    assert found.test is not None
    assert found.validation is not None
    for part, count in ((found.train, 4), (found.test, 4), (found.validation, 2)):
        assert part.class_names == ("dog", "猫")
        assert (len(part), part.shape) == (count, (8, 8, 3))
    assert found.validation.labels.tolist() == [1, 1]
    assert len({part.fingerprint() for part in (found.train, found.test, found.validation)}) == 3


def test_without_a_training_part_all_is_training_data(tmp_path: Path) -> None:
    found = picture_folders(parts(tmp_path, "train") / "train")
    assert (len(found.train), found.test, found.validation) == (4, None, None)
    vehicles = tmp_path / "vehicles"
    for number, kind in enumerate(("train", "car", "bus")):
        save(vehicles / kind / "1.png", number)
    assert picture_folders(vehicles).train.class_names == ("bus", "car", "train")


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    root = parts(tmp_path, "train", "test")
    save(root / "test" / "fox" / "1.png", 1)
    with pytest.raises(DataError, match="the folder 'fox' is none of the classes dog, 猫"):
        picture_folders(root)
    (root / "test").rename(root / "other")
    with pytest.raises(DataError, match="beside 'train' lies 'other', which is no part with folders of classes"):
        picture_folders(root)
    (root / "other").rename(tmp_path.parent / f"{tmp_path.name}-away")
    parts(root, "val", "valid")
    with pytest.raises(DataError, match="two folders for the part validation: 'val' and 'valid'"):
        picture_folders(root)
    alone = parts(tmp_path / "alone", "test")
    with pytest.raises(DataError, match="holds the parts test and lacks the folder 'train'"):
        picture_folders(alone)


def test_parts_of_other_sizes(tmp_path: Path) -> None:
    root = parts(tmp_path, "train")
    parts(root, "test", size=(9, 8, 3))
    with pytest.raises(
        DataError, match=r"1\.png' is 9x8 pixels, the first training picture 8x8; give a size \(--size\)"
    ):
        picture_folders(root, channels=3)
    assert picture_folders(root, size=(4, 4)).train.shape == (4, 4, 3)


def test_channels_follow_from_the_first_picture_of_each_class(tmp_path: Path) -> None:
    root = parts(tmp_path, "train", size=(8, 8))
    assert picture_folders(root).train.shape == (8, 8, 1)
    assert picture_folders(root, channels=3).train.shape == (8, 8, 3)
    save(root / "train" / "猫" / "9.png", 9)
    assert picture_folders(root).train.shape == (8, 8, 1)
    save(root / "train" / "猫" / "0.png", 0)
    assert picture_folders(root).train.shape == (8, 8, 3)


def test_a_class_with_one_picture_can_be_read(tmp_path: Path) -> None:
    root = parts(tmp_path, "train")
    save(root / "train" / "fox" / "1.png", 1)
    train = picture_folders(root).train
    assert np.bincount(train.labels).tolist() == [2, 1, 2]
    assert train.class_names == ("dog", "fox", "猫")


def test_the_first_picture_is_broken(tmp_path: Path) -> None:
    root = parts(tmp_path, "train")
    (root / "train" / "dog" / "1.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"dog/1\.png': cannot be read as a picture"):
        picture_folders(root)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 are Linux's")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    root = parts(tmp_path, "train")
    odd = os.fsdecode(b"\xff\xfe")
    (root / "train" / "dog").rename(root / "train" / odd)
    (root / "train" / odd / "1.png").rename(root / "train" / odd / f"{odd}.png")
    train = picture_folders(root).train
    assert train.class_names == ("猫", odd)
    assert train.load()[0].shape == (4, 8, 8, 3)
    assert len(train.fingerprint()) == 64
    os.remove(os.path.join(root, "train", odd, f"{odd}.png"))
    with pytest.raises(DataError, match="there is no such file"):
        train.load()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names in UTF-8 or UTF-16, whatever the locale")
@pytest.mark.slow
def test_a_list_is_read_and_its_files_are_named_without_a_locale(tmp_path: Path) -> None:
    save(tmp_path / "图" / "一.png", 1)
    save(tmp_path / "图" / "二.png", 2, (9, 8, 3))
    (tmp_path / "表.csv").write_text("file,class\n图/一.png,猫\n图/二.png,狗\n", encoding="utf-8")
    code = """
        import json, sys
        from chainrule.data import picture_list
        listed = picture_list(sys.argv[1])
        try:
            listed.check()
        except Exception as error:
            print(json.dumps([listed.class_names, listed.fingerprint(), int(listed.read(0).sum()), str(error)]))
    """
    bare = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", textwrap.dedent(code), "表.csv"]
    found = subprocess.run(command, cwd=tmp_path, env={**os.environ, **bare}, capture_output=True, check=True)
    listed = picture_list(tmp_path / "表.csv")
    names, mark, total, message = json.loads(found.stdout)
    assert (tuple(names), mark) == (("狗", "猫"), listed.fingerprint())
    assert total == listed.read(0).sum()
    assert message.startswith("'./图/二.png' is 9x8 pixels, the first picture 8x8")


def test_rows_are_named_by_their_line(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1)
    (tmp_path / "list.csv").write_text(" \n\nfile,class\n\n1.png,a\n1.png,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 6: the class 'b' is none of a"):
        picture_list(tmp_path / "list.csv", class_names=["a"])
    (tmp_path / "list.csv").write_bytes(b"file,class\n1.png,\xff\n")
    with pytest.raises(DataError, match=r"list\.csv': cannot be understood \(.*; expected a csv file in UTF-8"):
        picture_list(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"file,class\n1\x00.png,a\n")
    with pytest.raises(DataError, match=r"list\.csv'"):
        picture_list(tmp_path / "list.csv")


def test_a_list_of_parts(tmp_path: Path) -> None:
    root = parts(tmp_path, "train", "test", "val")
    rows = [
        f"{path.relative_to(root)},{path.parent.name},{part}"
        for part, folder in (("TRAIN", "train"), ("Testing", "test"), (" valid ", "val"))
        for path in sorted((root / folder).rglob("*.png"), key=lambda path: (path.parent.name, path.name))
    ]
    for header in ("file,class,part", "\n  \nPath , Label, Split"):
        (root / "list.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
        for listed, wanted in zip(picture_lists(root / "list.csv"), picture_folders(root), strict=True):
            assert listed is not None
            assert wanted is not None
            assert listed.fingerprint() == wanted.fingerprint()
    with pytest.raises(DataError, match=r"list\.csv' has a column that says which part .* picture_lists"):
        picture_list(root / "list.csv")
    (root / "list.csv").write_text("\n".join(["file,class", *(row.rpartition(",")[0] for row in rows)]))
    train, test, validation = picture_lists(root / "list.csv")
    assert (len(train), test, validation) == (12, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class,part\n1.png,a,train\n1.png,a,tset\n", "row 3: the part 'tset' is none of train, val and test"),
        ("file,class,part\n1.png,a,train\n1.png,a,\n", "row 3: .* lacks a file, a class or a part"),
        ("file,class,part\n1.png,a,train\n1.png,a\n", "row 3: .* lacks a file, a class or a part"),
        ("file,class,part\n1.png,a,test\n", "lists no picture of the part train"),
        ("file,class,part\n1.png,a,train\n1.png,b,test\n", "row 3: the class 'b' is none of a"),
        ("file,class,part\n1.png,a,train\n2.png,a,test\n", r"2\.png' is 9x8 pixels, .*; give a size \(--size\)"),
        ("file;class\n1.png;a\n", "expected a column file or .*; the columns are separated by semicolons, and commas"),
        ("file\tclass\n1.png\ta\n", "expected a column file or .*; the columns are separated by tabs, and commas"),
    ],
)
def test_lists_of_parts_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    save(tmp_path / "1.png", 1)
    save(tmp_path / "2.png", 1, (9, 8, 3))
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        picture_lists(tmp_path / "list.csv")


# --- Fingerprints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1000, 65535, 65536, 65537, 131072, 131073, 300_000])
def test_a_fingerprint_notices_changed_content(tmp_path: Path, size: int) -> None:
    root = parts(tmp_path, "train") / "train"
    path = root / "dog" / "3.png"
    source = picture_folder(root)
    content = np.random.default_rng(1).integers(0, 256, size).astype(np.uint8)
    path.write_bytes(content.tobytes())
    before = source.fingerprint()
    os.utime(path, (1, 1))
    assert source.fingerprint() == before
    for place in {0, min(size, 65536) - 1, max(0, size - 65536), size - 1} if size else ():
        changed = content.copy()
        changed[place] ^= 1
        path.write_bytes(changed.tobytes())
        assert source.fingerprint() != before
    path.write_bytes(content.tobytes() + b"\0")
    assert source.fingerprint() != before
    path.write_bytes(content.tobytes())
    assert source.fingerprint() == before


def test_a_fingerprint_does_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    one = parts(tmp_path / "one", "train") / "train"
    other = tmp_path / "elsewhere"
    before = picture_folder(one).fingerprint()
    one.rename(other)
    assert picture_folder(other).fingerprint() == before
    source = picture_folder(other)
    (other / "dog" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png': cannot be read \(No such file or directory\)"):
        source.fingerprint()


# --- Arrays in files -----------------------------------------------------------------------------------------------


def arrays(folder: Path, x: Any, y: Any) -> tuple[Path, Path]:
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return folder / "x.npy", folder / "y.npy"


@pytest.mark.parametrize("kind", ["u1", "f4", ">f4", "f8", "i2", "?", "f2"])
def test_arrays_stay_in_their_file(tmp_path: Path, kind: str) -> None:
    x = np.random.default_rng(1).integers(0, 2, (6, 4, 5, 2)).astype(kind)
    source = load_npy(*arrays(tmp_path, x, np.array([[0], [1], [2], [0], [1], [2]], np.uint8)))
    assert isinstance(source.samples, np.memmap)
    assert source.class_names == ("0", "1", "2")
    found, labels = source.load()
    assert found.dtype == (np.uint8 if kind == "u1" else np.float32)
    np.testing.assert_array_equal(found, x)
    np.testing.assert_array_equal(labels, [0, 1, 2] * 2)
    assert labels.dtype == np.int64


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def objects(path: Path) -> None:
    np.save(path, np.array([{}, []], object), allow_pickle=True)


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, x=np.zeros(3))


def words(path: Path) -> None:
    np.save(path, np.array(["a", "b"]))


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "the file is truncated, corrupted or holds no plain numbers"),
        (cut_header, "the file is truncated, corrupted or holds no plain numbers"),
        (garbage, "the file is truncated, corrupted or holds no plain numbers"),
        (empty, "the file is truncated, corrupted or holds no plain numbers"),
        (objects, "the file is truncated, corrupted or holds no plain numbers"),
        (archive, "is an archive of arrays; expected an .npy file"),
        (words, "holds <U1; expected numbers"),
        (gone, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_damaged_arrays_are_named(tmp_path: Path, which: int, damage: Callable[[Path], None], message: str) -> None:
    paths = arrays(tmp_path, np.zeros((6, 4, 4, 1), np.uint8), np.zeros(6, np.int64))
    damage(paths[which])
    with pytest.raises(DataError, match=rf"{paths[which].name}'.*{message}") as caught:
        load_npy(*paths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(6), np.zeros(6, int), r"x.npy' holds an array of shape \(6,\); expected samples"),
        (np.zeros((0, 4)), np.zeros(6, int), r"x.npy' holds an array of shape \(0, 4\)"),
        (np.zeros((5, 4)), np.zeros(6, int), "x.npy' holds 5 samples and '.*y.npy' 6 labels"),
        (np.zeros((6, 4)), np.zeros(6), r"y.npy' holds float64 of shape \(6,\); expected an integer for each sample"),
        (np.zeros((6, 4)), np.zeros((6, 3), int), r"y.npy' holds int64 of shape \(6, 3\)"),
        (np.zeros((6, 4)), np.arange(6) - 2, "y.npy': label 0 is -2; expected class numbers from 0"),
        (np.zeros((6, 4)), np.arange(6), "y.npy' holds the class 5; expected 0 to 2"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, x: Any, y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_npy(*arrays(tmp_path, x, y), class_names=["a", "b", "c"])


def test_values_that_are_no_numbers_are_named_when_they_are_read(tmp_path: Path) -> None:
    x = np.zeros((6, 4), np.float32)
    x[3, 2] = np.nan
    source = load_npy(*arrays(tmp_path, x, np.zeros(6, int)))
    assert source.read(2).tolist() == [0, 0, 0, 0]
    with pytest.raises(DataError, match=r"x\.npy': sample 3 holds NaN or infinite values"):
        source.read(3)
    with pytest.raises(DataError, match="the array: sample 0 holds NaN or infinite values"):
        ArraySource(np.full((1, 2), np.inf), np.zeros(1, int)).read(0)


def test_a_row_with_too_many_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file,class\na.png,red, and blue\n")
    with pytest.raises(
        DataError, match=r"row 2: .* has more cells than the header; a text with a comma stands in double"
    ):
        picture_list(path)
