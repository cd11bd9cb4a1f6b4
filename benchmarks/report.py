"""Medians, quartiles, ratios, and the Markdown that shows them."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["less_favourable", "machine", "markdown_table", "quartiles", "spread"]

PACKAGES = ("chainrule", "numpy", "llvmlite", "torch", "tensorflow-cpu", "keras", "jax")


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile, by linear interpolation."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def spread(values: Sequence[float], digits: int = 2) -> str:
    """A median with its quartiles: ``3.20 (3.11-3.45)``."""
    low, middle, high = quartiles(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def less_favourable(peer: Sequence[float], ours: Sequence[float]) -> float:
    """How many times longer the peer takes: of two fair readings the smaller one.

    Args:
        peer, ours: times of the same rounds, in the same order.

    Returns:
        The ratio of the medians, or the median of the rounds' ratios, whichever is smaller.
    """
    of_medians = statistics.median(peer) / statistics.median(ours)
    of_rounds = statistics.median(a / b for a, b in zip(peer, ours, strict=True))
    return min(of_medians, of_rounds)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; text is on the left, numbers are on the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What was measured on what: processor, memory, versions."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "compiler": _compiler(),
        "load": os.getloadavg()[0],
        "command": " ".join(sys.argv[1:]),
    }


def _processor() -> str:
    import llvmlite.binding as llvm

    named = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{named[0] if named else platform.machine()} ({llvm.get_host_cpu_name()})"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _compiler() -> str:
    """What PyTorch's compiler would call; without it its rows say so."""
    try:
        done = subprocess.run([os.environ.get("CXX", "g++"), "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return "absent"
    return done.stdout.splitlines()[0] if done.stdout else "absent"
