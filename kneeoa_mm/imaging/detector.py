"""Where on a film the knee joints are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from kneeoa_mm.imaging.radiograph import Pixels
from kneeoa_mm.records import Box, PixelSpacing

PLATEAU_MM = 76.0
"""Width of the tibial plateau of an average adult knee."""


class FilmSide(StrEnum):
    """Side of the film, as seen by the viewer."""

    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class JointDetection:
    """A knee joint on a film.

    Attributes:
        box: Square in millimetres around the middle of the joint space, as wide as the tibial
            plateau, in the film's pixels. It carries the size of the knee, and on a film without
            millimetres it is the only scale there is. It may reach beyond the film.
        film_side: Where the joint stands: beside the other one, or in which half of the film; None
            for a single joint near the middle.
        score: Confidence, 0 to 1.
    """

    box: Box
    film_side: FilmSide | None
    score: float
    rivals: int = 0
    """Further places on its side of the film that scored as a joint and were not taken."""


@dataclass(frozen=True)
class Candidate:
    """A place that looks like a joint, in the film's pixels: middle, size and score."""

    column_px: float
    row_px: float
    width_px: float
    height_px: float
    score: float

    @property
    def box(self) -> Box:
        """The square as a box."""
        return Box(
            round(self.column_px - self.width_px / 2),
            round(self.row_px - self.height_px / 2),
            round(self.column_px + self.width_px / 2),
            round(self.row_px + self.height_px / 2),
        )


class JointDetector(Protocol):
    """Finds joints; also the place of a learned detector.

    A detector is built once in each worker and used for many films. It abstains (returns fewer
    joints, or none) rather than guess, returns at most one joint for each side of the film, and
    gives the same answer for the same pixels. One that needs a framework imports it inside
    ``__init__``; this module must stay cheap to import.
    """

    name: str
    """What the table of knees says in its column ``detector``."""
    min_score: float
    """Below it the detector abstains."""

    def detect(self, pixels: Pixels, spacing: PixelSpacing | None) -> list[JointDetection]:
        """Joints from the film's left to its right.

        Args:
            pixels: Display grey, (rows, columns), bone bright.
            spacing: Millimetres of the film; without them the size of the knee is searched for.
        """
        ...


_MIDDLE = (0.4, 0.6)

_LEAST_GAP, _LARGEST_STEP, _LARGEST_RATIO = 1.15, 0.95, 1.5
"""Two knees of one person: apart, of similar height on the film, and of similar size; the first two
in plateau widths."""


def choose_joints(candidates: list[Candidate], *, film_columns: int) -> list[JointDetection]:
    """At most one joint a side: the best candidate, and the best one that can be its partner.

    Args:
        candidates: All places that scored as a joint, in any order.
        film_columns: Width of the film in pixels.

    Returns:
        From the film's left to its right.
    """
    ordered = sorted(candidates, key=lambda each: (-each.score, each.column_px, each.row_px))
    if not ordered:
        return []
    first, *others = ordered
    partner = next((other for other in others if _are_partners(first, other)), None)
    chosen = sorted(filter(None, (first, partner)), key=lambda each: each.column_px)
    sides = film_sides([each.column_px / film_columns for each in chosen])
    left_over = [each.column_px for each in others if each is not partner]
    rivals = count_rivals([joint.column_px for joint in chosen], left_over)
    return [
        JointDetection(joint.box, side, round(joint.score, 4), count)
        for joint, side, count in zip(chosen, sides, rivals, strict=True)
    ]


def count_rivals(joints: list[float], others: list[float]) -> list[int]:
    """How many other places each joint has on its side: those that are nearest to it.

    Args:
        joints: Columns of the joints that were taken, at least one where there are others.
        others: Columns of the places that were not.

    Example:
        >>> count_rivals([80.0, 250.0], [90.0, 240.0, 300.0])
        [1, 2]
    """
    rivals = [0] * len(joints)
    for other in others:
        distances = [abs(other - joint) for joint in joints]
        rivals[distances.index(min(distances))] += 1
    return rivals


def _are_partners(joint: Candidate, other: Candidate) -> bool:
    width = (joint.width_px + other.width_px) / 2
    height = (joint.height_px + other.height_px) / 2
    ratio = joint.width_px / other.width_px
    return (
        abs(joint.column_px - other.column_px) >= _LEAST_GAP * width
        and abs(joint.row_px - other.row_px) <= _LARGEST_STEP * height
        and 1 / _LARGEST_RATIO <= ratio <= _LARGEST_RATIO
    )


def film_sides(positions: list[float]) -> list[FilmSide | None]:
    """Side of the film for one or two joints.

    Args:
        positions: Fractions of the film's width, in rising order.
    """
    if len(positions) == 2:
        return [FilmSide.LEFT, FilmSide.RIGHT]
    return [_half(position) for position in positions]


def _half(position: float) -> FilmSide | None:
    low, high = _MIDDLE
    if low <= position <= high:
        return None
    return FilmSide.LEFT if position < low else FilmSide.RIGHT
