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
from PIL import Image, ImageDraw
from scipy import ndimage

Map = NDArray[np.float32]

PLATEAU_MM = (76.0, 6.0)
"""Mean and standard deviation of the width of the tibial plateau of adults, both sexes."""
_LEAST_GAP_WIDTHS = 1.25
"""Two knees stand so many plateau widths apart at least."""


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


@dataclass(frozen=True)
class _Place:
    """Where a knee stands on a film: its joint, the size and the tilt of the leg."""

    x_mm: float
    y_mm: float
    plateau_mm: float
    tilt_rad: float
    is_mirrored: bool


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
        small = _reduced(crop, place.plateau_mm / spacing_mm)
        _paste(film, _leg(small.pixels, small, rng), place, spacing_mm)
    if crops and not plain:
        _add_bones_without_joint(film, crops, places, spacing_mm, rng)
    joints_mm = np.array([[p.x_mm, p.y_mm, p.plateau_mm / 2] for p in places]).reshape(-1, 3)
    boxes = np.stack(
        [joints_mm[:, axis] + sign * joints_mm[:, 2] for sign in (-1, 1) for axis in (0, 1)], axis=1
    )
    if not plain:
        _add_clutter(film, boxes / spacing_mm, spacing_mm, rng)
        film = _expose(film, rng)
        _collimate(film, boxes / spacing_mm, rng)
    film += _noise(shape, rng)
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
        crop = sources[rng.integers(len(sources))]
        place = _Place(
            rng.uniform(0.1, 0.9) * width_mm, rng.uniform(0.1, 0.9) * height_mm,
            rng.normal(*PLATEAU_MM), rng.uniform(-np.pi, np.pi), rng.random() < 0.5,
        )  # fmt: skip
        small = _reduced(crop, place.plateau_mm / spacing_mm)
        _paste(film, _leg(_without_joint(small, rng), small, rng), place, spacing_mm)
    _add_clutter(film, np.empty((0, 4)), spacing_mm, rng)
    film = _expose(film, rng)
    _collimate(film, np.empty((0, 4)), rng)
    film += _noise(shape, rng)
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
    shown = _expose(film[:, ::-1] if is_mirrored else film, rng)
    return Composite(shown, None, np.array([[x - half, y - half, x + half, y + half]]), (0,))


def _film_size_mm(knees: int, rng: np.random.Generator) -> tuple[float, float]:
    if knees == 1 and rng.random() < 0.7:
        width = rng.uniform(150.0, 300.0)
        return width, width * rng.uniform(0.9, 1.6)
    width = rng.uniform(300.0, 440.0)
    return width, width * rng.uniform(0.6, 1.05)


def _places(
    knees: int, size_mm: tuple[float, float], rng: np.random.Generator, disorder: float
) -> list[_Place]:
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
        places.append(_Place(column * width, y, own, turn, is_mirrored))
    return places


_LEG_WIDTHS, _LEG_UP, _LEG_DOWN = 2.2, 2.6, 2.4
"""What is drawn of a leg around its joint, in plateau widths: across, above, below."""


@dataclass(frozen=True, eq=False)
class _Leg:
    """A drawn leg: grey and how much it covers, with the joint at a known place."""

    grey: Map
    cover: Map
    joint_px: tuple[float, float]
    px_per_width: float


def _leg(pixels: Map, crop: KneeCrop, rng: np.random.Generator, *, ends: bool = False) -> _Leg:
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
    source_y = np.clip(np.broadcast_to(y[:, None], source_x.shape), trim, rows - 1 - trim)
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
    return _Leg(
        grey.astype(np.float32), cover.astype(np.float32),
        (_LEG_WIDTHS * width / 2, _LEG_UP * width), width,
    )  # fmt: skip


def _reduced(crop: KneeCrop, plateau_px: float) -> KneeCrop:
    """A crop brought down to the resolution of the film; never up."""
    factor = plateau_px / crop.plateau_px
    if factor >= 1:
        return crop
    rows, columns = (max(8, round(size * factor)) for size in crop.pixels.shape)
    picture = Image.fromarray(crop.pixels).resize((columns, rows), Image.Resampling.BOX)
    by_column, by_row = columns / crop.pixels.shape[1], rows / crop.pixels.shape[0]
    joint = crop.joint_px[0] * by_column, crop.joint_px[1] * by_row
    return KneeCrop(np.asarray(picture), joint, crop.plateau_px * by_column)


def _without_joint(crop: KneeCrop, rng: np.random.Generator) -> Map:
    """Bone of a crop above or below its joint, stretched to the crop's size."""
    rows = crop.pixels.shape[0]
    joint = crop.joint_px[1]
    gap = 0.12 * rows
    upper = rng.random() < 0.6
    part = crop.pixels[: int(joint - gap)] if upper else crop.pixels[int(joint + gap) :]
    picture = Image.fromarray(np.ascontiguousarray(part))
    return np.asarray(picture.resize(crop.pixels.shape[::-1], Image.Resampling.BILINEAR))


def _paste(film: Map, leg: _Leg, place: _Place, spacing_mm: float) -> None:
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


def _add_bones_without_joint(
    film: Map,
    crops: Sequence[KneeCrop],
    places: Sequence[_Place],
    spacing_mm: float,
    rng: np.random.Generator,
) -> None:
    """Beside a lone knee a leg whose joint the film does not show; elsewhere a stray bone."""
    width_mm, height_mm = film.shape[1] * spacing_mm, film.shape[0] * spacing_mm
    place = places[0]
    crop = _reduced(crops[0], place.plateau_mm / spacing_mm)
    opposite = width_mm - place.x_mm
    is_free = abs(opposite - place.x_mm) > 1.4 * place.plateau_mm
    if len(crops) == 1 and width_mm > 300 and is_free and rng.random() < 0.6:
        other = replace(place, x_mm=opposite, is_mirrored=not place.is_mirrored)
        _paste(film, _leg(_without_joint(crop, rng), crop, rng), other, spacing_mm)
    if rng.random() < 0.2:
        x_mm, y_mm = rng.uniform(0, width_mm), rng.choice([0.05, 0.95]) * height_mm
        stray = _Place(x_mm, y_mm, rng.uniform(30.0, 70.0), rng.uniform(-np.pi, np.pi), False)
        if all(np.hypot(p.x_mm - x_mm, p.y_mm - y_mm) > 1.5 * p.plateau_mm for p in places):
            bone = _leg(_without_joint(crop, rng), crop, rng, ends=True)
            _paste(film, bone, stray, spacing_mm)


def _add_clutter(
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


def _expose(film: Map, rng: np.random.Generator) -> Map:
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


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> Map:
    """The same for every kind of film, so that its noise does not tell whether it has a knee."""
    amplitude = np.float32(0.03 * rng.random() ** 2)
    return amplitude * rng.standard_normal(shape, dtype=np.float32)


def _collimate(film: Map, boxes_px: NDArray[np.float64], rng: np.random.Generator) -> None:
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
