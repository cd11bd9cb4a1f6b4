"""Linux on 64-bit Arm."""

from __future__ import annotations

from chainrule.engines.native.platform.processors import Arm64
from chainrule.engines.native.platform.systems import Linux

__all__ = ["LinuxArm"]


class LinuxArm(Arm64, Linux):
    """Linux on 64-bit Arm."""

    name = "linux-aarch64"
    futex = 98
