"""``chainrule resume``: go on with a run that was cut off, to the same bits as if it had not been."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from chainrule.cli.opened import open_run, read_seeds
from chainrule.cli.output import Output, warn
from chainrule.cli.parts import hold_out
from chainrule.cli.run import SEEDS_FILE, Run, new_folder
from chainrule.cli.settings import Settings, source_from
from chainrule.cli.train import carry_on, train_each
from chainrule.cli.training import Training, build_model
from chainrule.errors import CheckpointError, ConfigError
from chainrule.files import remove_drafts

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Go on with a run, or with the runs of several seeds.

    Raises:
        ChainruleError: there is no such run, it has come to its end, or its data or code have changed.
    """
    folder = Path(arguments.run)
    output = Output(arguments.verbose, arguments.quiet, arguments.json)
    accept: bool = arguments.accept_changes
    if not (folder / SEEDS_FILE).exists():
        run = open_run(folder)
        if run.is_finished():
            raise ConfigError(
                f"the run '{folder}' has come to its end; chainrule train --config {folder} runs it again"
            )
        return _go_on(run, output, accept)[1]
    seeds = read_seeds(folder)
    runs = {seed: open_run(folder / f"seed-{seed}") for seed in seeds if (folder / f"seed-{seed}").is_dir()}
    if all(seed in runs and runs[seed].is_finished() for seed in seeds):
        raise ConfigError(f"the runs in '{folder}' have all come to their end")
    pattern = next(iter(runs.values()))

    def train(seed: int, own: Path) -> tuple[dict[str, Any], int]:
        if seed in runs:
            result = runs[seed].result()
            return (result, 0) if result and runs[seed].is_finished() else _go_on(runs[seed], output, accept)
        with new_folder(own, own.name):
            return _go_on(_like(pattern, own, seed), output, accept)

    return train_each(folder, seeds, train, output)


def _go_on(run: Run, output: Output, accept: bool) -> tuple[dict[str, Any], int]:
    remove_drafts(run.folder)
    settings = Settings.read(run.config["settings"])
    data = source_from(run.config["settings"]).load()
    if data.fingerprint() != run.config["data_sha256"]:
        text = f"the data set {settings.data} has changed since the run '{run.folder}' began"
        if not accept:
            raise CheckpointError(f"{text}; --accept-changes goes on all the same, to other bits")
        warn(text)
    parts = hold_out(data, settings.validation_fraction, settings.seed)
    return carry_on(Training(run, settings, parts, output, accept))


def _like(pattern: Run, folder: Path, seed: int) -> Run:
    """A new run with the settings of another, but for the seed."""
    options = {**pattern.config["settings"], "seed": seed}
    data = source_from(options).load()
    settings = Settings.read(options)
    build_model(settings, hold_out(data, settings.validation_fraction, seed))
    return Run.begin(folder, settings, data)
