"""The commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from chainrule.__about__ import __version__
from chainrule.cli.options import Parser, image_shape, positive, seed_list, verbosity
from chainrule.cli.presets import PRESETS, USUAL
from chainrule.cli.settings import SETTINGS
from chainrule.cli.sources import DATA_SETS, DEFAULT_TEST_FRACTION
from chainrule.data.published import DATA_SETS as DOWNLOADS
from chainrule.networks import NETWORKS
from chainrule.plan.dump import LEVELS

__all__ = ["COMMANDS", "parsers"]

COMMANDS: Mapping[str, str] = {
    "train": "train a network on a data set, and keep everything about it in a run folder",
    "resume": "go on with a run that was cut off, to the same bits as if it had not been",
    "evaluate": "loss, accuracy and per-class accuracy of a saved model",
    "predict": "what a saved model takes images for",
    "data": "check a data set of pictures, or download one by name",
    "summary": "the layers of a saved model or a named network",
    "plan": "how a training step becomes machine code: stages, kernels, memory",
    "doctor": "what is installed, what this machine can do, and whether training works on it",
}

_DATA_HELP = (
    f"a data set ({', '.join(DATA_SETS)}), a folder of pictures by class (or with such folders in train/ and test/), "
    "a list of pictures FILE.csv, or a file FILE.npz with x_train, y_train, x_test and y_test"
)
_FOLDER_HELP = "the folder with the files of MNIST or Fashion-MNIST (default: they are downloaded once)"
_MODEL_HELP = "a run folder or a model file"
_SPLIT = ("seed", "test_fraction")
_PICTURES = ("size", "channels", "fit", "workers")


def parsers() -> tuple[Parser, dict[str, Parser]]:
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
    _add_resume(commands["resume"])
    _add_evaluate(commands["evaluate"])
    _add_predict(commands["predict"])
    commands.update(_add_data_actions(commands["data"]))
    _add_summary(commands["summary"])
    _add_plan(commands["plan"])
    _add_doctor(commands["doctor"])
    return parser, commands


def _add_train(parser: Parser) -> None:
    _add_data(parser, "digits")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings from a JSON or TOML file, or from a run folder; options given here override them",
    )
    parser.add_argument(
        "--run", metavar="FOLDER", help="the run folder, new or empty (default: the first free runs/DATA-K)"
    )
    parser.add_argument(
        "--seeds",
        type=seed_list,
        metavar="LIST",
        help="train once for each seed, such as 0-4 or 0,1,2, and print each test accuracy and the mean",
    )
    parser.add_argument(
        "--find-learning-rate",
        metavar="FILE.png",
        help="do not train: try learning rates from tiny to large, print which to use, and draw the losses in a file",
    )
    _add_settings(parser, [name for name in SETTINGS if name not in ("data", "folder")])
    _add_loudness(parser)


def _add_resume(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run, or of the runs of several seeds")
    parser.add_argument("--data", metavar="PATH", help="where the data are now, if they have moved")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on though data, code, versions or processor have changed; the bits will be others",
    )
    _add_loudness(parser)


def _add_evaluate(parser: Parser) -> None:
    parser.add_argument("model", metavar="RUN_OR_MODEL", help=_MODEL_HELP)
    _add_data(parser, "that of the run")
    _add_settings(parser, (*_SPLIT, *_PICTURES))
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_predict(parser: Parser) -> None:
    parser.add_argument("model", metavar="RUN_OR_MODEL", help=_MODEL_HELP)
    parser.add_argument(
        "input",
        nargs="?",
        metavar="INPUT",
        help="a picture or a folder of pictures; images in an .npy, .npz or idx file; or the name of a data set, whose "
        "test part is taken (default: the data set of the run)",
    )
    parser.add_argument("--data", dest="folder", metavar="FOLDER", help=_FOLDER_HELP)
    _add_settings(parser, _SPLIT)
    parser.add_argument("--limit", type=positive, metavar="K", help="only the first K images")
    parser.add_argument(
        "--out", metavar="FILE.csv", help="write the probabilities of all classes to a new file instead of printing"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each image, one a line")


def _add_summary(parser: Parser) -> None:
    _add_network(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_plan(parser: Parser) -> None:
    _add_network(parser)
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="samples in a step (default: that of the run, or 32)"
    )
    parser.add_argument(
        "--level", metavar="LEVEL", help=f"print one level of the translation instead: {', '.join(LEVELS)}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_doctor(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_network(parser: Parser) -> None:
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


def _add_data_actions(parser: Parser) -> dict[str, Parser]:
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


# -- what several commands take --------------------------------------------------------------------------------


def _add_data(parser: Parser, default: str) -> None:
    parser.add_argument("data", nargs="?", metavar="DATA", help=f"{_DATA_HELP} (default: {default})")
    parser.add_argument("--data", dest="folder", metavar="FOLDER", help=_FOLDER_HELP)


def _add_settings(parser: Parser, names: Sequence[str]) -> None:
    for name in names:
        setting = SETTINGS[name]
        if setting.parse is None:
            words = [setting.option, f"--no-{setting.option.removeprefix('--')}"]
            help = f"{setting.help} ({words[1]}: not, the default)"
            parser.add_argument(words[0], dest=name, action="store_const", const=True, help=help)
            parser.add_argument(words[1], dest=name, action="store_const", const=False, help=argparse.SUPPRESS)
        else:
            help = setting.help if "(default" in setting.help else f"{setting.help} ({_default(name)})"
            parser.add_argument(setting.option, dest=name, type=setting.parse, metavar=setting.metavar, help=help)


def _add_loudness(parser: Parser) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="print the test accuracy and nothing else")
    loudness.add_argument(
        "--verbose",
        type=verbosity,
        default="auto",
        metavar="LEVEL",
        help="0: no progress, 1: a live view, 2: a line for each epoch (default: 1 in a terminal, else 2)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON objects, one a line, instead of text")


def _default(name: str) -> str:
    """The default of a setting, by preset where presets differ.

    >>> _default("balance")
    'default: False'
    """
    if name == "test_fraction":
        return f"default: {', '.join(f'{share} of {kind}' for kind, share in DEFAULT_TEST_FRACTION.items())}"
    values = {preset: settings.get(name, USUAL.get(name)) for preset, settings in PRESETS.items()}
    texts = {preset: _in_words(value) for preset, value in values.items()}
    if len(set(texts.values())) == 1:
        return f"default: {next(iter(texts.values()))}"
    return f"default: {', '.join(f'{text} for {preset}' for preset, text in texts.items())}"


def _in_words(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(value) or "none"
    return "not used" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
