"""What the picture of a knee itself tells: a negative, a leg that leans, metal.

All of it is judged on a close-up of one size, in which the joint stands in the middle, so that
nothing depends on the field of view or the resolution of the run.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Pixels, resize
from kneeoa_mm.records import Box

_SIDE_PX, _PLATEAU_WIDTHS = 224, 1.25
"""A close-up is as large as the images of public collections, which the limits were set on."""

_LEAST_BONE_CONTRAST = -0.1
_MOST_LEAN_DEG = 10.0
_LEAN_PX, _EDGE_SIGMA_PX, _SHADE_SIGMA_PX = 64, 1.2, 6.0
_LARGEST_SHIFT_PX, _RIM_OF_DISC = 8, 0.3
_LEANS_DEG = np.arange(-24.0, 25.0, 4.0)
_LEAST_METAL = 0.15
_METAL_WINDOW_PX, _METAL_RISE, _LEAST_METAL_PX, _RIM_PX = 21, 0.35, 25, 4
_JOINT_BAND = (0.28, 0.62)
_LEAST_IMPLANT_PX, _LEAST_IMPLANT_THICKNESS_PX = 1000, 5.0
"""As the femoral part of a prosthesis; two of 6,604 real knees show so large a spot there."""


def close_up(pixels: Pixels, joint: Box) -> Pixels:
    """The joint and its surroundings, (224, 224), 1.25 widths of the tibial plateau.

    Beyond the film its rim goes on: a made-up grey would count as the darkest of the knee.

    Args:
        pixels: The film, (rows, columns).
        joint: Its box, as wide as the plateau, with its middle on the film.
    """
    middles = (joint.centre_px[1], joint.centre_px[0])
    reaches = (joint.height_px * _PLATEAU_WIDTHS / 2, joint.width_px * _PLATEAU_WIDTHS / 2)
    inside, margins = [], []
    for middle, reach, size in zip(middles, reaches, pixels.shape, strict=True):
        start, stop = round(middle - reach), round(middle + reach)
        first = min(max(start, 0), size - 1)
        inside.append(slice(first, max(min(stop, size), first + 1)))
        margins.append((max(-start, 0), max(stop - size, 0)))
    view = np.pad(pixels[tuple(inside)], margins, mode="edge")
    return resize(view, _SIDE_PX, _SIDE_PX)


def picture_flags(view: Pixels) -> list[QCFlag]:
    """Judge a close-up.

    Args:
        view: Of :func:`close_up`.
    """
    is_negative = bone_contrast(view) < _LEAST_BONE_CONTRAST
    flags = [QCFlag.NEGATIVE] if is_negative else []
    if abs(lean_deg(view)) > _MOST_LEAN_DEG:
        flags.append(QCFlag.ROTATED)
    if metal(-view if is_negative else view) > _LEAST_METAL:
        flags.append(QCFlag.HARDWARE)
    return flags


def bone_contrast(view: Pixels) -> float:
    """How much brighter the shafts are than the outer rims, in units of the view's range."""
    low, high = np.percentile(view, [1, 99])
    shafts = (_mean(view, (0.2, 0.4), (0.35, 0.65)) + _mean(view, (0.6, 0.8), (0.35, 0.65))) / 2
    rims = (_mean(view, (0, 1), (0, 0.06)) + _mean(view, (0, 1), (0.94, 1))) / 2
    return (shafts - rims) / max(float(high - low), 1e-9)


def _mean(view: Pixels, rows: tuple[float, float], columns: tuple[float, float]) -> float:
    part = tuple(
        slice(round(low * size), round(high * size))
        for (low, high), size in zip((rows, columns), view.shape, strict=True)
    )
    return float(view[part].mean())


def lean_deg(view: Pixels) -> float:
    """Angle of the leg's axis, in degrees, positive where the upper end leans to image-right.

    A knee is nearly its own mirror image. The view is turned in steps until its edges and its
    shades match their mirror images best, wherever the axis passes; a parabola through the best
    three gives the angle in between.
    """
    small = resize(view, _LEAN_PX, _LEAN_PX)
    edges = np.sqrt(ndimage.gaussian_gradient_magnitude(small, _EDGE_SIGMA_PX))
    middle = (_LEAN_PX - 1) / 2
    radius = np.hypot(*(np.mgrid[:_LEAN_PX, :_LEAN_PX] - middle))
    disc = np.clip((middle - radius) / (_RIM_OF_DISC * middle), 0, 1)
    matches = _mirror_matches((edges, _shades(small)), disc)
    best = int(matches.argmax())
    if not 0 < best < matches.size - 1:
        return float(_LEANS_DEG[best])
    before, top, after = matches[best - 1 : best + 2]
    bend = before - 2 * top + after
    offset = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return float(_LEANS_DEG[best] + offset * (_LEANS_DEG[1] - _LEANS_DEG[0]))


def _shades(grey: Pixels) -> Pixels:
    """Lighter or darker than the surroundings, and everywhere about as strongly so."""
    deviation = grey - ndimage.gaussian_filter(grey, _SHADE_SIGMA_PX)
    strength = np.sqrt(ndimage.gaussian_filter(deviation**2, _SHADE_SIGMA_PX))
    shades: Pixels = deviation / (strength + 1e-3 * grey.std() + 1e-9)
    return shades


