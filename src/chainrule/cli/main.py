"""The command line: its commands and options, and how every error becomes one sentence."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from chainrule.__about__ import __version__
from chainrule.cli.names import known_name, unknown
from chainrule.cli.options import Parser, image_shape, positive, real, seed_list, verbosity, whole
from chainrule.cli.output import discard_output, print_any_text
from chainrule.cli.recipes import RECIPES
from chainrule.cli.schedule import SCHEDULES
from chainrule.cli.settings import OPTIMIZERS
from chainrule.cli.sources import DATA_SETS, DEFAULT_TEST_FRACTION
from chainrule.data.published import DATA_SETS as DOWNLOADS
from chainrule.errors import ChainruleError, ConfigError
from chainrule.files import reason
from chainrule.networks import NETWORKS

__all__ = ["main"]

COMMANDS: Mapping[str, str] = {
    "train": "train a network on a data set, and keep everything about it in a run folder",
    "evaluate": "loss, accuracy and per-class accuracy of a saved model",
    "predict": "what a saved model takes images for",
    "summary": "the layers of a saved model or a named network",
    "data": "check a data set of pictures, or download one by name",
}

_ERROR, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141  # the last two as a shell reports a program that a signal ended

_OPTIONS = ("-h", "--help", "--version")  # before a command; each has `chainrule` print something and end

_DATA_HELP = f"a data set ({', '.join(DATA_SETS)}) or a file FILE.npz with x_train, y_train, x_test and y_test"
_FOLDER_HELP = "the folder with the files of MNIST or Fashion-MNIST"
_MODEL_HELP = "a run folder or a model file"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Every error is one sentence on standard error; with ``CHAINRULE_DEBUG=1`` it is raised instead.

    Args:
        arguments: the words after ``chainrule``; by default those of this process.

    Returns:
        The exit status: 0; 1 if ``data check`` found a problem; 2 after an error; 130 after Ctrl-C; 141 if nobody
        reads the output any more.

    >>> main(["summary", "digits", "--input-shape", "1x1x1"])
    2
    """
    print_any_text()
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        discard_output()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print("chainrule: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (ChainruleError, OSError, MemoryError) as error:
        if os.environ.get("CHAINRULE_DEBUG") == "1":
            raise
        print(f"chainrule: error: {_sentence(error)}", file=sys.stderr)
        if not isinstance(error, ChainruleError):
            discard_output()  # the disk that holds it may be full
        return _ERROR


def _sentence(error: Exception) -> str:
    """An error on one line."""
    text = str(error) if isinstance(error, ChainruleError) else reason(error)
    if isinstance(error, MemoryError):
        text = f"there is not enough memory ({text or 'no details'}); try a smaller --batch-size"
    return " ".join(text.split()) or type(error).__name__


def _run(words: list[str]) -> int:
    parser, commands = _parsers()
    if not words:
        parser.print_help()
        return 0
    named = next((word for word in words if not word.startswith("-")), None)
    if named is not None:
        known_name("command", named, COMMANDS)
    elif words[0] not in _OPTIONS:
        raise _unparsed(words[0], parser)
    try:
        arguments, unparsed = parser.parse_known_args(words)
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    if unparsed:
        name = " ".join([arguments.command, *filter(None, [getattr(arguments, "action", None)])])
        raise _unparsed(unparsed[0], commands[name])
    command = importlib.import_module(f"chainrule.cli.{arguments.command}")
    status: int = command.run(arguments)
    return status


def _unparsed(word: str, parser: Parser) -> ConfigError:
    if word.startswith("-"):
        known = [*parser.option_names(), "--help"]
        return unknown("option", word.split("=")[0], known, f"see {parser.prog} --help")
    return ConfigError(f"unexpected argument {word!r} (see {parser.prog} --help)")


# -- commands and options --------------------------------------------------------------------------------------


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """The whole command line, and the parser of each command."""
    parser = Parser(
        prog="chainrule",
        description="Train convolutional networks, with every gradient derived by the chain rule.",
        epilog="Start with: chainrule train",
    )
    parser.add_argument("--version", action="version", version=f"chainrule {__version__}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    commands: dict[str, Parser] = {}
    for name, text in COMMANDS.items():
        commands[name] = group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    _add_train(commands["train"])
    _add_evaluate(commands["evaluate"])
    _add_predict(commands["predict"])
    _add_summary(commands["summary"])
    commands.update(_add_data(commands["data"]))
    return parser, commands


def _add_train(parser: Parser) -> None:
    parser.add_argument("data", nargs="?", metavar="DATA", help=f"{_DATA_HELP} (default: digits)")
    parser.add_argument("--data", dest="folder", metavar="FOLDER", help=_FOLDER_HELP)
    parser.add_argument("--network", metavar="NAME", help=_choices(NETWORKS, "network"))
    parser.add_argument("--epochs", type=whole, metavar="N", help=f"passes over the data ({_defaults('epochs')})")
    parser.add_argument(
        "--batch-size", type=whole, metavar="N", help=f"samples in a training step ({_defaults('batch_size')})"
    )
    parser.add_argument(
        "--learning-rate", type=real, metavar="RATE", help=f"size of a step ({_defaults('learning_rate')})"
    )
    parser.add_argument(
        "--schedule", metavar="NAME", help=f"how the learning rate changes: {_choices(SCHEDULES, 'schedule')}"
    )
    parser.add_argument("--optimizer", metavar="NAME", help=_choices(OPTIMIZERS, "optimizer"))
    _add_split(parser)
    parser.add_argument(
        "--validation-fraction",
        type=real,
        metavar="SHARE",
        help="share of the training part, drawn at random, that is held out for the validation curve (default: 0)",
    )
    parser.add_argument(
        "--seeds",
        type=seed_list,
        metavar="LIST",
        help="train once for each seed, such as 0-4 or 0,1,2, and print each test accuracy and the mean",
    )
    parser.add_argument(
        "--run", metavar="FOLDER", help="the run folder, new or empty (default: the first free runs/DATA-K)"
    )
    parser.add_argument(
        "--config", metavar="FILE", help="start from a run folder's config.json; options given here override it"
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="print the test accuracy and nothing else")
    loudness.add_argument(
        "--verbose",
        type=verbosity,
        default="auto",
        metavar="LEVEL",
        help="0: no progress, 1: a progress bar, 2: a line for each epoch (default: 1 in a terminal, else 2)",
    )


def _add_evaluate(parser: Parser) -> None:
    parser.add_argument("model", metavar="RUN_OR_MODEL", help=_MODEL_HELP)
    parser.add_argument("data", nargs="?", metavar="DATA", help=f"{_DATA_HELP} (default: that of the run)")
    parser.add_argument("--data", dest="folder", metavar="FOLDER", help=_FOLDER_HELP)
    _add_split(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_predict(parser: Parser) -> None:
    parser.add_argument("model", metavar="RUN_OR_MODEL", help=_MODEL_HELP)
    parser.add_argument(
        "input",
        nargs="?",
        metavar="INPUT",
        help="images in an .npy, .npz or idx file, or the name of a data set, whose test part is taken "
        "(default: the data set of the run)",
    )
    parser.add_argument("--data", dest="folder", metavar="FOLDER", help=_FOLDER_HELP)
    _add_split(parser)
    parser.add_argument("--limit", type=positive, metavar="K", help="only the first K images")
    parser.add_argument(
        "--out", metavar="FILE.csv", help="write the probabilities of all classes to a new file instead of printing"
    )


def _add_summary(parser: Parser) -> None:
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL_OR_NETWORK", help=f"{_MODEL_HELP}, or one of {', '.join(NETWORKS)}"
    )
    parser.add_argument(
        "--input-shape",
        type=image_shape,
        metavar="SHAPE",
        help="the images of a named network, such as 28x28x1 (default: those of its usual data set)",
    )
    parser.add_argument("--classes", type=positive, metavar="N", help="the classes of a named network (default: 10)")


def _add_data(parser: Parser) -> dict[str, Parser]:
    group = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    check = group.add_parser(
        "check", help="read every picture, and report what is wrong (exit status 1) or nothing (0)"
    )
    check.add_argument(
        "folder",
        metavar="FOLDER",
        help="folders of classes, or of train, val and test that hold such; a csv list, an .npz file, or idx files",
    )
    check.add_argument("--json", action="store_true", help="print one JSON object")
    download = group.add_parser("download", help="have the files of a data set, each checked by its SHA-256")
    download.add_argument("name", metavar="NAME", help=", ".join(DOWNLOADS))
    download.add_argument(
        "--to", metavar="FOLDER", help="where they go (default: the folder where they are looked for)"
    )
    return {"data check": check, "data download": download}


def _add_split(parser: Parser) -> None:
    what = "picks the split of digits"
    if parser.prog.endswith("train"):
        what = "picks initial weights, the order of samples, dropout, and the split of digits"
    parser.add_argument("--seed", type=whole, metavar="N", help=f"{what} (default: 0)")
    parser.add_argument(
        "--test-fraction",
        type=real,
        metavar="SHARE",
        help=f"share of digits that is the test part (default: {DEFAULT_TEST_FRACTION})",
    )


def _choices(names: Sequence[str] | Mapping[str, object], field: str) -> str:
    return f"one of {', '.join(names)} ({_defaults(field)})"


def _defaults(field: str) -> str:
    """The default of a setting for each data set.

    >>> _defaults("optimizer")
    'default: adam'
    """
    values = {data: getattr(recipe, field) for data, recipe in RECIPES.items()}
    if len(set(values.values())) == 1:
        return f"default: {next(iter(values.values()))}"
    return f"default: {', '.join(f'{value} for {data}' for data, value in values.items())}"
