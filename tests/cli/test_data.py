"""``chainrule data``: what a data set is like, and data sets by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.support import Command


def save(path: Path, seed: int, size: tuple[int, ...] = (8, 8, 3)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two parts of two classes of four pictures each."""
    for number in range(16):
        place = tmp_path / "photos" / ("train", "test")[number // 8] / ("猫", "dog")[number % 2]
        save(place / f"{number}.png", number)
    return tmp_path / "photos"


def spoil(photos: Path) -> None:
    """One of each: a broken file, another size, a copy in the test part, a class of one picture."""
    (photos / "train" / "dog" / "1.png").write_bytes(b"broken")
    save(photos / "train" / "猫" / "x.png", 50, (9, 8, 3))
    (photos / "test" / "dog" / "copy.png").write_bytes((photos / "train" / "dog" / "3.png").read_bytes())
    save(photos / "train" / "fox" / "1.png", 60)


SOUND = """\
photos

train: 8 pictures, 2 classes
  size  8x8 (8)
  mode  RGB (8)
  mean  {0}
  std   {1}
  4  dog
  4  猫

test: 8 pictures, 2 classes
  size  8x8 (8)
  mode  RGB (8)
  mean  {2}
  std   {3}
  4  dog
  4  猫

No problems.
"""


def test_a_sound_folder(chainrule: Command, photos: Path) -> None:
    numbers = []
    for part in ("train", "test"):
        x = np.stack([np.asarray(Image.open(file)) for file in (photos / part).rglob("*.png")]) / 255
        numbers += [" ".join(f"{v:.4f}" for v in x.mean((0, 1, 2))), " ".join(f"{v:.4f}" for v in x.std((0, 1, 2)))]
    printed = chainrule("data", "check", "photos")
    assert (printed.status, printed.err) == (0, "")
    assert printed.out == SOUND.format(*numbers)


@pytest.mark.slow
def test_problems_give_status_1_and_are_named(
    chainrule: Command, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    spoil(photos)
    printed = chainrule("data", "check", photos)
    assert (printed.status, printed.err) == (1, "")
    for wanted in (
        "  cannot be read:\n    train/dog/1.png: cannot be read as a picture",
        "In several parts:\n  train/dog/3.png = test/dog/copy.png",
        "- train: pictures have 2 sizes, such as 8x8 (train/",
        "and 9x8 (train/猫/x.png); training needs a size (--size) to bring them to",
        "- train: 1 class with fewer than 2 pictures, such as fox",
        "- the parts do not have the same classes",
    ):
        assert wanted in printed.out
    found: Any = json.loads(chainrule("data", "check", photos, "--json").out)
    assert list(found) == ["folder", "pictures", "parts", "shared", "conflicts", "problems"]
    assert found["pictures"] == sum(sum(part["classes"].values()) for part in found["parts"]) == 18
    assert found["parts"][0]["classes"] == {"dog": 3, "fox": 1, "猫": 5}
    assert found["parts"][0]["sizes"] == [
        {"height": 8, "width": 8, "pictures": 8},
        {"height": 9, "width": 8, "pictures": 1},
    ]
    assert list(found["parts"][0]["broken"]) == ["train/dog/1.png"]
    assert found["shared"] == [["train/dog/3.png", "test/dog/copy.png"]]
    assert len(found["problems"]) == 5


def test_lists_archives_and_idx_files(chainrule: Command, photos: Path, shapes: Path, mnist_folder: Path) -> None:
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted((photos / "train").rglob("*.png"))]
    (photos / "list.csv").write_text("\n".join(["file,class", *rows, "absent.png,dog"]), encoding="utf-8")
    printed = chainrule("data", "check", photos / "list.csv")
    assert (printed.status, printed.err) == (1, "")
    assert "all: 8 pictures, 2 classes" in printed.out
    assert "absent.png: there is no such file" in printed.out
    parts = [f"{row},{part}" for row, part in zip(rows, ["train", "val"] * 4, strict=True)]
    (photos / "parts.csv").write_text("\n".join(["file,class,split", *parts, parts[0][:-5] + "val"]), encoding="utf-8")
    printed = chainrule("data", "check", photos / "parts.csv")
    assert printed.status == 1
    assert "train: 4 pictures, 2 classes" in printed.out
    assert "validation: 5 pictures, 2 classes" in printed.out
    assert f"- 1 picture is in more than one part, such as {parts[0].split(',')[0]} and" in printed.out
    printed = chainrule("data", "check", shapes)
    assert printed.status == 0
    assert "train: 96 pictures, 3 classes\n  size  8x8 (96)\n  mode  L (96)" in printed.out
    printed = chainrule("data", "check", mnist_folder)
    assert printed.status == 0
    assert "test: 20 pictures, 10 classes\n  size  12x12 (20)" in printed.out
    x = np.zeros((4, 8, 8), np.uint8)
    np.savez(
        "same.npz",
        x_train=x,
        y_train=[0, 0, 1, 1],
        x_test=x + np.arange(4, 8, dtype=np.uint8)[:, None, None],
        y_test=[0, 0, 1, 1],
    )
    printed = chainrule("data", "check", "same.npz")
    assert printed.status == 1
    assert "  more than once:\n    train[0] = train[1] = train[2] = train[3]\n" in printed.out
    assert "- train: 1 picture is there more than once, such as train[0] and train[1]\n" in printed.out
    assert "- 1 picture is in several classes, such as train[0] and train[1]\n" in printed.out


def test_long_lists_are_cut_and_json_has_all(chainrule: Command, tmp_path: Path) -> None:
    for number in range(50):
        save(tmp_path / "many" / f"class{number % 25:02}" / f"{number}.png", number)
    for path in list((tmp_path / "many").rglob("*.png"))[:30]:
        path.write_bytes(b"")
    printed = chainrule("data", "check", "many")
    assert printed.status == 1
    assert "all: 20 pictures, 25 classes\n" in printed.out
    assert "pictures in a class\n" in printed.out
    assert printed.out.count("cannot be read as a picture") == 20 + 1
    assert "    ... (--json lists all)\n" in printed.out
    assert len(json.loads(chainrule("data", "check", "many", "--json").out)["parts"][0]["broken"]) == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check"], "the following arguments are required: FOLDER (see chainrule data check --help)"),
        (["check", "nowhere"], "'nowhere': cannot be read (No such file or directory); expected a folder of classes"),
        (["check", "."], "'.' holds no folders; expected one for each class"),
        (
            ["check", "a.txt"],
            "'a.txt' is a file; expected a folder of pictures or idx files, a .csv list or an .npz file",
        ),
        (["check", ".", "--jsn"], "unknown option '--jsn' (did you mean '--json'?); see chainrule data check --help"),
        (
            ["download", "mnsit"],
            "unknown data set 'mnsit' (did you mean 'mnist'?); expected one of mnist, fashion-mnist",
        ),
        (["download"], "the following arguments are required: NAME"),
        (["chekc"], "ACTION: invalid choice: 'chekc' (choose from"),
        ([], "the following arguments are required: ACTION"),
    ],
)
def test_bad_input(refused: Callable[..., str], inside: Path, words: list[str], message: str) -> None:
    (inside / "a.txt").write_text("text")
    assert refused("data", *words).startswith(message)


