"""What a plan calls the data sets whose rows a step takes itself; names that no input of a graph can have."""

from __future__ import annotations

__all__ = ["ORDER", "source_of"]

ORDER = "order:"
"""The row numbers of a step."""


def source_of(name: str) -> str:
    """The data set that an input's rows are taken from."""
    return f"source:{name}"
