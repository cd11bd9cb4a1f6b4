"""Callbacks that keep models and checkpoints, and one that shows the averaged weights."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chainrule.checks import check_at_least, check_positive
from chainrule.errors import CheckpointError, ConfigError, RunFolderError
from chainrule.files import make_folder, reason, remove_drafts
from chainrule.graph.op import Array
from chainrule.train.callback import Callback, Logs, as_json, from_json
from chainrule.train.callbacks.monitor import Mode, Monitor

if TYPE_CHECKING:
    from chainrule.models.model import Model
    from chainrule.train.checkpoint import DamagedCheckpointError

__all__ = ["BackupAndRestore", "ModelCheckpoint", "SwapEMAWeights"]


class ModelCheckpoint(Callback):
    """Saves the model, or its weights, after each epoch or after the best ones.

    Args:
        filepath: the file, whose folder is made; ``{epoch}`` (from 1) and the names of numbers are filled in, such as
            ``"model-{epoch:02d}-{val_loss:.3f}.safetensors"``.
        monitor: the number that is watched with `save_best_only`.
        save_best_only: save only what is better than everything before; never after an epoch without the validation
            that the number comes from.
        save_weights_only: weights without the architecture.
        mode: see `Monitor`.
        save_freq: ``"epoch"``, or a number of batches.
        initial_value_threshold: what must be beaten first.
        averaged: save the averaged weights of an optimizer with ``use_ema=True``, as `SwapEMAWeights` validates them.
        verbose: anything but 0 prints each file.

    >>> import chainrule as cr
    >>> cr.callbacks.ModelCheckpoint("best.safetensors", save_best_only=True).save_best_only
    True
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: Mode = "auto",
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
        averaged: bool = False,
    ) -> None:
        if save_freq != "epoch":
            check_positive(save_freq, "ModelCheckpoint: save_freq (or 'epoch')")
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only = bool(save_best_only), bool(save_weights_only)
        self.save_freq, self.averaged = save_freq, bool(averaged)
        self.monitor = Monitor(monitor, mode, 0.0, initial_value_threshold, "ModelCheckpoint")
        self.interval = 0.0 if save_freq != "epoch" else float("inf")
        self._epoch, self._seen = 0, 0

    def on_train_begin(self, logs: Logs = None) -> None:
        folder = Path(self.filepath).parent
        if "{" not in str(folder):
            make_folder(folder)  # better refused now than after an epoch

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self.save_freq != "epoch":
            self._seen += 1
            if self._seen % self.save_freq == 0:
                self._save(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self.save_freq == "epoch" and not self.cut_off:
            self._save(logs, self.params)

    def _save(self, logs: Logs, params: Mapping[str, Any] | None = None) -> None:
        if self.save_best_only:
            value = self.monitor.value(logs, params, self._epoch)
            if value is None or not self.monitor.improves(value):
                return
        path = self._path(logs)
        make_folder(path.parent)
        with averaged(self.model) if self.averaged else contextlib.nullcontext():
            (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"epoch {self._epoch + 1}: saved {path}", flush=True)

    def _path(self, logs: Logs) -> Path:
        try:
            return Path(self.filepath.format(epoch=self._epoch + 1, **dict(logs or {})))
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            names = ", ".join(["epoch", *(logs or {})])
            raise ConfigError(
                f"ModelCheckpoint: the name {self.filepath!r} cannot be filled in ({error}); there are {names}"
            ) from None

    def get_state(self) -> dict[str, Any]:
        return {"best": as_json(self.monitor.best), "seen": self._seen}

    def set_state(self, state: dict[str, Any]) -> None:
        self.monitor.best, self._seen = from_json(state["best"]), int(state["seen"])


class BackupAndRestore(Callback):
    """Keeps checkpoints while it trains, and lets a training that was cut off go on to the same bits.

    Build the model and call `fit` as before: the newest checkpoint in the folder is taken up.  A damaged one is named
    and set aside, and the one before it used; where none is whole, the training is refused.

    A checkpoint knows what the bits depend on: versions, the package's source, processor, network, plan, seed,
    settings, and the data, also those for validation (but for iterables of batches, which cannot be looked at: they
    must give the same batches again).  Where that has changed, the training is refused, and told why.

    It is called after all other callbacks, wherever it stands among them, so that each is kept as it is at that place.

    Args:
        backup_dir: the folder, for this training alone; it is made.
        save_freq: ``"epoch"``, or a number of batches.
        seconds: besides, no more than so many seconds between two checkpoints; None for no such limit.
        keep: how many checkpoints are kept, 2 or more.
        delete_checkpoint: delete them when the training has come to its end.
        facts: what else must be the same for a training to go on, as JSON can hold it; ``"data"`` stands for the
            fingerprints of all data, which are not taken then.
        accept_changes: go on although something has changed, and begin anew where all checkpoints are damaged; a line
            says what.

    >>> import chainrule as cr
    >>> cr.callbacks.BackupAndRestore("backup", seconds=60).keep
    2
    """

    called_last = True

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: Literal["epoch"] | int = "epoch",
        seconds: float | None = None,
        keep: int = 2,
        delete_checkpoint: bool = True,
        facts: dict[str, Any] | None = None,
        accept_changes: bool = False,
    ) -> None:
        if save_freq != "epoch":
            check_positive(save_freq, "BackupAndRestore: save_freq (or 'epoch')")
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"BackupAndRestore: seconds is a number > 0 or None, got {seconds!r}")
        self.folder, self.save_freq, self.seconds = Path(backup_dir), save_freq, seconds
        self.keep = check_at_least(keep, 2, "BackupAndRestore: keep")
        self.delete_checkpoint, self.accept_changes = bool(delete_checkpoint), bool(accept_changes)
        self.facts = _as_json_has_it(facts or {})
        self.interval = float("inf") if save_freq == "epoch" and seconds is None else 0.0
        if save_freq == "epoch" and seconds is not None:
            self.interval = float(seconds) / 2
        self._latest = time.monotonic()
        self._batches = 0
        self._known: dict[str, Any] | None = None

    advice = "BackupAndRestore(accept_changes=True) goes on all the same; with another folder it begins anew"
    """What a refusal ends with."""

    def tell(self, text: str) -> None:
        """Say what a user should know, on standard error."""
        print(text, file=sys.stderr, flush=True)

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one; called by `fit` before the first epoch.

        Raises:
            CheckpointError: it belongs to another training, cannot be read, or has another format; or there are only
                damaged ones.
            RunFolderError: the folder cannot be used.
        """
        from chainrule.train import checkpoint
        from chainrule.train.facts import changes

        make_folder(self.folder)
        remove_drafts(self.folder)
        now = self._all_facts()  # here, and not when somebody waits for the training to end
        found, damaged = checkpoint.newest(self.folder)
        if found is None:
            self._begin_anew(damaged)
            return
        changed = changes(found.header["facts"], now)
        if checkpoint.other_schedule(self.fitting, found):
            changed.append("it followed a schedule of learning rates that a callback had set, and that is not here")
        if changed and not self.accept_changes:
            raise CheckpointError(
                f"'{self.folder}': the training would not go on to the same bits: {'; '.join(changed)}. {self.advice}"
            )
        checkpoint.restore(self.fitting, found)
        self._set_aside(damaged, "the one before it is used")
        if changed:
            self.tell(f"the training goes on from step {found.step}, although {'; '.join(changed)}")

    def _begin_anew(self, damaged: Sequence[DamagedCheckpointError]) -> None:
        """Begin where no checkpoint is whole; where there were any, only if that was asked for."""
        if damaged and not self.accept_changes:
            raise CheckpointError(
                f"'{self.folder}': no checkpoint is whole: {'; '.join(map(str, damaged))}. Nothing was changed; to "
                "begin anew, accept changes (the damaged ones are set aside then) or take another folder"
            )
        self._set_aside(damaged, "the training begins anew")

    def _set_aside(self, damaged: Sequence[DamagedCheckpointError], then: str) -> None:
        from chainrule.train.checkpoint import set_aside

        for error in damaged:
            self.tell(f"{error}; it is set aside as {set_aside(error.path).name!r}; {then}")

    def on_train_begin(self, logs: Logs = None) -> None:
        for what, supply in (("", self.fitting.supply), ("validation_data: ", self.fitting.held_out)):
            if supply is not None and supply.problem:
                raise CheckpointError(
                    f"BackupAndRestore: {what}{supply.problem}, so the training could not go on where it is cut off; "
                    "give a function that makes an iterator for each epoch"
                )
        self._latest, self._batches, self._known = time.monotonic(), 0, None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._batches += 1
        by_count = self.save_freq != "epoch" and self._batches % self.save_freq == 0
        if by_count or (self.seconds is not None and time.monotonic() - self._latest >= self.seconds):
            self.save()

    def on_interrupt(self) -> None:
        self.save()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if not self.cut_off:  # a signal may come while the epoch's end is told: that epoch is done
            self.save()

    def save(self) -> None:
        """Write a checkpoint of the present state; where the disk is full, the older ones stay and a line says so."""
        from chainrule.train import checkpoint

        try:
            checkpoint.write_checkpoint(self.folder, checkpoint.take(self.fitting, self._all_facts()), self.keep)
        except RunFolderError as error:
            self.tell(f"no checkpoint could be written: {error}")
        self._latest = time.monotonic()

    def on_train_end(self, logs: Logs = None) -> None:
        if self.delete_checkpoint and self.fitting.finished:
            for path in self.folder.glob("checkpoint-*.safetensors"):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise RunFolderError(f"'{path}': cannot be deleted ({reason(error)})") from None

    def _all_facts(self) -> dict[str, Any]:
        """The facts of this training, found out once; a user's own count before them."""
        from chainrule.train.facts import facts_of

        if self._known is None:
            self._known = {**facts_of(self.fitting, data="data" not in self.facts), **self.facts}
        return self._known


