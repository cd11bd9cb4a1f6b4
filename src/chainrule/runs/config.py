"""The configuration of a run, as strict JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from chainrule.errors import ConfigError, RunFolderError
from chainrule.files import reason, write_text_atomic

__all__ = ["read_config", "write_config"]


def write_config(folder: str | os.PathLike[str], config: dict[str, Any]) -> None:
    """Write ``config.json``, whole or not at all; one that is already there is never replaced.

    Args:
        folder: The run folder.
        config: Names and values: text, finite numbers, bools, None, and lists and dicts of them.

    Raises:
        ConfigError: A value has no JSON form.
        RunFolderError: The folder already holds a ``config.json``, or it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_config(folder, {"epochs": 5, "learning_rate": 0.001})
        ...     read_config(Path(folder) / "config.json")
        {'epochs': 5, 'learning_rate': 0.001}
    """
    path = Path(folder) / "config.json"
    try:
        text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"'{path}': the configuration has no JSON form ({error}); expected text, finite "
            "numbers, bools, None, and lists and dicts of them"
        ) from error
    if os.path.lexists(path):
        raise RunFolderError(f"'{path}': the file already exists; expected a new run folder")
    write_text_atomic(path, text)


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration.

    Args:
        path: The JSON file, UTF-8; its top level is an object.

    Returns:
        Names and values.

    Raises:
        RunFolderError: The file cannot be read.
        ConfigError: It is no strict JSON, names a key twice, or its top level is no object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mine.json"
        ...     _ = path.write_text('{"epochs": 5}')
        ...     read_config(path)
        {'epochs': 5}
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        config = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"'{path}': the file is not valid JSON ({error}); expected a configuration") from error
    except OSError as error:
        raise RunFolderError(f"'{path}': cannot be read ({reason(error)}); expected a JSON configuration") from error
    if not isinstance(config, dict):
        raise ConfigError(f"'{path}': the top level is a {type(config).__name__}; expected a JSON object")
    return config


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key, value in pairs:
        if key in config:
            raise ValueError(f"the key {key!r} appears twice")
        config[key] = value
    return config


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
