"""Legs drawn from knee crops: bone runs on into shafts, flesh fades, the seams are feathered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from kneeoa_mm.synthetic.film_geometry import Map


@dataclass(frozen=True, eq=False)
class KneeCrop:
    """One knee as a picture, with what is known of its anatomy.

    Attributes:
        pixels: Grey from 0 to 1, bone bright, (rows, columns).
        joint_px: Middle of the joint space as (column, row).
        plateau_px: Width of the tibial plateau.
    """

    pixels: Map
    joint_px: tuple[float, float]
    plateau_px: float


@dataclass(frozen=True)
class LegPlace:
    """Where a knee stands on a film: its joint, the size and the tilt of the leg."""

    x_mm: float
    y_mm: float
    plateau_mm: float
    tilt_rad: float
    is_mirrored: bool


_LEG_WIDTHS, _LEG_UP, _LEG_DOWN = 2.2, 2.6, 2.4
"""What is drawn of a leg around its joint, in plateau widths: across, above, below."""


@dataclass(frozen=True, eq=False)
class Leg:
    """A drawn leg: grey and how much it covers, with the joint at a known place."""

    grey: Map
    cover: Map
    joint_px: tuple[float, float]
    px_per_width: float


def draw_leg(pixels: Map, crop: KneeCrop, rng: np.random.Generator, *, ends: bool = False) -> Leg:
    """Continue a crop into a leg whose shafts narrow and whose flesh fades.

    Args:
        pixels: What is continued, of the crop's size.
        crop: Tells the joint and the size.
        rng: Source of everything random.
        ends: The leg ends a little above and below the crop instead of running off the film.
    """
    rows, columns = pixels.shape
    joint_x, joint_y = crop.joint_px
    width = crop.plateau_px
    trim = round(rng.uniform(0.0, 0.03) * columns)
    x = np.arange(round(_LEG_WIDTHS * width)) - _LEG_WIDTHS * width / 2 + joint_x
    y = np.arange(round((_LEG_UP + _LEG_DOWN) * width)) - _LEG_UP * width + joint_y
    beyond = np.maximum(np.maximum(trim - y, y - (rows - 1 - trim)), 0)[:, None]
    narrowing = 1 + rng.uniform(0.3, 0.7) * (1 - np.exp(-beyond / (0.8 * width)))
    source_x = joint_x + (x[None, :] - joint_x) * narrowing
    # pixel (row, column) is centred at (row + 0.5, column + 0.5)
    source_x = source_x - 0.5
    source_y = np.clip(np.broadcast_to(y[:, None] - 0.5, source_x.shape), trim, rows - 1 - trim)
    inner_x = np.clip(source_x, trim, columns - 1 - trim)
    sharp = ndimage.map_coordinates(pixels, [source_y, inner_x], order=1, mode="nearest")
    outside = np.hypot(beyond, source_x - inner_x)
    # what is continued has no texture of its own: it is smooth, and the seam is feathered
    soft = ndimage.gaussian_filter(sharp, (0.06 * width, 0.03 * width))
    feather = rng.uniform(0.02, 0.12) * columns
    to_rim = np.minimum.reduce(
        np.broadcast_arrays(
            source_y - trim,
            rows - 1 - trim - source_y,
            inner_x - trim,
            columns - 1 - trim - inner_x,
        )
    )
    share = np.where(outside > 0, 0.0, np.clip(to_rim / feather, 0, 1))
    grain = rng.uniform(0.002, 0.012)
    texture = ndimage.gaussian_filter(rng.standard_normal(sharp.shape), max(0.3, 0.006 * width))
    texture *= grain / texture.std()
    grey = share * sharp + (1 - share) * (soft + texture * (outside > 0))
    flesh = rng.uniform(0.62, 0.95) * width
    reach = np.abs(x - joint_x)[None, :] + rng.uniform(-0.05, 0.05) * width
    flare = 0.12 * width * np.clip((joint_y - y)[:, None] / width, -0.5, 1.5)
    cover = 1 / (1 + np.exp((reach - flesh - flare) / (rng.uniform(0.02, 0.1) * width)))
    if ends:
        cover *= np.clip(1.2 - beyond / (0.5 * width), 0, 1)
        cover[[0, -1]] = 0.0
    return Leg(
        grey.astype(np.float32), cover.astype(np.float32),
        (_LEG_WIDTHS * width / 2, _LEG_UP * width), width,
    )  # fmt: skip


def reduced(crop: KneeCrop, plateau_px: float) -> KneeCrop:
    """A crop brought down to the resolution of the film; never up."""
    factor = plateau_px / crop.plateau_px
    if factor >= 1:
        return crop
    rows, columns = (max(8, round(size * factor)) for size in crop.pixels.shape)
    picture = Image.fromarray(crop.pixels).resize((columns, rows), Image.Resampling.BOX)
    by_column, by_row = columns / crop.pixels.shape[1], rows / crop.pixels.shape[0]
    joint = crop.joint_px[0] * by_column, crop.joint_px[1] * by_row
    return KneeCrop(np.asarray(picture), joint, crop.plateau_px * by_column)


def without_joint(crop: KneeCrop, rng: np.random.Generator) -> Map:
    """Bone of a crop above or below its joint, stretched to the crop's size."""
    rows = crop.pixels.shape[0]
    joint = crop.joint_px[1]
    gap = 0.12 * rows
    upper = rng.random() < 0.6
    part = crop.pixels[: int(joint - gap)] if upper else crop.pixels[int(joint + gap) :]
    picture = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(picture.resize(crop.pixels.shape[::-1], Image.Resampling.BILINEAR))


def lay_leg(film: Map, leg: Leg, place: LegPlace, spacing_mm: float) -> None:
    """Lay a leg on a film; where two legs meet, the brighter one is seen."""
    factor = leg.px_per_width * spacing_mm / place.plateau_mm
    cosine, sine = np.cos(place.tilt_rad), np.sin(place.tilt_rad)
    row, column = np.mgrid[: film.shape[0], : film.shape[1]].astype(np.float32)
    across = column + 0.5 - place.x_mm / spacing_mm
    down = row + 0.5 - place.y_mm / spacing_mm
    u = (cosine * across + sine * down) * factor
    v = (cosine * down - sine * across) * factor
    at = [v + leg.joint_px[1], (-u if place.is_mirrored else u) + leg.joint_px[0]]
    # rows beyond the drawn leg continue it; beside it there is nothing
    seen = ndimage.map_coordinates(leg.grey, at, order=1, mode="nearest")
    covered = ndimage.map_coordinates(leg.cover, at, order=1, mode="nearest")
    np.maximum(film, seen * covered + film * (1 - covered), out=film)
