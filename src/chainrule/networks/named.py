"""The networks by the names that the command line knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from chainrule.errors import ConfigError
from chainrule.models import Model
from chainrule.networks.normalised import conv32_conv64_conv128, conv32_conv64_conv128_conv256
from chainrule.networks.plain import conv32_conv64_dense64, conv32_dense128, digits
from chainrule.networks.residual import resnet20

__all__ = ["NETWORKS", "NetworkFunction", "get_network"]

NetworkFunction: TypeAlias = Callable[..., Model]
"""``network(input_shape, classes, scale=...)``."""

NETWORKS: Mapping[str, NetworkFunction] = {
    "conv32-dense128": conv32_dense128,
    "conv32-conv64-dense64": conv32_conv64_dense64,
    "conv32-conv64-conv128": conv32_conv64_conv128,
    "conv32-conv64-conv128-conv256": conv32_conv64_conv128_conv256,
    "resnet20": resnet20,
    "digits": digits,
}
"""The networks by their names."""


def get_network(name: str) -> NetworkFunction:
    """A network from its name.

    Raises:
        ConfigError: no network has that name.

    >>> get_network("resnet20") is resnet20
    True
    """
    if name in NETWORKS:
        return NETWORKS[name]
    raise ConfigError(f"unknown network {name!r}; expected one of {', '.join(NETWORKS)}")
