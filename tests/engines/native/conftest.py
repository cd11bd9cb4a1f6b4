"""Fixtures of the tests of the native engine."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is compiled anew, so that a cache hides nothing."""
    monkeypatch.setenv("CHAINRULE_CACHE", "off")
