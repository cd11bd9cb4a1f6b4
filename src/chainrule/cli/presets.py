"""Presets: settings that are known to work together, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chainrule.cli.names import known_name

__all__ = ["PRESETS", "USUAL", "preset_for"]

USUAL: Mapping[str, Any] = {
    "folder": None,
    "test_fraction": None,
    "validation_fraction": 0.0,
    "preset": None,
    "size": None,
    "channels": None,
    "fit": "cover",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup": 0.0,
    "momentum": None,
    "nesterov": False,
    "weight_decay": None,
    "clip_value": None,
    "clip_norm": None,
    "clip_global_norm": None,
    "accumulate": 1,
    "average": None,
    "balance": False,
    "augment": (),
    "metrics": ("accuracy",),
    "patience": None,
    "seed": 0,
    "checkpoint_seconds": 60.0,
    "workers": 2,
    "tensorboard": False,
}
"""What holds where neither the user nor a preset says otherwise."""

_SGD: Mapping[str, Any] = {
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "schedule": "one-cycle",
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-3,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Chosen by cross-validation inside the training parts of the splits 0 to 4; no test part was looked at.
    "digits": {"network": "digits", "epochs": 25, "batch_size": 32, "learning_rate": 2e-3},
    # These were chosen on 10,000 images held out from the training part; test parts were looked at once, at the end.
    "mnist": {
        "network": "conv32-conv64-dense64",
        "epochs": 5,
        "batch_size": 64,
        "learning_rate": 3e-3,
        "schedule": "one-cycle",
        "augment": ("crop:2",),
    },
    "fashion-mnist": {
        **_SGD,
        "network": "conv32-conv64-conv128",
        "epochs": 10,
        "augment": ("flip",),
    },
    "cifar10": {
        **_SGD,
        "network": "conv32-conv64-conv128-conv256",
        "epochs": 10,
        "augment": ("flip", "crop:2"),
    },
}
"""Presets by name; that of a data set has the data set's name."""

_SMALLEST_IMAGE = 10  # pixels on a side that two valid 3x3 convolutions, each pooled, need
_SMALLEST_PHOTO = 16  # pixels on a side that can be halved four times


def preset_for(name: str | None, data: str, shape: tuple[int, ...]) -> Mapping[str, Any]:
    """A preset by its name; else that of the data set, or of one whose images are alike.

    Args:
        name: one of `PRESETS`, or None.
        data: the data set.
        shape: of an image: height, width, channels.

    Raises:
        ConfigError: there is no such preset.

    >>> preset_for(None, "digits", (8, 8, 1))["epochs"]
    25
    """
    if name is not None:
        return PRESETS[known_name("preset", name, PRESETS)]
    if data in PRESETS:
        return PRESETS[data]
    if shape[2] == 3 and min(shape[:2]) >= _SMALLEST_PHOTO:
        return PRESETS["cifar10"]
    return PRESETS["mnist" if min(shape[:2]) >= _SMALLEST_IMAGE else "digits"]
