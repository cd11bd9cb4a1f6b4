"""The picture of a learning rate range test, the same bytes for the same numbers."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np

from chainrule.files import write_bytes_atomic

if TYPE_CHECKING:
    from chainrule.search.learning_rate import LearningRateTest

__all__ = ["draw_rates"]

_HIGHEST = 1.5
"""How far the picture goes above the first loss; a diverging one would make everything else flat."""


def draw_rates(path: str | os.PathLike[str], test: LearningRateTest) -> None:
    """Draw loss over rate.

    Args:
        path: the PNG file; an older one is replaced, whole or not at all.
        test: what to draw; losses that are not finite leave a gap.

    Raises:
        RunFolderError: the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure(figsize=(6.4, 4.0), dpi=120, layout="constrained")
        axes = figure.subplots()
        for values, style, label in ((test.losses, "-", "loss"), (test.smoothed, "-", "smoothed")):
            drawable = np.where(np.isfinite(values) & (np.abs(values) < 1e100), values, np.nan)
            faint = label == "loss"
            axes.plot(
                test.rates, drawable, style, color="C0", alpha=0.35 if faint else 1, lw=1 if faint else 2, label=label
            )
        for rate, colour, label in ((test.suggestion, "C1", "steepest"), (test.cautious, "C2", "cautious")):
            if rate is not None:
                axes.axvline(rate, color=colour, ls="--", label=f"{label}: {rate:.2g}")
        finite = test.smoothed[np.isfinite(test.smoothed)]
        if len(finite):
            low, first = float(np.nanmin(test.losses[np.isfinite(test.losses)])), float(finite[0])
            margin = max(first - low, 1e-6) * 0.1
            axes.set_ylim(low - margin, first + max(first - low, abs(first) * 0.1, 1e-6) * (_HIGHEST - 1) + margin)
        axes.set_xscale("log")
        axes.set_title("learning rate range test")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.grid(alpha=0.3)
        axes.legend()
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes_atomic(path, content.getvalue())
