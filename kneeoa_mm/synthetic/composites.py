"""Films composed of real knee crops, for training and judging joint detectors.

Public collections hold single knees without the film around them. Here each crop is continued into
a leg: femur and tibia narrow into shafts, flesh fades into air, and the seam is feathered, so that
a detector has to find the knee and not the border of a picture. The same is done with pieces of
bone that show no joint, so that being pasted says nothing. Legs, markers, collimation, exposure
and noise vary as on films, and nothing here is a real film.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kneeoa_mm.synthetic.clutter import add_clutter, collimate, expose, noise
from kneeoa_mm.synthetic.film_geometry import Map
from kneeoa_mm.synthetic.legs import (
    KneeCrop,
    LegPlace,
    draw_leg,
    lay_leg,
    reduced,
    without_joint,
)

PLATEAU_MM = (76.0, 6.0)
"""Mean and standard deviation of the width of the tibial plateau of adults, both sexes."""
_LEAST_GAP_WIDTHS = 1.25
"""Two knees stand so many plateau widths apart at least."""


@dataclass(frozen=True, eq=False)
class Composite:
    """A film and its joints.

    Attributes:
        brightness: From 0 (black) to 1 (white), (rows, columns).
        spacing_mm: Pixel size of the film; None for a bare crop, which has none.
        joints_px: Square around the middle of each joint space, as wide as the plateau: left, top,
            right, bottom; shape (knees, 4), from the film's left to its right.
        crops: Which of the crops stands at each joint.
    """

    brightness: Map
    spacing_mm: float | None
    joints_px: NDArray[np.float64]
    crops: tuple[int, ...]


def compose(
    crops: Sequence[KneeCrop], rng: np.random.Generator, *, long_side_px: int, plain: bool = False
) -> Composite:
    """Compose a film of none, one or two knees.

    Args:
        crops: The knees that stand on the film, at most two.
        rng: Source of everything random.
        long_side_px: Size of the film.
        plain: Leave out what disturbs: tilt, collimation, clutter, uneven exposure.
    """
    width_mm, height_mm = _film_size_mm(len(crops), rng)
    spacing_mm = max(width_mm, height_mm) / long_side_px
    shape = (round(height_mm / spacing_mm), round(width_mm / spacing_mm))
    places = _places(len(crops), (width_mm, height_mm), rng, 0.0 if plain else 1.0)
    film = np.full(shape, rng.uniform(0.0, 0.06), dtype=np.float32)
    for crop, place in zip(crops, places, strict=True):
        small = reduced(crop, place.plateau_mm / spacing_mm)
        lay_leg(film, draw_leg(small.pixels, small, rng), place, spacing_mm)
    if crops and not plain:
        _add_bones_without_joint(film, crops, places, spacing_mm, rng)
    joints_mm = np.array([[p.x_mm, p.y_mm, p.plateau_mm / 2] for p in places]).reshape(-1, 3)
    boxes = np.stack(
        [joints_mm[:, axis] + sign * joints_mm[:, 2] for sign in (-1, 1) for axis in (0, 1)], axis=1
    )
    if not plain:
        add_clutter(film, boxes / spacing_mm, spacing_mm, rng)
        film = expose(film, rng)
        collimate(film, boxes / spacing_mm, rng)
    film += noise(shape, rng)
    order = np.argsort(joints_mm[:, 0])
    return Composite(
        np.clip(film, 0, 1), spacing_mm, boxes[order] / spacing_mm, tuple(int(i) for i in order)
    )


def compose_without_knee(
    sources: Sequence[KneeCrop], rng: np.random.Generator, *, long_side_px: int
) -> Composite:
    """A film with legs, bones and clutter but without any joint.

    Args:
        sources: Crops whose shafts may be used.
        rng: Source of everything random.
        long_side_px: Size of the film.
    """
    width_mm, height_mm = _film_size_mm(2, rng)
    spacing_mm = max(width_mm, height_mm) / long_side_px
    shape = (round(height_mm / spacing_mm), round(width_mm / spacing_mm))
    film = np.full(shape, rng.uniform(0.0, 0.06), dtype=np.float32)
    for _ in range(rng.integers(0, 4)):
        crop = sources[int(rng.integers(len(sources)))]
        place = LegPlace(
            rng.uniform(0.1, 0.9) * width_mm, rng.uniform(0.1, 0.9) * height_mm,
            rng.normal(*PLATEAU_MM), rng.uniform(-np.pi, np.pi), rng.random() < 0.5,
        )  # fmt: skip
        small = reduced(crop, place.plateau_mm / spacing_mm)
        lay_leg(film, draw_leg(without_joint(small, rng), small, rng), place, spacing_mm)
    add_clutter(film, np.empty((0, 4)), spacing_mm, rng)
    film = expose(film, rng)
    collimate(film, np.empty((0, 4)), rng)
    film += noise(shape, rng)
    return Composite(np.clip(film, 0, 1), spacing_mm, np.empty((0, 4)), ())


def frame_crop(crop: KneeCrop, rng: np.random.Generator) -> Composite:
    """A picture that shows one knee and little else, as crops are handed around."""
    rows, columns = crop.pixels.shape
    trim = rng.uniform(-0.06, 0.08, 4) * columns
    left, top = trim[0], trim[1]
    right, bottom = columns - trim[2], rows - trim[3]
    row, column = np.mgrid[round(top) : round(bottom), round(left) : round(right)]
    is_mirrored = rng.random() < 0.5
    film = ndimage.map_coordinates(
        crop.pixels, [row, column], order=1, mode=rng.choice(["nearest", "constant"])
    )
    x = crop.joint_px[0] - round(left)
    x, y = film.shape[1] - x if is_mirrored else x, crop.joint_px[1] - round(top)
    half = crop.plateau_px / 2
    shown = expose(film[:, ::-1] if is_mirrored else film, rng)
    return Composite(shown, None, np.array([[x - half, y - half, x + half, y + half]]), (0,))


def _film_size_mm(knees: int, rng: np.random.Generator) -> tuple[float, float]:
    if knees == 1 and rng.random() < 0.7:
        width = rng.uniform(150.0, 300.0)
        return width, width * rng.uniform(0.9, 1.6)
    width = rng.uniform(300.0, 440.0)
    return width, width * rng.uniform(0.6, 1.05)


def _places(
    knees: int, size_mm: tuple[float, float], rng: np.random.Generator, disorder: float
) -> list[LegPlace]:
    """Joints in the upright part of a film, far enough from its rim and from each other."""
    width, height = size_mm
    tilt = disorder * rng.normal(0.0, 0.08)
    plateau = float(np.clip(rng.normal(*PLATEAU_MM), 60.0, 95.0))
    row = height * (0.5 + disorder * rng.uniform(-0.2, 0.2))
    if knees == 2:
        half = rng.uniform(max(_LEAST_GAP_WIDTHS * plateau / width, 0.3), 0.56) / 2
        middle = 0.5 + disorder * rng.uniform(-0.05, 0.05)
        columns = [middle - half, middle + half]
    else:
        reach = 0.5 - min(0.45, 0.6 * plateau / width)
        columns = [0.5 + disorder * rng.uniform(-reach, reach)] * knees
    places = []
    for index, column in enumerate(columns):
        sway = disorder * rng.normal(0.0, 4.0)
        turn = tilt + disorder * rng.normal(0.0, 0.03)
        step = np.tan(tilt) * (column - 0.5) * width
        is_mirrored = (index == 1) if knees == 2 else rng.random() < 0.5
        own = plateau * rng.normal(1.0, 0.02)
        y = float(np.clip(row + sway + step, 0.15 * height, 0.85 * height))
        places.append(LegPlace(column * width, y, own, turn, is_mirrored))
    return places


def _add_bones_without_joint(
    film: Map,
    crops: Sequence[KneeCrop],
    places: Sequence[LegPlace],
    spacing_mm: float,
    rng: np.random.Generator,
) -> None:
    """Beside a lone knee a leg whose joint the film does not show; elsewhere a stray bone."""
    width_mm, height_mm = film.shape[1] * spacing_mm, film.shape[0] * spacing_mm
    place = places[0]
    crop = reduced(crops[0], place.plateau_mm / spacing_mm)
    opposite = width_mm - place.x_mm
    is_free = abs(opposite - place.x_mm) > 1.4 * place.plateau_mm
    if len(crops) == 1 and width_mm > 300 and is_free and rng.random() < 0.6:
        other = replace(place, x_mm=opposite, is_mirrored=not place.is_mirrored)
        lay_leg(film, draw_leg(without_joint(crop, rng), crop, rng), other, spacing_mm)
    if rng.random() < 0.2:
        x_mm, y_mm = rng.uniform(0, width_mm), rng.choice([0.05, 0.95]) * height_mm
        stray = LegPlace(x_mm, y_mm, rng.uniform(30.0, 70.0), rng.uniform(-np.pi, np.pi), False)
        if all(np.hypot(p.x_mm - x_mm, p.y_mm - y_mm) > 1.5 * p.plateau_mm for p in places):
            bone = draw_leg(without_joint(crop, rng), crop, rng, ends=True)
            lay_leg(film, bone, stray, spacing_mm)
