"""What the picture of a knee tells: each phantom raises its flag, and its near-miss does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import phantoms
import pytest

from kneeoa_mm.imaging.closeup import close_up, lean_deg, picture_flags
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.records import Box

STEP_MM = 0.5
JOINT = Box(164, 204, 316, 356)
"""76 mm around the joint of the phantom, which stands at (120, 140) mm."""

Disturb = Callable[[np.ndarray], np.ndarray]


def _film(rotation_deg: float = 0.0) -> np.ndarray:
    film = phantoms.knee_film(
        phantoms.SINGLE,
        size_mm=(240, 280),
        spacing_mm=(STEP_MM, STEP_MM),
        rotation_deg=rotation_deg,
    )
    return film.astype(np.float32)


def _with_bar(grey: float, size_mm: tuple[float, float], place_mm: tuple[float, float]) -> Disturb:
    """A bar of (width, height) mm, its middle at (across, down) mm from the joint."""

    def disturb(film: np.ndarray) -> np.ndarray:
        (width, height), (across, down) = size_mm, place_mm
        rows, columns = np.mgrid[: film.shape[0], : film.shape[1]] * STEP_MM
        inside = (abs(columns - 120 - across) < width / 2) & (abs(rows - 140 - down) < height / 2)
        return np.where(inside, grey, film).astype(np.float32)

    return disturb


def _plain(film: np.ndarray) -> np.ndarray:
    return film


def _negative(film: np.ndarray) -> np.ndarray:
    return 1 - film


def _overexposed(film: np.ndarray) -> np.ndarray:
    return np.minimum(film * 1.6, 0.9)


METAL = 1.6
"""Grey of a screw, bone being at most about 0.9."""


@pytest.mark.parametrize(
    ("disturb", "flags"),
    [
        (_plain, []),
        (_negative, [QCFlag.NEGATIVE]),
        (_overexposed, []),
        (_with_bar(METAL, (40, 5), (0, 30)), [QCFlag.HARDWARE]),
        (_with_bar(METAL, (5, 30), (10, -35)), [QCFlag.HARDWARE]),
        (lambda film: 2 - _with_bar(METAL, (40, 5), (0, 30))(film), ["negative", "hardware"]),
        # in the joint itself, as thick as the part of a prosthesis
        (_with_bar(METAL, (60, 8), (0, -6)), [QCFlag.HARDWARE]),
        # no brighter than bone
        (_with_bar(0.8, (40, 5), (0, 30)), []),
        # as thin and bright as a subchondral plate, and in its place
        (_with_bar(1.2, (30, 2), (20, 4)), []),
        # a speck of a few pixels
        (_with_bar(METAL, (1, 1), (10, 30)), []),
        # beside the knee: a marker, which is no part of it
        (_with_bar(METAL, (8, 12), (75, 0)), []),
    ],
)
def test_pictures_raise_their_flag(disturb: Disturb, flags: list[str]) -> None:
    assert picture_flags(close_up(disturb(_film()), JOINT)) == flags


@pytest.mark.parametrize("rotation_deg", [-20, -14, -5, 0, 5, 14, 20])
def test_the_lean_of_the_leg_is_measured(rotation_deg: float) -> None:
    view = close_up(_film(rotation_deg), JOINT)
    assert abs(lean_deg(view)) == pytest.approx(abs(rotation_deg), abs=3.5)
    assert (QCFlag.ROTATED in picture_flags(view)) == (abs(rotation_deg) > 10)


def test_the_lean_changes_its_sign_in_the_mirror() -> None:
    view = close_up(_film(12), JOINT)
    assert lean_deg(view) == pytest.approx(-lean_deg(view[:, ::-1]), abs=1)


def test_the_resolution_and_the_greys_of_the_film_change_nothing() -> None:
    film = _with_bar(METAL, (40, 5), (0, 30))(_film(14))
    flags = picture_flags(close_up(film, JOINT))
    fine = np.repeat(np.repeat(film, 2, axis=0), 2, axis=1) * 4000 + 17
    assert picture_flags(close_up(fine, Box(*(2 * edge for edge in JOINT)))) == flags
    assert flags == [QCFlag.ROTATED, QCFlag.HARDWARE]


@pytest.mark.parametrize("joint", [Box(-60, -60, 92, 92), Box(400, 500, 552, 652)])
def test_a_joint_at_the_rim_of_the_film_is_judged_all_the_same(joint: Box) -> None:
    view = close_up(_film(), joint)
    assert view.shape == (224, 224)
    assert np.isfinite(lean_deg(view))
    picture_flags(view)
