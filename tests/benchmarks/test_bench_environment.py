"""The benchmarks' environment is one beside the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import environment


def test_the_benchmarks_share_no_environment_with_the_tests() -> None:
    assert environment.covers("bench", "bench")
    assert not environment.covers("bench", "demo")
    assert not environment.covers("dev", "bench")
    assert not environment.covers("", "bench")
    assert environment.FOLDER_OF_PROFILE["bench"] != environment.FOLDER_OF_PROFILE["dev"]


def test_the_benchmarks_have_pins_of_their_own(tmp_path: Path) -> None:
    assert environment.pins_of("bench").name == "bench.txt"
    bench, dev = (environment.fingerprint_of_foundation(tmp_path, profile) for profile in ("bench", "dev"))
    assert bench != dev
    assert dev == environment.fingerprint_of_foundation(tmp_path, "demo")


def test_each_profile_has_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, str]] = []
    monkeypatch.setattr(environment, "prepare", lambda folder, profile: taken.append((folder.name, profile)))
    for profile in environment.PROFILES:
        assert environment.main(["prepare", profile]) == 0
    assert taken == [(".venv", "demo"), (".venv", "dev"), (".venv-bench", "bench")]
