"""``chainrule resume``: runs that were cut off end as if they had not been, and what has changed is refused by name."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.cli import report
from chainrule.cli.opened import open_run
from chainrule.cli.output import Output
from chainrule.train.callback import Callback, Logs
from tests.cli import kills
from tests.cli.support import Command, Printed

pytestmark = pytest.mark.slow

WORDS = (
    *("--network", "conv32-dense128", "--epochs", 3, "--batch-size", 8, "--validation-fraction", 0.25),
    *("--augment", "flip,crop:1,noise", "--checkpoint-seconds", 0.01),
)
COMPARED = ("model.safetensors", "best.safetensors", "history.json", "history.csv", "config.json")


class Press(Callback):
    """A signal after some step of an epoch."""

    def __init__(self, epoch: int, batch: int) -> None:
        self._when = epoch, batch
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if (self._epoch, batch) == self._when:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def whole(chainrule: Command, shapes: Path) -> Path:
    """An uninterrupted run."""
    assert chainrule("train", shapes, *WORDS, "--run", "whole").status == 0
    return Path("whole")


def cut_off(
    chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch, *words: object, epoch: int = 1, batch: int = 3
) -> Printed:
    """Begin a run in `r`, and end it by Ctrl-C."""
    with monkeypatch.context() as patch:
        patch.setattr(Output, "callbacks", lambda self: [Press(epoch, batch)])
        printed = chainrule("train", shapes, *WORDS, *words, "--run", "r")
    assert printed.status == 130
    return printed


def assert_the_same(first: Path, second: Path) -> None:
    for name in COMPARED:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize(("epoch", "batch"), [(0, 0), (0, 8), (1, 3), (2, 7)])
def test_an_interrupted_run_ends_the_same(
    chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch, whole: Path, epoch: int, batch: int
) -> None:
    cut_off(chainrule, shapes, monkeypatch, epoch=epoch, batch=batch)
    assert json.loads(Path("r/result.json").read_text())["interrupted"]
    monkeypatch.setenv("CHAINRULE_THREADS", "1")
    printed = chainrule("resume", "r", "--verbose", 1)  # what shows the progress may be another than before
    assert printed.status == 0, printed.err
    assert_the_same(Path("r"), whole)
    first, second = (json.loads((run / "result.json").read_text()) for run in (Path("r"), whole))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert sorted(p.name for p in Path("r").iterdir()) == sorted(p.name for p in whole.iterdir())


def test_a_finished_run_is_left_alone(refused: Callable[..., str], whole: Path) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert "the run 'whole' has come to its end" in refused("resume", whole)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert "there is no run folder 'absent'" in refused("resume", "absent")


def test_a_run_that_was_cut_off_has_no_model_yet(
    chainrule: Command, refused: Callable[..., str], shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(chainrule, shapes, monkeypatch)
    for name in ("model.safetensors", "result.json"):
        (Path("r") / name).unlink()
    assert "was cut off before it came to its end; chainrule resume r goes on" in refused("evaluate", "r")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    cut_off(chainrule, shapes, monkeypatch)
    files = sorted(Path("r/checkpoints").iterdir())
    assert len(files) == 2
    content = bytearray(files[-1].read_bytes())
    content[len(content) // 2] ^= 1
    files[-1].write_bytes(content)
    printed = chainrule("resume", "r")
    assert printed.status == 0
    assert f"'{files[-1]}': damaged: the content does not match its checksum" in printed.err
    assert_the_same(Path("r"), whole)


def test_data_that_have_changed_are_refused(
    chainrule: Command, refused: Callable[..., str], shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(chainrule, shapes, monkeypatch)
    with np.load(shapes) as archive:
        arrays = dict(archive)
    arrays["x_train"][0] = 255 - arrays["x_train"][0]
    np.savez(shapes, **arrays)
    message = refused("resume", "r")
    assert "the data" in message
    assert "changed" in message
    assert "--accept-changes" in message
    printed = chainrule("resume", "r", "--accept-changes")
    assert printed.status == 0
    assert "changed" in printed.err


def test_another_configuration_is_refused(
    chainrule: Command, refused: Callable[..., str], shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(chainrule, shapes, monkeypatch)
    path = Path("r/config.json")
    text = path.read_text()
    path.write_text(text.replace('"learning_rate": 0.002', '"learning_rate": 0.003'))
    message = refused("resume", "r")
    assert "--learning-rate 0.002 -> 0.003" in message
    assert "--accept-changes" in message
    path.write_text(text.replace('"network": "conv32-dense128"', '"network": "digits"'))
    assert "another model" in refused("resume", "r", "--accept-changes")
    path.write_text(text.replace('"epochs"', '"epoch"'))
    assert "unknown setting 'epoch' (did you mean 'epochs'?)" in refused("resume", "r")
    path.write_text(text)
    assert chainrule("resume", "r").status == 0


def test_several_seeds_go_on(chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chainrule("train", shapes, *WORDS, "--seeds", "0-2", "--run", "whole").status == 0
    presses = iter([[], [Press(0, 2)]])
    with monkeypatch.context() as patch:
        patch.setattr(Output, "callbacks", lambda self: next(presses))
        assert chainrule("train", shapes, *WORDS, "--seeds", "0-2", "--run", "r").status == 130
    printed = chainrule("resume", "r", "--quiet")
    assert printed.status == 0
    assert printed.out.splitlines()[-1].startswith("mean test accuracy over 3 seeds")
    for seed in range(3):
        assert_the_same(Path(f"r/seed-{seed}"), Path(f"whole/seed-{seed}"))
    assert json.loads(Path("r/seeds.json").read_text()) == json.loads(Path("whole/seeds.json").read_text())
    assert chainrule("resume", "r").status == 2


def test_seeds_that_had_not_begun(chainrule: Command, refused: Callable[..., str], shapes: Path) -> None:
    """As a kill leaves them: without any seed's folder, or with one that is still empty."""
    assert chainrule("train", shapes, *WORDS, "--seeds", "0-1", "--run", "whole").status == 0
    summary = Path("whole/seeds.json").read_bytes()
    Path("r").mkdir()
    Path("r/seeds.json").write_text(json.dumps({k: json.loads(summary)[k] for k in ("seeds", "settings")}))
    Path("r/seed-0").mkdir()
    assert chainrule("resume", "r").status == 0
    for seed in range(2):
        assert_the_same(Path(f"r/seed-{seed}"), Path(f"whole/seed-{seed}"))
    assert json.loads(Path("r/seeds.json").read_text()) == json.loads(summary)
    Path("r/seeds.json").write_text("{}")
    assert "there is no list of seeds" in refused("resume", "r")


