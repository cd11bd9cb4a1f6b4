"""Checks of constructor arguments that several layers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.errors import ConfigError

if TYPE_CHECKING:
    from chainrule.layers.layer import Layer

__all__ = ["channels_last", "positive"]


def positive(value: Any, what: str, layer: Layer) -> int:
    """A positive integer.

    Raises:
        ConfigError: naming the layer and the argument.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"layer {layer.path!r}: {what} must be a positive integer, got {value!r}")
    return int(value)


def channels_last(data_format: Any, layer: Layer) -> None:
    """Keras's `data_format`: there is one layout here, ``(batch, height, width, channels)``.

    Raises:
        ConfigError: anything but None or "channels_last".
    """
    if data_format not in (None, "channels_last"):
        raise ConfigError(
            f"layer {layer.path!r}: data_format must be 'channels_last', (batch, height, width, channels), "
            f"got {data_format!r}"
        )