def _as_json_has_it(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as they come back from a checkpoint."""
    import json

    try:
        found: dict[str, Any] = json.loads(json.dumps(facts, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"BackupAndRestore: facts must be what JSON can hold ({error})") from None
    return found


class SwapEMAWeights(Callback):
    """Puts the averaged weights into the model for each validation, and for good at the end.

    Where `EarlyStopping` gives the best weights back, these are the averaged ones of that epoch, and stay.

    The optimizer must have been made with ``use_ema=True``.

    >>> import chainrule as cr
    >>> isinstance(cr.callbacks.SwapEMAWeights(), cr.callbacks.Callback)
    True
    """

    def __init__(self) -> None:
        self._own: list[Array] = []

    def on_test_begin(self, logs: Logs = None) -> None:
        self._own = _take_averages(self.model)

    def on_test_end(self, logs: Logs = None) -> None:
        _put_back(self.model, self._own)

    def on_train_end(self, logs: Logs = None) -> None:
        if all(getattr(callback, "best_weights", None) is None for callback in self.fitting.chain):
            _take_averages(self.model)


@contextlib.contextmanager
def averaged(model: Model) -> Iterator[None]:
    """The model with its averaged weights."""
    own = _take_averages(model)
    try:
        yield
    finally:
        _put_back(model, own)


def _take_averages(model: Model) -> list[Array]:
    """Put the averaged weights into a model, once there are any; gives its own."""
    own = [weight.numpy() for weight in model.trainable_weights]
    if int(model.optimizer.iterations.data):
        for weight in model.trainable_weights:
            weight.set_array(model.optimizer.average_of(weight).numpy())
    return own


def _put_back(model: Model, own: Sequence[Array]) -> None:
    for weight, array in zip(model.trainable_weights, own, strict=True):
        weight.set_array(array)
