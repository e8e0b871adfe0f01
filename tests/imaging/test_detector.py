"""The profile detector: phantoms whose joints stand at known millimetres."""

from __future__ import annotations

import numpy as np
import phantoms
import pytest
from scipy.ndimage import gaussian_filter

from kneeoa_mm.imaging.detector import PLATEAU_MM, FilmSide, JointDetection
from kneeoa_mm.imaging.profile import ProfileDetector
from kneeoa_mm.records import Laterality, PixelSpacing

DETECTOR = ProfileDetector()
SPACING = PixelSpacing(0.8, 0.8)
TOLERANCE_MM = 3.0


def _detect(film: np.ndarray, spacing: PixelSpacing | None = SPACING) -> list[JointDetection]:
    return DETECTOR.detect(film.astype(np.float32), spacing)


def _assert_found(found: list[JointDetection], joints: object, spacing: PixelSpacing) -> None:
    places = [
        (x * spacing.column_mm, y * spacing.row_mm) for x, y in (f.box.centre_px for f in found)
    ]
    expected = [joint[:2] for joint in joints]  # type: ignore[attr-defined]
    np.testing.assert_allclose(places, expected, atol=TOLERANCE_MM)


@pytest.mark.parametrize("rotation_deg", [-9, 0, 6])
@pytest.mark.parametrize("noise", [0.005, 0.05])
def test_both_joints_of_a_film_are_found(rotation_deg: float, noise: float) -> None:
    film = phantoms.knee_film(spacing_mm=SPACING, rotation_deg=rotation_deg, noise=noise)
    found = _detect(film)
    _assert_found(found, phantoms.BILATERAL, SPACING)
    assert [joint.film_side for joint in found] == [FilmSide.LEFT, FilmSide.RIGHT]


@pytest.mark.parametrize("gap_mm", [1.0, 3.0, 8.0])
def test_narrow_and_wide_joints_are_found(gap_mm: float) -> None:
    film = phantoms.knee_film(spacing_mm=SPACING, gap_mm=gap_mm)
    _assert_found(_detect(film), phantoms.BILATERAL, SPACING)


def test_rows_and_columns_have_their_own_millimetres() -> None:
    spacing = PixelSpacing(0.5, 1.0)
    found = _detect(phantoms.knee_film(spacing_mm=spacing), spacing)
    _assert_found(found, phantoms.BILATERAL, spacing)
    assert found[0].box.height_px == pytest.approx(2 * found[0].box.width_px, abs=2)


@pytest.mark.parametrize("widths", [1.1, 1.25, 1.7])
def test_a_close_crop_without_millimetres_is_measured(widths: float) -> None:
    """How many plateaus wide a picture is decides whether it is taken for a ready crop."""
    side_mm = widths * PLATEAU_MM
    crop = ((side_mm / 2, 0.55 * side_mm, Laterality.RIGHT),)
    film = phantoms.knee_film(crop, size_mm=(side_mm, side_mm), spacing_mm=(0.4, 0.4))
    (found,) = _detect(film, None)
    assert film.shape[1] / found.box.width_px == pytest.approx(widths, rel=0.1)


def test_a_further_joint_of_a_side_is_its_rival() -> None:
    """As where a film holds two exposures; one of a single exposure has none."""
    for joints, rivals in (
        (phantoms.BILATERAL, [0, 0]),
        ((*phantoms.BILATERAL, (88.0, 540.0, Laterality.RIGHT)), [1, 0]),
    ):
        film = phantoms.knee_film(joints, size_mm=(340, 700), spacing_mm=SPACING)
        found = _detect(film)
        _assert_found(found, phantoms.BILATERAL, SPACING)
        assert [joint.rivals for joint in found] == rivals


def test_a_single_knee_is_one_detection_not_two() -> None:
    film = phantoms.knee_film(phantoms.SINGLE, size_mm=(240, 280), spacing_mm=SPACING)
    (found,) = _detect(film)
    _assert_found([found], phantoms.SINGLE, SPACING)
    assert found.film_side is None


