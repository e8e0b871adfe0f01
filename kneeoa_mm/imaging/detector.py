"""Where on a film the knee joints are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from kneeoa_mm.imaging.profile import Peak, best_joints, match_knee
from kneeoa_mm.imaging.radiograph import Pixels
from kneeoa_mm.records import Box, PixelSpacing

JOINT_BOX_MM = 140.0
"""Side of the box around the joint of an average knee, which every detector reports."""


class FilmSide(StrEnum):
    """Side of the film, as seen by the viewer."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class JointDetection:
    """A knee joint on a film.

    Attributes:
        box: Square around the middle of the joint space, in the film's pixels; its side is
            ``JOINT_BOX_MM`` for an average knee and grows with the knee. It may reach beyond the
            film.
        film_side: Where the joint stands: beside the other one, or in which half of the film; None
            for a single joint near the middle.
        score: Confidence, 0 to 1.
    """

    box: Box
    film_side: FilmSide | None
    score: float


class JointDetector(Protocol):
    """Finds joints; also the place of a learned detector.

    A detector is built once in each worker and used for many films. It abstains (returns fewer
    joints, or none) rather than guess, returns at most one joint for each side of the film, and
    gives the same answer for the same pixels. One that needs a framework imports it inside
    ``__init__``; this module must stay cheap to import.
    """

    name: str
    """What the table of knees says in its column ``detector``."""

    def detect(self, pixels: Pixels, spacing: PixelSpacing | None) -> list[JointDetection]:
        """Joints from the film's left to its right.

        Args:
            pixels: Display grey, (rows, columns), bone bright.
            spacing: Millimetres of the film; without them the size of the knee is searched for.
        """
        ...


_SCALES = (0.85, 0.92, 1.0, 1.08, 1.17)
_FILM_WIDTHS_MM = np.geomspace(110, 560, 18)
_LONGEST_FILM_MM = 1300.0
_MIDDLE = (0.4, 0.6)


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
        min_score: Abstain below.
    """

    name = "profile"

    def __init__(self, min_score: float = 0.3) -> None:
        self.min_score = min_score

    def detect(self, pixels: Pixels, spacing: PixelSpacing | None) -> list[JointDetection]:
        """See :class:`JointDetector`."""
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
        found = [
            (peak, score)
            for peak, score in best_joints(match_map, scale_map)
            if score >= self.min_score
        ]
        sides = _sides([peak for peak, _ in found], pixels.shape[1] * spacing.column_mm)
        return [
            JointDetection(_box(peak, spacing), side, round(score, 4))
            for (peak, score), side in zip(found, sides, strict=True)
        ]


def _sides(peaks: list[Peak], film_width_mm: float) -> list[FilmSide | None]:
    if len(peaks) == 2:
        return [FilmSide.LEFT, FilmSide.RIGHT]
    return [_half(peak.column_mm / film_width_mm) for peak in peaks]


def _half(position: float) -> FilmSide | None:
    low, high = _MIDDLE
    if low <= position <= high:
        return None
    return FilmSide.LEFT if position < low else FilmSide.RIGHT


def _box(peak: Peak, spacing: PixelSpacing) -> Box:
    half_mm = JOINT_BOX_MM * peak.scale / 2
    return Box(
        round((peak.column_mm - half_mm) / spacing.column_mm),
        round((peak.row_mm - half_mm) / spacing.row_mm),
        round((peak.column_mm + half_mm) / spacing.column_mm),
        round((peak.row_mm + half_mm) / spacing.row_mm),
    )
