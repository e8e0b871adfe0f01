"""QC flags: each fires on what it names and stays silent on a good knee."""

from __future__ import annotations

import numpy as np
import pytest

from kneeoa_mm.imaging.quality import QCFlag, image_flags, is_cut_off, place_flags
from kneeoa_mm.records import Box

GOOD = np.linspace(3000, 60000, 10_000).reshape(100, 100).astype(np.uint16)


def _with_white(share: float) -> np.ndarray:
    image = GOOD.copy()
    image.flat[: round(share * image.size)] = 65535
    return image


@pytest.mark.parametrize(
    ("image", "flags"),
    [
        (GOOD, []),
        (np.full_like(GOOD, 1234), [QCFlag.FLAT]),
        ((GOOD // 20 + 20000).astype(np.uint16), [QCFlag.LOW_CONTRAST]),
        (_with_white(0.04), []),
        (_with_white(0.08), [QCFlag.SATURATED]),
    ],
)
def test_greys_of_a_knee_image(image: np.ndarray, flags: list[QCFlag]) -> None:
    assert image_flags(image) == flags


@pytest.mark.parametrize(
    ("column", "row", "is_made_for_two", "is_flagged"),
    [
        (285, 500, True, False),
        (711, 500, True, False),
        # limits of the joints of 3,154 bilateral OAI films, 1st and 99th percentile
        (178, 351, True, False),
        (830, 716, True, False),
        (285, 150, True, True),
        (711, 900, True, True),
        # by the outer edge of the film, and by its middle line
        (60, 500, True, True),
        (460, 500, True, True),
        (540, 500, True, True),
        # in the middle of a film of one knee, and far from it
        (500, 500, False, False),
        (285, 500, False, False),
        (120, 500, False, True),
    ],
)
def test_joints_far_from_the_middle_of_their_part_of_the_film_are_off_centre(
    column: int, row: int, is_made_for_two: bool, is_flagged: bool
) -> None:
    joint = Box(column - 50, row - 50, column + 50, row + 50)
    found = place_flags(joint, (1000, 1000), is_made_for_two=is_made_for_two)
    assert found == ([QCFlag.OFF_CENTRE] if is_flagged else [])


def _exposed(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A film of 400 x 400 that is black outside the exposed field."""
    film = np.full((400, 400), 0.0, dtype=np.float32)
    film[top:bottom, left:right] = 0.5
    return film


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize(
    ("field", "joint", "is_flagged"),
    [
        ((0, 0, 400, 400), Box(150, 150, 250, 250), False),
        # the shutter stands beside the joint, at its edge, and well inside it
        ((140, 0, 400, 400), Box(150, 150, 250, 250), False),
        ((158, 0, 400, 400), Box(150, 150, 250, 250), False),
        ((170, 0, 400, 400), Box(150, 150, 250, 250), True),
        # the joint's box ends with the film, and reaches well beyond it
        ((0, 0, 400, 400), Box(-1, 150, 99, 250), False),
        ((0, 0, 400, 400), Box(-10, 150, 90, 250), True),
    ],
)
def test_what_cuts_through_a_joint_is_noticed_on_every_side(
    field: tuple[int, int, int, int], joint: Box, is_flagged: bool, turn: int
) -> None:
    film = np.rot90(_exposed(*field), turn)
    for _ in range(turn):
        joint = Box(joint.top_px, 400 - joint.right_px, joint.bottom_px, 400 - joint.left_px)
    assert is_cut_off(film, joint, (0.0, 1.0)) == is_flagged


def test_dark_flesh_beside_a_narrow_bone_is_no_shutter() -> None:
    """Noise keeps flesh above the film's black."""
    film = np.random.default_rng(0).normal(0.06, 0.01, (400, 400)).astype(np.float32)
    film[:, 175:225] = 0.6
    assert not is_cut_off(film, Box(150, 150, 250, 250), (0.0, 1.0))
