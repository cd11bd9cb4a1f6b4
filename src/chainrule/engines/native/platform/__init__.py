"""What differs between platforms: waiting, the floating-point state, the clock.  One file per target."""

from __future__ import annotations

import platform as system
import sys

from chainrule.engines.native.platform.base import Platform, Services
from chainrule.engines.native.platform.linux_aarch64 import LinuxArm
from chainrule.engines.native.platform.linux_x86_64 import LinuxX86
from chainrule.engines.native.platform.macos_arm64 import MacArm
from chainrule.engines.native.platform.macos_x86_64 import MacX86
from chainrule.engines.native.platform.portable import Portable
from chainrule.engines.native.platform.windows_arm64 import WindowsArm
from chainrule.engines.native.platform.windows_x86_64 import WindowsX86

__all__ = ["Platform", "Services", "for_triple", "host"]

_PLATFORMS: dict[tuple[str, str], type[Platform]] = {
    ("linux", "x86_64"): LinuxX86,
    ("linux", "aarch64"): LinuxArm,
    ("macos", "aarch64"): MacArm,
    ("macos", "x86_64"): MacX86,
    ("windows", "x86_64"): WindowsX86,
    ("windows", "aarch64"): WindowsArm,
}

# Both Python and LLVM have several names for one processor.
_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}

_SYSTEMS = {"linux": "linux", "darwin": "macos", "macos": "macos", "macosx": "macos", "win32": "windows"}


def host() -> Platform:
    """The platform this process runs on."""
    return _find(_SYSTEMS.get(sys.platform, sys.platform), system.machine())


def for_triple(triple: str) -> Platform:
    """The platform of an LLVM triple such as ``aarch64-unknown-linux-gnu``.

    >>> for_triple("arm64-apple-macosx12.0").name
    'macos-arm64'
    """
    processor, *rest = triple.split("-")
    systems = {"linux": "linux", "macosx": "macos", "darwin": "macos", "windows": "windows"}
    found = [name for part in rest for start, name in systems.items() if part.startswith(start)]
    return _find(found[0] if found else "", processor)


def _find(system_name: str, processor: str) -> Platform:
    processor = processor.lower()
    key = (system_name, _PROCESSORS.get(processor, processor))
    return _PLATFORMS.get(key, Portable)()
