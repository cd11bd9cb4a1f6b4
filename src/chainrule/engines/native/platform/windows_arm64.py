"""Windows on 64-bit Arm."""

from __future__ import annotations

from chainrule.engines.native.platform.processors import Arm64
from chainrule.engines.native.platform.systems import Windows

__all__ = ["WindowsArm"]


class WindowsArm(Arm64, Windows):
    """Windows on 64-bit Arm."""

    name = "windows-arm64"
