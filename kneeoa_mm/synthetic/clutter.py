"""What disturbs a film: markers, text, metal, uneven exposure, shutters and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from kneeoa_mm.synthetic.film_geometry import Map


def add_clutter(
    film: Map, boxes_px: NDArray[np.float64], spacing_mm: float, rng: np.random.Generator
) -> None:
    """Side markers, rows of text, rulers, beads, and metal, mostly away from the joints."""
    drawing = Image.new("L", film.shape[::-1])
    pen = ImageDraw.Draw(drawing)

    def size(low_mm: float, high_mm: float) -> float:
        return max(3.0, rng.uniform(low_mm, high_mm) / spacing_mm)

    def away(margin_mm: float) -> tuple[float, float]:
        return _place_away(boxes_px, film.shape, margin_mm / spacing_mm, rng)

    for letter in "RL"[: rng.integers(0, 3)]:
        pen.text(away(15), letter, fill=255, font_size=size(8, 20))
    for _ in range(rng.integers(0, 3)):
        characters = "".join(rng.choice(list("0123456789ABCDEFGHKNPRST ./-"), rng.integers(4, 24)))
        pen.text(away(5), characters, fill=int(rng.integers(120, 256)), font_size=size(3, 8))
    if rng.random() < 0.2:
        x, y = away(5)
        for step in np.arange(0, size(50, 200), size(4, 10)):
            pen.line([(x, y + step), (x + size(3, 6), y + step)], fill=230, width=1)
    if rng.random() < 0.2:
        x, radius = film.shape[1] * rng.uniform(0.4, 0.6), size(1, 3) / 2
        for y in np.arange(rng.uniform(0, 60), film.shape[0], size(15, 40)):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=200)
    for _ in range(rng.integers(0, 3) if rng.random() < 0.25 else 0):
        x, y = away(-20)
        angle, length = rng.uniform(0, np.pi), size(10, 60)
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        pen.line([(x, y), end], fill=255, width=max(1, round(size(2, 6) / 2)))
    ink = np.asarray(drawing, dtype=np.float32) / 255
    np.maximum(film, ink * np.float32(rng.uniform(0.75, 1.0)), out=film)


def _place_away(
    boxes_px: NDArray[np.float64],
    shape: tuple[int, ...],
    margin_px: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """A place outside the boxes and a margin about them, if twenty draws find one."""
    for _ in range(20):
        x, y = rng.uniform(0, shape[1]), rng.uniform(0, shape[0])
        low, high = boxes_px[:, :2] - margin_px, boxes_px[:, 2:] + margin_px
        if not ((low < (x, y)) & ((x, y) < high)).all(axis=1).any():
            break
    return x, y


def expose(film: Map, rng: np.random.Generator) -> Map:
    """Uneven, too light, too dark, hard, soft, blurred, or a negative."""
    rows, columns = film.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    uneven = 1 + rng.uniform(0, 0.25) * (x * np.cos(angle) + y * np.sin(angle))
    exposed = np.clip(film * uneven.astype(np.float32), 0, 1) ** np.float32(
        np.exp(rng.normal(0, 0.35))
    )
    low, high = rng.uniform(0.0, 0.2), rng.uniform(0.7, 1.1)
    exposed = np.clip(low + (high - low) * exposed, 0, 1)
    if rng.random() < 0.3:
        exposed = ndimage.gaussian_filter(exposed, rng.uniform(0.3, 1.0))
    if rng.random() < 0.05:
        exposed = 1 - exposed
    return np.asarray(exposed, dtype=np.float32)


def noise(shape: tuple[int, int], rng: np.random.Generator) -> Map:
    """The same for every kind of film, so that its noise does not tell whether it has a knee."""
    amplitude = np.float32(0.03 * rng.random() ** 2)
    return amplitude * rng.standard_normal(shape, dtype=np.float32)


def collimate(film: Map, boxes_px: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Close the shutters from some sides, not into a joint's box."""
    rows, columns = film.shape
    shade = np.float32(rng.choice([0.0, 0.02, 0.1, 1.0], p=[0.5, 0.3, 0.15, 0.05]))
    left, top = (float(edge) for edge in boxes_px[:, :2].min(0, initial=min(film.shape) / 3))
    right = columns - float(boxes_px[:, 2].max(initial=columns * 2 / 3))
    bottom = rows - float(boxes_px[:, 3].max(initial=rows * 2 / 3))
    for room, shutter in ((left, 0), (top, 1), (right, 2), (bottom, 3)):
        depth = int(max(0.0, room) * rng.uniform(0.1, 1.0))
        if depth and rng.random() > 0.65:
            # turned so that the shutter comes from the left
            np.rot90(film, shutter)[:, :depth] = shade
