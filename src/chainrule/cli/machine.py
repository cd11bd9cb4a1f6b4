"""What `chainrule doctor` tells of the machine: processor, speed, cache of compiled steps, extras, environment."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chainrule.engines.choose import chosen_engine
from chainrule.engines.native.cache import open_cache
from chainrule.engines.native.jit import Target, has_fma, host_target
from chainrule.engines.native.peak import host_peak, measure_bandwidth
from chainrule.engines.native.threads import get_threads, processors
from chainrule.files import reason

__all__ = ["EXTRAS", "Cache", "Extra", "Processor", "Speed", "cache", "environment", "extras", "processor", "speed"]

EXTRAS: Mapping[str, str] = {
    "scikit-learn": "the digits",
    "pillow": "pictures in JPEG and PNG files",
    "tensorboard": "event files",
    "onnx": "models for other run times",
    "optuna": "searches",
    "sympy": "derivations",
    "jax": "GPU, TPU, many hosts",
    "mpi4py": "clusters of CPUs",
}
"""What each optional dependency is for; an extra has the name of the package that it brings."""

_RESPECTED = ("NO_COLOR", "MPLBACKEND", "XDG_CACHE_HOME", "PYTHONUTF8")
"""Variables of others that change what chainrule does or prints."""

_TOLD_FEATURES = {
    "sse4.2": "SSE4.2",
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512bf16": "AVX-512 BF16",
    "amx-tile": "AMX",
    "neon": "NEON",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}
"""Instruction sets that matter to arithmetic, by LLVM's names."""


@dataclass(frozen=True)
class Processor:
    """The processor, and what the native engine makes of it.

    Attributes:
        name: as its maker calls it.
        model: as LLVM calls it.
        features: vector instruction sets that it has.
        vectors: which of them the native engine uses.
        lanes: float32 numbers in one vector of the native engine.
        fma: whether multiply-adds are one instruction.
        present, usable: processors of the machine, and those that this process may use.
        threads: how many take part in a step.
        engine: the engine of models that were not told one.
    """

    name: str
    model: str
    features: tuple[str, ...]
    vectors: str
    lanes: int
    fma: bool
    present: int
    usable: int
    threads: int
    engine: str


def processor() -> Processor:
    """This machine's.

    Raises:
        ConfigError: ``CHAINRULE_THREADS`` or ``CHAINRULE_ENGINE`` is set to what cannot be.
    """
    target = host_target()
    return Processor(
        name=_processor_name() or target.cpu,
        model=target.cpu,
        features=tuple(word for name, word in _TOLD_FEATURES.items() if target.has(name)),
        vectors=vectors(target),
        lanes=target.lanes32,
        fma=has_fma(target),
        present=os.cpu_count() or 1,
        usable=processors(),
        threads=get_threads(),
        engine=chosen_engine(None),
    )


def vectors(target: Target) -> str:
    """The instruction set that the native engine's vectors are of.

    >>> vectors(Target("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma"))
    'AVX2'
    """
    if not target.is_x86:
        return "NEON" if target.triple.startswith(("aarch64", "arm64")) else "128 bits"
    return {16: "AVX-512", 8: "AVX2", 4: "SSE2"}[target.lanes32]


def _processor_name() -> str:
    """The maker's name of the processor, where the system tells it."""
    if sys.platform == "linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        found = [line.partition(":")[2] for line in lines if line.startswith(("model name", "Model"))]
        return " ".join(found[0].split()) if found else ""
    if sys.platform == "darwin":
        import subprocess

        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            return subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""
    return platform.processor()


# -- speed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """What the machine reaches at most, measured now.

    Attributes:
        one, all: GFLOP/s of float32 multiply-adds on one thread, and on as many as take part in a step.
        read, triad: GB/s of reading, and of reading two arrays and writing a third, on all of them.
    """

    one: float
    all: float
    read: float
    triad: float


def speed(threads: int) -> Speed:
    """Measure, in about half a second."""
    return Speed(host_peak(1), host_peak(threads), *measure_bandwidth(threads))


# -- the cache of compiled steps ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cache:
    """The cache of compiled steps.

    Attributes:
        folder: where it is; None where there is none.
        entries, bytes: what it holds.
        limit: its largest size in bytes.
        problem: why it is not used or cannot be written; empty where all is well or where it was switched off.
    """

    folder: str | None = None
    entries: int = 0
    bytes: int = 0
    limit: int = 0
    problem: str = ""


def cache() -> Cache:
    """The cache that the environment asks for.

    Raises:
        ConfigError: ``CHAINRULE_CACHE_SIZE`` is no whole number.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = open_cache()
    is_off = os.environ.get("CHAINRULE_CACHE") == "off" or not (os.environ.get("CHAINRULE_CACHE_SIZE") or "1").strip(
        "0"
    )
    if found is None:
        problem = "; ".join(str(item.message) for item in caught)
        return Cache(problem=problem if problem or is_off else "it cannot be used, as a warning said before")
    try:
        entries, size = found.usage()
        with tempfile.TemporaryFile(dir=found.folder) as file:
            file.write(b"\0")
    except OSError as error:
        return Cache(str(found.folder), limit=found.limit, problem=f"it cannot be used: {reason(error)}")
    return Cache(str(found.folder), entries, size, found.limit)


# -- what is installed and set ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extra:
    """An optional dependency.

    Attributes:
        name: of the package and of the extra that brings it.
        purpose: what it is for.
        version: what is installed; None where it is not.
    """

    name: str
    purpose: str
    version: str | None

    @property
    def command(self) -> str:
        """What installs it."""
        return f'pip install "chainrule[{self.name}]"'


def extras() -> list[Extra]:
    """Every optional dependency."""
    found = []
    for name, purpose in EXTRAS.items():
        try:
            version: str | None = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        found.append(Extra(name, purpose, version))
    return found


def environment() -> dict[str, str]:
    """The variables that are set and change what chainrule does."""
    return {
        name: value for name, value in sorted(os.environ.items()) if name.startswith("CHAINRULE_") or name in _RESPECTED
    }
