"""Run folders and model files that a command is given."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chainrule.cli.output import warn
from chainrule.cli.parts import Data, as_classes
from chainrule.cli.run import MODEL_FILE, SEEDS_FILE, Run
from chainrule.cli.settings import checked, recorded, source_from
from chainrule.cli.sources import Source
from chainrule.errors import ConfigError, RunFolderError
from chainrule.files import reason
from chainrule.models import Model, load_model
from chainrule.runs import read_config

__all__ = ["Opened", "given_source", "name_classes", "open_model", "open_run", "read_seeds", "read_settings"]

_SOURCE = ("folder", "seed", "test_fraction", "size", "channels", "fit", "workers")


@dataclass(frozen=True)
class Opened:
    """A model, and what its run folder says about its training; a model file alone says nothing."""

    model: Model
    settings: dict[str, Any] | None = None
    class_names: tuple[str, ...] = ()
    data_sha256: str | None = None

    def tested(self, data: str | None, options: dict[str, Any]) -> tuple[Source, Data]:
        """The data to test with: those that are named, else those of the run, which is warned of if they have changed.

        Pictures other than the run's are brought to the model's size, and all of them are the test part where they come
        without one.

        Args:
            data: a data set's name, file or folder.
            options: settings of the data set that were given; the run's own fill the gaps if it is the same set.

        Raises:
            ConfigError: nothing says which data.
            DataError: a class of the data is none of the model's.
        """
        known = self.settings or {}
        if data is None and not known:
            raise ConfigError(
                "a model file does not say which data set to test it with; name one, "
                f"for example: chainrule evaluate {MODEL_FILE} digits"
            )
        given = checked(options)
        own = data is None or (bool(known) and source_from({"data": data}).data == source_from(known).data)
        if own:
            taken = {key: known[key] for key in _SOURCE if known.get(key) is not None}
            source = source_from({**taken, "data": source_from(known).data, **given})
        else:
            source = source_from({**self._as_the_model_takes(data), "data": data, **given})
        found = source.load(all_to_test=not own)
        if own:
            self._check_unchanged(source, found)
        return source, replace(found, test=as_classes(found.held_out, self.class_names or found.class_names))

    def _as_the_model_takes(self, data: str | None) -> dict[str, Any]:
        """How pictures become what the model takes."""
        spec = self.model.input_spec
        kind = source_from({"data": data}).kind
        if kind not in ("csv", "pictures") or spec is None or len(spec.shape) != 4:
            return {}
        _, height, width, channels = spec.shape
        fit = (self.settings or {}).get("fit", "cover")
        return {"size": f"{height}x{width}", "channels": channels, "fit": fit}

    def _check_unchanged(self, source: Source, data: Data) -> None:
        """Warn if the data that the run was trained and tested on have another content now."""
        if self.settings is None or self.data_sha256 is None:
            return
        ours = source_from(self.settings)
        same_test_part = (source.seed, source.test_fraction) == (ours.seed, ours.test_fraction)
        if same_test_part and self.data_sha256 != data.fingerprint():
            warn(f"the data set {source.data} has changed since the run, or is split in another way")

    def names(self, classes: int, given: Sequence[str] = ()) -> tuple[str, ...]:
        """A name for each class: the run's, else the data set's, else its number."""
        return name_classes(self.class_names or given, classes)


def given_source(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of a data set beside its name."""
    return {name: getattr(arguments, name, None) for name in _SOURCE}


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
        run = open_run(place)
        settings = _settings_in(run.config, place / "config.json")
        if not (place / MODEL_FILE).exists() and run.result() is None:
            raise RunFolderError(
                f"the run '{place}' was cut off before it came to its end; chainrule resume {place} goes on with it"
            )
        model = load_model(place / MODEL_FILE)
        return Opened(model, settings, _class_names(run.config), run.config.get("data_sha256"))
    if not place.exists():
        raise ConfigError(f"there is no run folder and no model file '{path}'")
    return Opened(load_model(place))


def open_run(folder: Path) -> Run:
    """A run by its folder.

    Raises:
        RunFolderError: there is none.
        ConfigError: its configuration is not one that a run wrote.
    """
    if not folder.is_dir():
        raise RunFolderError(f"there is no run folder '{folder}'")
    if not (folder / "config.json").exists():
        if (folder / SEEDS_FILE).exists():
            runs = sorted(entry.name for entry in folder.glob("seed-*"))
            raise RunFolderError(f"'{folder}' holds a run for each of several seeds; name one of {', '.join(runs)}")
        raise RunFolderError(f"'{folder}' holds no config.json, so it is not the folder of a run")
    path = folder / "config.json"
    config = read_config(path)
    _settings_in(config, path)
    if not isinstance(config.get("data_sha256"), str):
        raise ConfigError(f"'{path}': there is no 'data_sha256'; expected a configuration that chainrule train wrote")
    return Run(folder, {**config, "settings": recorded(config["settings"], f"'{path}': ")})


def read_seeds(folder: Path) -> tuple[list[int], dict[str, Any]]:
    """The seeds of a folder of several runs, and the settings that the runs have in common.

    Raises:
        ConfigError: its list of seeds is none.
    """
    path = folder / SEEDS_FILE
    found = read_config(path)
    seeds = found.get("seeds")
    if not isinstance(seeds, list) or not seeds:
        raise ConfigError(f"'{path}': there is no list of seeds; expected one that chainrule train wrote")
    where = f"'{path}': "
    return [checked({"seed": seed}, where)["seed"] for seed in seeds], _settings_in(found, path)


def read_settings(path: str) -> dict[str, Any]:
    """The settings in a configuration file, or in a run folder's.

    A JSON file holds them under ``settings``, as ``config.json`` does, or at its top; so does a TOML file.

    Raises:
        RunFolderError: the file cannot be read.
        ConfigError: it holds something else.
    """
    place = Path(path)
    if place.is_dir():
        return _settings_in(open_run(place).config, place / "config.json")
    config = _read_toml(place) if place.suffix.lower() == ".toml" else read_config(place)
    return _settings_in(config if "settings" in config else {"settings": config}, place)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise RunFolderError(f"'{path}': cannot be read ({reason(error)}); expected a configuration") from error
    except ValueError as error:
        raise ConfigError(f"'{path}': the file is not valid TOML ({error}); expected a configuration") from error


def _settings_in(config: dict[str, Any], path: Path) -> dict[str, Any]:
    settings = config.get("settings")
    if not isinstance(settings, dict) or not settings:
        raise ConfigError(f"'{path}': the configuration holds no settings; expected one that chainrule train wrote")
    return checked(settings, where=f"'{path}': ")


def _class_names(config: dict[str, Any]) -> tuple[str, ...]:
    names = config.get("class_names")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
