"""Callbacks that write an epoch's numbers to files, and one made of functions."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from chainrule.errors import ConfigError, DataError, MissingDependencyError, RunFolderError
from chainrule.files import make_folder, reason, write_text_atomic
from chainrule.train.callback import Callback, Logs, as_json

__all__ = ["CSVLogger", "JSONLogger", "LambdaCallback", "TensorBoard"]


class _FileLogger(Callback):
    """A text file to which each whole epoch adds a line; a run that goes on cuts off what came after its checkpoint.

    What is in the file belongs to the log as far as its first `_lines` lines; the rest goes when it is first written
    to, and not before: until then nobody knows whether this training begins or goes on.
    """

    def __init__(self, filename: str | os.PathLike[str], append: bool) -> None:
        self.filename, self.append = Path(filename), bool(append)
        self._lines, self._cut = 0, False

    def on_train_begin(self, logs: Logs = None) -> None:
        make_folder(self.filename.parent)  # better refused now than after an epoch
        self._lines, self._cut = len(self._content()) if self.append else 0, False

    def get_state(self) -> dict[str, Any]:
        return {"lines": self._lines}

    def set_state(self, state: dict[str, Any]) -> None:
        self._lines = int(state["lines"])
        self._cut_off_the_rest()

    def on_train_end(self, logs: Logs = None) -> None:
        self.append = True  # a second training of the same callback goes on in the file

    def _content(self) -> list[bytes]:
        """The file's lines with their ends; none if there is no file."""
        try:
            return self.filename.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFolderError(f"'{self.filename}': cannot be read ({reason(error)})") from None

    def _cut_off_the_rest(self) -> None:
        """Leave the log's own lines alone in the file; they are fewer where somebody took some away."""
        lines = self._content()
        self._lines, self._cut = min(self._lines, len(lines)), True
        kept = b"".join(lines[: self._lines])
        if len(lines) > self._lines:
            with self._writing():
                os.truncate(self.filename, len(kept))
        if kept and not kept.endswith(b"\n"):
            self._write("\n")

    def _add(self, text: str) -> None:
        """Add one line."""
        if not self._cut:
            self._cut_off_the_rest()
        self._write(text)
        self._lines += 1

    def _write(self, text: str) -> None:
        with self._writing(), self.filename.open("a", encoding="utf-8", newline="") as file:
            file.write(text)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(f"'{self.filename}': cannot be written ({reason(error)})") from None


class CSVLogger(_FileLogger):
    """A line for each epoch: its number from 0, then every number of `History`.

    A column that comes later, such as ``val_loss`` with ``validation_freq=2``, is added to the header and left empty in
    the lines before; an epoch that was interrupted gets no line.

    Args:
        filename: the file.
        separator: between two numbers.
        append: keep what is in the file, which must be such a log; the header is then written only if it is empty.

    >>> import chainrule as cr
    >>> cr.callbacks.CSVLogger("log.csv").separator
    ','
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__(filename, append)
        if len(separator) != 1 or separator in '"\r\n':
            raise ConfigError(f"CSVLogger: separator is one character, no quote and no end of line, got {separator!r}")
        self.separator = separator
        self._columns: list[str] = []

    def on_train_begin(self, logs: Logs = None) -> None:
        super().on_train_begin(logs)
        self._columns = self._header()

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._columns = self._header()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.cut_off:
            return
        found = dict(logs or {})
        if not self._cut:
            self._cut_off_the_rest()
        new = [name for name in found if name not in self._columns]
        if new or not self._lines:
            self._widen(new)
        self._add(self._text([[epoch, *(found.get(name, "") for name in self._columns)]]))

    def _header(self) -> list[str]:
        """The columns that the file has beside the epoch.

        Raises:
            DataError: it begins with something else than a header.
        """
        rows = self._rows()
        if rows and rows[0][:1] != ["epoch"]:
            raise DataError(
                f"'{self.filename}': it begins with {self.separator.join(rows[0])[:60]!r}; expected the header of a "
                f"CSVLogger, 'epoch' and the names of numbers with {self.separator!r} between"
            )
        return rows[0][1:] if rows else []

    def _rows(self) -> list[list[str]]:
        """The log's own lines, in cells."""
        try:
            lines = [line.decode() for line in self._content()[: self._lines]]
            return list(csv.reader(lines, delimiter=self.separator))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"'{self.filename}': not the text of a CSVLogger ({error})") from None

    def _widen(self, new: list[str]) -> None:
        """Add columns, which are empty so far; the file has the old header or the new one, whatever happens."""
        self._columns = [*self._columns, *new]
        rows: list[list[Any]] = [["epoch", *self._columns]]
        rows += [[*row, *[""] * (len(rows[0]) - len(row))] for row in self._rows()[1:]]
        text = self._text(rows)
        if self._lines:
            write_text_atomic(self.filename, text)
        else:
            self._write(text)
        self._lines = text.count("\n")

    def _text(self, rows: Iterable[Iterable[Any]]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator, lineterminator="\n").writerows(rows)
        return text.getvalue()


class JSONLogger(_FileLogger):
    """A line of JSON for each whole epoch, such as ``{"epoch": 0, "loss": 0.5}``; what is not finite is text.

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
        if self.cut_off:
            return
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
        own.setdefault("learning_rate", self.model.optimizer.learning_rate)
        self._write("train", epoch, own)
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
