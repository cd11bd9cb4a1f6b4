"""Folders and lists of pictures, read while a training runs; what is broken is named."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import chainrule as cr
from chainrule.data import ArraySource, picture_folder, picture_list, picture_size, read_picture
from chainrule.data.check import check_folder
from chainrule.errors import ConfigError, DataError
from chainrule.train.feed import Stream

Array = np.ndarray[Any, Any]


def pixels(seed: int, size: tuple[int, ...] = (8, 8, 3)) -> Array:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, size).astype(np.uint8)


def save(path: Path, array: Array, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twelve PNG files each, whose colour says the class."""
    for number in range(24):
        kind = number % 2
        array = pixels(number) // 2
        array[..., kind] += 120
        save(tmp_path / "set" / ("甲", "b")[kind] / f"{number:02}.png", array)
    return tmp_path / "set"


# --- One picture -------------------------------------------------------------------------------------------


def test_a_picture_is_read_exactly(tmp_path: Path) -> None:
    array = pixels(1, (5, 7, 3))
    path = save(tmp_path / "a.png", array)
    np.testing.assert_array_equal(read_picture(path), array)
    grey = read_picture(path, channels=1)
    assert grey.shape == (5, 7, 1)
    np.testing.assert_allclose(grey[..., 0], array @ [0.299, 0.587, 0.114], atol=1.0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_colour(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    grey = pixels(1, (6, 6)) // 128 * 255  # black and white, which all modes hold
    Image.fromarray(grey).convert(mode).save(path)
    np.testing.assert_array_equal(read_picture(path), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize(("suffix", "kind"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("pgm", "<u2")])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_keep_their_range(tmp_path: Path, suffix: str, kind: str, channels: int) -> None:
    ramp = np.linspace(0, 65535, 1024).reshape(32, 32).astype(np.uint16)
    path = save(tmp_path / f"a.{suffix}", ramp.astype(kind))
    found = read_picture(path, channels)
    wanted = np.rint(ramp / 257).astype(np.uint8)
    np.testing.assert_array_equal(found, np.repeat(wanted[..., None], channels, 2))
    assert (found.min(), found.max()) == (0, 255)
    half = read_picture(path, channels, size=(16, 16))
    np.testing.assert_allclose(half.mean(), found.mean(), atol=1.0)


@pytest.mark.parametrize(("kind", "mode"), [("i4", "I"), ("f4", "F"), ("i2", "I")])
def test_more_bits_are_refused(tmp_path: Path, kind: str, mode: str) -> None:
    path = save(tmp_path / "a.tif", np.arange(64).reshape(8, 8).astype(kind))
    for look in (read_picture, picture_size):
        with pytest.raises(
            DataError, match=rf"a\.tif': the picture has the mode {mode} .* expected 8 or 16 bits a chan"
        ):
            look(path)


def test_a_camera_that_lay_on_its_side(tmp_path: Path) -> None:
    array = pixels(1, (4, 6, 3))
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), np.rot90(array, -1))


def test_a_large_file_is_read_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", pixels(1, (40, 40, 3)))
    small = read_picture(path)
    monkeypatch.setattr("chainrule.data.pictures._WHOLE", 100)
    np.testing.assert_array_equal(read_picture(path), small)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"a\.png"):
        read_picture(path)


