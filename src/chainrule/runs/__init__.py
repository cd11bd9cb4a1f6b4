"""The run folder: where a training run keeps its configuration, history and pictures."""

from __future__ import annotations

from chainrule.runs.config import read_config, write_config
from chainrule.runs.folder import create_run_folder
from chainrule.runs.history import write_history
from chainrule.runs.pictures import (
    confusion_counts,
    confusion_matrix,
    first_layer_filters,
    learning_curves,
    worst_mistakes,
)

__all__ = [
    "confusion_counts",
    "confusion_matrix",
    "create_run_folder",
    "first_layer_filters",
    "learning_curves",
    "read_config",
    "worst_mistakes",
    "write_config",
    "write_history",
]
