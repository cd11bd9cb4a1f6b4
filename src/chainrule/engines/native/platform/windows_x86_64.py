"""Windows on x86-64."""

from __future__ import annotations

from chainrule.engines.native.platform.processors import X86
from chainrule.engines.native.platform.systems import Windows

__all__ = ["WindowsX86"]


class WindowsX86(X86, Windows):
    """Windows on x86-64."""

    name = "windows-x86_64"
