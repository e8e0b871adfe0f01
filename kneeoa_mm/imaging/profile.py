"""Profiles of grey along the leg: how much each place of a film looks like a knee joint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from kneeoa_mm.imaging.detector import PLATEAU_MM, JointDetection, count_rivals, film_sides
from kneeoa_mm.imaging.radiograph import Pixels, resize
from kneeoa_mm.records import Box, PixelSpacing

_STEP_MM = 2.0
"""Pixel of the coarse film."""
_REACH_MM = (46.0, 30.0, 26.0)
"""How far the drawn knee reaches from the middle of the joint: to either side, up and down."""
_BAND_MM, _NEIGHBOURHOOD_MM = 8.0, 25.0
_CLIP = 2.0
_LEAST_VARIANCE = 0.02
_ROTATIONS_DEG = (-8.0, -4.0, 0.0, 4.0, 8.0)
_LEAST_GAP_MM, _LARGEST_STEP_MM = 90.0, 70.0
"""Two knees of one film are at least so far apart, and at most so different in height."""
_RIVALS = 3
_LEAST_MATCH, _TEXTURE_MATCH = 0.25, 0.5
"""Real knees match from 0.35, most of them above 0.5; noise up to 0.3 where it is white, and up to
about 0.48 where its grain has the size of a joint space."""


_MIN_SCORE = 0.3
_SCALES = (0.85, 0.92, 1.0, 1.08, 1.17)
_FILM_WIDTHS_MM = np.geomspace(82, 560, 21)
"""From a close crop of one knee, 1.1 plateaus wide, to a film of both."""
_LONGEST_FILM_MM = 1300.0


@dataclass(frozen=True)
class Peak:
    """A place where the film looks like a joint."""

    column_mm: float
    row_mm: float
    match: float
    """Correlation with the drawn knee."""
    scale: float
    """Size of the drawn knee that matched best."""


def match_knee(
    pixels: Pixels, spacing: PixelSpacing, scales: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlate a film with the drawn knee at every place.

    Args:
        pixels: Display grey, (rows, columns), bone bright.
        spacing: Millimetres of the film.
        scales: Sizes of the drawn knee to try, 1 being the average.

    Returns:
        Best correlation over sizes and rotations, and the size that gave it, at each pixel of the
        film reduced to 2 mm.
    """
    rows, columns = (
        max(1, round(size * mm / _STEP_MM)) for size, mm in zip(pixels.shape, spacing, strict=True)
    )
    film = _along_leg(resize(pixels, rows, columns))
    across, up, down = (round(mm / _STEP_MM) for mm in _REACH_MM)
    padded = np.pad(film, ((up, down), (across, across)), mode="edge")
    shape = tuple(fft.next_fast_len(size, real=True) for size in padded.shape)
    spectrum = fft.rfft2(padded, shape)
    match = np.full(film.shape, -1.0)
    scale_of = np.ones(film.shape)
    energy = _local_energy(padded, (up + down + 1, 2 * across + 1))
    for scale in scales:
        for rotation_deg in _ROTATIONS_DEG:
            knee = _drawn_knee(scale, rotation_deg)
            product = fft.irfft2(spectrum * np.conj(fft.rfft2(knee, shape)), shape)
            correlation = product[:rows, :columns] / energy
            scale_of[correlation > match] = scale
            np.maximum(match, correlation, out=match)
    return _without_border(match, across // 2, up), scale_of


def _without_border(match: NDArray[np.float64], columns: int, rows: int) -> NDArray[np.float64]:
    """Rule out places near the film's edge: no use as a joint, and collimation looks like one."""
    inner = np.full_like(match, -1.0)
    inside = np.s_[rows : match.shape[0] - rows, columns : match.shape[1] - columns]
    inner[inside] = match[inside]
    return inner


def _local_energy(padded: NDArray[np.float64], window: tuple[int, int]) -> NDArray[np.float64]:
    """Root of the summed squared deviations from the mean in each full window.

    A floor keeps windows that are all but empty from matching whatever is left in them.
    """
    origin = tuple(-(size // 2) for size in window)
    mean = ndimage.uniform_filter(padded, window, origin=origin)
    power = ndimage.uniform_filter(padded**2, window, origin=origin)
    kept = tuple(
        slice(0, size - extent + 1) for size, extent in zip(padded.shape, window, strict=True)
    )
    variance = np.maximum(power - mean**2, _LEAST_VARIANCE)[kept]
    energy: NDArray[np.float64] = np.sqrt(variance * window[0] * window[1])
    return energy


def _along_leg(grey: NDArray[np.floating]) -> NDArray[np.float64]:
    """What changes along the leg, each neighbourhood brought to a similar strength."""
    low, high = np.percentile(grey, [1, 99])
    scaled = (grey.astype(np.float64) - low) / max(high - low, 1e-9)
    # continued straight on beyond the film, a slope of exposure changes nothing at its edge
    sigma = _BAND_MM / _STEP_MM
    margin = round(4 * sigma)
    beyond = np.pad(scaled, ((margin, margin), (0, 0)), mode="reflect", reflect_type="odd")
    change = scaled - ndimage.gaussian_filter1d(beyond, sigma, axis=0)[margin:-margin]
    strength = np.sqrt(ndimage.gaussian_filter(change**2, _NEIGHBOURHOOD_MM / _STEP_MM))
    # metal and sharp borders are bounded, or one screw would outweigh a joint
    bounded: NDArray[np.float64] = _CLIP * np.tanh(change / (strength + 0.02) / _CLIP)
    return bounded


@cache
def _drawn_knee(scale: float, rotation_deg: float) -> NDArray[np.float64]:
    """The profiles of a drawn knee, zero mean and unit energy.

    Outlines in millimetres of an adult knee with a tibial plateau of 76 mm: femoral condyles over
    a flat plateau with two spines, a joint space of 5 mm and a notch of 18 mm.
    """
    margin_mm = 24.0
    across, up, down = (reach + margin_mm for reach in _REACH_MM)
    rows, columns = np.mgrid[-up : down + 1 : _STEP_MM / 4, -across : across + 1 : _STEP_MM / 4]
    turn = np.deg2rad(rotation_deg)
    x = np.abs(columns * np.cos(turn) + rows * np.sin(turn)) / scale
    y = (rows * np.cos(turn) - columns * np.sin(turn)) / scale
    condyles = np.interp(x, [0, 7, 12, 20, 30, 40], [-18, -14, -6, -2.5, -2.5, -4])
    femur_half = np.interp(-y, [0, 4, 12, 25, 38, 60, 90], [28, 34, 38, 39, 36, 24, 18])
    plateau = np.interp(x, [0, 3, 6, 9, 20, 36, 40], [-1, -5, -4, 1, 2.5, 2.5, 4])
    tibia_half = np.interp(y, [0, 5, 15, 30, 50, 80], [38, 38.5, 37, 30, 21, 17])
    femur, tibia = (y < condyles) & (x < femur_half), (y > plateau) & (x < tibia_half)
    grey = np.where(femur | tibia, 1.0, 0.45)
    grey[femur & (y > condyles - 2)] = 1.08
    grey[tibia & (y < plateau + 3) & (x > 8)] = 1.15
    smooth = ndimage.gaussian_filter(grey, 2.4)[::4, ::4]
    edge = round(margin_mm / _STEP_MM)
    knee = _along_leg(smooth)[edge:-edge, edge:-edge]
    knee -= knee.mean()
    knee /= np.linalg.norm(knee)
    return knee


def best_joints(
    match: NDArray[np.float64], scale_of: NDArray[np.float64]
) -> tuple[list[tuple[Peak, float]], list[tuple[Peak, float]]]:
    """The best place and the best one beside it, the best of the rest, and their scores.

    Args:
        match: Correlations of :func:`match_knee`.
        scale_of: Sizes of :func:`match_knee`.

    Returns:
        None to two places from left to right, and up to three others. Both are there even where
        only one is a joint: the score, from 0 to 1, tells.
    """
    if match.max() <= 0:
        return [], []
    left = match.copy()
    first = _take_peak(left, scale_of)
    distance_mm = (np.arange(match.shape[1]) + 0.5) * _STEP_MM - first.column_mm
    height_mm = (np.arange(match.shape[0]) + 0.5) * _STEP_MM - first.row_mm
    beside = left.copy()
    beside[:, np.abs(distance_mm) < _LEAST_GAP_MM] = -1
    beside[np.abs(height_mm) > _LARGEST_STEP_MM] = -1
    peaks = [first]
    if beside.max() > 0:
        peaks.append(_take_peak(beside, scale_of))
        _blank(left, peaks[1])
    others = [_take_peak(left, scale_of) for _ in range(_RIVALS)]
    background = max(0.0, float(np.mean([other.match for other in others])))

    def scored(places: list[Peak]) -> list[tuple[Peak, float]]:
        return [(place, _score(place.match, background)) for place in places]

    return scored(sorted(peaks, key=lambda peak: peak.column_mm)), scored(others)


def _score(match: float, background: float) -> float:
    """How far a match stands out from the film, or by itself from what texture reaches."""
    outstanding = max((match - background) / 0.3, (match - _TEXTURE_MATCH) / 0.25)
    plausible = (match - _LEAST_MATCH) / 0.1
    return float(np.clip(outstanding, 0, 1) * np.clip(plausible, 0, 1))


def _take_peak(match: NDArray[np.float64], scale_of: NDArray[np.float64]) -> Peak:
    """The highest place, which is blanked with its surroundings."""
    row, column = (int(index) for index in np.unravel_index(match.argmax(), match.shape))
    peak = Peak(
        (column + 0.5 + _vertex(match[row], column)) * _STEP_MM,
        (row + 0.5 + _vertex(match[:, column], row)) * _STEP_MM,
        float(match[row, column]),
        float(scale_of[row, column]),
    )
    _blank(match, peak)
    return peak


def _vertex(line: NDArray[np.float64], index: int) -> float:
    """Offset of the top of the parabola through a maximum and its two neighbours."""
    if not 0 < index < line.size - 1:
        return 0.0
    before, top, after = line[index - 1 : index + 2]
    bend = before - 2 * top + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _blank(match: NDArray[np.float64], peak: Peak) -> None:
    """Take out the surroundings of a joint, in which its own bone matches as well."""
    row, column = int(peak.row_mm / _STEP_MM), int(peak.column_mm / _STEP_MM)
    height, width = round(50 / _STEP_MM), round(60 / _STEP_MM)
    match[max(0, row - height) : row + height + 1, max(0, column - width) : column + width + 1] = -1


class ProfileDetector:
    """Finds the joint line by the profile of grey along the leg.

    Down a leg, grey falls at the joint space and rises at the tibial plateau, over the width of
    the condyles and with the arch of the notch between. The film is reduced to 2 mm, everything
    that does not change along the leg (shafts, soft tissue, exposure, collimation) is taken out,
    and what is left is correlated with the same profiles of a drawn knee in a few sizes and
    rotations. The score tells how far a place stands out from the best other places of the same
    film, so that a film without a knee scores low whatever its texture, or how well it matches by
    itself.

    Args:
        min_score: Abstain below; None takes 0.3.
    """

    name = "profile"

    def __init__(self, min_score: float | None = None) -> None:
        self.min_score = _MIN_SCORE if min_score is None else min_score

    def detect(self, pixels: Pixels, spacing: PixelSpacing | None) -> list[JointDetection]:
        """See :class:`~kneeoa_mm.imaging.detector.JointDetector`."""
        if spacing is not None:
            match_map, scale_map = match_knee(pixels, spacing, _SCALES)
        else:
            # the best match over all widths that a film can have tells how wide this one is
            steps_mm = (float(width) / pixels.shape[1] for width in _FILM_WIDTHS_MM)
            guesses = [
                PixelSpacing(mm, mm) for mm in steps_mm if mm * pixels.shape[0] <= _LONGEST_FILM_MM
            ]
            if not guesses:
                return []
            maps = [match_knee(pixels, guess, (1.0,)) for guess in guesses]
            best = max(range(len(maps)), key=lambda index: float(maps[index][0].max()))
            spacing, (match_map, scale_map) = guesses[best], maps[best]
        found, others = (
            [(peak, score) for peak, score in places if score >= self.min_score]
            for places in best_joints(match_map, scale_map)
        )
        columns_mm = [peak.column_mm for peak, _ in found]
        rivals = count_rivals(columns_mm, [peak.column_mm for peak, _ in others]) if found else []
        film_width_mm = pixels.shape[1] * spacing.column_mm
        sides = film_sides([column_mm / film_width_mm for column_mm in columns_mm])
        return [
            JointDetection(_box(peak, spacing), side, round(score, 4), count)
            for (peak, score), side, count in zip(found, sides, rivals, strict=True)
        ]


def _box(peak: Peak, spacing: PixelSpacing) -> Box:
    half_mm = PLATEAU_MM * peak.scale / 2
    return Box(
        round((peak.column_mm - half_mm) / spacing.column_mm),
        round((peak.row_mm - half_mm) / spacing.row_mm),
        round((peak.column_mm + half_mm) / spacing.column_mm),
        round((peak.row_mm + half_mm) / spacing.row_mm),
    )
