"""``chainrule train``: train a network on a data set, and keep everything about it in a run folder."""

from __future__ import annotations

import argparse
import json
import signal
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chainrule.cli.opened import read_settings
from chainrule.cli.output import Output, check_new_file, warn
from chainrule.cli.parts import as_arrays, hold_out, lopsided
from chainrule.cli.report import accuracy, conclude, is_finite
from chainrule.cli.run import SEEDS_FILE, Run, new_folder
from chainrule.cli.settings import SETTINGS, Settings, checked, source_from
from chainrule.cli.training import Training, build_model, extras
from chainrule.errors import ConfigError
from chainrule.files import write_text_atomic
from chainrule.search import learning_rate_test

__all__ = ["NOT_FINITE", "carry_on", "run", "train_each", "train_one"]

NOT_FINITE = 1
"""The exit status of a training whose loss ceased to be a number."""


def run(arguments: argparse.Namespace) -> int:
    """Train once, or once for every seed.

    Raises:
        ChainruleError: an option, the data or the run folder cannot be used; nothing is left behind.
    """
    options = _options(arguments)
    output = Output(arguments.verbose, arguments.quiet, arguments.json)
    folder = None if arguments.run is None else Path(arguments.run)
    if arguments.run == "" or arguments.config == "":
        raise ConfigError("--run and --config name a path; an empty text is none")
    if arguments.find_learning_rate is not None:
        if arguments.run is not None or arguments.seeds is not None:
            raise ConfigError("--find-learning-rate trains no run; leave --run and --seeds away")
        return _find_learning_rate(options, Path(arguments.find_learning_rate), output)
    if arguments.seeds is not None:
        if arguments.seed is not None:
            raise ConfigError("give --seed for one run or --seeds for several, not both")
        return _train_seeds(options, arguments.seeds, folder, output)
    return _train(options, folder, output)[1]


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The checked settings of the configuration file, overridden by those of the command line."""
    given = checked({name: getattr(arguments, name) for name in SETTINGS})
    base = {} if arguments.config is None else read_settings(arguments.config)
    if given.get("data", base.get("data")) != base.get("data"):
        base = {name: value for name, value in base.items() if name not in ("folder", "test_fraction")}
    return {**base, **given}


def _train(options: Mapping[str, Any], path: Path | None, output: Output) -> tuple[dict[str, Any], int]:
    """Train one run; gives its result and the exit status."""
    source = source_from(options)
    with new_folder(path, source.label) as folder:
        data = source.load()
        settings = Settings.complete(options, source, data.shape)
        parts = hold_out(data, settings.validation_fraction, settings.seed)
        data.check()  # what does not fit is told before anything is written
        build_model(settings, parts)
        for sentence in lopsided(parts):
            warn(sentence)
        run = Run.begin(folder, settings, data)
        try:
            return carry_on(Training(run, settings, parts, output))
        except BaseException:
            run.forget_if_nothing_was_learned()
            raise


def carry_on(training: Training) -> tuple[dict[str, Any], int]:
    """Train from where the run stands to its end; gives its result and the exit status."""
    settings, folder, output = training.settings, training.run.folder, training.output
    parameters = training.model.count_params()
    output.say(training.data.describe())
    output.say(f"network {settings.network}, {parameters:,} parameters; run folder {folder}")
    output.event("start", run=str(folder), data=training.data.describe(), parameters=parameters)
    with training.run.locked():
        history = training.fit()
        result = conclude(training, history)
    if result["interrupted"]:
        return result, 128 + (history.signal or signal.SIGINT)
    return result, 0 if is_finite(history) else NOT_FINITE


def _find_learning_rate(options: Mapping[str, Any], path: Path, output: Output) -> int:
    """Try learning rates on the run that the options describe, without a run folder."""
    check_new_file(path, "--find-learning-rate")
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--find-learning-rate draws a PNG file, got '{path}'; expected a name such as rates.png")
    source = source_from(options)
    data = source.load()
    settings = Settings.complete(options, source, data.shape)
    parts = hold_out(data, settings.validation_fraction, settings.seed)
    found = learning_rate_test(
        build_model(settings, parts),
        *as_arrays(parts.train),
        end=10.0,
        batch_size=settings.batch_size,
        **extras(settings, parts),
    )
    check_new_file(path, "--find-learning-rate")
    found.plot(path)
    output.say(str(found))
    if found.suggestion is not None and found.cautious is not None:
        output.result(f"try --learning-rate {min(found.suggestion, found.cautious):.2g}")
    output.say(f"picture  {path}")
    suggested = {"suggestion": found.suggestion, "cautious": found.cautious, "diverged": found.diverged}
    output.event("result", picture=str(path), **suggested)
    return 0


# -- a run for each seed ---------------------------------------------------------------------------------------


def _train_seeds(options: Mapping[str, Any], seeds: Sequence[int], path: Path | None, output: Output) -> int:
    """Train once for every seed, each in a folder inside one; print every test accuracy and the mean."""
    sources = [source_from({**options, **checked({"seed": seed})}) for seed in seeds]
    with new_folder(path, sources[0].label) as folder:
        own = {name: value for name, value in sources[0].settings().items() if name != "seed" and value is not None}
        settled = {**options, **own}
        _write_seeds(folder, {"seeds": list(seeds), "settings": settled})
        try:
            return train_each(folder, seeds, settled, lambda seed, own: train_one(settled, seed, own, output), output)
        except BaseException:
            if not any(folder.glob("seed-*")):
                (folder / SEEDS_FILE).unlink()
            raise


def train_one(options: Mapping[str, Any], seed: int, folder: Path, output: Output) -> tuple[dict[str, Any], int]:
    """Train one of several runs."""
    return _train({**options, "seed": seed}, folder, output)


def train_each(
    folder: Path,
    seeds: Sequence[int],
    options: Mapping[str, Any],
    train: Callable[[int, Path], tuple[dict[str, Any], int]],
    output: Output,
) -> int:
    """Train for every seed until one is interrupted, and sum up; gives the exit status.

    Args:
        folder: of all of them.
        seeds: the seeds.
        options: what the runs have in common.
        train: trains one, given its seed and folder.
        output: what is printed.
    """
    results: dict[int, dict[str, Any]] = {}
    status = 0
    for seed in seeds:
        output.say(f"seed {seed}")
        results[seed], own = train(seed, folder / f"seed-{seed}")
        status = max(status, own)
        if results[seed]["interrupted"]:
            del results[seed]
            break
    if results:
        _sum_up(folder, seeds, options, results, output)
    return status


def _sum_up(
    folder: Path,
    seeds: Sequence[int],
    options: Mapping[str, Any],
    results: Mapping[int, Mapping[str, Any]],
    output: Output,
) -> None:
    """Write and print the mean over the seeds that came to their end."""
    accuracies = [result["test_accuracy"] for result in results.values()]
    mean, spread = statistics.fmean(accuracies), statistics.pstdev(accuracies)
    summary = {
        "seeds": list(seeds),
        "settings": dict(options),
        "finished": list(results),
        "test_accuracy": accuracies,
        "mean": mean,
        "standard_deviation": spread,
    }
    _write_seeds(folder, summary)
    for seed, result in results.items():
        output.say(f"seed {seed}: test accuracy {accuracy(result)}")
    output.result(
        f"mean test accuracy over {len(results)} seeds {100 * mean:.2f} % "
        f"(standard deviation {100 * spread:.2f}, lowest {100 * min(accuracies):.2f})"
    )
    output.event("summary", **{name: value for name, value in summary.items() if name != "settings"})


def _write_seeds(folder: Path, summary: Mapping[str, Any]) -> None:
    write_text_atomic(folder / SEEDS_FILE, json.dumps(summary, indent=2) + "\n")
