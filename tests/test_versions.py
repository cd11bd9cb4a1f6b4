"""What a bug report starts with."""

from __future__ import annotations

import platform

import pytest

import chainrule as cr
from chainrule.errors import ChainruleError


def test_show_versions(capsys: pytest.CaptureFixture[str]) -> None:
    cr.show_versions()
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["chainrule"] == cr.__version__
    assert platform.python_version() in lines["python"]
    for package in ("numpy", "safetensors", "rich", "matplotlib", "scikit-learn", "pillow"):
        assert lines[package][0].isdigit() or lines[package] == "not installed"


@pytest.mark.parametrize("name", cr.errors.__all__)
def test_every_error_has_one_root_and_a_reason_to_be(name: str) -> None:
    kind = getattr(cr.errors, name)
    assert issubclass(kind, ChainruleError)
    assert kind.__doc__
    if name != "ChainruleError":
        assert len(kind.__mro__) > 4, "an error is also one of Python's own"
