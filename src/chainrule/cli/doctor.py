"""``chainrule doctor``: what is installed, what this machine can do, and whether training works on it."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from chainrule.cli.layout import columns, painted, pairs
from chainrule.cli.output import say
from chainrule.errors import ChainruleError
from chainrule.versions import versions

__all__ = ["run"]

_FAILED = 1
_TEST_NAME = 13  # characters of the longest test's name

T = TypeVar("T")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; 0 if all is well, 1 if something is not."""
    report = _Report(quiet=arguments.json)
    report.collect()
    if arguments.json:
        say(json.dumps(report.found, indent=2))
    return 0 if report.ok else _FAILED


class _Report:
    """What was found, printed part by part, since some parts take a moment.

    Args:
        quiet: print nothing; who asked wants `found` as JSON.

    Attributes:
        found: all of it, as JSON can hold it.
        ok: whether nothing failed.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._width = quiet, columns()
        self.ok = True
        self.found: dict[str, Any] = {"ok": True}

    def collect(self) -> None:
        """Look at everything."""
        self.found["versions"] = versions()
        self._section("versions", list(versions().items()))
        machine = self._tried("machine", lambda: importlib.import_module("chainrule.cli.machine"))
        if machine is not None:
            self._processor(machine)
            self._cache(machine)
            self._extras(machine)
            self._environment(machine)
        self._self_test()
        self.found["ok"] = self.ok
        if not self._quiet:
            say("")
            say("all is well" if self.ok else painted("something is not well; see the lines with FAILED", "red"))

    # -- parts --------------------------------------------------------------------------------------------

    def _processor(self, machine: Any) -> None:
        found = self._tried("processor", machine.processor)
        if found is None:
            return
        self.found["processor"] = asdict(found)
        usable = f"{found.usable} of {found.present} may be used"
        rows = [
            ("name", f"{found.name} ({found.model})" if found.name != found.model else found.name),
            ("features", ", ".join(found.features) or "none that are known"),
            ("engine", f"{found.engine}; the native one uses {_vectors(found)}"),
            ("processors", f"{usable}, {_count(found.threads, 'thread')} a step"),
        ]
        self._section("processor", rows)
        speed = self._tried("speed", lambda: machine.speed(found.threads))
        if speed is None:
            return
        self.found["speed"] = {
            "gflops_one_thread": round(speed.one, 2),
            "gflops_all_threads": round(speed.all, 2),
            "read_gb_per_s": round(speed.read, 2),
            "triad_gb_per_s": round(speed.triad, 2),
        }
        rows = [
            ("1 thread", f"{speed.one:.1f} GFLOP/s float32"),
            (_count(found.threads, "thread"), f"{speed.all:.1f} GFLOP/s float32"),
            ("memory", f"{speed.read:.1f} GB/s read, {speed.triad:.1f} GB/s read and written"),
        ]
        self._section("peak, measured now", rows if found.threads > 1 else [rows[0], rows[2]])

    def _cache(self, machine: Any) -> None:
        found = self._tried("cache", machine.cache)
        if found is None:
            return
        self.found["cache"] = asdict(found)
        if found.problem:
            self._failed("cache", found.problem)
        elif found.folder is None:
            self._section("compiled steps", [("cache", "off; every process compiles anew")])
        else:
            held = f"{found.bytes / 1e6:.1f} of at most {found.limit / 1e6:.0f} MB"
            entries = f"{found.entries} {'step' if found.entries == 1 else 'steps'}, {held}, writable"
            self._section("compiled steps", [("cache", found.folder), ("holds", entries)])

    def _extras(self, machine: Any) -> None:
        found = machine.extras()
        self.found["extras"] = {
            item.name: {"version": item.version, "purpose": item.purpose, "command": item.command} for item in found
        }
        rows = [(item.name, item.version if item.version else f"not installed ({item.purpose})") for item in found]
        self._section("extras", rows)
        if not self._quiet and not all(item.version for item in found):
            say(f"  to install one:\n  {machine.Extra('NAME', '', None).command}")

    def _environment(self, machine: Any) -> None:
        self.found["environment"] = found = machine.environment()
        self._section("environment", list(found.items()) or [("none", "no variable is set that matters")])

    def _self_test(self) -> None:
        peak = self.found.get("speed", {}).get("gflops_all_threads")
        tests = self._tried("self-test", lambda: importlib.import_module("chainrule.cli.selftest").self_test(peak))
        self.found["tests"] = [asdict(test) for test in tests or []]
        if tests is None:
            return
        self.ok = self.ok and all(test.ok for test in tests)
        if self._quiet:
            return
        say("")
        say(painted("self-test", "bold"))
        for test in tests:
            word, colour = ("ok", "green") if test.ok else ("FAILED", "red")
            text = "\n".join(pairs([(test.name.ljust(_TEST_NAME), f"{word}: {test.detail}")], self._width))
            say(text.replace(f"{word}:", f"{painted(word, colour)}:", 1))

    # -- printing -----------------------------------------------------------------------------------------

    def _tried(self, what: str, look: Callable[[], T]) -> T | None:
        """What a look gives; None, and a line that says so, where it is refused."""
        try:
            return look()
        except (ChainruleError, ImportError, OSError) as error:
            self._failed(what, " ".join(str(error).split()))
            return None

    def _failed(self, what: str, why: str) -> None:
        self.ok = False
        self.found.setdefault("problems", {})[what] = why
        self._section(what, [("FAILED", why)])

    def _section(self, title: str, rows: list[tuple[str, str]]) -> None:
        if self._quiet:
            return
        if title != "versions":
            say("")
        say(painted(title, "bold"))
        text = "\n".join(pairs(rows, self._width))
        say(text.replace("  FAILED  ", f"  {painted('FAILED', 'red')}  ", 1))


def _vectors(found: Any) -> str:
    fused = "fused multiply-add" if found.fma else "no fused multiply-add"
    return f"{found.vectors}: {found.lanes} float32 at a time, {fused}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
