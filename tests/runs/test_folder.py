"""Run folders and atomic files: nothing that existed is touched, no failure is silent."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chainrule.errors import ConfigError, RunFolderError
from chainrule.files import write_bytes_atomic, write_text_atomic
from chainrule.runs import create_run_folder, read_config, write_config


def refused(path: Path | None, root: Path = Path("runs"), name: str = "mnist") -> str:
    with pytest.raises(RunFolderError) as caught:
        create_run_folder(path, name, root=root)
    message = str(caught.value)
    assert "expected" in message
    assert "\n" not in message
    return message


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_numbered_folders(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "runs"
    folders = [create_run_folder(None, "mnist", root=root) for _ in range(3)]
    assert [folder.name for folder in folders] == ["mnist-1", "mnist-2", "mnist-3"]
    assert create_run_folder(None, "数字", root=root) == root / "数字-1"


def test_the_default_root_is_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert create_run_folder(None, "mnist") == Path("runs/mnist-1")
    assert (tmp_path / "runs" / "mnist-1").is_dir()


def test_a_taken_number_is_skipped_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mnist-1").write_text("a file")
    (tmp_path / "mnist-2").symlink_to(tmp_path / "nowhere")
    (tmp_path / "mnist-3").mkdir()  # empty, but somebody's
    assert create_run_folder(None, "mnist", root=tmp_path).name == "mnist-4"
    assert (tmp_path / "mnist-1").read_text() == "a file"


@pytest.mark.slow
def test_runs_that_start_together_get_different_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        starts = [pool.submit(create_run_folder, None, "mnist", tmp_path) for _ in range(64)]
    assert len({start.result() for start in starts}) == 64


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "a\\b", "a\0b"])
def test_names_that_would_leave_the_root(tmp_path: Path, name: str) -> None:
    assert "plain file name" in refused(None, root=tmp_path, name=name)
    assert list(tmp_path.iterdir()) == []


def test_a_given_folder_is_new_or_empty(tmp_path: Path) -> None:
    new = tmp_path / "a" / "b"
    assert create_run_folder(new, "mnist") == new
    assert create_run_folder(new, "mnist") == new  # still empty
    assert list(new.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    (tmp_path / ".hidden").touch()
    message = refused(tmp_path)
    assert "already holds '.hidden' and 1 more" in message
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious"


def test_paths_that_cannot_be_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "is not a folder" in refused(tmp_path / "file")
    assert "is not a folder" in refused(tmp_path / "dangling")
    assert "Not a directory" in refused(tmp_path / "file" / "a" / "b")
    assert "cannot be created" in refused(tmp_path / "dangling" / "a")
    assert "cannot be created" in refused(tmp_path / "loop" / "a")
    assert "too long" in refused(tmp_path / ("n" * 300))
    assert "embedded null" in refused(tmp_path / "a\0b")  # what follows differs between versions of Python
    assert "cannot be created" in refused(None, root=tmp_path / "file")
    assert "Not a directory" in refused(None, root=tmp_path / "file" / "runs")
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_file_system_that_refuses() -> None:
    assert "'/proc/run'" in refused(Path("/proc/run"))
    assert "'/proc/mnist-N'" in refused(None, root=Path("/proc"))


def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("permissions do not bind this user")
    assert "Permission denied" in refused(tmp_path)
    assert "Permission denied" in refused(tmp_path / "new")


def test_a_folder_without_write_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert "(Read-only file system)" in refused(tmp_path)


def test_files_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text_atomic(path, "zwölf\r\n")
    assert path.read_bytes() == b"zw\xc3\xb6lf\r\n"
    write_bytes_atomic(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_bytes_atomic(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(step, fail)
    with pytest.raises(RunFolderError, match=r"a\.txt'.*No space left on device"):
        write_text_atomic(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomic(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]


def test_paths_that_cannot_be_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "a", tmp_path / "no" / "a", Path("a\0b")):
        with pytest.raises(RunFolderError, match="cannot be written"):
            write_bytes_atomic(path, b"")
    with pytest.raises(RunFolderError, match=r"lone surrogate '\\udc80'"):
        write_text_atomic(tmp_path / "a", "a\udc80")
    assert names(tmp_path) == ["file", "folder"]


def test_config_round_trip(tmp_path: Path) -> None:
    config = {"epochs": 5, "rate": 1e-3, "layers": [{"name": "卷积", "bias": True}], "seed": None}
    write_config(tmp_path, config)
    assert read_config(tmp_path / "config.json") == config
    with pytest.raises(RunFolderError, match="already exists"):
        write_config(tmp_path, {})
    assert read_config(tmp_path / "config.json") == config


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Path("a"), {1, 2}, b"a"])
def test_config_values_without_a_json_form(tmp_path: Path, value: object) -> None:
    with pytest.raises(ConfigError, match=r"config\.json'.*has no JSON form"):
        write_config(tmp_path, {"value": value})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b'{"epochs": 5', "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"rate": NaN}', "NaN is not a JSON number"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[1]", "the top level is a list"),
    ],
    ids=range(8),
)
def test_config_files_that_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_config_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(RunFolderError, match="cannot be read"):
            read_config(path)


def test_config_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_config(tmp_path / "mine.json") == {"a": 1}
