"""Reading films that were saved as pictures: PNG, JPEG, TIFF, BMP.

A picture tells nothing but its greys. Its resolution in dots an inch is that of a screen or a
printer, so it never becomes millimetres; whose knee it is, only the path says.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kneeoa_mm.errors import ItemError
from kneeoa_mm.greys import DEEP_MODES, deep_greys, loses_bits
from kneeoa_mm.imaging.eligibility import refuse_size
from kneeoa_mm.imaging.faults import as_item_errors, silent_stderr
from kneeoa_mm.imaging.header import user_spacing
from kneeoa_mm.imaging.radiograph import Radiograph

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")
_EIGHT_BITS = {"L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"}
_OPAQUE = _WHITE_OF_8_BITS = 255
_HEADER_BYTES = 16 * 2**20


def is_picture(path: Path) -> bool:
    """Whether the file starts as a PNG, JPEG, TIFF or BMP does.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as stream:
        return stream.read(max(map(len, _STARTS))).startswith(_STARTS)


def read_picture(
    path: Path, *, max_pixels: int, user_spacing_mm: float | None = None
) -> Radiograph:
    """Read a film saved as a picture of 8 or 16 bits; bone is taken to be bright.

    Args:
        path: A greyscale PNG, JPEG, TIFF or BMP; one in RGB passes where its channels are equal.
        max_pixels: Pictures of more pixels are refused before they are decoded.
        user_spacing_mm: Distance between pixels, where the user knows it.

    Raises:
        ItemError: The picture is refused; ``code`` says why.
    """
    with as_item_errors("read", "E_READ"):
        _check_start(path, max_pixels)
    with warnings.catch_warnings():
        # its text may quote the file; bombs are refused by max_pixels
        warnings.simplefilter("ignore")
        # libtiff prints what it dislikes
        with silent_stderr(), as_item_errors("header", "E_HEADER"), _opened(path) as picture:
            _refuse_what_is_no_film(picture, max_pixels)
            with as_item_errors("decode", "E_DECODE"):
                values, black, white = _decode(picture)
    if values.min() == values.max():
        raise ItemError("E_FLAT", "the film shows a single grey", stage="decode")
    spacing, source = user_spacing(user_spacing_mm)
    darkest = int(values.min())
    pixels = (values - darkest).astype(np.float32)
    return Radiograph(
        pixels,
        spacing=spacing,
        spacing_source=source,
        display_range=(black - darkest, white - darkest),
    )


def _check_start(path: Path, max_pixels: int) -> None:
    size = path.stat().st_size
    if size == 0:
        raise ItemError("E_EMPTY", "the file is empty", stage="read")
    # four bytes a pixel, and as much again for what a poor compression may add
    if size > 8 * max_pixels + _HEADER_BYTES:
        message = f"the file is larger than any picture of {max_pixels} px (max_pixels)"
        raise ItemError("E_TOO_LARGE", message, stage="read")
    if not is_picture(path):
        message = "the file does not start as a PNG, JPEG, TIFF or BMP does"
        raise ItemError("E_NOT_PICTURE", message, stage="read")


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        message = "the picture has more pixels than Pillow opens"
        raise ItemError("E_TOO_LARGE", message, stage="header") from None


def _refuse_what_is_no_film(picture: Image.Image, max_pixels: int) -> None:
    def refuse(message: str) -> None:
        raise ItemError("E_NOT_PROJECTION_XR", message, stage="header")

    columns, rows = picture.size
    refuse_size(rows, columns, max_pixels)
    if getattr(picture, "n_frames", 1) > 1:
        refuse("the file has several pictures")
    if picture.mode not in _EIGHT_BITS | DEEP_MODES:
        refuse("the picture has no greys of 8 or 16 bits")
    if loses_bits(picture):
        refuse("the picture has 16 bits in several channels; save it in grey")


def _decode(picture: Image.Image) -> tuple[NDArray[np.int32], int, int]:
    """The greys of a picture, and those that stand for black and white."""
    if picture.mode in DEEP_MODES:
        return deep_greys(picture)
    upright = ImageOps.exif_transpose(picture)
    channels = np.asarray(upright if upright.mode == "L" else upright.convert("RGBA"))
    if channels.ndim == 2:
        return channels.astype(np.int32), 0, _WHITE_OF_8_BITS
    grey, alpha = channels[..., 0], channels[..., 3]
    if not ((channels[..., 1] == grey) & (channels[..., 2] == grey)).all():
        raise ItemError("E_NOT_PROJECTION_XR", "the picture is in colour", stage="decode")
    if not (alpha == _OPAQUE).all():
        raise ItemError("E_NOT_PROJECTION_XR", "parts of the picture are clear", stage="decode")
    return grey.astype(np.int32), 0, _WHITE_OF_8_BITS
