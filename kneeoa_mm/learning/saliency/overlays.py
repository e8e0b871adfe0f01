"""Maps as pictures: orange speaks for the answer, blue against it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from kneeoa_mm.learning.saliency.question import PER_PIXEL, Attribution, Method

_FOR, _AGAINST = np.array([1.0, 0.42, 0.0]), np.array([0.0, 0.45, 1.0])
_OPACITY = 0.75
_TILE_PX, _LINE_PX = 240, 18
_MAX_FILM_PX = 1200
_BRIGHTEST_PERCENTILE = 99.5
_SMOOTHED_SHARE = 1 / 80
"""Of the side: 2 mm of a knee 140 mm wide."""


def scaled(found: Attribution) -> NDArray[np.float32]:
    """The map as it is drawn, (S, S), -1 to 1; 0 stays 0.

    The sign of an input gradient changes from pixel to pixel, so its size is drawn. Neighbouring
    pixels are drawn as their mean, as nobody could see single ones.
    """
    pixels = np.abs(found.pixels) if found.method is Method.SALIENCY else found.pixels
    if found.method in PER_PIXEL:
        pixels = gaussian_filter(pixels, sigma=len(pixels) * _SMOOTHED_SHARE, mode="nearest")
    # a few extreme pixels must not hide the rest
    top = float(np.percentile(np.abs(pixels), _BRIGHTEST_PERCENTILE)) or float(np.abs(pixels).max())
    return np.zeros_like(pixels) if top == 0 else np.clip(pixels / top, -1, 1)


def overlay(grey: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a signed map over a picture.

    Args:
        grey: Shape (rows, columns).
        heat: The same shape, -1 to 1; transparent where 0.

    Returns:
        Shape (rows, columns, 3).
    """
    base = np.repeat(grey[:, :, None].astype(np.float32), 3, axis=2) / 255
    colour = np.where(heat[:, :, None] >= 0, _FOR, _AGAINST)
    alpha = _OPACITY * np.abs(heat)[:, :, None]
    return np.round(255 * ((1 - alpha) * base + alpha * colour)).astype(np.uint8)


def to_grey(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture in any unit as 8 bits, from its 0.1 to its 99.9 percentile."""
    low, high = np.percentile(pixels, [0.1, 99.9])
    return np.round(255 * np.clip((pixels - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)


def small(pixels: NDArray[np.uint8]) -> Image.Image:
    """A picture no larger than a screen."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_MAX_FILM_PX, _MAX_FILM_PX))
    return picture


def bars(parts: Mapping[str, float]) -> NDArray[np.uint8]:
    """What the picture and each clinical factor changed, on one scale, (S, S, 3).

    Args:
        parts: Log-odds by name; the largest are drawn, as many as there is room for.
    """
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX), "white")
    pen = ImageDraw.Draw(tile)
    largest = sorted(parts, key=lambda name: -abs(parts[name]))[: _TILE_PX // (2 * _LINE_PX)]
    longest = max((abs(parts[name]) for name in largest), default=0) or 1
    middle = _TILE_PX // 2
    for place, name in enumerate(largest):
        top, value = 2 * _LINE_PX * place, parts[name]
        pen.text((4, top + 3), f"{name.replace('_', ' ')} {value:+.2f}", fill="black")
        end = middle + round(value / longest * (middle - 4))
        colour = tuple(int(255 * c) for c in (_FOR if value >= 0 else _AGAINST))
        box = (min(middle, end), top + _LINE_PX, max(middle, end), top + 2 * _LINE_PX - 4)
        pen.rectangle(box, fill=colour)
    return np.asarray(tile)


def sheet(rows: list[tuple[str, list[tuple[str, NDArray[np.uint8]]]]]) -> Image.Image:
    """Pictures side by side.

    Args:
        rows: Each a heading, and (caption, picture (S, S) or (S, S, 3)) from left to right.
    """
    columns = max(len(tiles) for _, tiles in rows)
    height = _TILE_PX + 2 * _LINE_PX
    page = Image.new("RGB", (_TILE_PX * columns, height * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for i, (heading, tiles) in enumerate(rows):
        pen.text((4, i * height + 3), heading, fill="black")
        for j, (caption, pixels) in enumerate(tiles):
            left, top = j * _TILE_PX, i * height + _LINE_PX
            pen.text((left + 4, top + 3), caption, fill="black")
            picture = Image.fromarray(pixels).convert("RGB")
            picture = picture.resize((_TILE_PX, _TILE_PX), Image.Resampling.BILINEAR)
            page.paste(picture, (left, top + _LINE_PX))
    return page
