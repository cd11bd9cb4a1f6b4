"""Every example in every docstring of the package, and in the pages that carry some, is run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import chainrule as cr

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(cr.__path__, prefix="chainrule.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    cr.set_seed(0)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    cr.set_seed(0)
    assert found.failed == 0, f"{found.failed} of {found.attempted} examples of {name} failed"
