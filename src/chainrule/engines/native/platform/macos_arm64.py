"""macOS on Apple's own processors."""

from __future__ import annotations

from chainrule.engines.native.platform.processors import Arm64
from chainrule.engines.native.platform.systems import Posix

__all__ = ["MacArm"]


class MacArm(Arm64, Posix):
    """macOS on Apple's own processors."""

    name = "macos-arm64"
