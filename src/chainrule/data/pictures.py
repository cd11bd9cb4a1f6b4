"""Picture files as arrays, through Pillow."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np

from chainrule.errors import DataError, MissingDependencyError
from chainrule.files import readable, reason
from chainrule.graph.op import Array

__all__ = ["SUFFIXES", "Fit", "is_picture", "picture_size", "read_picture", "read_with_mode"]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

Fit: TypeAlias = Literal["cover", "contain", "stretch"]

_ORIENTATION = 0x0112  # the EXIF tag
_BITS_PER_SAMPLE = 258  # the TIFF tag
_GREY_16_AS_I = ("PNG", "PPM")  # what Pillow may open 16-bit files of these formats as
_SIGNATURES = (
    ("a JPEG file", b"\xff\xd8"),
    ("a PNG file", b"\x89PNG"),
    ("a GIF file", b"GIF8"),
    ("a BMP file", b"BM"),
    ("a TIFF file", b"II*\0"),
    ("a TIFF file", b"MM\0*"),
    ("a RIFF file, as WebP is,", b"RIFF"),
)
_SIGNATURE_BYTES = max(len(signature) for _, signature in _SIGNATURES)
_WHOLE = 1 << 20  # bytes of a file that is read in one go


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture; hidden files are none."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int, str]:
    """Height, width and mode (Pillow's name, such as ``RGB``) of a picture as it is shown.

    Raises:
        DataError: it cannot be read.
    """
    with _reading(path), open(path, "rb") as file:  # buffered, so that no more than the header is read
        image = _pillow().open(file)
        _check_depth(image, path)
        width, height = image.size
        if _orientation(image) >= 5:  # a quarter turn
            width, height = height, width
        return height, width, image.mode


def read_picture(
    path: str | os.PathLike[str], channels: int = 3, size: tuple[int, int] | None = None, fit: Fit = "cover"
) -> Array:
    """A picture as ``(height, width, channels)``, uint8.  Grey of 16 bits is brought to 8 by its range.

    Args:
        path: a file that Pillow can read.
        channels: 1 for grey, 3 for colour, 4 for colour and opacity.
        size: height and width to bring it to; None leaves it as it is.
        fit: how: ``"cover"`` keeps the proportions and cuts off what lies outside, ``"contain"`` keeps them and fills
            the rest with black, ``"stretch"`` does not keep them.

    Raises:
        DataError: it cannot be read, is damaged, or has more than 16 bits a channel; the message names the file.
        MissingDependencyError: Pillow is not installed.
    """
    return read_with_mode(path, channels, size, fit)[0]


def read_with_mode(
    path: str | os.PathLike[str], channels: int = 3, size: tuple[int, int] | None = None, fit: Fit = "cover"
) -> tuple[Array, str]:
    """As `read_picture`, and the mode that the file itself has."""
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    with _opened(path) as image:
        own: str = image.mode
        bits = _check_depth(image, path)
        try:
            if size is not None:
                wanted = size if _orientation(image) >= 5 else (size[1], size[0])
                image.draft(mode, wanted)  # a JPEG is decoded at a fraction of its size where that will do
            image = _upright(image)
            if bits != 8:
                image = _with_8_bits(image, bits, path)
            if image.mode != mode:
                image = image.convert(mode)
            if size is not None and image.size != (size[1], size[0]):
                image = _fitted(image, size, fit)
            array = np.asarray(image, np.uint8)
        except DataError:  # a ValueError too
            raise
        except _damage() as error:
            what = "truncated" if "truncated" in str(error).lower() else "damaged"
            raise DataError(f"'{readable(path)}': the picture is {what} ({error})") from None
    return array.reshape(*array.shape[:2], channels), own


def _opened(path: str | os.PathLike[str]) -> Any:
    with _reading(path):
        with open(path, "rb", buffering=0) as file:
            content = file.read(_WHOLE + 1)
        # A small file is read in one go: Pillow reads a header in dozens of pieces, which costs more than it is long.
        return _pillow().open(path if len(content) > _WHOLE else io.BytesIO(content))


@contextlib.contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say what is wrong with a file that does not begin as a picture does."""
    try:
        yield
    except DataError:  # a ValueError too
        raise
    except FileNotFoundError:
        raise DataError(f"'{readable(path)}': there is no such file") from None
    except _too_large() as error:
        raise DataError(f"'{readable(path)}': the picture is too large ({_pixels_and_limit(error)})") from None
    except _damage() as error:
        pillows_own = isinstance(error, OSError) and not error.strerror
        why = _what_it_is(path) if pillows_own else reason(error)
        raise DataError(f"'{readable(path)}': cannot be read as a picture ({why})") from None


def _pixels_and_limit(error: Exception) -> str:
    numbers = re.findall(r"\d+", str(error))
    return f"{numbers[0]} pixels; Pillow reads {numbers[1]} at most" if len(numbers) == 2 else str(error)


def _what_it_is(path: str | os.PathLike[str]) -> str:
    """Why a file is none that Pillow knows, from its first bytes."""
    with open(path, "rb") as file:
        start = file.read(_SIGNATURE_BYTES)
    if not start:
        return "the file is empty"
    for name, signature in _SIGNATURES:
        if start.startswith(signature):
            return f"it starts as {name} and is truncated or damaged"
    return "it is no picture, or of a kind that Pillow does not know"


def _upright(image: Any) -> Any:
    """The picture as a camera's note says that it is to be shown."""
    if _orientation(image) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _orientation(image: Any) -> int:
    return int(image.getexif().get(_ORIENTATION, 1)) if "exif" in image.info else 1


def _check_depth(image: Any, path: str | os.PathLike[str]) -> int:
    """The bits of a channel, where its range says what is white."""
    mode: str = image.mode
    if mode.startswith("I;16"):
        return int(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0])  # a TIFF may have 12
    if mode == "I" and image.format in _GREY_16_AS_I:
        return 16
    if mode in ("I", "F"):
        kind = "floats" if mode == "F" else "signed or 32-bit integers"
        raise DataError(
            f"'{readable(path)}': the picture has the mode {mode} ({kind}); expected 8 or 16 bits a channel"
        )
    return 8