def test_pictures_are_drawn_before_the_run_has_come_to_its_end(
    chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    def press(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report, "worst_mistakes", press)
        assert chainrule("train", shapes, *WORDS, "--run", "r").status == 130
    assert not Path("r/result.json").exists()
    assert chainrule("resume", "r").status == 0
    assert sorted(p.name for p in Path("r").iterdir()) == sorted(p.name for p in whole.iterdir())
    assert Path("r/mistakes.png").read_bytes() == (whole / "mistakes.png").read_bytes()


def test_one_process_at_a_time(
    chainrule: Command, refused: Callable[..., str], shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(chainrule, shapes, monkeypatch)
    with open_run(Path("r")).locked():
        assert "another process trains in the run folder 'r'" in refused("resume", "r")
    assert chainrule("resume", "r").status == 0


def test_data_that_have_moved(
    chainrule: Command, refused: Callable[..., str], shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(chainrule, shapes, monkeypatch)
    shapes.rename("elsewhere.npz")
    assert "are not there; say where they are now with --data" in refused("resume", "r")
    assert chainrule("resume", "r", "--data", "elsewhere.npz").status == 0


def test_json_lines_go_on(chainrule: Command, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(chainrule, shapes, monkeypatch)
    events = [json.loads(line) for line in chainrule("resume", "r", "--json").out.splitlines()]
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "result"]
    assert [event["epoch"] for event in events[1:3]] == [2, 3]


# -- real processes --------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """`python -m tests.cli.kills --kills 50` does the same for longer."""
    data, whole = tmp_path / "shapes.npz", tmp_path / "whole"
    kills.make_data(data)
    longest = kills.run_through(data, whole)
    draw, left, number = random.Random(), 12, 0
    while left > 0:
        number += 1
        outcome = kills.kill_and_resume(data, tmp_path / f"run-{number}", whole, longest, left, draw)
        assert not outcome.different, (number, outcome)
        left -= outcome.kills


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=False, capture_output=True
    )
    if not done or done.returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills(chainrule: Command, shapes: Path, small_disk: Path, whole: Path) -> None:
    """The run ends with an error, and what it had written is whole; with room again it goes on from there."""
    run = small_disk / "run"
    filler = small_disk / "filler"

    class Fill(Callback):
        def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
            if epoch == 1:
                with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Output, "callbacks", lambda self: [Fill()])
        printed = chainrule("train", shapes, *WORDS, "--run", run)
    assert printed.status == 2
    assert "No space left on device" in printed.err
    assert Path(run, "checkpoints").exists()
    filler.unlink()
    assert chainrule("resume", run).status == 0
    assert_the_same(run, whole)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"settings": {"epochs": None}}, "'r/config.json': epochs: expected a value, got none"),
        ("config.json", {"settings": {"batch-size": 8}}, "'r/config.json': the setting 'batch_size' appears twice"),
        ("config.json", {"data_sha256": None}, "'r/config.json': there is no 'data_sha256'"),
        ("result.json", {"interrupted": ...}, "'r/result.json': there is no 'interrupted'"),
    ],
)
@pytest.mark.slow
def test_files_of_a_run_that_were_edited(
    refused: Callable[..., str], whole: Path, file: str, change: dict[str, Any], message: str
) -> None:
    shutil.copytree(whole, "r")
    found = json.loads((Path("r") / file).read_text())
    for name, value in change.items():
        if value is ...:
            del found[name]
        else:
            found[name] = {**found[name], **value} if isinstance(value, dict) else value
    (Path("r") / file).write_text(json.dumps(found))
    assert refused("resume", "r").startswith(message)
