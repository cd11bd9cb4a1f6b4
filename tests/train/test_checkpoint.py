"""Files of checkpoints: what is damaged, what only cannot be read now, and what must not be begun anew unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

import chainrule as cr
from chainrule.errors import CheckpointError, RunFolderError
from chainrule.train import checkpoint
from chainrule.train.callback import Callback
from chainrule.train.checkpoint import newest, read_checkpoint

X = np.linspace(-1, 1, 80, dtype=np.float32).reshape(20, 4)
Y = X.sum(axis=1, keepdims=True)
KEY = "chainrule-checkpoint"


class Begun(Callback):
    """Knows where a training began."""

    def __init__(self) -> None:
        self.step: int | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.step is None:
            self.step = int(self.model.optimizer.iterations.data)


def train(folder: Path, *callbacks: Callback, epochs: int = 3, **options: Any) -> int | None:
    """Train from where the folder says; gives the step at which that was."""
    cr.set_seed(1)
    model = cr.Sequential([cr.Input((4,)), cr.layers.Dense(1)])
    model.compile("sgd", "mse")
    begun = Begun()
    backup = cr.callbacks.BackupAndRestore(folder, delete_checkpoint=False, **options)
    model.fit(X, Y, 5, epochs=epochs, verbose=0, callbacks=[begun, *callbacks, backup])
    return begun.step


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewritten(path: Path, **changed: Any) -> None:
    """Change a checkpoint's header in its file."""
    content = path.read_bytes()
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    header = {**json.loads(metadata[KEY]), **changed}
    path.write_bytes(save(load(content), metadata={KEY: json.dumps(header)}))


# --- Other formats, and files that cannot be read -----------------------------------------------------------


@pytest.mark.parametrize("all_of_them", [True, False])
@pytest.mark.parametrize("accept", [True, False])
def test_another_format_is_no_damage(all_of_them: bool, accept: bool, tmp_path: Path) -> None:
    train(tmp_path)
    for path in sorted(tmp_path.iterdir())[0 if all_of_them else 1 :]:
        rewritten(path, format=checkpoint.FORMAT - 1, version="0.0.9")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"checkpoint format \d; this version reads \d.*wrote it \(0\.0\.9\)"):
        train(tmp_path, epochs=4, accept_changes=accept)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("number", "words"), [(5, "Input/output error"), (13, "Permission denied")])
def test_what_cannot_be_read_now_is_not_damaged(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path)
    before, read = contents(tmp_path), Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.suffix == ".safetensors":
            raise OSError(number, words)
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", failing)
        with pytest.raises(CheckpointError, match=f"cannot be read \\({words}\\)"):
            train(tmp_path, epochs=4, accept_changes=True)
    assert contents(tmp_path) == before
    assert train(tmp_path, epochs=4) == 12


def test_a_folder_in_a_checkpoint_s_place_is_not_damaged(tmp_path: Path) -> None:
    train(tmp_path)
    (tmp_path / "checkpoint-000000000099.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoint-000000000099\.safetensors': cannot be read"):
        train(tmp_path, epochs=4)


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(RunFolderError, match="file': cannot be read"):
        newest(tmp_path / "file")


# --- Nothing but damage -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_where_all_are_damaged_nothing_begins_anew_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    before = contents(tmp_path)
    assert len(before) == 2
    for _ in range(2):  # also when it is simply tried again
        with pytest.raises(
            CheckpointError, match=r"no checkpoint is whole: .*000012.*damaged.*; .*000008.*to begin anew"
        ):
            train(tmp_path, epochs=4)
        assert contents(tmp_path) == before
    assert train(tmp_path, epochs=4, accept_changes=True) == 0
    printed = capsys.readouterr().err.splitlines()
    assert [line.endswith(".damaged'; the training begins anew") for line in printed] == [True, True]
    aside = {
        name.removesuffix(".damaged"): content for name, content in contents(tmp_path).items() if "damaged" in name
    }
    assert aside == before
    assert train(tmp_path, epochs=5) == 16


