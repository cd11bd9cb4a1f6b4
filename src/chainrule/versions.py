"""What is installed: the first thing to put into a bug report."""

from __future__ import annotations

import platform

from chainrule.__about__ import __version__

__all__ = ["show_versions", "versions"]

_PACKAGES = ("numpy", "llvmlite", "safetensors", "rich", "matplotlib", "threadpoolctl", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Versions of chainrule, Python, the platform, and every dependency; "not installed" where absent.

    >>> import chainrule as cr
    >>> sorted(cr.versions.versions())[:2]
    ['chainrule', 'llvmlite']
    """
    import importlib.metadata  # costs 20 ms that `import chainrule` need not pay

    found = {
        "chainrule": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def show_versions() -> None:
    """Print the versions of chainrule, Python, the platform and every dependency."""
    found = versions()
    width = max(map(len, found))
    for name, version in found.items():
        print(f"{name.ljust(width)}  {version}")
