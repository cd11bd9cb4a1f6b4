"""ARCHITECTURE.md: imports point upward in its list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "chainrule"
FACADES = {"__init__", "__about__", "__main__", "callbacks", "versions"}
"""What only gathers names, or says versions; whoever needs them may import them."""


def places() -> dict[str, int]:
    """The place of each module or package of the top level in the list."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    items = re.split(r"^\d+\. ", text, flags=re.MULTILINE)[1:]
    return {
        name: number
        for number, item in enumerate(items)
        for bold in re.findall(r"\*\*(.*?)\*\*", item, re.DOTALL)
        for name in re.findall(r"`(\w+)(?:/|\.py)`", bold)
    }


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules of chainrule that a file imports when it is imported itself."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("chainrule"):
            inside = (node.module or "").split(".")[1:]
            yield from inside[:1] or [alias.name for alias in node.names]
        yield from imported(node)


def top_level() -> list[str]:
    entries = (path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
    return sorted(name for name in entries if name not in FACADES)


def test_every_part_of_the_package_has_a_place() -> None:
    assert sorted(set(top_level()) - places().keys()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", top_level())
def test_imports_point_upward(name: str) -> None:
    known, path = places(), PACKAGE / name
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    later = {
        f"{file.relative_to(PACKAGE)} imports {other}"
        for file in files
        for other in imported(ast.parse(file.read_text(encoding="utf-8")))
        if other not in FACADES and known.get(other, -1) > known[name]
    }
    assert sorted(later) == []
