"""Linux on x86-64."""

from __future__ import annotations

from chainrule.engines.native.platform.processors import X86
from chainrule.engines.native.platform.systems import Linux

__all__ = ["LinuxX86"]


class LinuxX86(X86, Linux):
    """Linux on x86-64."""

    name = "linux-x86_64"
    futex = 202
