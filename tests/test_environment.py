"""tools/environment.py, with its slow steps (create, build, install) noted instead of taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import environment
from tools.environment import EnvironmentProblem, Stamp

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout that the tool takes for its own."""
    (tmp_path / "src" / "chainrule").mkdir(parents=True)
    (tmp_path / "src" / "chainrule" / "__init__.py").write_text("")
    (tmp_path / "pins.txt").write_text("numpy==2.0.0\n")
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = []\noptional-dependencies = {}\n")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "PINS", tmp_path / "pins.txt")
    return tmp_path


@pytest.fixture
def steps(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The steps that `prepare` has taken."""
    taken: list[str] = []

    def create(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        taken.append("create")

    def build_wheel(folder: Path, profile: str) -> Path:
        taken.append("build")
        return folder / "chainrule.whl"

    def install_profile(folder: Path, profile: str, wheel: Path) -> None:
        taken.append(f"install {profile}")

    def replace_wheel(folder: Path, wheel: Path) -> None:
        taken.append("replace")

    for step in (create, build_wheel, install_profile, replace_wheel):
        monkeypatch.setattr(environment, step.__name__, step)
    monkeypatch.setattr(environment, "works", lambda folder: True)
    return taken


def prepare(checkout: Path, profile: str, steps: list[str]) -> list[str]:
    """Prepare the environment of the checkout; the steps that this took."""
    steps.clear()
    environment.prepare(checkout / ".venv", profile)
    return list(steps)


def test_nothing_is_done_twice(checkout: Path, steps: list[str]) -> None:
    assert prepare(checkout, "demo", steps) == ["create", "build", "install demo"]
    assert prepare(checkout, "demo", steps) == []


def test_the_larger_profile_serves_the_smaller(checkout: Path, steps: list[str]) -> None:
    prepare(checkout, "demo", steps)
    assert prepare(checkout, "dev", steps) == ["build", "install dev"]
    assert prepare(checkout, "demo", steps) == []
    (checkout / "src" / "chainrule" / "new.py").write_text("")
    assert prepare(checkout, "demo", steps) == ["build", "replace"]
    assert prepare(checkout, "dev", steps) == []


def test_changed_sources_replace_the_wheel(checkout: Path, steps: list[str]) -> None:
    prepare(checkout, "dev", steps)
    (checkout / "src" / "chainrule" / "__init__.py").write_text("changed = True\n")
    assert prepare(checkout, "dev", steps) == ["build", "replace"]
    (checkout / "src" / "chainrule" / "__init__.py").unlink()
    assert prepare(checkout, "dev", steps) == ["build", "replace"]


def test_bytecode_is_no_change(checkout: Path, steps: list[str]) -> None:
    prepare(checkout, "dev", steps)
    cache = checkout / "src" / "chainrule" / "__pycache__"
    cache.mkdir()
    (cache / "module.pyc").write_bytes(b"")
    assert prepare(checkout, "dev", steps) == []


def test_changed_pins_make_the_environment_anew(checkout: Path, steps: list[str]) -> None:
    prepare(checkout, "dev", steps)
    (checkout / "pins.txt").write_text("numpy==2.1.0\n")
    assert prepare(checkout, "dev", steps) == ["create", "build", "install dev"]


def test_an_interrupted_installation_is_repaired(
    checkout: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(checkout, "dev", steps)
    (checkout / "src" / "chainrule" / "__init__.py").write_text("changed = True\n")

    def interrupted(folder: Path, wheel: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "replace_wheel", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(checkout, "dev", steps)
    assert prepare(checkout, "dev", steps) == ["create", "build", "install dev"]


def test_a_failed_build_leaves_the_environment_sound(
    checkout: Path, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(checkout, "dev", steps)
    (checkout / "src" / "chainrule" / "__init__.py").write_text("changed = True\n")

    def failing(folder: Path, profile: str) -> Path:
        raise EnvironmentProblem("could not build")

    with monkeypatch.context() as patch:
        patch.setattr(environment, "build_wheel", failing)
        with pytest.raises(EnvironmentProblem):
            prepare(checkout, "dev", steps)
    assert prepare(checkout, "dev", steps) == ["build", "replace"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unknown": 1}'])
def test_a_damaged_stamp_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / environment.STAMP_NAME).write_text(content)
    assert environment.read_stamp(tmp_path) is None


def test_a_stamp_survives_the_file(tmp_path: Path) -> None:
    stamp = Stamp("foundation", "dev", "package")
    environment.write_stamp(tmp_path, stamp)
    assert environment.read_stamp(tmp_path) == stamp


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(EnvironmentProblem, match="no module 'ensurepip'") as caught:
        environment.require_venv()
    assert caught.value.status == 2


@pytest.mark.slow
def test_an_old_python_is_told_so(tmp_path: Path) -> None:
    pretend = (
        "import runpy, sys; sys.version_info = (3, 10, 1); sys.version = '3.10.1 (main)'; "
        f"runpy.run_path({str(ROOT / 'tools' / 'environment.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", pretend], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer and this is 3.10.1" in done.stderr
    assert done.stderr.count("\n") == 1


def test_only_releases_of_pyenv_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("3.13.2", "3.13.10", "3.13.0t", "3.13.0rc1", "3.12.4"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    found = [path for path in environment.candidates("3.13") if "versions" in path.parts]
    folders = [path.parent.parent.name for path in found if tmp_path in path.parents]
    assert folders == ["3.13.10", "3.13.2"]


@pytest.mark.slow
def test_an_interpreter_of_another_version_is_not_used() -> None:
    this = Path(sys.executable)
    assert environment.is_usable(this, "{}.{}".format(*sys.version_info))
    assert not environment.is_usable(this, "2.7")
    assert not environment.is_usable(this.with_name("no-such-python"), "3.11")


def test_an_absent_python_is_no_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environment, "is_usable", lambda interpreter, version: version == "3.12")
    monkeypatch.setattr(environment, "test_with", lambda interpreter, version, arguments: True)
    environment.test_all_pythons([])
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "not tested" in line] == [
        "Python 3.11: no usable interpreter found, not tested",
        "Python 3.13: no usable interpreter found, not tested",
    ]


def test_a_failing_python_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "is_usable", lambda interpreter, version: True)
    monkeypatch.setattr(environment, "test_with", lambda interpreter, version, arguments: version != "3.12")
    with pytest.raises(EnvironmentProblem, match=r"3\.12$"):
        environment.test_all_pythons([])
