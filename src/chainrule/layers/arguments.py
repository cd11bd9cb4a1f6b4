"""Checks of constructor arguments that several layers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.errors import ConfigError

if TYPE_CHECKING:
    from chainrule.layers.layer import Layer

__all__ = ["positive"]


def positive(value: Any, what: str, layer: Layer) -> int:
    """A positive integer.

    Raises:
        ConfigError: naming the layer and the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"layer {layer.path!r}: {what} must be a positive integer, got {value!r}")
    return int(value)