def in_a_terminal(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "chainrule", "data", *map(str, words)]
    return subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, check=False)


@pytest.mark.slow
def test_40_columns_and_a_terminal_without_unicode(photos: Path) -> None:
    spoil(photos)
    narrow = in_a_terminal(photos, "check", ".", COLUMNS="40", PYTHONUTF8="1")
    assert narrow.returncode == 1
    lines = narrow.stdout.decode().splitlines()
    assert "  cannot be read:" in lines
    assert [line for line in lines if len(line) > 40 and len(line.split()) > 1] == []
    plain = in_a_terminal(photos, "check", ".", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert plain.returncode == 1
    assert rb"\u732b" in plain.stdout
    found = in_a_terminal(photos, "check", ".", "--json", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert "猫" in json.loads(found.stdout)["parts"][0]["classes"]
    # Without any hint that names are UTF-8, each of its bytes is an escape.
    bare = in_a_terminal(photos, "check", ".", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert rb"  5  \u732b" in bare.stdout
    assert plain.stderr + narrow.stderr + found.stderr + bare.stderr == b""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names in UTF-8 or UTF-16, whatever the locale")
def test_chinese_names_without_a_locale(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.rename(path.with_name(f"图{path.name}"))
    save(photos / "train" / "猫" / "x.png", 50, (9, 8, 3))
    (photos / "train" / "dog" / "图1.png").write_bytes(b"")
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted((photos / "train").rglob("*.png"))]
    listed = photos / "表.csv"
    listed.write_text("\n".join(["file,class", *rows]), encoding="utf-8")
    bare = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for place in (".", listed.name):
        told = in_a_terminal(photos, "check", place, "--json", PYTHONUTF8="1")
        found = in_a_terminal(photos, "check", place, "--json", **bare)
        assert (found.returncode, found.stderr) == (1, b"")
        assert json.loads(found.stdout) == json.loads(told.stdout)
        assert list(json.loads(found.stdout)["parts"][0]["broken"]) == ["train/dog/图1.png"]
    wrong = in_a_terminal(photos, "check", "无.csv", **bare)
    assert wrong.stderr.startswith(rb"chainrule: error: '\u65e0.csv': cannot be read (No such file")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names that are no UTF-8 are Linux's")
def test_names_that_are_no_text(photos: Path) -> None:
    odd = os.fsencode(photos / "train") + b"/\xff\xfe"
    (photos / "train" / "dog").rename(os.fsdecode(odd))
    os.rename(photos / "test" / "dog", os.fsencode(photos / "test") + b"/\xff\xfe")
    printed = in_a_terminal(photos, "check", ".")
    assert (printed.returncode, printed.stderr) == (0, b"")
    assert rb"  4  \udcff\udcfe" in printed.stdout
    found = in_a_terminal(photos, "check", ".", "--json")
    assert "\udcff\udcfe" in json.loads(found.stdout)["parts"][0]["classes"]


def test_a_download_says_what_comes_from_where(
    chainrule: Command, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINRULE_DATA_MIRROR", (inside / "mirror").as_uri())
    printed = chainrule("data", "download", "mnist", "--to", "here")
    assert printed.status == 2
    address = f"{(inside / 'mirror').as_uri()}/mnist/train-images-idx3-ubyte.gz"
    first, second, third = printed.err.splitlines()
    assert first == f"chainrule: downloading {address} to 'here/train-images-idx3-ubyte.gz'"
    assert second == f"chainrule: {address}: no connection (No such file or directory)"
    assert third.startswith(
        f"chainrule: error: 'here/train-images-idx3-ubyte.gz' could not be downloaded from {address} ("
    )
    assert os.listdir("here") == []


@pytest.mark.slow
def test_a_download_of_the_real_files(
    chainrule: Command, data_set: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAINRULE_DATA_MIRROR", data_set("mnist").absolute().parent.as_uri())
    printed = chainrule("data", "download", "mnist", "--to", "here")
    assert (printed.status, printed.out) == (0, "mnist: the published files are in 'here'\n")
    assert printed.err.count("chainrule: downloading ") == 4
    assert chainrule("data", "download", "mnist", "--to", "here").err == ""


def test_one_class_is_too_few(chainrule: Command, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "one" / "only" / f"{number}.png", number)
    printed = chainrule("data", "check", tmp_path / "one")
    assert printed.status == 1
    assert "there is one class, only; training needs two or more" in printed.out
