"""One film to its knees, through DICOM files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import phantoms
import pytest
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.errors import ItemError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.detectors import make_detector
from kneeoa_mm.imaging.films import FilmKnees, Knee, process_film
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.records import Laterality, SpacingSource
from kneeoa_mm.settings import PreprocessConfig

CONFIG = PreprocessConfig(crop_mm=140, pixel_spacing_mm=0.7)
SIDE_PX = 200
NAMING = Naming(Identifiers(None))


def _process(path: Path, config: PreprocessConfig = CONFIG) -> FilmKnees:
    return process_film(
        path, path.name, config=config, naming=NAMING, detector=make_detector(config)
    )


def _knees(path: Path, **kwargs: Any) -> tuple[Knee, ...]:
    return _process(phantoms.write_film(path, **kwargs)).knees


def _lateral_minus_medial(image: np.ndarray) -> float:
    """Grey beside the tibia on image-left minus image-right: the fibula brightens one of them."""
    middle, fibula = SIDE_PX // 2, round(44 / 0.7)
    rows = slice(middle + round(35 / 0.7), middle + round(60 / 0.7))
    left, right = (
        image[rows, middle + sign * fibula - 3 : middle + sign * fibula + 3].mean()
        for sign in (-1, 1)
    )
    return float(left - right)


def test_both_knees_look_like_a_right_one(tmp_path: Path) -> None:
    right, left = _knees(tmp_path / "film.dcm")
    assert (right.laterality, left.laterality) == (Laterality.RIGHT, Laterality.LEFT)
    assert (right.is_flipped, left.is_flipped) == (False, True)
    assert _lateral_minus_medial(right.image) > 2000
    assert _lateral_minus_medial(left.image) > 2000
    assert right.image.shape == (SIDE_PX, SIDE_PX)
    assert right.image.dtype == np.uint16


def test_a_film_hung_the_other_way_gives_the_same_knees(tmp_path: Path) -> None:
    """Mirrored pixels with Patient Orientation R: sides swap places, knees do not change."""
    film = phantoms.knee_film()
    plain = _knees(tmp_path / "plain.dcm", film=film)
    mirrored = _knees(tmp_path / "mirrored.dcm", film=film[:, ::-1], PatientOrientation=["R", "F"])
    for knee, twin in zip(plain, reversed(mirrored), strict=True):
        assert knee.laterality is twin.laterality
        assert knee.is_flipped is not twin.is_flipped
        difference = knee.image[5:-5, 5:-5].astype(int) - twin.image[5:-5, 5:-5]
        assert np.abs(difference).mean() < 600


def test_the_box_is_the_crop_on_the_film_in_its_own_pixels(tmp_path: Path) -> None:
    knees = _knees(tmp_path / "film.dcm")
    for knee, (column_mm, row_mm, _) in zip(knees, phantoms.BILATERAL, strict=True):
        assert knee.box.width_px == pytest.approx(280, abs=1)
        assert knee.box.height_px == pytest.approx(280, abs=1)
        assert knee.box.centre_px == pytest.approx((column_mm / 0.5, row_mm / 0.5), abs=6)


def test_every_lossless_encoding_gives_identical_knees(tmp_path: Path) -> None:
    film = phantoms.stored(phantoms.knee_film(spacing_mm=(1, 1)))
    spacing = {"ImagerPixelSpacing": [1.0, 1.0]}

    def images(path: Path, **kwargs: Any) -> list[np.ndarray]:
        phantoms.write(phantoms.dataset(film, **spacing), path, **kwargs)
        return [knee.image for knee in _process(path).knees]

    plain = images(tmp_path / "plain.dcm")
    inverted = phantoms.dataset(4095 - film, PhotometricInterpretation="MONOCHROME1", **spacing)
    others = {
        "big-endian": images(tmp_path / "big.dcm", syntax=ExplicitVRBigEndian),
        "RLE": images(tmp_path / "rle.dcm", syntax=RLELossless),
        "MONOCHROME1": [
            knee.image
            for knee in _process(phantoms.write(inverted, tmp_path / "inverted.dcm")).knees
        ],
    }
    if find_spec("openjpeg"):
        others["JPEG 2000"] = images(tmp_path / "j2k.dcm", syntax=JPEG2000Lossless)
    for name, knees in others.items():
        for knee, twin in zip(plain, knees, strict=True):
            assert np.array_equal(knee, twin), name


def test_a_film_without_millimetres_is_cut_by_the_joint_and_says_so(tmp_path: Path) -> None:
    known = _process(phantoms.write_film(tmp_path / "mm.dcm"))
    film = _process(phantoms.write_film(tmp_path / "none.dcm", ImagerPixelSpacing=None))
    assert (film.spacing, film.spacing_source) == (None, SpacingSource.NONE)
    for knee, twin in zip(film.knees, known.knees, strict=True):
        assert QCFlag.SPACING_NONE in knee.flags
        assert knee.image.shape == (SIDE_PX, SIDE_PX)
        assert knee.box.width_px == pytest.approx(twin.box.width_px, rel=0.15)


def test_spacing_decides_the_field_of_view(tmp_path: Path) -> None:
    """The same pixels, said to be half as large, show twice as many of them."""
    film = phantoms.knee_film(spacing_mm=(0.5, 0.5))
    config = CONFIG.model_copy(update={"crop_mm": 70.0})
    wide = _process(phantoms.write_film(tmp_path / "a.dcm", film=film), CONFIG)
    narrow = _process(phantoms.write_film(tmp_path / "b.dcm", film=film), config)
    assert wide.knees[0].box.width_px == 2 * narrow.knees[0].box.width_px
    assert narrow.knees[0].image.shape == (100, 100)


def test_a_single_knee_film_gives_the_knee_that_its_header_names(tmp_path: Path) -> None:
    film = phantoms.knee_film(phantoms.SINGLE, size_mm=(240, 280))
    (knee,) = _knees(tmp_path / "film.dcm", film=film[:, ::-1], ImageLaterality="L")
    assert (knee.laterality, knee.is_flipped, knee.flags) == (Laterality.LEFT, True, ())
    assert _lateral_minus_medial(knee.image) > 2000


def test_a_missing_second_knee_is_flagged_and_makes_the_film_incomplete(tmp_path: Path) -> None:
    path = phantoms.write_film(
        tmp_path / "film.dcm", film=phantoms.knee_film(phantoms.BILATERAL[:1])
    )
    film = _process(path)
    assert film.is_incomplete
    assert film.knees[0].flags == (QCFlag.ONE_JOINT, QCFlag.LATERALITY_FROM_POSITION)


def test_a_knee_at_the_border_is_padded_with_black_and_flagged(tmp_path: Path) -> None:
    joints = ((50.0, 60.0, Laterality.RIGHT),)
    film = phantoms.knee_film(joints, size_mm=(240, 280))
    (knee,) = _knees(tmp_path / "film.dcm", film=film, ImageLaterality="R")
    assert {QCFlag.BOX_CLIPPED} <= set(knee.flags)
    assert (knee.box.left_px, knee.box.top_px) == (0, 0)
    assert (knee.image[:5, :5] == 0).all()


@pytest.mark.parametrize(
    ("elements", "code"),
    [
        ({"film": np.random.default_rng(0).random((280, 340))}, "E_NO_JOINT"),
        ({"ViewPosition": "LL", "SeriesDescription": "KNEE"}, "E_VIEW"),
        ({"ViewPosition": None, "SeriesDescription": "PATELLA SKYLINE"}, "E_VIEW"),
        ({"PatientID": "a:b"}, "E_IDENTITY"),
    ],
)
def test_a_film_that_gives_no_knee_says_why(
    tmp_path: Path, elements: dict[str, Any], code: str
) -> None:
    path = phantoms.write_film(tmp_path / "film.dcm", **elements)
    with pytest.raises(ItemError) as caught:
        _process(path)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("position", "refused_by"), [("AP", {"oai", "most"}), ("LL", {"oai", "most", None}), (None, ())]
)
def test_a_cohort_takes_the_views_that_it_declares(
    tmp_path: Path, position: str | None, refused_by: set[str | None]
) -> None:
    path = phantoms.write_film(
        tmp_path / "film.dcm", ViewPosition=position, SeriesDescription="KNEES"
    )
    config = PreprocessConfig()
    codes = {}
    for cohort in (None, "oai", "most"):
        spec = None if cohort is None else read_cohort_spec(cohort)
        naming = Naming.of(Identifiers(None), spec)
        try:
            process_film(
                path, path.name, config=config, naming=naming, detector=make_detector(config)
            )
        except ItemError as error:
            codes[cohort] = error.code
    assert codes == dict.fromkeys(refused_by, "E_VIEW")
