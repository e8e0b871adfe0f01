"""Real knees, already cropped, as any user's pictures; skips where they are absent."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.imaging.closeup import close_up, picture_flags
from kneeoa_mm.imaging.detector import JointDetection
from kneeoa_mm.imaging.films import process_film
from kneeoa_mm.imaging.identity import Naming
from kneeoa_mm.imaging.quality import QCFlag
from kneeoa_mm.imaging.radiograph import Pixels
from kneeoa_mm.records import Box, Laterality, PixelSpacing
from kneeoa_mm.settings import PreprocessConfig

pytestmark = pytest.mark.real_data

JOINT = Box(22, 40, 202, 220)
"""Of the average crop: a plateau of 0.80 of the frame, the joint at 0.58 of its height."""


class _Average:
    name, min_score = "average", 0.0

    def detect(self, pixels: Pixels, spacing: PixelSpacing | None) -> list[JointDetection]:
        return [JointDetection(JOINT, None, 1.0)]


@pytest.fixture(scope="module")
def crops(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Path, bool]:
    """All negatives of an archive and every eighth other crop: path, and whether it is one."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(real_data / "knee_kl224-trainval-2.tar") as archive:
        archive.extractall(folder, filter="data")
    with (real_data / "knees.csv").open(newline="") as stream:
        negative = {
            row["path"]: row["suspected_inverted"] == "True" for row in csv.DictReader(stream)
        }
    paths = sorted((folder / "knee_kl224").rglob("*.png"))
    told = [(path, negative[path.relative_to(folder / "knee_kl224").as_posix()]) for path in paths]
    return {path: is_one for index, (path, is_one) in enumerate(told) if is_one or index % 8 == 0}


def test_negatives_are_told_and_few_others_flagged(crops: dict[Path, bool]) -> None:
    """Rotation is judged by symmetry, which severe osteoarthritis breaks: grades 0 to 2 count."""
    wrong, others = [], []
    for path, is_negative in crops.items():
        flags = picture_flags(close_up(np.asarray(Image.open(path), dtype=np.float32), JOINT))
        if (QCFlag.NEGATIVE in flags) != is_negative:
            wrong.append(path.name)
        if path.parent.name in {"0", "1", "2"}:
            others.append(bool({QCFlag.ROTATED, QCFlag.HARDWARE} & set(flags)))
    assert any(crops.values())
    assert not wrong
    assert np.mean(others) <= 0.02


def test_crops_are_left_alone_to_the_grey(crops: dict[Path, bool]) -> None:
    naming, config = Naming(Identifiers(None)), PreprocessConfig()
    for path in list(crops)[:20]:
        film = process_film(path, path.name, config=config, naming=naming, detector=_Average())
        (knee,) = film.knees
        grey = np.asarray(Image.open(path), dtype=np.uint16) * 257
        is_left = path.stem.endswith("L")
        assert knee.laterality is (Laterality.LEFT if is_left else Laterality.RIGHT)
        assert film.identity.subject_id == path.stem[:-1]
        np.testing.assert_array_equal(knee.image, grey[:, ::-1] if is_left else grey)
        assert {QCFlag.ALREADY_CROPPED, QCFlag.SPACING_NONE} <= set(knee.flags)
        assert QCFlag.JOINT_CUT_OFF not in knee.flags
