"""macOS on x86-64."""

from __future__ import annotations

from chainrule.engines.native.platform.processors import X86
from chainrule.engines.native.platform.systems import Posix

__all__ = ["MacX86"]


class MacX86(X86, Posix):
    """macOS on x86-64."""

    name = "macos-x86_64"
