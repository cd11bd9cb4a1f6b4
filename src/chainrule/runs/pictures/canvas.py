"""What all pictures of a run share: matplotlib with its own defaults, names of any script, files that appear whole.

The same numbers give the same bytes on the same matplotlib, whatever the user's own settings are.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from chainrule.files import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "drawing", "save", "short"]

DPI = 120

_NAME_CHARACTERS = 24  # a longer name squeezes the picture beside it
_CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Use matplotlib's own defaults, and behind its font those with Chinese characters."""
    import matplotlib as mpl
    from matplotlib import font_manager

    installed = set(font_manager.fontManager.get_font_names())
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        fonts = ["DejaVu Sans", *(font for font in _CJK_FONTS if font in installed)]
        mpl.rcParams["font.family"] = fonts
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def save(path: str | os.PathLike[str], figure: Figure) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    write_bytes_atomic(path, content.getvalue())


def short(name: str, characters: int = _NAME_CHARACTERS) -> str:
    """A name on one line, cut to the length that fits.

    >>> short("a  name\\nof two lines", 12)
    'a name of t…'
    """
    line = " ".join(name.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"