def test_a_jpeg_on_its_side_is_decoded_large_enough(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.repeat(pixels(1, (50, 100, 3)), 8, 0), 8, 1))  # 400x800
    upright = read_picture(save(tmp_path / "a.jpg", np.asarray(image), quality=95), size=(200, 100))
    exif = image.getexif()
    exif[0x0112] = 6  # shown turned to the right
    image.rotate(90, expand=True).save(tmp_path / "b.jpg", quality=95, exif=exif)
    turned = read_picture(tmp_path / "b.jpg", size=(200, 100))
    assert np.abs(turned.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("fit", ["cover", "contain", "stretch"])
def test_sizes(tmp_path: Path, fit: Any) -> None:
    path = save(tmp_path / "a.png", np.full((20, 40, 3), 200, np.uint8))
    found = read_picture(path, size=(10, 10), fit=fit)
    assert found.shape == (10, 10, 3)
    assert (found == 200).mean() == pytest.approx(0.5 if fit == "contain" else 1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read as a picture \(the file is empty\)"),
        (
            b"no picture at all",
            r"cannot be read as a picture \(it is no picture, or of a kind that Pillow does not know\)",
        ),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIH", r"cannot .* \(it starts as a PNG file and is truncated or damaged\)"),
        (b"\xff\xd8\xff\xe0\0\x10JF", r"cannot be read as a picture \(it starts as a JPEG file and is truncated or"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.jpg.*{message}"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_cut_file_is_called_truncated(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / f"a.{kind}", pixels(3, (64, 64, 3)))
    path.write_bytes(path.read_bytes()[:-2000])
    assert picture_size(path) == (64, 64, "RGB")
    with pytest.raises(DataError, match=rf"a\.{kind}': the picture is truncated \("):
        read_picture(path)


def test_large_pictures_are_read_without_a_warning_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    array = pixels(3, (10, 15, 3))
    path = save(tmp_path / "a.png", array)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 149)
    np.testing.assert_array_equal(read_picture(path), array)
    assert picture_size(path) == (10, 15, "RGB")
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 74)
    for look in (read_picture, picture_size):
        with pytest.raises(
            DataError, match=r"a\.png': the picture is too large \(150 pixels; Pillow reads 148 at most\)"
        ):
            look(path)


def test_a_program_may_have_large_pictures_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", pixels(3, (10, 15, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 149)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(
            DataError, match=r"a\.png': the picture is too large \(150 pixels; Pillow reads 149 at most\)"
        ):
            read_picture(path)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_every_cut_file_is_an_error_or_whole(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / f"a.{kind}", pixels(3, (32, 32, 3)))
    whole, wanted = path.read_bytes(), read_picture(path)
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        found, message = None, ""
        try:
            found = read_picture(path)
        except DataError as error:
            message = str(error)
        if found is None:
            assert f"a.{kind}" in message
        else:
            np.testing.assert_array_equal(found, wanted)


# --- Folders and lists -------------------------------------------------------------------------------------


def test_a_folder_for_each_class(folder: Path) -> None:
    source = picture_folder(folder)
    assert source.class_names == ("b", "甲")
    assert len(source) == 24
    assert source.shape == (8, 8, 3)
    x, y = source.load()
    np.testing.assert_array_equal(y, [0] * 12 + [1] * 12)
    np.testing.assert_array_equal(x[0], read_picture(folder / "b" / "01.png"))
    assert source.fingerprint() == picture_folder(folder).fingerprint()
    save(folder / "b" / "99.png", pixels(5))
    assert source.fingerprint() != picture_folder(folder).fingerprint()


def test_a_list_gives_the_same(folder: Path) -> None:
    plain = picture_folder(folder)
    rows = [
        f"{Path(file).relative_to(folder)},{plain.class_names[label]}"
        for file, label in zip(plain.files, plain.labels, strict=True)
    ]
    (folder / "list.csv").write_text("\n".join(["file,class", *rows]), encoding="utf-8")
    listed = picture_list(folder / "list.csv")
    assert listed.class_names == plain.class_names
    for found, wanted in zip(listed.load(), plain.load(), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the header is empty; expected a column file or path"),
        ("a,b\n", r"the header is a, b; expected a column file"),
        ("file,class\n", r"lists no pictures"),
        ("file,class\nb/01.png\n", r"row 2: \['b/01.png'\] lacks a file or a class"),
        ("file,class\nb/01.png,\n", r"row 2: .* lacks a file or a class"),
        ('file,class\n"b/01.png,b\n', r"cannot be understood"),
    ],
)
def test_rows_that_cannot_be_understood(folder: Path, text: str, message: str) -> None:
    (folder / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"list\.csv.*{message}"):
        picture_list(folder / "list.csv")


