"""Run folders and model files that a command is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.cli.output import warn
from chainrule.cli.settings import checked, source_from
from chainrule.cli.sources import Source, fingerprint
from chainrule.data import Dataset
from chainrule.errors import ConfigError, RunFolderError
from chainrule.models import Model, load_model
from chainrule.runs import read_config

__all__ = ["MODEL_FILE", "SEEDS_FILE", "Opened", "open_model", "read_settings"]

MODEL_FILE = "model.safetensors"
SEEDS_FILE = "seeds.json"


@dataclass(frozen=True)
class Opened:
    """A model, and what its run folder says about its training; a model file alone says nothing."""

    model: Model
    settings: dict[str, Any] | None = None
    class_names: tuple[str, ...] = ()
    data_sha256: str | None = None

    def source(self, data: str | None, options: dict[str, Any]) -> Source:
        """The data to test with: those that are named, else those of the run.

        Args:
            data: a data set's name or file.
            options: settings of the data set that were given; the run's own fill the gaps if it is the same set.

        Raises:
            ConfigError: nothing says which data.
        """
        known = self.settings or {}
        if data is None and not known:
            raise ConfigError(
                "a model file does not say which data set to test it with; name one, "
                f"for example: chainrule evaluate {MODEL_FILE} digits"
            )
        same_data = data is None or data == known.get("data")
        taken: dict[str, Any] = {
            key: known[key] for key in ("folder", "seed", "test_fraction") if same_data and key in known
        }
        return source_from({**taken, "data": data or known.get("data"), **checked(options)})

    def check_unchanged(self, source: Source, dataset: Dataset) -> None:
        """Warn if the data that the run was trained and tested on have another content now."""
        if self.settings is None or self.data_sha256 is None:
            return
        ours = source_from(self.settings)
        same_test_part = (source.data, source.seed, source.test_fraction) == (ours.data, ours.seed, ours.test_fraction)
        if same_test_part and self.data_sha256 != fingerprint(dataset):
            warn(f"the data set {source.data} has changed since the run, or is split in another way")

    def names(self, classes: int, dataset: Dataset | None = None) -> tuple[str, ...]:
        """A name for each class: the data set's, else the run's, else its number."""
        given = dataset.class_names if dataset is not None else self.class_names
        return name_classes(given, classes)


def name_classes(given: Sequence[str], classes: int) -> tuple[str, ...]:
    """Names of so many classes; those without a name are called by their number.

    >>> name_classes(["cat"], 2)
    ('cat', '1')
    """
    return (*given[:classes], *(str(number) for number in range(len(given), classes)))


def open_model(path: str) -> Opened:
    """The model of a run folder or a model file.

    Raises:
        ConfigError: there is nothing, or no run, at the path.
        ModelFileError: the model file is damaged or no chainrule model.
    """
    place = Path(path)
    if place.is_dir():
        config = _read_run(place)
        settings = _settings_in(config, place / "config.json")
        model = load_model(place / MODEL_FILE)
        return Opened(model, settings, _class_names(config), config.get("data_sha256"))
    if not place.exists():
        raise ConfigError(f"there is no run folder and no model file '{path}'")
    return Opened(load_model(place))


def read_settings(path: str) -> dict[str, Any]:
    """The settings in a ``config.json``, or in that of a run folder.

    Raises:
        RunFolderError: the file cannot be read.
        ConfigError: it holds something else.
    """
    place = Path(path)
    if place.is_dir():
        return _settings_in(_read_run(place), place / "config.json")
    return _settings_in(read_config(place), place)


def _read_run(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").exists():
        if (folder / SEEDS_FILE).exists():
            runs = sorted(entry.name for entry in folder.glob("seed-*"))
            raise RunFolderError(f"'{folder}' holds a run for each of several seeds; name one of {', '.join(runs)}")
        raise RunFolderError(f"'{folder}' holds no config.json, so it is not the folder of a finished run")
    return read_config(folder / "config.json")


def _settings_in(config: dict[str, Any], path: Path) -> dict[str, Any]:
    settings = config.get("settings")
    if not isinstance(settings, dict):
        raise ConfigError(f"'{path}': the configuration holds no settings; expected one that chainrule train wrote")
    return checked(settings, where=f"'{path}': ")


def _class_names(config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("class_names")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
