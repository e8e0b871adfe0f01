"""Films are valid DICOM, tell side and scale, and hide nothing in their encoding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut

from kneeoa_mm.records import Laterality, Photometric
from kneeoa_mm.synthetic import exposure
from kneeoa_mm.synthetic.anatomy import State, build_knee, draw_bones, draw_shapes
from kneeoa_mm.synthetic.radiographs import write_radiograph

SPACING_MM = 0.8
STATE = State(4.0, 5.5, osteophyte_mm=1.5, sclerosis_mm=1.5)


@pytest.fixture(scope="module")
def film() -> tuple[np.ndarray, np.ndarray, exposure.FilmSettings]:
    """Bone attenuation, brightness and settings of one coarse film."""
    rng = np.random.default_rng(4)
    grid = exposure.film_grid(SPACING_MM)
    settings = exposure.draw_settings(rng)
    shapes = dict(zip(Laterality, draw_shapes(rng), strict=True))
    knees = {side: build_knee(draw_bones(shape), STATE) for side, shape in shapes.items()}
    seeds = {side: np.random.SeedSequence(place) for place, side in enumerate(Laterality)}
    bone = exposure.bone_attenuation(knees, settings.placements, grid, seeds)
    return bone, exposure.expose(bone, exposure.draw_leg(rng), settings, grid, rng), settings


def written(path: Path, brightness: np.ndarray, photometric: Photometric) -> pydicom.Dataset:
    write_radiograph(
        path,
        brightness,
        subject_id="9000017",
        visit="V03",
        seed=1,
        pixel_spacing_mm=SPACING_MM,
        photometric=photometric,
        is_calibrated=True,
    )
    return pydicom.dcmread(path)


def test_film_is_a_valid_dicom_image_that_says_what_it_is(
    tmp_path: Path, film: tuple[np.ndarray, np.ndarray, exposure.FilmSettings]
) -> None:
    """Read under pydicom's strict validation of values."""
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        dataset = written(tmp_path / "film.dcm", film[1], Photometric.MONOCHROME2)
        values = {element.keyword: element.value for element in dataset}
    finally:
        pydicom.config.settings.reading_validation_mode = pydicom.config.WARN
    assert (values["Modality"], values["BodyPartExamined"]) == ("DX", "KNEE")
    assert (values["PatientID"], values["ClinicalTrialTimePointID"]) == ("9000017", "V03")
    assert (values["ViewPosition"], values["ImageLaterality"]) == ("PA", "B")
    assert list(values["PatientOrientation"]) == ["L", "F"]
    assert [float(mm) for mm in values["ImagerPixelSpacing"]] == [SPACING_MM] * 2
    assert dataset.pixel_array.shape == film[1].shape
    assert dataset.pixel_array.max() <= 4095
    assert np.unique(dataset.pixel_array).size > 256


def test_header_names_nobody(
    tmp_path: Path, film: tuple[np.ndarray, np.ndarray, exposure.FilmSettings]
) -> None:
    dataset = written(tmp_path / "film.dcm", film[1], Photometric.MONOCHROME2)
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        assert not dataset[keyword].value


def test_monochrome1_is_the_same_picture_stored_inverted(
    tmp_path: Path, film: tuple[np.ndarray, np.ndarray, exposure.FilmSettings]
) -> None:
    bright_is_high = written(tmp_path / "2.dcm", film[1], Photometric.MONOCHROME2)
    bright_is_low = written(tmp_path / "1.dcm", film[1], Photometric.MONOCHROME1)
    picture = apply_voi_lut(bright_is_high.pixel_array, bright_is_high)
    inverted = apply_voi_lut(bright_is_low.pixel_array, bright_is_low)
    assert np.allclose(picture, 4095 - inverted, atol=1e-6)
    assert bright_is_low.PresentationLUTShape == "INVERSE"


def test_right_knee_stands_on_image_left_with_its_fibula_outwards(
    film: tuple[np.ndarray, np.ndarray, exposure.FilmSettings],
) -> None:
    """Below the joint, the thin bone of each leg lies farther from the film's middle."""
    bone, _, settings = film
    right, left = (settings.placements[side] for side in (Laterality.RIGHT, Laterality.LEFT))
    assert right.centre_mm[0] < exposure.FILM_SIZE_MM[0] / 2 < left.centre_mm[0]
    for placement, outwards in ((right, -1), (left, 1)):
        row = int((placement.centre_mm[1] + 85.0) / SPACING_MM)
        tibia = int(placement.centre_mm[0] / SPACING_MM)
        reach = int(60.0 / SPACING_MM)
        lateral = bone[row, tibia : tibia + outwards * reach : outwards] > 0
        medial = bone[row, tibia : tibia - outwards * reach : -outwards] > 0
        assert np.abs(np.diff(lateral.astype(int))).sum() == 3
        assert np.abs(np.diff(medial.astype(int))).sum() == 1


def test_bone_is_brighter_than_flesh_and_flesh_than_air(
    film: tuple[np.ndarray, np.ndarray, exposure.FilmSettings],
) -> None:
    """In the middle of the film; markers, collimation and skin lie outside it."""
    bone, brightness, settings = film
    middle = slice(60, -60)
    dense = np.median(brightness[middle, 40:-40][bone[middle, 40:-40] > 0.5])
    x_mm, y_mm = settings.placements[Laterality.RIGHT].centre_mm
    row, column = int((y_mm + 20.0) / SPACING_MM), int((x_mm + 48.0) / SPACING_MM)
    assert bone[row, column] == 0
    flesh = np.median(brightness[row - 4 : row + 4, column - 3 : column + 3])
    air = np.median(brightness[middle, 12:18])
    assert dense > flesh > air


def test_less_exposure_means_more_noise() -> None:
    """Quantum noise: a quarter of the photons, twice the standard deviation."""
    grid = exposure.film_grid(1.0)
    settings = exposure.draw_settings(np.random.default_rng(9))
    leg = exposure.draw_leg(np.random.default_rng(9))
    bone = np.zeros((grid.rows, grid.columns), dtype=np.float32)

    def noise(mas: float) -> float:
        weak = exposure.FilmSettings(**{**vars(settings), "mas": mas})
        films = [
            exposure.expose(bone, leg, weak, grid, np.random.default_rng(seed)) for seed in (1, 2)
        ]
        return float((films[0] - films[1])[140:160, 90:110].std())

    assert noise(0.25) / noise(1.0) == pytest.approx(2.0, rel=0.15)
