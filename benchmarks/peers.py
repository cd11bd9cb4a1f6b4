"""Which frameworks and variants are measured, and what each one's processes are started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.protocol import Setting

__all__ = ["OURS", "Peer", "choose", "environment_of", "peers"]

OURS = "chainrule"

KEEP_PAGES = {
    "GLIBC_TUNABLES": (
        "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296:glibc.malloc.top_pad=268435456"
    )
}
"""glibc keeps freed memory instead of giving it back: large tensors then cost no page faults in every step."""

TORCH_FORMS = ("eager", "channels-last", "compile", "compile-channels-last")
TORCH_STEPS = ("compile-step", "compile-step-channels-last")
TORCH_ADAMS = ("adam", "fused")
KERAS_FORMS = ("", "together")
"""One step in a call into the backend, or several."""


@dataclass(frozen=True)
class Peer:
    """Processes of one framework in one environment, and the variants that they train."""

    name: str
    module: str
    variants: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def label(self, variant: str) -> str:
        """How a row is named: the process, and the variant where there are several."""
        return f"{self.name} {variant}".strip()

    def is_ours(self) -> bool:
        return self.name == OURS

    def with_environment(self, extra: Mapping[str, str]) -> Peer:
        """The same with more variables."""
        return replace(self, environment={**self.environment, **extra})


def peers(quick: bool) -> list[Peer]:
    """All peers; `quick` leaves out compiled PyTorch, the unfused Adam, and the default malloc of PyTorch."""
    own = [Peer(OURS, "benchmarks.workers.chainrule_worker", ("",))]
    torch_module, keras_module = "benchmarks.workers.torch_worker", "benchmarks.workers.keras_worker"
    if quick:
        return [
            *own,
            Peer("torch", torch_module, ("eager fused", "channels-last fused"), KEEP_PAGES),
            Peer("keras-tensorflow", keras_module, KERAS_FORMS, {"KERAS_BACKEND": "tensorflow"}),
            Peer("keras-jax", keras_module, KERAS_FORMS, {"KERAS_BACKEND": "jax"}),
        ]
    variants = tuple(f"{form} {adam}" for form in TORCH_FORMS for adam in TORCH_ADAMS)
    whole_step = tuple(f"{form} {adam}" for form in TORCH_STEPS for adam in TORCH_ADAMS)
    found = own
    for suffix, malloc in (("", {}), ("-keep", KEEP_PAGES)):
        found += [
            Peer(f"torch{suffix}", torch_module, variants, dict(malloc)),
            Peer(f"torch{suffix}", torch_module, whole_step, dict(malloc)),  # its setting is global to a process
            Peer(f"keras-tensorflow{suffix}", keras_module, KERAS_FORMS, {"KERAS_BACKEND": "tensorflow", **malloc}),
            Peer(f"keras-jax{suffix}", keras_module, KERAS_FORMS, {"KERAS_BACKEND": "jax", **malloc}),
        ]
    return found


def choose(quick: bool, only: list[str]) -> list[Peer]:
    """The peers with a row whose label contains one of `only`, with just those rows; all of them without `only`."""
    if not only:
        return peers(quick)
    found = []
    for peer in peers(quick):
        kept = tuple(one for one in peer.variants if any(part in peer.label(one) for part in only))
        if kept:
            found.append(Peer(peer.name, peer.module, kept, peer.environment))
    return found


def environment_of(peer: Peer, setting: Setting) -> dict[str, str]:
    """The variables that a peer's process starts with: its own, and the number of threads in everybody's words.

    The workers also bind themselves to as many processors, so that no framework's helper threads run beside them.
    """
    threads = str(setting.threads)
    found = {
        "CHAINRULE_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    if setting.threads == 1:
        found["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    return {**found, **peer.environment}
