"""What holds for the project as a whole: the wheel, the import, the repository, the test tools."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import hypothesis
import matplotlib as mpl
import pytest

import chainrule

ROOT = Path(__file__).resolve().parent.parent
TESTS_SOURCE = os.environ.get("CHAINRULE_TEST_SOURCE") == "1"

# Imported only where something is shown, loaded or saved, or never at all.
LATE_IMPORTS = ("PIL", "jax", "matplotlib", "rich", "safetensors", "scipy", "sklearn", "torch")

# What `import chainrule` may take, NumPy's share included, where nothing else keeps the machine busy.
# NumPy's share there, measured on two cores of a shared server, tells how busy the machine is now.
IMPORT_SECONDS = 0.2
NUMPY_SECONDS = 0.12
IMPORT_RUNS = 15

# What a package of Python code may hold; a suffix is added here when the library needs its files.
WHEEL_SUFFIXES = {".py", ".typed"}

of_the_wheel = pytest.mark.skipif(TESTS_SOURCE, reason="the sources are tested, not a wheel")


def fresh_python(*arguments: str) -> str:
    """What a new interpreter prints, started away from the checkout."""
    done = subprocess.run([sys.executable, *arguments], cwd=sys.prefix, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- The wheel -----------------------------------------------------------------------------------


def installed_files() -> list[Path]:
    """The files that the wheel brought; bytecode is written by the installer."""
    files = metadata.files("chainrule")
    assert files is not None
    return [Path(file) for file in files if file.suffix != ".pyc"]


@of_the_wheel
def test_the_wheel_is_pure_python() -> None:
    about = metadata.distribution("chainrule").read_text("WHEEL")
    assert about is not None
    assert "Root-Is-Purelib: true" in about.splitlines()
    assert "Tag: py3-none-any" in about.splitlines()


@of_the_wheel
def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    in_package = [path for path in installed_files() if path.parts[0] == "chainrule"]
    others = {path.parts[0] for path in installed_files()} - {"chainrule"}
    assert Path("chainrule/py.typed") in in_package
    assert {path.suffix for path in in_package} <= WHEEL_SUFFIXES
    # Apart from the metadata, only the command, which lies outside of site-packages.
    assert {name for name in others if not name.endswith(".dist-info")} == {".."}


@of_the_wheel
def test_the_wheel_holds_every_source_file() -> None:
    source = ROOT / "src"
    expected = {path.relative_to(source) for path in (source / "chainrule").rglob("*.py")}
    assert expected <= set(installed_files())


@of_the_wheel
def test_the_wheel_carries_licence_and_version() -> None:
    about = metadata.metadata("chainrule")
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Version"] == importlib.import_module("chainrule.__about__").__version__
    assert any(path.name == "LICENSE" for path in installed_files())


def test_the_build_backend_is_pinned_once_and_for_all() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    pins = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8").splitlines()
    assert all("==" in requirement for requirement in build["requires"])
    assert set(build["requires"]) <= set(pins)


# --- The import ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_import_leaves_heavy_packages_alone() -> None:
    printed = fresh_python("-c", "import chainrule, json, sys; print(json.dumps([*sys.modules]))")
    loaded = {name.partition(".")[0] for name in json.loads(printed)}
    assert loaded.isdisjoint(LATE_IMPORTS)


@pytest.mark.slow
def test_import_gives_no_warning() -> None:
    fresh_python("-W", "error", "-c", "import chainrule")


TIMED_IMPORT = """
from time import perf_counter
start = perf_counter()
import numpy
middle = perf_counter()
import chainrule
print(middle - start, perf_counter() - start)
"""


@pytest.mark.slow
def test_import_is_fast() -> None:
    seconds: list[float] = []
    # One fast run is proof: a busy machine can make an import slow, but never fast.
    while min(seconds, default=IMPORT_SECONDS) >= IMPORT_SECONDS and len(seconds) < IMPORT_RUNS:
        numpy, whole = map(float, fresh_python("-c", TIMED_IMPORT).split())
        seconds.append(whole / max(1, numpy / NUMPY_SECONDS))
    assert min(seconds) < IMPORT_SECONDS


def modules() -> list[str]:
    """The names of all modules of the package; running the package is not importing it."""
    found = pkgutil.walk_packages(chainrule.__path__, prefix="chainrule.")
    return sorted(module.name for module in found if not module.name.endswith("__main__"))


def test_every_module_imports() -> None:
    for name in modules():
        importlib.import_module(name)


def test_every_folder_of_the_package_is_a_package() -> None:
    folder = Path(chainrule.__path__[0])
    holders = {path.parent for path in folder.rglob("*.py")}
    assert [path for path in sorted(holders) if not (path / "__init__.py").exists()] == []


# --- The repository ------------------------------------------------------------------------------


def repository_texts() -> dict[str, str]:
    """The text of every file that git tracks or would track, by its path from the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    texts = {}
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" not in content:
            texts[name] = content.decode("utf-8")
    return texts


@pytest.mark.slow
def test_no_file_names_a_path_of_one_machine() -> None:
    machine_path = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/")
    naming = [name for name, text in repository_texts().items() if machine_path.search(text)]
    assert naming == []


@pytest.mark.slow
def test_environment_variables_are_documented() -> None:
    variable = re.compile(r"\bCHAINRULE_[A-Z][A-Z0-9_]*")
    readers = ("src/", "tests/", "tools/", ".ci/", "Makefile")
    texts = repository_texts()
    code = (text for name, text in texts.items() if name.startswith(readers))
    read = {name for text in code for name in variable.findall(text)}
    assert read == set(variable.findall(texts["docs/environment.md"]))


# --- The test tools ------------------------------------------------------------------------------


def test_examples_are_the_same_in_every_run() -> None:
    settings = hypothesis.settings()
    assert settings.derandomize
    assert settings.deadline is None


def test_figures_need_no_display() -> None:
    assert mpl.get_backend().lower() == "agg"


DATA_TESTS = """
import pytest

@pytest.fixture(scope="module")
def images(data_set):
    return data_set("mnist")

def test_one(images): pass
def test_two(images): pass
def test_three(data_set): data_set("fsdd")
"""


def run_data_tests(folder: Path, **variables: str) -> tuple[int, str]:
    """Status and output of a project with this conftest and three tests that ask for data."""
    tests = folder / "project" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "conftest.py", tests)
    (tests / "test_data.py").write_text(DATA_TESTS, encoding="utf-8")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CHAINRULE_DATA")}
    kept.pop("CHAINRULE_REQUIRE_DATA", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "markers=data", "-W", "error", "tests"],
        cwd=folder / "project",
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_absent_data_is_skipped_and_named_once(tmp_path: Path) -> None:
    status, printed = run_data_tests(tmp_path)
    shelf = tmp_path / "shared" / "data"
    assert status == 0
    assert printed.count("is absent") == 2
    assert f"data set 'mnist' is absent: looked for {shelf / 'mnist'}, 2 tests" in printed
    assert f"data set 'fsdd' is absent: looked for {shelf / 'fsdd'}, 1 test did not" in printed


@pytest.mark.slow
def test_absent_data_fails_where_it_is_required(tmp_path: Path) -> None:
    (tmp_path / "shelf" / "mnist").mkdir(parents=True)
    status, printed = run_data_tests(tmp_path, CHAINRULE_REQUIRE_DATA="1", CHAINRULE_DATA=str(tmp_path / "shelf"))
    assert status == 1
    assert "2 passed, 1 failed" in printed or "1 failed, 2 passed" in printed
    assert "data set 'fsdd' is absent" in printed
