"""Knees cut from films at joints that are given: millimetres, mirrors, and what is left alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import phantoms
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from kneeoa_mm.errors import ItemError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.detector import PLATEAU_MM, FilmSide, JointDetection
from kneeoa_mm.imaging.films import FilmKnees, Knee, cut_knees, process_film
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.laterality import assign_sides
from kneeoa_mm.imaging.profile import ProfileDetector
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Pixels, Radiograph
from kneeoa_mm.records import Box, Laterality, PixelSpacing
from kneeoa_mm.settings import PreprocessConfig

STEP_MM = 0.2
CONFIG = PreprocessConfig(crop_mm=60, pixel_spacing_mm=STEP_MM)
SPACINGS = st.floats(0.12, 0.5)


@dataclass
class _Told:
    """A detector that is told where the joints are."""

    joints: list[JointDetection]
    name: str = field(default="told", init=False)
    min_score: float = field(default=0.0, init=False)

    def detect(self, pixels: Pixels, spacing: PixelSpacing | None) -> list[JointDetection]:
        return self.joints


def _joint(place_mm: tuple[float, float], spacing: PixelSpacing, side: FilmSide | None = None):
    (column, row), half = place_mm, PLATEAU_MM / 2
    box = Box(
        round((column - half) / spacing.column_mm),
        round((row - half) / spacing.row_mm),
        round((column + half) / spacing.column_mm),
        round((row + half) / spacing.row_mm),
    )
    return JointDetection(box, side, 1.0)


def _gap_mm(image: np.ndarray, across_mm: float) -> float:
    """Height of the dark band in the middle of an image, beside its middle line."""
    middle = image.shape[0] // 2
    column = middle + round(across_mm / STEP_MM)
    profile = image[:, column - 3 : column + 4].mean(axis=1).astype(float)
    near = slice(middle - round(9 / STEP_MM), middle + round(9 / STEP_MM))
    dark, bone = profile[near].min(), profile[middle - round(9 / STEP_MM)]
    level = (dark + bone) / 2

    def crossing(step: int) -> float:
        row = middle
        while profile[row + step] < level:
            row += step
        return row + step * (level - profile[row]) / (profile[row + step] - profile[row])

    return (crossing(1) - crossing(-1)) * STEP_MM


@settings(max_examples=15)
@given(row_mm=SPACINGS, column_mm=SPACINGS, gap_mm=st.floats(2, 8))
@example(row_mm=0.12, column_mm=0.5, gap_mm=2.0)
@example(row_mm=0.5, column_mm=0.12, gap_mm=2.0)
def test_a_gap_in_millimetres_survives_resampling(
    row_mm: float, column_mm: float, gap_mm: float
) -> None:
    spacing = PixelSpacing(row_mm, column_mm)
    pixels = phantoms.knee_film(
        ((60.0, 60.0, Laterality.LEFT),), size_mm=(120, 120), spacing_mm=spacing, gap_mm=gap_mm
    )
    film = Radiograph(pixels.astype(np.float32), spacing, stated_sides=frozenset({Laterality.LEFT}))
    sided = assign_sides([_joint((60, 60), spacing)], film)
    (knee,) = cut_knees(film, sided, CONFIG)
    for across_mm in (-20, 20):
        assert _gap_mm(knee.image, across_mm) == pytest.approx(gap_mm, abs=0.2)


def _mirrored(film: Radiograph, joints: list[JointDetection]) -> tuple[Radiograph, list]:
    columns = film.pixels.shape[1]
    boxes = [
        Box(columns - j.box.right_px, j.box.top_px, columns - j.box.left_px, j.box.bottom_px)
        for j in reversed(joints)
    ]
    turned = Radiograph(
        film.pixels[:, ::-1],
        film.spacing,
        stated_sides=film.stated_sides,
        row_direction="R" if film.row_direction == "L" else "L",
    )
    sides = [j.film_side for j in joints]
    return turned, [JointDetection(box, side, 1.0) for box, side in zip(boxes, sides, strict=True)]


def _by_side(knees: list[Knee]) -> dict[Laterality | None, Knee]:
    return {knee.laterality: knee for knee in knees}


@settings(max_examples=12)
@given(
    columns_mm=st.tuples(st.floats(60, 120), st.floats(220, 280)),
    rows_mm=st.tuples(st.floats(60, 180), st.floats(60, 180)),
    spacing=st.builds(PixelSpacing, st.floats(0.4, 0.8), st.floats(0.4, 0.8)),
    across=st.sampled_from(["L", "R"]),
)
def test_splitting_commutes_with_mirroring(
    columns_mm: tuple[float, float],
    rows_mm: tuple[float, float],
    spacing: PixelSpacing,
    across: str,
) -> None:
    """A mirrored film whose Patient Orientation says so gives the same knees."""
    places = list(zip(columns_mm, rows_mm, strict=True))
    sides = (Laterality.RIGHT, Laterality.LEFT)
    drawn = [(*place, side) for place, side in zip(places, sides, strict=True)]
    film = Radiograph(
        phantoms.knee_film(drawn, size_mm=(340, 240), spacing_mm=spacing).astype(np.float32),
        spacing,
        stated_sides=frozenset(Laterality),
        row_direction=across,
    )
    joints = [_joint(place, spacing, side) for place, side in zip(places, FilmSide, strict=True)]
    turned, turned_joints = _mirrored(film, joints)
    config = CONFIG.model_copy(update={"pixel_spacing_mm": 0.6, "crop_mm": 140.0})
    knees = _by_side(cut_knees(film, assign_sides(joints, film), config))
    twins = _by_side(cut_knees(turned, assign_sides(turned_joints, turned), config))
    assert knees.keys() == twins.keys() == set(Laterality)
    for side, knee in knees.items():
        twin = twins[side]
        assert knee.is_flipped is not twin.is_flipped
        assert set(knee.flags) == set(twin.flags)
        np.testing.assert_allclose(knee.image.astype(int), twin.image, atol=60)


def test_detecting_commutes_with_mirroring() -> None:
    pixels = phantoms.knee_film(spacing_mm=(0.8, 0.8)).astype(np.float32)
    spacing, columns = PixelSpacing(0.8, 0.8), pixels.shape[1]
    found = ProfileDetector().detect(pixels, spacing)
    twins = ProfileDetector().detect(np.ascontiguousarray(pixels[:, ::-1]), spacing)
    for joint, twin in zip(found, reversed(twins), strict=True):
        column, row = joint.box.centre_px
        assert twin.box.centre_px == pytest.approx((columns - column, row), abs=2)


@pytest.mark.parametrize("crop_mm", [95.0, 140.0])
def test_the_field_of_view_is_stated_in_plateau_widths(crop_mm: float) -> None:
    """With millimetres it depends on the knee, without them on the crop alone."""
    config = CONFIG.model_copy(update={"crop_mm": crop_mm, "pixel_spacing_mm": 1.0})
    spacing = PixelSpacing(0.5, 0.5)
    pixels = phantoms.knee_film(phantoms.SINGLE, size_mm=(240, 280)).astype(np.float32)
    large = JointDetection(Box(150, 190, 330, 370), None, 1.0)
    for film, expected in (
        (Radiograph(pixels, spacing), crop_mm / 90),
        (Radiograph(pixels), crop_mm / PLATEAU_MM),
    ):
        (knee,) = cut_knees(film, assign_sides([large], film), config)
        assert knee.field_of_view_plateau_widths == pytest.approx(expected, rel=0.01)
        width = knee.box.width_px / large.box.width_px
        assert width == pytest.approx(expected, rel=0.02)


def _picture(path: Path, *, bits: int = 8, side_px: int = 224) -> np.ndarray:
    """A crop as public collections have it: 1.25 plateau widths, the joint below the middle."""
    step_mm = 95 / side_px
    film = phantoms.knee_film(
        ((47.5, 55.0, Laterality.RIGHT),), size_mm=(95, 95), spacing_mm=(step_mm, step_mm)
    )
    # neither black nor white is reached, so that a new window would show
    values = (0.2 + 0.5 * film) * (2**bits - 1)
    grey = np.rint(values).astype(np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(grey).save(path)
    return grey


def _process(path: Path, joints: list[JointDetection], **settings: object) -> FilmKnees:
    config = PreprocessConfig(**settings)
    naming = Naming(Identifiers(None))
    return process_film(path, path.name, config=config, naming=naming, detector=_Told(joints))


ONE_KNEE = JointDetection(Box(22, 40, 202, 220), None, 0.9)


@pytest.mark.parametrize(
    ("name", "bits", "factor", "is_flipped"),
    [
        ("9003175R.png", 8, 257, False),
        ("9003175L.png", 8, 257, True),
        ("9003175_2.png", 8, 257, True),
        ("9003175.png", 8, 257, False),
        ("9003175R.png", 16, 1, False),
    ],
)
def test_a_picture_of_one_knee_is_left_alone(
    tmp_path: Path, name: str, bits: int, factor: int, is_flipped: bool
) -> None:
    """Its size and its very greys stay; it is mirrored like every other left knee."""
    grey = _picture(tmp_path / name, bits=bits)
    film = _process(tmp_path / name, [ONE_KNEE])
    (knee,) = film.knees
    assert QCFlag.ALREADY_CROPPED in knee.flags
    assert QCFlag.BOX_CLIPPED not in knee.flags
    expected = grey.astype(np.uint16) * factor
    np.testing.assert_array_equal(knee.image, expected[:, ::-1] if is_flipped else expected)
    assert knee.is_flipped is is_flipped
    assert knee.box == Box(0, 0, 224, 224)
    assert knee.field_of_view_plateau_widths is None
    assert not film.is_incomplete


@pytest.mark.parametrize(
    ("joints", "settings"),
    [
        # the frame is 1.7 plateau widths wide: a film, if a narrow one
        ([JointDetection(Box(46, 64, 178, 196), None, 0.9)], {}),
        # two joints
        ([JointDetection(Box(0, 60, 100, 160), FilmSide.LEFT, 0.9)] * 2, {}),
        # one joint at the edge
        ([JointDetection(Box(-40, 40, 110, 190), FilmSide.LEFT, 0.9)], {}),
        # millimetres allow to cut what was asked for
        ([ONE_KNEE], {"film_pixel_spacing_mm": 0.42}),
    ],
)
def test_what_may_be_a_film_is_cut(
    tmp_path: Path, joints: list[JointDetection], settings: dict[str, float]
) -> None:
    _picture(tmp_path / "knee_R.png")
    for knee in _process(tmp_path / "knee_R.png", joints, **settings).knees:
        assert QCFlag.ALREADY_CROPPED not in knee.flags
        assert knee.image.shape == (700, 700)


def test_a_dicom_of_one_knee_is_left_alone_too(tmp_path: Path) -> None:
    grey = _picture(tmp_path / "knee.png")
    film = phantoms.dataset(grey, bits=8, ImagerPixelSpacing=None, ImageLaterality="L")
    path = phantoms.write(film, tmp_path / "knee.dcm")
    (knee,) = _process(path, [ONE_KNEE]).knees
    assert (knee.laterality, knee.image.shape) == (Laterality.LEFT, grey.shape)
    assert QCFlag.ALREADY_CROPPED in knee.flags


def test_text_burned_into_a_film_refuses_it_unless_the_user_insists(tmp_path: Path) -> None:
    path = phantoms.write_film(tmp_path / "film.dcm", BurnedInAnnotation="YES")
    spacing = PixelSpacing(0.5, 0.5)
    joints = [_joint((column, row), spacing) for column, row, _ in phantoms.BILATERAL]
    with pytest.raises(ItemError) as caught:
        _process(path, joints)
    assert caught.value.code == "E_BURNED_IN"
    allowed = _process(path, joints, allow_burned_in=True)
    assert all(QCFlag.BURNED_IN_TEXT in knee.flags for knee in allowed.knees)


@pytest.mark.parametrize("stated", ["NO", None])
def test_a_film_without_burned_in_text_passes(tmp_path: Path, stated: str | None) -> None:
    path = phantoms.write_film(tmp_path / "film.dcm", BurnedInAnnotation=stated)
    joints = [_joint((88, 140), PixelSpacing(0.5, 0.5), FilmSide.LEFT)]
    (knee,) = _process(path, joints).knees
    assert QCFlag.BURNED_IN_TEXT not in knee.flags


@pytest.mark.parametrize(
    ("elements", "is_doubtful"),
    [
        ({}, False),
        ({"FieldOfViewHorizontalFlip": "YES"}, False),
        ({"FieldOfViewHorizontalFlip": "YES", "PatientOrientation": None}, True),
        ({"FieldOfViewHorizontalFlip": "NO", "PatientOrientation": None}, False),
        ({"PatientOrientation": ["L", "H"]}, True),
        ({"PatientOrientation": ["F", "L"]}, True),
    ],
)
def test_the_header_tells_how_a_film_hangs(
    tmp_path: Path, elements: dict[str, object], is_doubtful: bool
) -> None:
    path = phantoms.write_film(tmp_path / "film.dcm", **elements)
    spacing = PixelSpacing(0.5, 0.5)
    joints = [
        _joint((column, row), spacing, side)
        for (column, row, _), side in zip(phantoms.BILATERAL, FilmSide, strict=True)
    ]
    for knee in _process(path, joints).knees:
        assert (QCFlag.ORIENTATION_DOUBTFUL in knee.flags) == is_doubtful
