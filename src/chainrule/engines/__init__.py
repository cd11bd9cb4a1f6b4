"""Engines run graphs.  `reference` is the NumPy oracle that every other engine is held against."""

from chainrule.engines.reference import Executable

__all__ = ["Executable"]