def test_a_damaged_one_is_set_aside_once_the_one_before_it_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path)
    last = max(tmp_path.iterdir())
    last.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not go on to the same bits"):
        train(tmp_path, epochs=4, facts={"seed": 2})
    assert last.exists()
    assert train(tmp_path) == 8
    assert f"set aside as '{last.name}.damaged'; the one before it is used" in capsys.readouterr().err
    assert read_checkpoint(last).step == 12


# --- What callbacks give ------------------------------------------------------------------------------------


class Giving(Callback):
    """Hands over what it was made with, and keeps what comes back."""

    def __init__(self, state: Any = None, arrays: Any = None) -> None:
        self.given = ({} if state is None else state, {} if arrays is None else arrays)
        self.state: Any = None
        self.arrays: dict[str, Any] = {}

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.given[0]
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self.state = state

    def get_arrays(self) -> dict[str, Any]:
        arrays: dict[str, Any] = self.given[1]
        return arrays

    def set_arrays(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays


def test_what_a_callback_gives_comes_back(tmp_path: Path) -> None:
    matrix = np.arange(12.0).reshape(3, 4)
    given = {
        "big": matrix.astype(">f4"),
        "columns": np.asfortranarray(matrix),
        "turned": matrix[::-1, ::2],
        "scalar": np.array(7, ">i2"),
        "none": np.empty((0, 3), np.float16),
        "flags": np.array([True, False]),
        "list": [1, 2],
        **{f"{dtype}": np.ones(2, dtype) for dtype in ("u1", "u2", "u4", "u8", "i1", "i4", "i8", "f8")},
    }
    state = {"seen": {8: 1.5, 10: 2.5, 9: (1, 2)}, "text": "Zürich \u2192", "none": None, "yes": True}
    train(tmp_path, Giving(state, given))
    back = Giving(state, given)
    assert train(tmp_path, back, epochs=4) == 12
    assert back.state == {
        "seen": {"8": 1.5, "10": 2.5, "9": [1, 2]},
        "text": "Zürich \u2192",
        "none": None,
        "yes": True,
    }
    assert set(back.arrays) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(back.arrays[name], array, strict=name not in ("big", "scalar"))


@pytest.mark.parametrize(
    ("giving", "words"),
    [
        (Giving({"best": np.float32(1)}), "get_state gives what JSON cannot hold .*float32.*finite floats of Python"),
        (Giving({"best": float("inf")}), "get_state gives what JSON cannot hold .*[Oo]ut of range"),
        (Giving({"best": float("nan")}), "get_state gives what JSON cannot hold"),
        (Giving({(1, 2): 3}), "get_state gives what JSON cannot hold .*keys must be"),
        (Giving({"text": "\ud800"}), "get_state gives what JSON cannot hold .*surrogates"),
        (Giving(arrays={"a": np.array([None])}), "get_arrays gives object by the name 'a'; expected .*float64"),
        (Giving(arrays={"a": np.array(["b"])}), "get_arrays gives <U1 by the name 'a'"),
        (Giving(arrays={"a": np.ones(2, np.complex64)}), "get_arrays gives complex64 by the name 'a'"),
        (Giving(arrays={3: np.ones(2)}), "get_arrays gives float64 by the name 3; expected texts"),
    ],
)
def test_what_no_file_can_hold_is_refused_by_the_callback_s_name(giving: Giving, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^Giving: (?:{words})"):
        train(tmp_path, giving, epochs=1)
    assert not list(tmp_path.iterdir())


def test_a_numpy_bool_stops_a_training_and_is_kept(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = np.bool_(epoch == 0)  # type: ignore[assignment]

    train(tmp_path, Stop())
    assert read_checkpoint(max(tmp_path.iterdir())).header["stopped"] is True
    assert train(tmp_path, Stop()) is None
