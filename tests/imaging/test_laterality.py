"""Left and right: every source, every conflict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from kneeoa_mm.imaging.detector import FilmSide, JointDetection
from kneeoa_mm.imaging.laterality import assign_sides
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Radiograph
from kneeoa_mm.records import Box, Laterality, PixelSpacing

LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT
CONFLICT = QCFlag.LATERALITY_CONFLICT
UNKNOWN, BY_POSITION = QCFlag.LATERALITY_UNKNOWN, QCFlag.LATERALITY_FROM_POSITION
ONE, TURNED = QCFlag.ONE_JOINT, QCFlag.ORIENTATION_DOUBTFUL


def _joint(side: FilmSide | None, rivals: int = 0) -> JointDetection:
    return JointDetection(Box(0, 0, 10, 10), side, 1.0, rivals)


def _film(
    stated: str = "",
    across: str | None = None,
    *,
    wide: bool = True,
    down: str | None = None,
    mirrored: bool | None = None,
) -> Radiograph:
    pixels = np.zeros((100, 130 if wide else 80), dtype=np.float32)
    return Radiograph(
        pixels,
        stated_sides=frozenset(Laterality(side) for side in stated),
        row_direction=across,
        column_direction=down,
        was_mirrored=mirrored,
    )


BOTH = [_joint(side) for side in FilmSide]


@pytest.mark.parametrize(
    ("film", "path_side", "sides", "flags"),
    [
        (_film(""), None, [RIGHT, LEFT], ()),
        (_film("LR", "L"), None, [RIGHT, LEFT], ()),
        (_film("LR", "R"), None, [LEFT, RIGHT], ()),
        (_film("LR", "r"), None, [LEFT, RIGHT], ()),
        (_film("R"), None, [RIGHT, LEFT], (CONFLICT,)),
        (_film("LR"), LEFT, [RIGHT, LEFT], (CONFLICT,)),
        (_film("L"), LEFT, [RIGHT, LEFT], (CONFLICT,)),
        # the right edge points to the front or the feet: the side of the film tells nothing
        (_film("LR", "A"), None, [None, None], (TURNED, UNKNOWN)),
        (_film("LR", "F"), None, [None, None], (TURNED, UNKNOWN)),
        # upside down, turned by 180 degrees: the sides are as the header says
        (_film("LR", "R", down="H"), None, [LEFT, RIGHT], (TURNED,)),
        (_film("LR", "L", down="F"), None, [RIGHT, LEFT], ()),
        # a flip that Patient Orientation accounts for, and one that nothing does
        (_film("LR", "R", mirrored=True), None, [LEFT, RIGHT], ()),
        (_film("LR", mirrored=True), None, [RIGHT, LEFT], (TURNED,)),
        (_film("LR", mirrored=False), None, [RIGHT, LEFT], ()),
        (_film("", wide=False), None, [RIGHT, LEFT], ()),
    ],
)
def test_two_joints_are_told_apart_by_where_they_stand(
    film: Radiograph,
    path_side: Laterality | None,
    sides: list[Laterality | None],
    flags: tuple[QCFlag, ...],
) -> None:
    found = assign_sides(BOTH, film, path_side)
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
        (_film("R"), FilmSide.LEFT, None, RIGHT, ()),
        (_film(""), FilmSide.RIGHT, RIGHT, RIGHT, (CONFLICT,)),
        (_film("", wide=False), FilmSide.LEFT, None, None, (UNKNOWN,)),
        # the shape alone says that there should be two
        (_film(""), None, None, None, (ONE, UNKNOWN)),
        (_film(""), FilmSide.LEFT, None, RIGHT, (ONE, BY_POSITION)),
        (_film("", "R"), FilmSide.LEFT, None, LEFT, (ONE, BY_POSITION)),
        (_film("", "P"), FilmSide.LEFT, None, None, (TURNED, ONE, UNKNOWN)),
        (_film("", mirrored=True), FilmSide.LEFT, None, RIGHT, (TURNED, ONE, BY_POSITION)),
        # a film of both knees of which one was replaced, cropped away or not found
        (_film("LR", wide=False), FilmSide.RIGHT, None, LEFT, (ONE, BY_POSITION)),
        (_film("LR"), FilmSide.RIGHT, LEFT, LEFT, (ONE,)),
        (_film("LR"), FilmSide.RIGHT, RIGHT, RIGHT, (ONE, CONFLICT)),
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


@pytest.mark.parametrize(
    ("spacing", "flags"),
    [
        (PixelSpacing(0.2, 0.2), (ONE, BY_POSITION)),
        (PixelSpacing(0.2, 0.1), (UNKNOWN,)),
        (PixelSpacing(0.1, 0.2), (ONE, BY_POSITION)),
    ],
)
def test_how_wide_a_film_is_counts_in_millimetres(
    spacing: PixelSpacing, flags: tuple[QCFlag, ...]
) -> None:
    """Pixels that are half as wide as high make a film of one knee look like one of two."""
    (found,) = assign_sides([_joint(FilmSide.LEFT)], replace(_film(""), spacing=spacing))
    assert found.flags == flags


def _all_films() -> Iterator[tuple[Radiograph, FilmSide | None, Laterality | None]]:
    for stated, across, wide, side, path_side in product(
        ("", "L", "R", "LR"),
        (None, "L", "R"),
        (True, False),
        (None, FilmSide.LEFT, FilmSide.RIGHT),
        (None, LEFT, RIGHT),
    ):
        yield _film(stated, across, wide=wide), side, path_side


def test_a_side_that_any_source_contradicts_is_always_flagged() -> None:
    """Over all sources at once: what comes out unflagged contradicts nothing that was stated."""
    for film, film_side, path_side in _all_films():
        (found,) = assign_sides([_joint(film_side)], film, path_side)
        stated = next(iter(film.stated_sides)) if len(film.stated_sides) == 1 else None
        claims = {side for side in (stated, path_side) if side is not None}
        if CONFLICT not in found.flags:
            assert claims <= {found.laterality}
        assert (found.laterality is None) == (UNKNOWN in found.flags)


def test_further_places_that_look_like_a_joint_are_flagged_on_their_side_only() -> None:
    joints = [_joint(FilmSide.LEFT, rivals=1), _joint(FilmSide.RIGHT)]
    right, left = assign_sides(joints, _film("LR"))
    assert (right.flags, left.flags) == ((QCFlag.RIVAL_JOINTS,), ())
