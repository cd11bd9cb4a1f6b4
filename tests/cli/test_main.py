"""The command line as a whole: help, version, streams, and errors as one sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chainrule import Sequential, __version__
from chainrule.cli.commands import COMMANDS
from chainrule.cli.main import main
from chainrule.errors import ConfigError
from tests.cli.support import SHORT, Command


def subprocess_of(*words: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """``python -m chainrule`` in a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "chainrule", *map(str, words)]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=False)


def test_without_arguments_help_is_printed(chainrule: Command) -> None:
    printed = chainrule()
    assert printed.status == 0
    assert printed.out.startswith("usage: chainrule ")
    assert all(command in printed.out for command in COMMANDS)


def test_version(chainrule: Command) -> None:
    assert chainrule("--version") == chainrule("--version")
    assert chainrule("--version").out == f"chainrule {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(chainrule: Command, command: str) -> None:
    printed = chainrule(command, "--help")
    assert printed.status == 0
    assert printed.out.startswith(f"usage: chainrule {command} ")


def test_help_states_the_defaults_of_every_data_set(chainrule: Command) -> None:
    text = " ".join(chainrule("train", "--help").out.split())
    assert re.search(r"--epochs N passes over the data \(default: \d+ for digits, \d+ for mnist", text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian' (did you mean 'train'?); expected one of train, "),
        (["--vresion"], "unknown option '--vresion' (did you mean '--version'?); see chainrule --help"),
        (["train", "--epohcs", "3"], "unknown option '--epohcs' (did you mean '--epochs'?); see chainrule train"),
        (["train", "--epoch", "3"], "unknown option '--epoch' (did you mean '--epochs'?)"),
        (["train", "digits", "digits"], "unexpected argument 'digits' (see chainrule train --help)"),
        (["train", "--epochs"], "--epochs: expected one argument"),
        (["train", "--quiet", "--verbose", "1"], "--verbose: not allowed with argument --quiet"),
        (["evaluate"], "the following arguments are required: RUN_OR_MODEL"),
    ],
)
def test_mistyped_words(refused: Callable[..., str], words: list[str], message: str) -> None:
    assert refused(*words).startswith(message)


def test_debugging_raises_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_DEBUG", "1")
    with pytest.raises(ConfigError, match="unknown data set"):
        main(["train", "cifar"])


def test_too_little_memory_is_an_error(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*arguments: object, **options: object) -> None:
        raise MemoryError("cannot allocate 9 TiB")

    monkeypatch.setattr(Sequential, "fit", exhaust)
    assert "not enough memory (cannot allocate 9 TiB)" in refused("train", *SHORT)


@pytest.mark.slow
def test_ctrl_c_outside_training(chainrule: Command, monkeypatch: pytest.MonkeyPatch, inside: Path) -> None:
    def press(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sequential, "fit", press)
    printed = chainrule("train", *SHORT)
    assert (printed.status, printed.err) == (130, "chainrule: interrupted\n")
    assert list(inside.iterdir()) == []


# -- as a process of its own -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_module_is_the_command() -> None:
    done = subprocess_of("--version")
    assert (done.returncode, done.stdout.decode().split()) == (0, ["chainrule", __version__])


@pytest.mark.slow
def test_an_error_has_no_traceback(inside: Path) -> None:
    done = subprocess_of("train", "mnist", "--data", "nowhere")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.decode().startswith(f"chainrule: error: '{inside / 'nowhere'}' does not exist")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
def test_debugging_shows_the_traceback() -> None:
    done = subprocess_of("train", "cifar", CHAINRULE_DEBUG="1")
    assert done.returncode == 1
    assert done.stderr.startswith(b"Traceback")


def test_a_reader_that_goes_away_is_no_error(digits_run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "chainrule", "predict", str(digits_run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.slow
def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "chainrule", "summary", "digits"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (2, b"chainrule: error: No space left on device\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "C", "C without UTF-8"],
)
def test_any_terminal_and_any_path(inside: Path, shapes: Path, variables: dict[str, str]) -> None:
    done = subprocess_of("train", shapes, "--epochs", 1, "--verbose", 1, "--run", "运行/数字", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (inside / "运行" / "数字" / "model.safetensors").exists()
    done = subprocess_of("evaluate", "运行/数字", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
