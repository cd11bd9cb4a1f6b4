"""What the tests of the command line share: a way to run it, small data, and a short run."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.support import SHORT, Command, Printed, idx_bytes, shapes_images


@pytest.fixture
def chainrule(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, its words given as arguments."""
    from chainrule.cli.main import main  # late: conftest.py is read before src/ may be put on the path

    def run(*words: object) -> Printed:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Printed(status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(chainrule: Command) -> Callable[..., str]:
    """Run a command that must fail; its error in one sentence."""

    def run(*words: object) -> str:
        printed = chainrule(*words)
        assert printed.status == 2, printed
        assert printed.err.startswith("chainrule: error: ")
        assert printed.err.count("\n") == 1
        assert "Traceback" not in printed.err
        return printed.err.removeprefix("chainrule: error: ").rstrip("\n")

    return run


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHAINRULE_DEBUG", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short training on the digits; not to be changed."""
    from chainrule.cli.main import main

    folder = tmp_path_factory.mktemp("digits") / "run"
    assert main(["train", "digits", *SHORT, "--run", str(folder)]) == 0
    return folder


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A small data set as a file."""
    x_train, y_train = shapes_images(96, 0)
    x_test, y_test = shapes_images(30, 1)
    path = tmp_path / "shapes.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    """A folder like MNIST's, with few images of 12x12."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, samples in (("train", 64), ("t10k", 20)):
        images = np.random.default_rng(samples).integers(0, 256, (samples, 12, 12))
        labels = np.arange(samples) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    return folder
