"""Left and right: every source, every conflict."""

from __future__ import annotations

import numpy as np
import pytest

from kneeoa_mm.imaging.detector import FilmSide, JointDetection
from kneeoa_mm.imaging.laterality import assign_sides
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import Box, Laterality

LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT
CONFLICT = QCFlag.LATERALITY_CONFLICT
UNKNOWN, BY_POSITION = QCFlag.LATERALITY_UNKNOWN, QCFlag.LATERALITY_FROM_POSITION
ONE = QCFlag.ONE_JOINT


def _joint(side: FilmSide | None) -> JointDetection:
    return JointDetection(Box(0, 0, 10, 10), side, 1.0)


def _film(stated: str = "", orientation: str | None = None, *, wide: bool = True) -> Radiograph:
    pixels = np.zeros((100, 130 if wide else 80), dtype=np.float32)
    sides = frozenset(Laterality(side) for side in stated)
    return Radiograph(pixels, stated_sides=sides, row_direction=orientation)


@pytest.mark.parametrize(
    ("stated", "orientation", "path_side", "sides", "flags"),
    [
        ("", None, None, [RIGHT, LEFT], ()),
        ("LR", "L", None, [RIGHT, LEFT], ()),
        ("LR", "R", None, [LEFT, RIGHT], ()),
        ("R", None, None, [RIGHT, LEFT], (CONFLICT,)),
        ("LR", None, LEFT, [RIGHT, LEFT], (CONFLICT,)),
    ],
)
def test_two_joints_are_told_apart_by_where_they_stand(
    stated: str,
    orientation: str | None,
    path_side: Laterality | None,
    sides: list[Laterality],
    flags: tuple[QCFlag, ...],
) -> None:
    joints = [_joint(side) for side in FilmSide]
    found = assign_sides(joints, _film(stated, orientation), path_side)
    assert [sided.laterality for sided in found] == sides
    assert {sided.flags for sided in found} == {flags}


@pytest.mark.parametrize(
    ("film", "film_side", "path_side", "laterality", "flags"),
    [
        (_film("R", wide=False), None, None, RIGHT, ()),
        (_film("R", wide=False), FilmSide.RIGHT, None, RIGHT, ()),
        (_film("", wide=False), None, LEFT, LEFT, ()),
        (_film("R", wide=False), None, LEFT, RIGHT, (CONFLICT,)),
        (_film("R"), FilmSide.RIGHT, None, RIGHT, (CONFLICT,)),
        (_film("", wide=False), FilmSide.LEFT, None, None, (UNKNOWN,)),
        (_film(""), None, None, None, (UNKNOWN,)),
        (_film(""), FilmSide.LEFT, None, RIGHT, (BY_POSITION,)),
        (_film("", "R"), FilmSide.LEFT, None, LEFT, (BY_POSITION,)),
        (_film("LR", wide=False), FilmSide.RIGHT, None, LEFT, (ONE, BY_POSITION)),
        (_film("LR"), None, None, None, (ONE, UNKNOWN)),
    ],
)
def test_a_single_joint_is_named_by_header_then_path_then_position(
    film: Radiograph,
    film_side: FilmSide | None,
    path_side: Laterality | None,
    laterality: Laterality | None,
    flags: tuple[QCFlag, ...],
) -> None:
    (found,) = assign_sides([_joint(film_side)], film, path_side)
    assert (found.laterality, found.flags) == (laterality, flags)
