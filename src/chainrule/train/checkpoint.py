"""Checkpoints: all that a training needs to go on to the same bits, in one file.

A file holds every variable of the training (weights, slots, averages, running statistics, totals of loss and
metrics) and, as JSON, its position, the seed, the learning rate and what callbacks remember.  It is written beside the
others, hashed, flushed to the disk and renamed; the one before it stays until the new one is safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from chainrule.__about__ import __version__
from chainrule.errors import CheckpointError, RunFolderError
from chainrule.files import reason, write_bytes_atomic
from chainrule.graph.op import Array
from chainrule.graph.variable import Variable
from chainrule.random import get_seed
from chainrule.train.callback import Callback, as_json, from_json, is_own
from chainrule.train.facts import schedule_fact
from chainrule.train.fitting import Fitting, Position

if TYPE_CHECKING:
    from chainrule.models.model import Model

__all__ = [
    "Checkpoint",
    "DamagedCheckpointError",
    "newest",
    "other_schedule",
    "read_checkpoint",
    "restore",
    "set_aside",
    "take",
    "write_checkpoint",
]

FORMAT = 3
_KEY = "chainrule-checkpoint"
_DTYPES = (
    np.dtype(bool),
    *(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)),
    *map(np.dtype, "efd"),
)
"""What an array may be."""
_NAME = re.compile(r"checkpoint-(\d{12})\.safetensors")


class DamagedCheckpointError(CheckpointError):
    """A file's content is not what was written.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"'{path}': {what}")
        self.path = path


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file holds.

    Attributes:
        header: format, version, position, seed, learning rate, states of callbacks, and `facts`.
        arrays: variables by ``"variable/NAME"``, arrays of callbacks by ``"callback/NUMBER/NAME"``.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, Array]

    @property
    def position(self) -> Position:
        return Position(**self.header["position"])

    @property
    def step(self) -> int:
        """How many updates there were."""
        return int(self.header["step"])


# -- from and to a training ---------------------------------------------------------------------------------


def take(fitting: Fitting, facts: Mapping[str, Any] | None = None) -> Checkpoint:
    """The present state of a training.

    Args:
        fitting: between two native calls.
        facts: what must be the same when it goes on, as JSON can hold it, such as the data's fingerprint.

    Raises:
        CheckpointError: a callback gives what no file can hold.
    """
    model, optimizer = fitting.model, fitting.model.optimizer
    arrays = {f"variable/{variable.name}": variable.data for variable in _variables(model)}
    remembering = _remembering(fitting)
    for number, callback in enumerate(remembering):
        arrays |= {f"callback/{number}/{name}": array for name, array in _arrays_of(callback).items()}
    header = {
        "format": FORMAT,
        "version": __version__,
        "position": asdict(fitting.position),
        "step": int(optimizer.iterations.data),
        "seed": get_seed(),
        "learning_rate": None if optimizer.schedule is not None else as_json(optimizer.learning_rate),
        "schedule": schedule_fact(optimizer.schedule),
        "schedule_at_first": schedule_fact(fitting.schedule),
        "stopped": bool(model.stop_training),
        "callbacks": [[type(callback).__name__, _state_of(callback)] for callback in remembering],
        "facts": dict(facts or {}),
    }
    return Checkpoint(header, arrays)


def restore(fitting: Fitting, checkpoint: Checkpoint) -> None:
    """Bring a training that has not begun to a checkpoint's state; the seed is not part of it.

    Where the optimizer was made with another schedule than at that time, or a callback has set one since, the one that
    it has now stays.

    Raises:
        CheckpointError: the checkpoint belongs to another model or other callbacks; nothing is changed then.
    """
    model, optimizer, header = fitting.model, fitting.model.optimizer, checkpoint.header
    remembering = _remembering(fitting)
    known = [type(callback).__name__ for callback in remembering]
    kinds = [kind for kind, _ in header["callbacks"]]
    if known != kinds:
        raise CheckpointError(f"the checkpoint has the callbacks {', '.join(kinds)}; this training {', '.join(known)}")
    _restore_variables(model, checkpoint.arrays)
    if header["learning_rate"] is not None and header["schedule_at_first"] == schedule_fact(fitting.schedule):
        optimizer.learning_rate = from_json(header["learning_rate"])
    model.stop_training = header["stopped"]
    fitting.position = checkpoint.position
    for number, (callback, (_, state)) in enumerate(zip(remembering, header["callbacks"], strict=True)):
        start = f"callback/{number}/"
        callback.set_state(state)
        callback.set_arrays({n.removeprefix(start): a for n, a in checkpoint.arrays.items() if n.startswith(start)})


