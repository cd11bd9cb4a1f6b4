"""``chainrule doctor``: it finds what is well, and what is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.cli import machine, selftest
from chainrule.cli.layout import pairs
from chainrule.columns import table
from chainrule.engines.native import threads
from chainrule.engines.native.executable import Executable
from chainrule.engines.native.jit import Target
from tests.cli.support import Command

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["gradients", "engines", "threads", "files", "training step"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is not measured."""
    monkeypatch.setattr(machine, "host_peak", lambda threads: 50.0 * threads)
    monkeypatch.setattr(machine, "measure_bandwidth", lambda threads: (10.0, 20.0))
    monkeypatch.setattr(selftest, "_SECONDS", 0.01)


@pytest.mark.slow
def test_all_is_well(chainrule: Command, capsys: pytest.CaptureFixture[str]) -> None:
    seed = cr.random.get_seed()
    printed = chainrule("doctor", "--json")
    assert (printed.status, printed.err) == (0, "")
    found = json.loads(printed.out)
    assert found["ok"] is True
    assert found["versions"]["chainrule"] == cr.__version__
    assert [test["name"] for test in found["tests"]] == TESTS
    assert all(test["ok"] for test in found["tests"]), found["tests"]
    speed = found["speed"]
    assert 0.1 < speed["gflops_one_thread"] < 1e5
    assert all(value > 0 for value in speed.values())
    assert found["processor"]["threads"] == threads.get_threads()
    assert found["cache"]["problem"] == ""
    assert cr.random.get_seed() == seed


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("columns", [40, 80])
def test_the_report_fits_the_terminal(chainrule: Command, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("CHAINRULE_DUMP", "")
    printed = chainrule("doctor")
    assert printed.status == 0
    assert max(map(len, printed.out.splitlines())) <= columns
    assert printed.out.isascii()
    assert "\x1b" not in printed.out
    for part in ("50.0 GFLOP/s", "all is well", "scikit-learn", "CHAINRULE_DUMP", *TESTS):
        assert part in printed.out


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_share_of_peak_is_that_of_the_measurement() -> None:
    *_, step = selftest.self_test(1e-6)
    assert step.ok
    assert int(step.detail.split(", ")[-1].split("%")[0]) > 10**6
    *_, step = selftest.self_test()
    assert "peak" not in step.detail


# -- what is not well ---------------------------------------------------------------------------------------------


def outcome(name: str) -> selftest.Outcome:
    return next(test for test in selftest.self_test() if test.name == name)


def spoil(monkeypatch: pytest.MonkeyPatch, name: str, change: Any, when: Any = lambda self: True) -> None:
    """Let the native engine give something else for a variable or an output."""
    plain = Executable.run

    def run(self: Executable, inputs: Sequence[Any], state: Any) -> Any:
        results, after = plain(self, inputs, state)
        if when(self):
            for values in (after, results if isinstance(results, dict) else {}):
                if name in values:
                    values[name] = change(values[name].copy())
        return results, after

    monkeypatch.setattr(Executable, "run", run)


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "conv2d/kernel", lambda value: value * 1.0001)
    found = outcome("gradients")
    assert not found.ok
    assert found.detail.startswith("the gradient of conv2d/kernel is ")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("change", [lambda v: v + 0.01, lambda v: v * np.nan])
