"""Which knee is which: header, path and side of the film, with every conflict flagged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kneeoa_mm.imaging.detector import FilmSide, JointDetection
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import Laterality

_BILATERAL_ASPECT = 1.1
"""A film of two knees is wider than high; a film of one is not."""


@dataclass(frozen=True)
class SidedJoint:
    """A joint, whose knee it is, and the doubts about that."""

    joint: JointDetection
    laterality: Laterality | None
    flags: tuple[QCFlag, ...] = ()


def is_mirrored(film: Radiograph) -> bool:
    """Whether the film hangs the other way: its right edge points to the patient's right."""
    return (film.row_direction or "").upper().startswith("R")


def is_made_for_two(film: Radiograph) -> bool:
    """Whether a film is meant to show both knees, by its header or else by its shape."""
    return len(film.stated_sides) == 2 or (not film.stated_sides and _is_wide(film))


def _is_wide(film: Radiograph) -> bool:
    rows, columns = film.pixels.shape
    row_mm, column_mm = film.spacing or (1.0, 1.0)
    return bool(columns * column_mm > _BILATERAL_ASPECT * rows * row_mm)


def laterality_on(film_side: FilmSide, film: Radiograph) -> Laterality | None:
    """The knee that stands on a side of the film.

    A film is hung as if the patient faced the viewer, the right knee on image-left, unless
    Patient Orientation (0020,0020) says that its right edge points to the patient's right. Where
    it says that the right edge points to neither side, the side of the film tells nothing.

    Example:
        >>> import numpy as np
        >>> pixels = np.zeros((2, 3), dtype=np.float32)
        >>> laterality_on(FilmSide.LEFT, Radiograph(pixels))
        <Laterality.RIGHT: 'R'>
        >>> laterality_on(FilmSide.LEFT, Radiograph(pixels, row_direction="R"))
        <Laterality.LEFT: 'L'>
    """
    if film.row_direction and film.row_direction[:1].upper() not in {"L", "R"}:
        return None
    is_left_of_film = film_side is FilmSide.LEFT
    return Laterality.LEFT if is_left_of_film == is_mirrored(film) else Laterality.RIGHT


def assign_sides(
    joints: Sequence[JointDetection], film: Radiograph, path_side: Laterality | None = None
) -> list[SidedJoint]:
    """Tell left from right.

    Two joints are told apart by where they stand; a header or path that names one side only is
    then a conflict. A single joint is what the header says, else the path, else the side of the
    film it stands on where the film is made for two knees; any disagreement is flagged.

    Args:
        joints: From the film's left to its right, at most two.
        film: The film they are on.
        path_side: Side named by the file's path.
    """
    doubts = (*_orientation_doubts(film), *_missing_joint(film, len(joints), path_side))
    if len(joints) == 2:
        sides = [laterality_on(side, film) for side in FilmSide]
        if None in sides:
            doubts = (*doubts, QCFlag.LATERALITY_UNKNOWN)
        if len(film.stated_sides) == 1 or path_side is not None:
            doubts = (*doubts, QCFlag.LATERALITY_CONFLICT)
        return [
            SidedJoint(joint, side, (*doubts, *_rivals(joint)))
            for joint, side in zip(joints, sides, strict=True)
        ]
    return [_single(joint, film, path_side, doubts) for joint in joints]


def _single(
    joint: JointDetection,
    film: Radiograph,
    path_side: Laterality | None,
    doubts: tuple[QCFlag, ...],
) -> SidedJoint:
    header_side = next(iter(film.stated_sides)) if len(film.stated_sides) == 1 else None
    position_side = None
    if joint.film_side and (len(film.stated_sides) == 2 or _is_wide(film)):
        position_side = laterality_on(joint.film_side, film)
    claims = [side for side in (header_side, path_side, position_side) if side is not None]
    flags = [*doubts, *_rivals(joint)]
    if not claims:
        return SidedJoint(joint, None, (*flags, QCFlag.LATERALITY_UNKNOWN))
    if len(set(claims)) > 1:
        flags.append(QCFlag.LATERALITY_CONFLICT)
    if header_side is None and path_side is None:
        flags.append(QCFlag.LATERALITY_FROM_POSITION)
    return SidedJoint(joint, claims[0], tuple(flags))


def _missing_joint(film: Radiograph, joints: int, path_side: Laterality | None) -> list[QCFlag]:
    # a path that names one side outweighs the film's shape, not its header
    promises_two = len(film.stated_sides) == 2 or (path_side is None and is_made_for_two(film))
    return [QCFlag.ONE_JOINT] if joints == 1 and promises_two else []


def _rivals(joint: JointDetection) -> list[QCFlag]:
    return [QCFlag.RIVAL_JOINTS] if joint.rivals else []


def _orientation_doubts(film: Radiograph) -> list[QCFlag]:
    """A film that hangs neither as usual nor plainly mirrored.

    Patient Orientation describes the image as stored, so a flip that the header reports is
    accounted for in it; where it is absent, nobody knows which way round the flip has left it.
    """
    across, down = (
        (each or "")[:1].upper() for each in (film.row_direction, film.column_direction)
    )
    is_turned = across not in {"", "L", "R"} or down not in {"", "F"}
    is_unaccounted_flip = film.was_mirrored is True and film.row_direction is None
    return [QCFlag.ORIENTATION_DOUBTFUL] if is_turned or is_unaccounted_flip else []
