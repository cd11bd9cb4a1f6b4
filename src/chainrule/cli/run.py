"""A run's folder: what lies in it, and whether the run has come to its end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chainrule.cli.parts import Data
from chainrule.cli.settings import Settings
from chainrule.errors import ConfigError, RunFolderError
from chainrule.files import remove_drafts, write_text_atomic
from chainrule.runs import create_run_folder, read_config, write_config
from chainrule.versions import versions

__all__ = ["BEST_FILE", "MODEL_FILE", "PLAN_FILE", "RESULT_FILE", "SEEDS_FILE", "Run", "describe", "new_folder"]

MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
PLAN_FILE = "plan.txt"
RESULT_FILE = "result.json"
SEEDS_FILE = "seeds.json"


@dataclass(frozen=True)
class Run:
    """A run folder with its configuration.

    Attributes:
        folder: where everything of the run lies.
        config: settings, class names, fingerprint of the data, versions.
    """

    folder: Path
    config: dict[str, Any]

    @classmethod
    def begin(cls, folder: Path, settings: Settings, data: Data) -> Run:
        """Write the configuration of a new run."""
        config = describe(settings, data)
        write_config(folder, config)
        return cls(folder, config)

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, while the run has not come to its end."""
        return self.folder / "checkpoints"

    def result(self) -> dict[str, Any] | None:
        """What the run came to; None while it has not.

        Raises:
            ConfigError: the file holds something else.
        """
        path = self.folder / RESULT_FILE
        if not path.exists():
            return None
        result = read_config(path)
        for name in ("test_accuracy", "test_loss", "correct", "test_samples", "interrupted"):
            if name not in result:
                raise ConfigError(f"'{path}': there is no {name!r}; expected a result that chainrule train wrote")
        return result

    def is_finished(self) -> bool:
        """Whether there is nothing to go on with."""
        result = self.result()
        return result is not None and not result["interrupted"]

    def forget_if_nothing_was_learned(self) -> None:
        """Take the configuration away again if there is nothing else, so that the folder goes too."""
        with contextlib.suppress(OSError):
            self.checkpoints.rmdir()
        written = ("config.json", PLAN_FILE)
        if {entry.name for entry in self.folder.iterdir()} <= set(written):
            for name in written:
                (self.folder / name).unlink(missing_ok=True)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write what the run came to; checkpoints of a finished run are no longer needed."""
        write_text_atomic(self.folder / RESULT_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
        if not result["interrupted"]:
            self.tidy()

    def tidy(self) -> None:
        """Delete the checkpoints of a run that has come to its end."""
        remove_drafts(self.checkpoints)
        for path in self.checkpoints.glob("checkpoint-*"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.checkpoints.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the folder, where the system has locks that end with a process.

        Raises:
            RunFolderError: one does already.
        """
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        with (self.folder / "config.json").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(f"another process trains in the run folder '{self.folder}'") from None
            except OSError:  # a file system without locks
                pass
            yield


def describe(settings: Settings, data: Data) -> dict[str, Any]:
    """What ``config.json`` says.

    Raises:
        ConfigError: a path has characters that UTF-8 cannot hold.
    """
    config = {
        "settings": asdict(settings),
        "class_names": list(data.class_names),
        "data_sha256": data.fingerprint(),
        "versions": versions(),
    }
    try:
        json.dumps(config, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"the path {settings.folder or settings.data!a} is not valid text, so config.json cannot hold it; "
            "rename the folder or file"
        ) from None
    return config


@contextlib.contextmanager
def new_folder(path: Path | None, name: str) -> Iterator[Path]:
    """A new run folder; if nothing was written into it, it goes away again, with the parents made for it."""
    parents = [path, *path.parents] if path is not None else [Path("runs")]
    made = [parent for parent in parents if not parent.exists()]
    try:
        folder = create_run_folder(path, name)
        if path is None:
            made.insert(0, folder)
        yield folder
    finally:
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