@pytest.mark.parametrize(("column_mm", "side"), [(90.0, FilmSide.LEFT), (250.0, FilmSide.RIGHT)])
def test_a_lone_knee_on_a_wide_film_stands_on_a_side(column_mm: float, side: FilmSide) -> None:
    (found,) = _detect(
        phantoms.knee_film(((column_mm, 140.0, Laterality.RIGHT),), spacing_mm=SPACING)
    )
    assert found.film_side is side


@pytest.mark.parametrize(
    ("joints", "size_mm"), [(phantoms.BILATERAL, (340, 280)), (phantoms.SINGLE, (240, 280))]
)
def test_films_without_millimetres_give_the_same_places_and_about_the_same_box(
    joints: object, size_mm: tuple[float, float]
) -> None:
    film = phantoms.knee_film(joints, size_mm=size_mm, spacing_mm=SPACING)  # type: ignore[arg-type]
    known, unknown = _detect(film), _detect(film, None)
    _assert_found(unknown, joints, SPACING)
    for with_mm, without in zip(known, unknown, strict=True):
        assert without.box.width_px == pytest.approx(with_mm.box.width_px, rel=0.15)


def test_exposure_and_contrast_do_not_move_the_joints() -> None:
    film = phantoms.knee_film(spacing_mm=SPACING)
    plain = _detect(film)
    for other in (film * 4000 + 90, np.sqrt(film), film**2):
        moved = [
            np.hypot(*np.subtract(a.box.centre_px, b.box.centre_px)) * 0.8
            for a, b in zip(plain, _detect(other), strict=True)
        ]
        assert max(moved) < 2


def test_a_mirrored_film_gives_the_mirrored_joints() -> None:
    film = phantoms.knee_film(spacing_mm=SPACING)
    plain, mirrored = _detect(film), _detect(film[:, ::-1])
    for here, there in zip(plain, mirrored[::-1], strict=True):
        assert film.shape[1] - there.box.centre_px[0] == pytest.approx(here.box.centre_px[0], abs=2)


def _noise(grain_px: float) -> np.ndarray:
    white = np.random.default_rng(7).normal(0, 1, (350, 425))
    return gaussian_filter(white, grain_px) if grain_px else white


ROWS, COLUMNS = np.mgrid[:350, :425].astype(float)


@pytest.mark.parametrize(
    "film",
    [
        pytest.param(np.zeros((350, 425)), id="blank"),
        pytest.param(_noise(0), id="white noise"),
        pytest.param(_noise(2), id="fine grain"),
        pytest.param(_noise(8), id="coarse grain"),
        pytest.param(COLUMNS, id="gradient across"),
        pytest.param(ROWS + COLUMNS, id="oblique gradient"),
        pytest.param((COLUMNS > 200).astype(float), id="vertical edge"),
        pytest.param((ROWS > 170).astype(float), id="horizontal edge"),
        pytest.param(np.exp(-(((COLUMNS - 200) / 30) ** 2)), id="shaft"),
        pytest.param(np.ones((4, 300)), id="sliver"),
    ],
)
def test_a_film_without_a_knee_makes_the_detector_abstain(film: np.ndarray) -> None:
    assert _detect(film) == []


def test_below_the_stated_confidence_the_detector_abstains() -> None:
    film = phantoms.knee_film(spacing_mm=SPACING, noise=0.35).astype(np.float32)
    scores = [joint.score for joint in ProfileDetector(0.0).detect(film, SPACING)]
    assert scores
    assert max(scores) < 1
    assert ProfileDetector(max(scores) + 0.001).detect(film, SPACING) == []


def test_a_strip_without_millimetres_is_no_film() -> None:
    """Guessing a width for it would make it hundreds of metres long."""
    strip = np.random.default_rng(0).random((200_000, 40))
    assert _detect(strip, None) == []


def test_the_same_pixels_give_the_same_answer() -> None:
    film = phantoms.knee_film(spacing_mm=SPACING)
    assert _detect(film) == _detect(film.copy())