@pytest.mark.slow
def test_a_native_step_that_differs_is_found(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    spoil(monkeypatch, "dense/kernel", change)
    found = outcome("engines")
    assert not found.ok
    assert found.detail.endswith(" away from the reference engine's after 3 steps")


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_bits_that_depend_on_threads_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_bit(value: Any) -> Any:
        value.view(np.uint32).ravel()[0] ^= 1
        return value

    spoil(monkeypatch, "dense/kernel", last_bit, lambda self: self.threads == 1)
    found = outcome("threads")
    assert not found.ok
    assert " has other bits on " in found.detail


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_a_model_that_comes_back_as_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Any) -> Any:
        model = cr.load_model(path)
        weight = model.weights[-1]
        weight.set_array(weight.numpy() + np.float32(1))
        return model

    monkeypatch.setattr(selftest, "load_model", load)
    found = outcome("files")
    assert (found.ok, found.detail) == (False, "dense_1/bias came back from its file as another")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_what_raises_is_told_and_the_rest_goes_on(chainrule: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Any) -> Any:
        raise OSError(28, "No space left\non device")

    monkeypatch.setattr(selftest, "load_model", fails)
    printed = chainrule("doctor")
    assert printed.status == 1
    assert printed.err == ""
    assert "files          FAILED: OSError: [Errno 28] No space left on device" in printed.out
    assert printed.out.count(" ok: ") == 4
    assert printed.out.endswith("something is not well; see the lines with FAILED\n")
    found = json.loads(chainrule("doctor", "--json").out)
    assert found["ok"] is False
    assert [test["ok"] for test in found["tests"]] == [True, True, True, False, True]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("CHAINRULE_THREADS", "none", "processor"),
        ("CHAINRULE_ENGINE", "gpu", "processor"),
        ("CHAINRULE_CACHE_SIZE", "x", "cache"),
    ],
)
@pytest.mark.slow
def test_variables_that_cannot_be_are_told(
    chainrule: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str, where: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(threads, "_chosen", None)  # by a test before
    threads._default_threads.cache_clear()
    try:
        printed = chainrule("doctor", "--json")
    finally:
        threads._default_threads.cache_clear()
    found = json.loads(printed.out)
    assert printed.status == 1
    assert where in found["problems"]
    assert found["environment"][name] == value


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are others there")
def test_a_cache_that_is_not_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    monkeypatch.setenv("CHAINRULE_CACHE", str(folder))
    assert "is not used, since" in machine.cache().problem
    assert "as a warning said before" in machine.cache().problem
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "0")
    assert machine.cache() == machine.Cache()


def test_a_cache_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CHAINRULE_CACHE_SIZE", "7")
    assert machine.cache() == machine.Cache(str(tmp_path / "cache"), 0, 0, 7 * 10**6)
    graph = cr.trace(lambda x: x * 3 + 1, cr.input_spec((None, 3)), name="f")
    Executable(graph, batch=2)
    found = machine.cache()
    assert (found.entries, found.bytes) == (1, sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()))
    monkeypatch.setenv("CHAINRULE_CACHE", "off")
    assert machine.cache() == machine.Cache()


def test_the_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*machine.EXTRAS, "all"} == set(project["optional-dependencies"])
    found = {item.name: item for item in machine.extras()}
    assert found["scikit-learn"].command == 'pip install "chainrule[scikit-learn]"'
    for item in found.values():
        try:
            import importlib.metadata

            assert item.version == importlib.metadata.version(item.name)
        except importlib.metadata.PackageNotFoundError:
            assert item.version is None


@pytest.mark.parametrize(
    ("triple", "features", "words"),
    [
        ("x86_64-linux", "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx2", "AVX-512"),
        ("x86_64-linux", "", "SSE2"),
        ("aarch64-linux", "", "NEON"),
        ("riscv64-linux", "", "128 bits"),
    ],
)
def test_vectors_by_processor(triple: str, features: str, words: str) -> None:
    assert machine.vectors(Target(triple, "any", features)) == words


# -- printing -----------------------------------------------------------------------------------------------------


def test_pairs_and_tables_keep_their_width() -> None:
    rows = [("a label", "word " * 30), ("b", "x" * 200), ("", "")]
    for width in (24, 40, 100):
        assert max(map(len, pairs(rows, width))) <= width
    cells = [("name", "n"), ("y" * 50, "1"), ("z", "22")]
    assert max(map(len, table(cells, 1, 20))) <= 20
    assert table(cells, 1, 80)[2] == f"{'y' * 50}   1"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="locales are others there")
def test_a_plain_locale_and_no_terminal(tmp_path: Path) -> None:
    path = str(Path(cr.__file__).parent.parent)
    locale = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "chainrule", "doctor"]
    environment = {**os.environ, "PYTHONPATH": path, **locale}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"\x1b" not in done.stdout
