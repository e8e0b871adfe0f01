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


def laterality_on(film_side: FilmSide, row_direction: str | None) -> Laterality:
    """The knee that stands on a side of the film.

    A film is hung as if the patient faced the viewer, the right knee on image-left, unless
    Patient Orientation (0020,0020) says that its right edge points to the patient's right.

    Example:
        >>> laterality_on(FilmSide.LEFT, None), laterality_on(FilmSide.LEFT, "R")
        (<Laterality.RIGHT: 'R'>, <Laterality.LEFT: 'L'>)
    """
    is_mirrored = (row_direction or "").upper().startswith("R")
    is_left_of_film = film_side is FilmSide.LEFT
    return Laterality.LEFT if is_left_of_film == is_mirrored else Laterality.RIGHT


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
    stated = film.stated_sides
    if len(joints) == 2:
        conflict = len(stated) == 1 or path_side is not None
        flags = (QCFlag.LATERALITY_CONFLICT,) if conflict else ()
        sides = [laterality_on(side, film.row_direction) for side in FilmSide]
        return [SidedJoint(*pair, flags) for pair in zip(joints, sides, strict=True)]
    return [_single(joint, film, path_side) for joint in joints]


def _single(joint: JointDetection, film: Radiograph, path_side: Laterality | None) -> SidedJoint:
    rows, columns = film.pixels.shape
    is_bilateral_film = len(film.stated_sides) == 2
    header_side = next(iter(film.stated_sides)) if len(film.stated_sides) == 1 else None
    position_side = None
    if joint.film_side and (is_bilateral_film or columns > _BILATERAL_ASPECT * rows):
        position_side = laterality_on(joint.film_side, film.row_direction)
    flags = [QCFlag.ONE_JOINT] if is_bilateral_film else []
    claims = [side for side in (header_side, path_side, position_side) if side is not None]
    if not claims:
        return SidedJoint(joint, None, (*flags, QCFlag.LATERALITY_UNKNOWN))
    if len(set(claims)) > 1:
        flags.append(QCFlag.LATERALITY_CONFLICT)
    if header_side is None and path_side is None:
        flags.append(QCFlag.LATERALITY_FROM_POSITION)
    return SidedJoint(joint, claims[0], tuple(flags))
