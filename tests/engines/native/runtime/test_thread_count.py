"""How many threads take part."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from chainrule.engines.native import threads
from chainrule.errors import ConfigError


@pytest.fixture
def no_choice(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Neither a call nor the environment has said how many threads."""
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.delenv("CHAINRULE_THREADS", raising=False)
    threads._default_threads.cache_clear()
    yield
    threads._default_threads.cache_clear()


@pytest.mark.usefixtures("no_choice")
def test_one_thread_per_processor_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= threads.get_threads() <= threads.processors()
    threads._default_threads.cache_clear()
    monkeypatch.setenv("CHAINRULE_THREADS", "3")
    assert threads.get_threads() == 3
    threads.set_threads(5)
    assert threads.get_threads() == 5


@pytest.mark.usefixtures("no_choice")
@pytest.mark.parametrize("named", ["0", "-1", "two", "2.0", "1025", "٣"])
def test_a_wrong_number_in_the_environment_is_named(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINRULE_THREADS", named)
    with pytest.raises(ConfigError, match=f"CHAINRULE_THREADS is '{named}'"):
        threads.get_threads()


@pytest.mark.usefixtures("no_choice")
@pytest.mark.parametrize("count", [0, -1, 1025, True, 2.0, "2"])
def test_a_wrong_number_of_threads_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="expected an integer from 1 to 1024"):
        threads.set_threads(count)


@pytest.mark.parametrize(
    ("content", "count"),
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("max 100000\n", 1024), ("", 1024), ("1000 100000", 1)],
)
def test_a_containers_share_limits_the_threads(content: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(content)
    assert threads._quota(path) == count
    assert threads._quota(tmp_path / "absent") == 1024
