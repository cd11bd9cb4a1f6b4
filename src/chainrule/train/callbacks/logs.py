"""Callbacks that write an epoch's numbers to files, and one made of functions."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from chainrule.errors import ConfigError, MissingDependencyError, RunFolderError
from chainrule.files import make_folder, reason
from chainrule.train.callback import Callback, Logs, as_json

__all__ = ["CSVLogger", "JSONLogger", "LambdaCallback", "TensorBoard"]


class _FileLogger(Callback):
    """A text file to which each epoch adds a line; a run that goes on cuts off what came after its checkpoint."""

    def __init__(self, filename: str | os.PathLike[str], append: bool) -> None:
        self.filename, self.append = Path(filename), bool(append)
        self._file: IO[str] | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        make_folder(self.filename.parent)  # better refused now than after an epoch

    def _open(self) -> IO[str]:
        if self._file is None:
            try:
                self._file = self.filename.open("a" if self.append else "w", encoding="utf-8", newline="")
            except OSError as error:
                raise RunFolderError(f"'{self.filename}': cannot be written ({reason(error)})") from None
        return self._file

    def _add(self, text: str) -> None:
        file = self._open()
        try:
            file.write(text)
            file.flush()
        except OSError as error:
            raise RunFolderError(f"'{self.filename}': cannot be written ({reason(error)})") from None

    def get_state(self) -> dict[str, Any]:
        return {"size": self.filename.stat().st_size if self._file is not None else None}

    def set_state(self, state: dict[str, Any]) -> None:
        if state["size"] is not None and self.filename.exists():
            self.append = True
            os.truncate(self.filename, min(state["size"], self.filename.stat().st_size))

    def on_train_end(self, logs: Logs = None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self.append = True  # a second training of the same callback goes on in the file


class CSVLogger(_FileLogger):
    """A line for each epoch: its number from 0, then every number of `History`.

    Args:
        filename: the file.
        separator: between two numbers.
        append: keep what is in the file; the header is then written only if it is empty.

    >>> import chainrule as cr
    >>> cr.callbacks.CSVLogger("log.csv").separator
    ','
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__(filename, append)
        self.separator = separator
        self._columns: list[str] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        found = dict(logs or {})
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.separator, lineterminator="\n")
        if self._columns is None:
            self._columns = list(found)
            if not (self.append and self.filename.exists() and self.filename.stat().st_size):
                writer.writerow(["epoch", *self._columns])
        writer.writerow([epoch, *(found.get(name, "") for name in self._columns)])
        self._add(text.getvalue())


class JSONLogger(_FileLogger):
    """A line of JSON for each epoch, such as ``{"epoch": 0, "loss": 0.5}``; what is not finite is text.

    Args:
        filename: the file.
        append: keep what is in the file.

    >>> import chainrule as cr
    >>> cr.callbacks.JSONLogger("log.jsonl").append
    False
    """

    def __init__(self, filename: str | os.PathLike[str], append: bool = False) -> None:
        super().__init__(filename, append)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        numbers = {name: as_json(float(value)) for name, value in (logs or {}).items()}
        self._add(json.dumps({"epoch": epoch, **numbers}, ensure_ascii=False) + "\n")


class TensorBoard(Callback):
    """Event files for TensorBoard, of training and validation numbers by epoch and the learning rate.

    Args:
        log_dir: the folder; ``train`` and ``validation`` are made in it, as Keras does.

    Raises:
        MissingDependencyError: the extra ``tensorboard`` is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "logs") -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise MissingDependencyError(
                "TensorBoard's event files need the package tensorboard; install chainrule[tensorboard]"
            ) from error
        self.log_dir = Path(log_dir)
        self._event, self._summary, self._writer = Event, Summary, EventFileWriter
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.cut_off:
            return
        numbers = dict(logs or {})
        held_out = {name.removeprefix("val_"): value for name, value in numbers.items() if name.startswith("val_")}
        own = {name: value for name, value in numbers.items() if not name.startswith("val_")}
        self._write("train", epoch, {**own, "learning_rate": self.model.optimizer.learning_rate})
        if held_out:
            self._write("validation", epoch, held_out)

    def _write(self, part: str, epoch: int, numbers: dict[str, float]) -> None:
        import time

        if part not in self._writers:
            self._writers[part] = self._writer(str(self.log_dir / part))
        values = [self._summary.Value(tag=f"epoch_{name}", simple_value=value) for name, value in numbers.items()]
        event = self._event(wall_time=time.time(), step=epoch, summary=self._summary(value=values))
        self._writers[part].add_event(event)
        self._writers[part].flush()

    def on_train_end(self, logs: Logs = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


class LambdaCallback(Callback):
    """A callback made of functions, by the names of the methods that they stand for.

    Args:
        functions: such as ``on_epoch_end=lambda epoch, logs: ...``.

    Raises:
        ConfigError: there is no such method.

    >>> import chainrule as cr
    >>> seen = []
    >>> cr.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch)).on_epoch_end(3, {})
    >>> seen
    [3]
    """

    def __init__(self, **functions: Callable[..., None]) -> None:
        methods = [name for name in vars(Callback) if name.startswith("on_")]
        for name, function in functions.items():
            if name not in methods:
                raise ConfigError(f"LambdaCallback: there is no {name!r}; expected some of {', '.join(methods)}")
            setattr(self, name, function)