def test_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere': cannot be read"):
        picture_folder(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"holds no folders; expected one for each class; its 12 pictures lie in no class"
    ):
        picture_folder(folder / "b")
    (folder / "c").mkdir()
    with pytest.raises(DataError, match=r"holds no picture; expected one or more of the class 'c'"):
        picture_folder(folder)
    with pytest.raises(DataError, match=r"the folder 'c' is none of the classes b, 甲"):
        picture_folder(folder, class_names=["b", "甲"])


def test_unequal_sizes_are_named_before_they_do_harm(folder: Path) -> None:
    odd = save(folder / "b" / "50.png", pixels(1, (9, 8, 3)))
    source = picture_folder(folder)
    with pytest.raises(DataError, match=rf"{odd.name}' is 9x8 pixels, the first picture 8x8; give a size \(--size\)"):
        source.load()
    assert picture_folder(folder, size=(8, 8)).load()[0].shape == (25, 8, 8, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_headers_are_checked_before_a_training(folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.data.folder._TOGETHER", 4)
    picture_folder(folder).check(workers)
    (folder / "b" / "17.png").write_bytes(b"broken")
    save(folder / "甲" / "02.png", pixels(1, (9, 8, 3)))
    source, sized = picture_folder(folder), picture_folder(folder, size=(8, 8))
    with pytest.raises(DataError, match=r"17\.png': cannot be read as a picture"):
        source.check(workers)
    with pytest.raises(DataError, match=r"17\.png': cannot be read as a picture"):
        sized.check(workers)
    rest = [number for number in range(24) if not source.files[number].endswith("17.png")]
    with pytest.raises(DataError, match=r"02\.png' is 9x8 pixels, the first picture 8x8; give a size \(--size\)"):
        source.part(rest).check(workers)
    sized.part(rest).check(workers)
    odd = next(place for place, number in enumerate(rest) if source.files[number].endswith("02.png"))
    with pytest.raises(DataError, match=r"02\.png' is 9x8 pixels"):
        source.part(rest).part([0, odd]).check(workers)
    source.part(rest).part([0, odd - 1]).check(workers)
    ArraySource(np.zeros((2, 3)), np.zeros(2)).check(workers)


# --- Training ----------------------------------------------------------------------------------------------


def model() -> cr.Model:
    cr.set_seed(1)
    built = cr.Sequential([cr.Input((8, 8, 3)), cr.layers.Rescaling(1 / 255), cr.layers.Flatten(), cr.layers.Dense(2)])
    built.compile("adam", cr.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return built


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("chunk", [1, 1000, 1 << 22])
def test_a_source_trains_to_the_bits_of_its_arrays(
    folder: Path, workers: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chainrule.train.feed.CHUNK_BYTES", chunk)
    source, augmentations = picture_folder(folder), [cr.augment.RandomFlip(), cr.augment.MixUp(0.3)]
    one, other = model(), model()
    streamed = one.fit(
        source, batch_size=5, epochs=3, verbose=0, workers=workers, validation_split=0.25, augment=augmentations
    )
    x, y = source.load()
    whole = other.fit(x, y, batch_size=5, epochs=3, verbose=0, validation_split=0.25, augment=augmentations)
    assert streamed.history == whole.history
    for found, wanted in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert threading.active_count() < 20


@pytest.mark.slow
def test_a_broken_picture_ends_the_training_and_is_named(folder: Path) -> None:
    (folder / "b" / "03.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"03\.png': cannot be read as a picture"):
        model().fit(picture_folder(folder), batch_size=5, verbose=0)


def test_a_source_brings_its_labels(folder: Path) -> None:
    with pytest.raises(ConfigError, match="a source brings its own labels; leave y out"):
        model().fit(picture_folder(folder), np.zeros(24), verbose=0)


@pytest.mark.slow
def test_a_mapped_file_is_a_source(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(1, (20, 8, 8, 3)))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    source = ArraySource(mapped, np.arange(20) % 2)
    history = model().fit(source, batch_size=8, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


def test_reading_keeps_ahead_and_stops_when_nobody_listens(folder: Path) -> None:
    seen: list[int] = []

    class Watched(ArraySource):
        def read(self, number: int) -> Array:
            seen.append(number)
            return super().read(number)

    source = Watched(pixels(1, (4000, 8, 8, 3)), np.zeros(4000, np.int64))
    stream = Stream(source, {"y": source.labels}, 2)
    chunks: Any = stream.chunks(np.arange(4000), 10)
    first = next(chunks)
    assert first.rows.tolist() == list(range(len(first.rows)))
    chunks.close()
    assert len(seen) <= (1 + 2 + 4 + 8) * len(first.rows)


# --- Checking a folder -------------------------------------------------------------------------------------


def test_a_sound_folder_has_no_problems(folder: Path) -> None:
    report = check_folder(folder)
    assert report.problems() == []
    (part,) = report.parts
    assert part.classes == {"b": 12, "甲": 12}
    assert part.modes == {"RGB": 24}
    x = picture_folder(folder).load()[0] / 255
    np.testing.assert_allclose(part.mean, x.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(part.deviation, x.std(axis=(0, 1, 2)), rtol=1e-6)


def spoil_broken(folder: Path) -> None:
    (folder / "train" / "b" / "03.png").write_bytes(b"broken")


def spoil_shared(folder: Path) -> None:
    (folder / "test" / "b" / "x.png").write_bytes((folder / "train" / "b" / "05.png").read_bytes())


def spoil_conflict(folder: Path) -> None:
    (folder / "train" / "甲" / "x.png").write_bytes((folder / "train" / "b" / "05.png").read_bytes())


def spoil_twice(folder: Path) -> None:
    for number, name in (("05", "x"), ("07", "y")):
        (folder / "train" / "b" / f"{name}.png").write_bytes((folder / "train" / "b" / f"{number}.png").read_bytes())


def spoil_single(folder: Path) -> None:
    save(folder / "train" / "c" / "1.png", pixels(77))


def spoil_size(folder: Path) -> None:
    save(folder / "train" / "b" / "77.png", pixels(77, (9, 9, 3)))


def spoil_mode(folder: Path) -> None:
    save(folder / "train" / "b" / "77.png", pixels(77, (8, 8)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_broken, r"train: 1 file cannot be read, such as train/b/03.png: cannot be read as a picture"),
        (spoil_shared, r"1 picture is in more than one part, such as train/b/05.png and test/b/x.png"),
        (spoil_conflict, r"1 picture is in several classes, such as train/b/05.png and train/甲/x.png"),
        (spoil_twice, r"train: 2 pictures are there more than once, such as train/b/05.png and train/b/x.png$"),
        (spoil_single, r"train: 1 class with fewer than 2 pictures, such as c"),
        (spoil_size, r"train: pictures have 2 sizes"),
        (spoil_mode, r"train: pictures have the modes L, RGB"),
    ],
)
def test_problems_are_named(folder: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    root = tmp_path / "whole"
    root.mkdir()
    folder.rename(root / "train")
    for number in range(4):
        save(root / "test" / ("甲", "b")[number % 2] / f"{number}.png", pixels(100 + number))
    assert check_folder(root).problems() == []
    spoil(root)
    assert any(re.search(message, problem) for problem in check_folder(root).problems())


def test_a_source_of_ones_own_is_looked_at_before_a_training() -> None:
    class Own(cr.data.Source):
        shape, dtype, labels = (2, 2, 1), np.dtype(np.uint8), np.array([0, 1])

        def read(self, number: int) -> np.ndarray:
            return np.zeros((2, 2 + number, 1), np.uint8)

        def identity(self, number: int) -> bytes:
            return bytes([number])

    Own().check()
    with pytest.raises(
        DataError, match=r"sample 1 of the source has the shape \(2, 3, 1\); the source says \(2, 2, 1\)"
    ):
        Own().part([1]).check()
