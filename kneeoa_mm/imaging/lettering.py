"""Lines of text burned into the borders of a film: a hint for a reviewer, never a promise.

Names and dates are printed in rows of many small white glyphs. Side markers (R, L, PA, the
technician's initials) have few glyphs and are normal.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage

from kneeoa_mm.imaging.radiograph import Pixels

_BAND_SHARE = 0.15
_WHITE_SHARE, _LEAST_INK, _MOST_INK = 0.98, 1e-4, 0.05
_LEAST_GLYPHS, _MOST_GLYPHS = 8, 2000
_LEAST_HEIGHT_PX, _HIGHEST_SHARE, _WIDEST = 7, 0.03, 1.6
_HEIGHT_RATIO, _LARGEST_GAP, _LARGEST_STEP = 1.7, 2.5, 0.6
"""Of neighbours in a line: ratio of heights; gap and step in units of their height."""

Glyph = tuple[slice, slice]


def shows_text(pixels: Pixels) -> bool:
    """Whether the upper or lower border holds a line of eight or more small glyphs.

    Args:
        pixels: Display grey, (rows, columns).
    """
    rows = round(_BAND_SHARE * pixels.shape[0])
    low, high = float(pixels.min()), float(pixels.max())
    ink = low + _WHITE_SHARE * (high - low)
    highest = max(_LEAST_HEIGHT_PX, _HIGHEST_SHARE * pixels.shape[0])
    return any(_has_line(band, ink, highest) for band in (pixels[:rows], pixels[-rows:]))


def _has_line(band: Pixels, ink: float, highest_px: float) -> bool:
    printed = band >= ink
    if not _LEAST_INK <= np.count_nonzero(printed) / max(printed.size, 1) <= _MOST_INK:
        return False
    labels, _ = ndimage.label(printed, structure=np.ones((3, 3)))
    glyphs = [each for each in ndimage.find_objects(labels) if _is_glyph(each, highest_px)]
    if len(glyphs) > _MOST_GLYPHS:
        return False
    return any(_line_length(glyphs, first) >= _LEAST_GLYPHS for first in glyphs)


def _is_glyph(spot: Glyph, highest_px: float) -> bool:
    height, width = (each.stop - each.start for each in spot)
    return bool(_LEAST_HEIGHT_PX <= height <= highest_px and width <= _WIDEST * height)


def _line_length(glyphs: list[Glyph], first: Glyph) -> int:
    """Glyphs that follow ``first`` in its line, itself included."""
    height = first[0].stop - first[0].start
    beside = sorted(
        (glyph for glyph in glyphs if _is_beside(glyph, first, height)),
        key=lambda glyph: glyph[1].start,
    )
    length = 1
    for glyph, following in pairwise(beside):
        if following[1].start - glyph[1].stop > _LARGEST_GAP * height:
            break
        length += 1
    return length


def _is_beside(glyph: Glyph, first: Glyph, height: int) -> bool:
    ratio = (glyph[0].stop - glyph[0].start) / height
    step = abs((glyph[0].start + glyph[0].stop) - (first[0].start + first[0].stop)) / 2
    is_alike = 1 / _HEIGHT_RATIO <= ratio <= _HEIGHT_RATIO and step <= _LARGEST_STEP * height
    return bool(is_alike and glyph[1].start >= first[1].start)
