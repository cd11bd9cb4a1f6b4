"""Pictures of a run, as PNG files: learning curves, confusion matrix, worst mistakes, filters."""

from __future__ import annotations

from chainrule.runs.pictures.confusion import confusion_counts, confusion_matrix
from chainrule.runs.pictures.curves import learning_curves
from chainrule.runs.pictures.filters import first_layer_filters
from chainrule.runs.pictures.mistakes import worst_mistakes

__all__ = ["confusion_counts", "confusion_matrix", "first_layer_filters", "learning_curves", "worst_mistakes"]
