"""The settings of a training run: from the command line, a configuration file, a preset, and what is usual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from chainrule import optimizers
from chainrule.cli.augmentations import IN_WORDS, check_augmentation
from chainrule.cli.names import unknown
from chainrule.cli.options import picture_size, size_option
from chainrule.cli.presets import PRESETS, USUAL, preset_for
from chainrule.cli.schedules import SCHEDULES
from chainrule.cli.setting import Setting, names, one_of, real_number, switch, text, whole_number
from chainrule.cli.sources import FITS, Source
from chainrule.errors import ConfigError
from chainrule.losses import SparseCategoricalCrossentropy
from chainrule.metrics import get_metric
from chainrule.networks import NETWORKS
from chainrule.optimizers import Optimizer, get_optimizer

__all__ = ["OPTIMIZERS", "SETTINGS", "Settings", "checked", "recorded", "source_from"]

OPTIMIZERS = tuple(
    sorted(
        name.lower()
        for name in optimizers.__all__
        if isinstance(kind := getattr(optimizers, name), type) and issubclass(kind, Optimizer) and kind is not Optimizer
    )
)
"""The optimizers by the names that the command line knows."""


def _check_metric(name: str) -> None:
    if not get_metric(name, SparseCategoricalCrossentropy()).is_scalar:
        raise ConfigError(f"metric {name!r} is no single number; the run folder has a picture of it")


_SIZE = Setting(
    "size",
    "bring pictures to HEIGHTxWIDTH pixels (default: the size of the first, which all must have)",
    picture_size,
    size_option,
    "SIZE",
)

_TABLE = (
    text("data", "the data set", "DATA", "data set"),
    text("folder", "the folder with the files of MNIST or Fashion-MNIST", "FOLDER", "data folder"),
    real_number(
        "test_fraction",
        "share that becomes the test part, of data that come without one",
        "a number between 0 and 1",
        lambda value: 0 < value < 1,
        "SHARE",
    ),
    real_number(
        "validation_fraction",
        "share of the training part, drawn at random, that is held out for the validation after each epoch",
        "a number in [0, 1)",
        lambda value: 0 <= value < 1,
        "SHARE",
    ),
    one_of(
        "preset", tuple(PRESETS), f"settings that work together: one of {', '.join(PRESETS)} (default: by the data)"
    ),
    _SIZE,
    whole_number("channels", "1 reads pictures as grey, 3 as colour (default: as they are)", 1, 3),
    one_of("fit", FITS, f"how a picture is brought to --size: one of {', '.join(FITS)}"),
    one_of("network", tuple(NETWORKS), f"one of {', '.join(NETWORKS)}"),
    whole_number("epochs", "passes over the data", 1),
    whole_number("batch_size", "samples in a training step", 1),
    one_of("optimizer", OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
    real_number("learning_rate", "size of a step", "a positive number", lambda value: value > 0, "RATE"),
    one_of("schedule", SCHEDULES, f"how the learning rate changes: one of {', '.join(SCHEDULES)}"),
    real_number(
        "warmup", "epochs during which the learning rate first rises", "a number >= 0", lambda value: value >= 0
    ),
    real_number("momentum", "of sgd and rmsprop", "a number in [0, 1)", lambda value: 0 <= value < 1),
    switch("nesterov", "Nesterov's momentum, of sgd"),
    real_number(
        "weight_decay",
        "decoupled decay of kernels (not of biases and scales)",
        "a number >= 0",
        lambda value: value >= 0,
    ),
    real_number("clip_value", "largest size of a gradient's element", "a positive number", lambda value: value > 0),
    real_number("clip_norm", "largest norm of each gradient", "a positive number", lambda value: value > 0),
    real_number("clip_global_norm", "largest norm of all gradients", "a positive number", lambda value: value > 0),
    whole_number("accumulate", "batches whose gradients make one step", 1),
    real_number(
        "average",
        "momentum of averaged weights, which are tested and saved",
        "a number in [0, 1)",
        lambda value: 0 <= value < 1,
    ),
    switch("balance", "let every class count the same in the loss, however many samples it has"),
    names(
        "augment",
        f"random changes of the training images, separated by commas, with these amounts or others: {IN_WORDS}; "
        "none for none",
        check_augmentation,
    ),
    names(
        "metrics",
        "what is measured beside the loss, such as accuracy,top_3_accuracy",
        _check_metric,
    ),
    whole_number(
        "patience", "stop after so many epochs without a better validation loss, and keep the best weights", 1
    ),
    whole_number(
        "seed", "picks initial weights, order of samples, dropout, augmentation, and the test part", 0, 2**64 - 1
    ),
    real_number(
        "checkpoint_seconds",
        "at most so many seconds between two checkpoints",
        "a positive number",
        lambda value: value > 0,
        "S",
    ),
    whole_number("workers", "threads that read pictures", 1),
    switch("tensorboard", "write TensorBoard's event files into the run folder"),
)

_OPTIONS_ONLY = ("config", "json", "quiet", "run", "seeds", "verbose")

SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _TABLE}
"""Every setting by its name."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a training run learns, and how it goes on; None is "not used"."""

    data: str
    folder: str | None
    test_fraction: float | None
    validation_fraction: float
    preset: str | None
    size: str | None
    channels: int | None
    fit: str
    network: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str
    warmup: float
    momentum: float | None
    nesterov: bool
    weight_decay: float | None
    clip_value: float | None
    clip_norm: float | None
    clip_global_norm: float | None
    accumulate: int
    average: float | None
    balance: bool
    augment: tuple[str, ...]
    metrics: tuple[str, ...]
    patience: int | None
    seed: int
    checkpoint_seconds: float
    workers: int
    tensorboard: bool

    @classmethod
    def complete(cls, options: Mapping[str, Any], source: Source, shape: tuple[int, ...]) -> Settings:
        """Checked options, with a preset and then what is usual where they are silent.

        Args:
            options: as `checked` gives them; their preset is by default that of the data set, or of such images.
            source: the data, settled.
            shape: of an image.
        """
        recipe = {**USUAL, **preset_for(options.get("preset"), source.data, shape)}
        optimizer = options.get("optimizer", recipe["optimizer"])
        if optimizer != recipe["optimizer"]:
            # Rates and decays are an optimizer's own.
            own = get_optimizer(optimizer)
            recipe |= {"optimizer": optimizer, "learning_rate": own.learning_rate, "momentum": None, "nesterov": False}
            recipe["weight_decay"] = own.options.weight_decay
        return cls._of({**recipe, **options, **source.settings()})

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Settings:
        """The settings that a run began with; one that an older run did not know is as usual."""
        return cls._of({**USUAL, **PRESETS["digits"], **options, **source_from(options).settings()})

    @classmethod
    def _of(cls, found: Mapping[str, Any]) -> Settings:
        return cls(**{**found, "augment": tuple(found["augment"]), "metrics": tuple(found["metrics"])})


