"""``chainrule resume``: go on with a run that was cut off, to the same bits as if it had not been."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.cli.opened import open_run, read_seeds
from chainrule.cli.output import Output, warn
from chainrule.cli.parts import hold_out
from chainrule.cli.run import SEEDS_FILE, Run
from chainrule.cli.settings import Settings, checked, source_from
from chainrule.cli.sources import DATA_SETS
from chainrule.cli.train import NOT_FINITE, carry_on, train_each, train_one
from chainrule.cli.training import Training
from chainrule.errors import CheckpointError, ConfigError
from chainrule.files import openable, remove_drafts

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Go on with a run, or with the runs of several seeds.

    Raises:
        ChainruleError: there is no such run, it has come to its end, or its data or code have changed.
    """
    folder = Path(arguments.run)
    output = Output(arguments.verbose, arguments.quiet, arguments.json)
    resuming = _Resuming(output, arguments.accept_changes, arguments.data)
    if (folder / SEEDS_FILE).exists():
        return resuming.several(folder)
    run = open_run(folder)
    if run.is_finished():
        run.tidy()
        raise ConfigError(f"the run '{folder}' has come to its end; chainrule train --config {folder} runs it again")
    return resuming.one(run)[1]


@dataclass(frozen=True)
class _Resuming:
    """How runs go on.

    Attributes:
        output: what is printed.
        accept: go on though something has changed.
        data: where the data are now, if they have moved.
    """

    output: Output
    accept: bool
    data: str | None

    def one(self, run: Run) -> tuple[dict[str, Any], int]:
        """Go on with a run; gives its result and the exit status."""
        options = self._moved(run.config["settings"])
        settings = Settings.read(options)
        with run.locked():
            remove_drafts(run.folder)
        if not any(run.checkpoints.glob("checkpoint-*")):
            warn(f"the run '{run.folder}' has no checkpoint yet; it begins anew")
        data = source_from(options).load()
        if data.fingerprint() != run.config["data_sha256"]:
            text = f"the data set {settings.data} has changed since the run '{run.folder}' began"
            if not self.accept:
                raise CheckpointError(f"{text}; --accept-changes goes on all the same, to other bits")
            warn(text)
            data.check()
        parts = hold_out(data, settings.validation_fraction, settings.seed)
        return carry_on(Training(run, settings, parts, self.output, self.accept))

    def several(self, folder: Path) -> int:
        """Go on with the runs of several seeds: those that were cut off, and those that had not begun."""
        seeds, options = read_seeds(folder)
        begun = [seed for seed in seeds if (folder / f"seed-{seed}" / "config.json").exists()]
        runs = {seed: open_run(folder / f"seed-{seed}") for seed in begun}
        finished = {seed: run.result() or {} for seed, run in runs.items() if run.is_finished()}
        if len(finished) == len(seeds):
            raise ConfigError(f"the runs in '{folder}' have all come to their end")
        options = self._moved(options)

        def train(seed: int, own: Path) -> tuple[dict[str, Any], int]:
            if seed in finished:
                runs[seed].tidy()
                return finished[seed], 0 if finished[seed].get("finite_loss", True) else NOT_FINITE
            return self.one(runs[seed]) if seed in runs else train_one(options, seed, own, self.output)

        return train_each(folder, seeds, options, train, self.output)

    def _moved(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings with the place where the data are now."""
        if self.data is None:
            path = settings.get("data", "digits")
            if path not in DATA_SETS and not os.path.exists(openable(path)):
                raise ConfigError(f"the data of the run, '{path}', are not there; say where they are now with --data")
            return settings
        known = source_from(settings).data
        if known == "digits":
            raise ConfigError("the digits come with scikit-learn; leave --data away")
        return {**settings, **checked({"folder" if known in DATA_SETS else "data": self.data})}
