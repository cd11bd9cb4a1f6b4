"""The command line: a command is found and run, and every error becomes one sentence."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from chainrule.cli.commands import COMMANDS, parsers
from chainrule.cli.names import known_name, unknown
from chainrule.cli.options import Parser
from chainrule.cli.output import discard_output, print_any_text
from chainrule.errors import ChainruleError, ConfigError
from chainrule.files import reason

__all__ = ["main"]

_ERROR, _INTERRUPTED, _BROKEN_PIPE = 2, 130, 141  # the last two as a shell reports a program that a signal ended

_OPTIONS = ("-h", "--help", "--version")  # before a command; each has `chainrule` print something and end


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Every error is one sentence on standard error; with ``CHAINRULE_DEBUG=1`` it is raised instead.

    Args:
        arguments: the words after ``chainrule``; by default those of this process.

    Returns:
        The exit status: 0; 1 if `doctor` or `data check` found something wrong, or a loss ceased to be a number; 2
        after an error; 130 after Ctrl-C, 143 after SIGTERM; 141 if nobody reads the output any more.

    >>> main(["summary", "digits", "--input-shape", "1x1x1"])
    2
    """
    print_any_text()
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:  # closed by whoever started the process
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
    parser, commands = parsers()
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
