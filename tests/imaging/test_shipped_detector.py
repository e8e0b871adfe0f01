"""The detector that comes with the package: what its card promises holds on films made afresh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kneeoa_mm.imaging import yolo
from kneeoa_mm.imaging.detector import JointDetection
from kneeoa_mm.imaging.yolo import SHIPPED_DETECTOR, YoloDetector
from kneeoa_mm.model_folder import DetectorCard, read_model
from kneeoa_mm.records import PixelSpacing
from kneeoa_mm.synthetic.composites import compose, compose_without_knee
from kneeoa_mm.synthetic.legs import KneeCrop

pytestmark = [
    pytest.mark.yolo,
    pytest.mark.skipif(not yolo.is_installed(), reason="needs the extra yolo"),
]

PLATEAU_SHARE, JOINT_SHARE = 179 / 224, (0.50, 0.58)


@pytest.fixture(scope="module")
def detector() -> YoloDetector:
    return YoloDetector()


def test_its_licence_stands_beside_it_and_its_card_says_what_it_never_saw() -> None:
    card, _ = read_model(SHIPPED_DETECTOR, DetectorCard)
    assert card.licence == "AGPL-3.0-only"
    assert "GNU AFFERO GENERAL PUBLIC LICENSE" in (SHIPPED_DETECTOR / "LICENSE").read_text()
    assert "no real bilateral film" in card.trained_on


@pytest.fixture(scope="module")
def val_crops(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[KneeCrop]:
    """Some real knees of the val split, as pictures."""
    import tarfile

    crops = []
    for archive in sorted(real_data.glob("knee_kl224-trainval-*.tar")):
        with tarfile.open(archive) as tar:
            names = [name for name in tar.getnames() if "/val/" in name and name.endswith(".png")]
            for name in names[::17]:
                stream = tar.extractfile(name)
                assert stream is not None
                with Image.open(stream) as picture:
                    pixels = np.asarray(picture.convert("L"), dtype=np.float32) / 255
                rows, columns = pixels.shape
                joint = (JOINT_SHARE[0] * columns, JOINT_SHARE[1] * rows)
                crops.append(KneeCrop(pixels, joint, PLATEAU_SHARE * columns))
    return crops


@pytest.mark.real_data
def test_real_knees_set_into_films_are_found(
    detector: YoloDetector, val_crops: list[KneeCrop]
) -> None:
    rng = np.random.default_rng(11)
    distances_mm: list[float] = []
    for index in range(24):
        knees = [val_crops[i] for i in rng.choice(len(val_crops), 1 + index % 2, replace=False)]
        film = compose(knees, rng, long_side_px=512)
        assert film.spacing_mm is not None
        spacing = PixelSpacing(film.spacing_mm, film.spacing_mm)
        found = detector.detect(film.brightness, spacing)
        distances_mm += [_nearest(box, found) * film.spacing_mm for box in film.joints_px]
    assert np.mean(np.array(distances_mm) <= 10) >= 0.9


@pytest.mark.real_data
def test_bones_without_a_joint_seldom_raise_an_alarm(
    detector: YoloDetector, val_crops: list[KneeCrop]
) -> None:
    rng = np.random.default_rng(12)
    alarms = [
        bool(
            detector.detect(compose_without_knee(val_crops, rng, long_side_px=384).brightness, None)
        )
        for _ in range(24)
    ]
    assert sum(alarms) <= 2


@pytest.mark.real_data
def test_a_bare_crop_is_one_joint_as_wide_as_its_plateau(
    detector: YoloDetector, val_crops: list[KneeCrop]
) -> None:
    widths = []
    for crop in val_crops[:24]:
        found = detector.detect(crop.pixels, None)
        assert len(found) <= 1
        widths += [joint.box.width_px / crop.pixels.shape[1] for joint in found]
    assert len(widths) >= 22
    assert np.median(widths) == pytest.approx(PLATEAU_SHARE, abs=0.05)


def _nearest(box: np.ndarray, found: list[JointDetection]) -> float:
    middle = (box[:2] + box[2:]) / 2
    away = [float(np.hypot(*(np.array(joint.box.centre_px) - middle))) for joint in found]
    return min(away, default=float("inf"))