def other_schedule(fitting: Fitting, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint followed a schedule that a callback had set, and that this training does not have."""
    header = checkpoint.header
    began = header["schedule_at_first"] == schedule_fact(fitting.schedule)
    now = schedule_fact(fitting.model.optimizer.schedule)
    return began and header["learning_rate"] is None and header["schedule"] != now


def _restore_variables(model: Model, arrays: Mapping[str, Array]) -> None:
    wanted = {name.removeprefix("variable/"): a for name, a in arrays.items() if name.startswith("variable/")}
    for tracker in model.objective.trackers():
        tracker.make_totals(wanted)
    variables = {variable.name: variable for variable in _variables(model)}
    if set(variables) != set(wanted):
        missing, extra = sorted(set(variables) - set(wanted)), sorted(set(wanted) - set(variables))
        raise CheckpointError(
            f"the checkpoint belongs to another model or optimizer (it lacks {_listed(missing)}; it also has "
            f"{_listed(extra)})"
        )
    for name, variable in variables.items():
        array = wanted[name]
        if array.shape != variable.shape or array.dtype != variable.dtype:
            raise CheckpointError(f"the checkpoint's {name!r} is {array.dtype}{array.shape}; expected {variable.spec}")
    for name, variable in variables.items():
        variable.set_array(wanted[name])


def _remembering(fitting: Fitting) -> list[Callback]:
    """The callbacks that have something to remember; others, such as progress bars, may come and go."""
    return [callback for callback in fitting.chain if is_own(callback, "get_state") or is_own(callback, "get_arrays")]


def _state_of(callback: Callback) -> Any:
    """A callback's state as it comes back from a file: names as text, lists for tuples."""
    try:
        text = json.dumps(callback.get_state(), ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{type(callback).__name__}: get_state gives what JSON cannot hold ({error}); expected None, texts, bools, "
            "ints and finite floats of Python, and lists and dicts of them"
        ) from None
    return json.loads(text)


def _arrays_of(callback: Callback) -> dict[str, Array]:
    """A callback's arrays as they come back from a file: in the machine's byte order, row after row."""
    who, given_by_name, found = type(callback).__name__, cast("dict[Any, Any]", callback.get_arrays()), {}
    for name, given in given_by_name.items():
        array = np.asarray(given)
        native = array.dtype.newbyteorder("=")
        if not isinstance(name, str) or native not in _DTYPES:
            raise CheckpointError(
                f"{who}: get_arrays gives {array.dtype} by the name {name!r}; expected texts as names, and arrays of "
                f"{', '.join(map(str, _DTYPES))}"
            )
        found[name] = array.astype(native, order="C", copy=False)
    return found


def _variables(model: Model) -> Iterator[Variable]:
    """Everything that a training changes."""
    yield from model.weights
    model.optimizer.make_slots(model.trainable_weights)
    yield from model.optimizer.variables()
    for tracker in model.objective.trackers():
        yield from tracker.variables()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"


# -- from and to files ---------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint into a folder, and delete all but the newest ones after that.

    Raises:
        RunFolderError: it cannot be written; the older ones are as they were.
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in checkpoint.arrays.items()}
    header = json.loads(
        json.dumps(checkpoint.header, ensure_ascii=False, allow_nan=False)
    )  # what will be read is hashed
    header["sha256"] = _digest(header, arrays)
    path = folder / f"checkpoint-{checkpoint.step:012d}.safetensors"
    write_bytes_atomic(path, save(arrays, metadata={_KEY: json.dumps(header, ensure_ascii=False, allow_nan=False)}))
    for old in _files(folder)[keep:]:
        try:
            old.unlink(missing_ok=True)
        except OSError as error:
            raise RunFolderError(f"'{old}': cannot be deleted ({reason(error)})") from None
    return path


def newest(folder: Path) -> tuple[Checkpoint | None, list[DamagedCheckpointError]]:
    """The newest checkpoint of a folder that is whole, and what is wrong with each newer one.

    Raises:
        CheckpointError: one cannot be read, or has another format, so that nobody knows whether it is whole.
        RunFolderError: the folder cannot be read.
    """
    damaged: list[DamagedCheckpointError] = []
    for path in _files(folder):
        try:
            return read_checkpoint(path), damaged
        except DamagedCheckpointError as error:
            damaged.append(error)
    return None, damaged


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint from its file.

    Raises:
        DamagedCheckpointError: the file is damaged, or no checkpoint.
        CheckpointError: it cannot be read, or has another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"'{path}': cannot be read ({reason(error)})") from None
    try:
        arrays = load(content)
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        header = json.loads(head["__metadata__"][_KEY])
        known, digest = header["format"], header.pop("sha256")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(path, f"damaged, or no checkpoint ({error})") from None
    if known != FORMAT:
        raise CheckpointError(
            f"'{path}': checkpoint format {known!r}; this version reads {FORMAT}. Go on with the version of chainrule "
            f"that wrote it ({header.get('version', 'unknown')}), or begin anew in another folder"
        )
    if digest != _digest(header, arrays):
        raise DamagedCheckpointError(path, "damaged: the content does not match its checksum")
    return Checkpoint(header, arrays)


def set_aside(path: Path) -> Path:
    """Give a damaged checkpoint another name, which none has yet: it is not the newest any more, and not lost.

    Raises:
        RunFolderError: it cannot be renamed.
    """
    names = (path.with_name(f"{path.name}.damaged{number}") for number in ("", *range(2, 1000)))
    target = next(name for name in names if not name.exists())
    try:
        path.rename(target)
    except OSError as error:
        raise RunFolderError(f"'{path}': damaged, and cannot be renamed ({reason(error)})") from None
    return target


def _files(folder: Path) -> list[Path]:
    """The checkpoints of a folder, newest first."""
    try:
        names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"'{folder}': cannot be read ({reason(error)})") from None
    return [folder / name for name in sorted(names, reverse=True)]


def _digest(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    total = hashlib.sha256(json.dumps(header, ensure_ascii=False, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        total.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
