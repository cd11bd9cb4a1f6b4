"""Which engine runs a graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chainrule.engines.checks import Stop
from chainrule.engines.reference import Executable
from chainrule.errors import ConfigError
from chainrule.graph.graph import Graph
from chainrule.graph.op import Array

__all__ = ["DEFAULT_ENGINE", "ENGINES", "Engine", "chosen_engine", "executable"]

ENGINES = ("native", "reference")
DEFAULT_ENGINE = "native"


class Engine(Protocol):
    """A graph ready to run, whatever the engine."""

    graph: Graph

    def __call__(self, *inputs: Any) -> Any:
        """Run once; state is read from the variables before and written to them after."""
        ...

    def run(self, inputs: Sequence[Any], state: Mapping[str, Array]) -> tuple[Any, dict[str, Array]]:
        """Run once on explicit state; gives the results and the new state."""
        ...

    def run_steps(
        self, data: Mapping[str, Array], order: Array, batch_size: int, scalars: Mapping[str, Array], stop: Stop
    ) -> int:
        """Run many steps over rows of a data set; gives how many were run."""
        ...


def chosen_engine(name: str | None) -> str:
    """An engine's name; by default that of ``CHAINRULE_ENGINE``, else ``native``.

    Raises:
        ConfigError: no engine has that name.
    """
    found = name or os.environ.get("CHAINRULE_ENGINE") or DEFAULT_ENGINE
    if found not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {found!r}")
    return found


def executable(graph: Graph, engine: str | None = None, *, gathered: Sequence[str] = (), batch_size: int = 1) -> Engine:
    """A graph ready to run on an engine.

    Args:
        graph: a traced graph.
        engine: see `chosen_engine`.
        gathered: names of inputs that are batches of a data set, for `Engine.run_steps`.
        batch_size: the largest batch that is expected; the bits of an engine that plans ahead depend on it.

    Raises:
        ConfigError: an unknown engine.
        EngineError: the engine cannot run one of the graph's ops.
    """
    if chosen_engine(engine) == "reference":
        return Executable(graph)
    from chainrule.engines.native.executable import Executable as Native

    return Native(graph, gathered=gathered, at_least=batch_size)