def _mirror_matches(maps: tuple[Pixels, ...], disc: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well the maps match their mirror images at each turn of ``_LEANS_DEG``."""
    by_shift = np.zeros((_LEANS_DEG.size, 2 * _LEAN_PX))
    for each in maps:
        turned = (_turns() @ each.ravel()).reshape(-1, _LEAN_PX, _LEAN_PX)
        mean = (turned * disc).sum(axis=(1, 2), keepdims=True) / disc.sum()
        deviation = (turned - mean) * disc
        # correlation with the mirror image at every shift is a convolution with itself
        spectrum = np.fft.rfft(deviation, 2 * _LEAN_PX, axis=2)
        correlation = np.fft.irfft((spectrum**2).sum(axis=1), 2 * _LEAN_PX, axis=1)
        power = np.maximum((deviation**2).sum(axis=(1, 2)), 1e-9)
        by_shift += correlation / power[:, None]
    middle = _LEAN_PX - 1
    near = by_shift[:, middle - _LARGEST_SHIFT_PX : middle + 1 + _LARGEST_SHIFT_PX]
    best: NDArray[np.float64] = near.max(axis=1)
    return best


@cache
def _turns() -> sparse.csr_array:
    """Every turn of a small view as one matrix, bilinear; what is beyond the view is its rim."""
    middle = (_LEAN_PX - 1) / 2
    rows, columns = np.mgrid[:_LEAN_PX, :_LEAN_PX] - middle
    weights, pixels = [], []
    for turn in np.deg2rad(_LEANS_DEG):
        y = np.clip(np.cos(turn) * rows + np.sin(turn) * columns + middle, 0, _LEAN_PX - 1)
        x = np.clip(np.cos(turn) * columns - np.sin(turn) * rows + middle, 0, _LEAN_PX - 1)
        top, left = (np.minimum(place.astype(int), _LEAN_PX - 2) for place in (y, x))
        below, right = y - top, x - left
        corners = ((1 - below, 1 - right), (1 - below, right), (below, 1 - right), (below, right))
        weights.append(np.stack([down * across for down, across in corners], axis=-1))
        first = top * _LEAN_PX + left
        pixels.append(np.stack([first, first + 1, first + _LEAN_PX, first + _LEAN_PX + 1], -1))
    starts = np.arange(0, 4 * _LEANS_DEG.size * _LEAN_PX**2 + 1, 4)
    shape = (_LEANS_DEG.size * _LEAN_PX**2, _LEAN_PX**2)
    return sparse.csr_array((np.ravel(weights), np.ravel(pixels), starts), shape=shape)


def metal(view: Pixels) -> float:
    """How much the most suspicious bright spot looks like metal; 0 where there is none.

    Metal is narrow, brighter than bone, thick and sharp-edged; the score is the product of its
    excess over bone, the slope of its outline, and its thickness. Subchondral plates are bright
    and sharp too, so what lies within the band of the joint counts only where it is as large and
    thick as the part of a prosthesis, and then in full.
    """
    low, high = np.percentile(view, [5, 90])
    span = max(float(high - low), 1e-9)
    grey = ndimage.gaussian_filter(view, 0.5)
    opened = ndimage.grey_opening(grey, size=(_METAL_WINDOW_PX, _METAL_WINDOW_PX))
    bright = (grey - opened > _METAL_RISE * span) & (grey > high)
    bright[:_RIM_PX] = bright[-_RIM_PX:] = bright[:, :_RIM_PX] = bright[:, -_RIM_PX:] = False
    labels, _ = ndimage.label(bright)
    areas = np.bincount(labels.ravel())
    if areas[1:].max(initial=0) < _LEAST_METAL_PX:
        return 0.0
    slope = ndimage.gaussian_gradient_magnitude(grey, 1.0) / span
    excess = (grey - high) / span
    top, bottom = (round(share * view.shape[0]) for share in _JOINT_BAND)
    scores = [0.0]
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        if areas[label] < _LEAST_METAL_PX:
            continue
        if rows.start > top and rows.stop < bottom:
            spot = labels[rows, columns] == label
            is_implant = areas[label] >= _LEAST_IMPLANT_PX and (
                _thickness_px(spot) >= _LEAST_IMPLANT_THICKNESS_PX
            )
            scores.append(float(is_implant))
            continue
        part = tuple(slice(max(0, each.start - 2), each.stop + 2) for each in (rows, columns))
        scores.append(_spot_score(labels[part] == label, slope[part], excess[part]))
    return max(scores)


def _spot_score(spot: NDArray[np.bool_], slope: Pixels, excess: Pixels) -> float:
    outline = ndimage.binary_dilation(spot) & ~ndimage.binary_erosion(spot)
    return float(np.median(slope[outline]) * np.percentile(excess[spot], 75) * _thickness_px(spot))


def _thickness_px(spot: NDArray[np.bool_]) -> float:
    """Largest distance from the outline."""
    return float(ndimage.distance_transform_edt(np.pad(spot, 1)).max())