def _with_8_bits(image: Any, bits: int, path: str | os.PathLike[str]) -> Any:
    """A grey picture of more bits with its black and white as those of 8 bits; Pillow would cut off what is above."""
    values, white = np.asarray(image), (1 << bits) - 1
    if values.min(initial=0) < 0 or values.max(initial=0) > white:
        raise DataError(
            f"'{readable(path)}': the picture has values of {values.min()} to {values.max()}; expected 0 to {white}"
        )
    scaled = (values.astype(np.uint32) * 255 + white // 2) // white
    return _pillow().fromarray(scaled.astype(np.uint8))


def _fitted(image: Any, size: tuple[int, int], fit: Fit) -> Any:
    from PIL import ImageOps

    wanted = (size[1], size[0])
    how = _pillow().Resampling.BILINEAR
    if fit == "cover":
        return ImageOps.fit(image, wanted, how)
    return ImageOps.pad(image, wanted, how) if fit == "contain" else image.resize(wanted, how)


def _damage() -> tuple[type[Exception], ...]:
    """What Pillow raises on a damaged file."""
    return (OSError, SyntaxError, ValueError, EOFError, MemoryError, *_too_large())


def _too_large() -> tuple[type[Exception], ...]:
    """What Pillow raises on a picture with more pixels than it reads; the warning only where a program wants that."""
    image = _pillow()
    return (image.DecompressionBombError, image.DecompressionBombWarning)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("pictures are read by Pillow; install chainrule[pillow]") from error
    # Pillow warns of half as many pixels as it refuses.  A picture is read or it is not; a program's own choice stays.
    # The filters belong to the process, so that threads cannot set them for the length of a reading.
    if not any(kind is Image.DecompressionBombWarning for _, _, kind, *_ in warnings.filters):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    return Image
