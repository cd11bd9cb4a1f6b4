"""Pages that list things list all of them, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chainrule.graph import registered_ops

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)


def test_conventions_at_kinks_are_all_listed() -> None:
    text = (ROOT / "docs/conventions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (.*?) \|$", text.split("## Kinks")[1], flags=re.MULTILINE)
    listed = {f"{op}: {says}" for op, says in rows if op != "op"}
    stated = {
        item.says
        for op in registered_ops()
        if op.function.__module__.startswith("chainrule.")
        for item in op.conventions
    }
    assert listed == stated


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_architecture_names_what_is_there() -> None:
    """Every folder and module of the package stands in ARCHITECTURE.md."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    package = ROOT / "src/chainrule"
    names = [p.name for p in package.iterdir() if p.is_dir() and p.name != "__pycache__"]
    for name in names:
        assert f"{name}/" in text, f"ARCHITECTURE.md does not mention {name}/"


def test_decisions_are_listed() -> None:
    folder = ROOT / "docs/decisions"
    text = (folder / "README.md").read_text(encoding="utf-8")
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_readme_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as they stand, the first with fewer epochs."""
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len([line for line in first.splitlines() if line]) == 15
    assert "epochs=10" in first
    scope: dict[str, object] = {}
    exec(first.replace("epochs=10", "epochs=1") + second, scope)
    assert (tmp_path / "digits.safetensors").is_file()
    assert str(scope["x"].grad) == "Tensor([[1., 0.]], dtype=float32)"  # type: ignore[attr-defined]


def test_the_two_readmes_say_the_same() -> None:
    """Same code, same numbers, same sections."""
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    blocks = [re.findall(r"```.*?```", re.sub(r"#.*", "", page), flags=re.DOTALL) for page in pages]
    assert blocks[0] == blocks[1]
    assert pages[0].count("\n## ") == pages[1].count("\n## ")


def test_the_picture_is_what_the_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    script = ROOT / "docs/images/make_pictures.py"
    spec = importlib.util.spec_from_file_location("make_pictures", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    module.training_step()
    assert (tmp_path / "step.svg").read_text(encoding="utf-8") == (ROOT / "docs/images/step.svg").read_text(
        encoding="utf-8"
    )