def source_from(options: Mapping[str, Any]) -> Source:
    """The data that checked options name; scikit-learn's digits where they name none."""
    return Source(
        options.get("data", "digits"),
        options.get("folder"),
        options.get("seed", 0),
        options.get("test_fraction"),
        options.get("size"),
        options.get("channels"),
        options.get("fit", "cover"),
        options.get("workers", USUAL["workers"]),
    ).settled()


def recorded(settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The settings of a run as its folder keeps them: `checked`, and None where a setting was left away.

    Args:
        settings: what the file holds.
        where: as for `checked`.

    Raises:
        ConfigError: as `checked`; or there is no value where one must be.
    """
    found = checked(settings, where)
    optional = {field.name for field in fields(Settings) if "None" in str(field.type)}
    for given, value in settings.items():
        name = given.replace("-", "_")
        if value is None:
            if name not in optional:
                raise ConfigError(f"{where}{name}: expected a value, got none")
            found[name] = None
    return found


def checked(options: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Options with every value held to what it may be; those that are None are left out.

    Args:
        options: by the names of the fields of `Settings`; dashes count as underscores.
        where: what the message starts with, such as the name of a file.

    Raises:
        ConfigError: an unknown name, or a value that is out of range.

    >>> checked({"epochs": 3, "batch-size": 8, "seed": None})
    {'epochs': 3, 'batch_size': 8}
    """
    result = {}
    for given, value in options.items():
        name = given.replace("-", "_")
        if name in result:
            raise ConfigError(f"{where}the setting {name!r} appears twice")
        if name in _OPTIONS_ONLY:
            raise ConfigError(f"{where}--{name} is an option of the command line, not a setting")
        if name not in SETTINGS:
            raise ConfigError(f"{where}{unknown('setting', given, SETTINGS)}")
        if value is not None:
            try:
                result[name] = SETTINGS[name].check(value)
            except ConfigError as error:
                raise ConfigError(f"{where}{error}") from None
    return result
