"""Greys of pictures of 16 bits, whole and upright; Pillow's own ways lose some without a word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from kneeoa_mm.errors import ItemError

DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
"""Pillow's modes of one channel of 16 bits, or of more."""
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0


def loses_bits(picture: Image.Image) -> bool:
    """Whether Pillow drops the lower half of the bits: it has several channels of 16 alone in 8."""
    if picture.mode in DEEP_MODES:
        return False
    layouts = [tile.args for tile in getattr(picture, "tile", ())]
    # the first of several says how a pixel is stored; the others are strides and offsets
    return any("16" in str(each[0] if isinstance(each, tuple) else each) for each in layouts)


def deep_greys(picture: Image.Image) -> tuple[NDArray[np.int32], int, int]:
    """Greys of an opened picture of one channel of 16 bits.

    Args:
        picture: Its mode is one of ``DEEP_MODES``.

    Returns:
        The upright greys (rows, columns), in which white is high, and those of black and white.

    Raises:
        ItemError: They take more than 16 bits.
    """
    values = np.asarray(ImageOps.exif_transpose(picture)).astype(np.int32)
    if values.min() < -(2**15) or values.max() >= 2**16:
        raise ItemError("E_DECODE", "the greys take more than 16 bits", stage="decode")
    black, white = (-(2**15), 2**15 - 1) if values.min() < 0 else (0, 2**16 - 1)
    return (black + white - values if _is_white_zero(picture) else values), black, white


def _is_white_zero(picture: Image.Image) -> bool:
    """Whether a TIFF says so; Pillow turns the greys where they have 8 bits alone."""
    return isinstance(picture, TiffImageFile) and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
