"""What all tests share: which chainrule they test, deterministic tools, and the data sets."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"

# Figures are drawn into files; this must be set before anything imports matplotlib.
os.environ["MPLBACKEND"] = "Agg"

# The same examples in every run: a failure can be repeated, and no run fails by chance.
hypothesis.settings.register_profile("chainrule", derandomize=True, deadline=None)
hypothesis.settings.load_profile("chainrule")


# --- Which chainrule is tested -------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Put src/ first, for this process and those it starts, where a developer asks for it.

    Compiled steps go to a folder of this run's own, which the run's processes share.  Ctrl-C works, as it does where
    a person types it: a shell that starts the tests in the background has it ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "CHAINRULE_CACHE" not in os.environ:
        folder = tempfile.mkdtemp(prefix="chainrule-tests-")
        os.environ["CHAINRULE_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    if os.environ.get("CHAINRULE_TEST_SOURCE") == "1":
        sys.path.insert(0, str(SOURCE))
        paths = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def pytest_sessionstart() -> None:
    """Test what a user installs: a file missing from the wheel is not noticed from src/."""
    place = chainrule_folder()
    if place is None:
        pytest.exit("chainrule is not installed here; run `make test`", returncode=2)
    if os.environ.get("CHAINRULE_TEST_SOURCE") != "1" and "site-packages" not in place.parts:
        pytest.exit(
            f"chainrule comes from {place}, not from an installed wheel; run `make test`, or set "
            "CHAINRULE_TEST_SOURCE=1 to test the sources",
            returncode=2,
        )


def pytest_report_header() -> str:
    """Say what is tested, and whether src/ has changed since it was installed."""
    place = chainrule_folder()
    if place is None:
        return "chainrule: not installed"
    stale = changed_since_install(place)
    note = f" ({stale} of its files differ from src/: run `make`)" if stale else ""
    return f"chainrule: {place}{note}"


def chainrule_folder() -> Path | None:
    """The folder that `import chainrule` would read, found without importing it."""
    found = importlib.util.find_spec("chainrule")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).resolve().parent


def changed_since_install(place: Path) -> int:
    """How many files of src/chainrule the installed package lacks or holds otherwise."""
    sources = [path for path in (SOURCE / "chainrule").rglob("*.py") if path.is_file()]
    copies = [place / path.relative_to(SOURCE / "chainrule") for path in sources]
    return sum(
        not copy.is_file() or copy.read_bytes() != path.read_bytes() for path, copy in zip(sources, copies, strict=True)
    )


# --- The seed ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def seed_zero() -> Generator[None]:
    """Every test starts from the seed that a fresh process has."""
    import chainrule as cr

    cr.set_seed(0)
    yield
    cr.set_seed(0)


# --- Data sets -----------------------------------------------------------------------------------


# What is said of a data set that was asked for and is absent.
ABSENCE = re.compile(r"data set '[^']*' is absent: looked for [^'\"\n]*(?=['\"])")


@pytest.fixture(scope="session")
def data_set() -> Callable[[str], Path]:
    """A function from a data set's name to its folder; without the folder the test is skipped.

    It fails instead where CHAINRULE_REQUIRE_DATA=1. docs/environment.md says where it looks.
    """

    def find(name: str) -> Path:
        shelf = os.environ.get("CHAINRULE_DATA")
        folder = (Path(shelf) if shelf else ROOT.parent / "shared" / "data") / name
        if folder.is_dir():
            return folder
        absence = f"data set {name!r} is absent: looked for {folder}"
        if os.environ.get("CHAINRULE_REQUIRE_DATA") == "1":
            pytest.fail(f"{absence}, and CHAINRULE_REQUIRE_DATA=1 asks for it", pytrace=False)
        pytest.skip(absence)

    return find


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ask for a data set, and those for which a run must be trained first."""
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if "data_set" in asked:
            item.add_marker(pytest.mark.data)
        if "digits_run" in asked:
            item.add_marker(pytest.mark.slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each absent data set, read from the reports, which also reach here from worker processes."""
    reasons = Counter(str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    absences: Counter[str] = Counter()
    for reason, count in reasons.items():
        found = ABSENCE.search(reason)
        if found is not None:
            absences[found.group()] += count
    for absence, count in sorted(absences.items()):
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.write_line(f"{absence}, {tests} did not run")
