"""Engines run graphs.

``native`` compiles a graph to machine code; ``reference`` runs it node by node in NumPy and is the oracle that every
other engine is held against.
"""

from chainrule.engines.checks import Stop
from chainrule.engines.choose import DEFAULT_ENGINE, ENGINES, Engine, chosen_engine, executable
from chainrule.engines.reference import Executable

__all__ = ["DEFAULT_ENGINE", "ENGINES", "Engine", "Executable", "Stop", "chosen_engine", "executable"]
