"""Whichever way a film hangs, a network meets both knees as right ones: from film to its input."""

from pathlib import Path

import numpy as np
import phantoms
import pytest

from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.learning.image_store import ImageStore
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.settings import PreprocessConfig

SIDE_PX = 96
CONTRACT = Preprocessing(
    image_size_px=SIDE_PX,
    mean=0.5,
    std=0.5,
    clip_percentiles=(1.0, 99.0),
    reinvert_negatives=False,
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict[tuple[str, str], np.ndarray]:
    """What a network sees of each knee of one person, on a film and on its mirror image."""
    found = {}
    film = phantoms.knee_film()
    for hung, pixels, orientation in (
        ("as usual", film, ["L", "F"]),
        ("mirrored", np.ascontiguousarray(film[:, ::-1]), ["R", "F"]),
    ):
        folder = Path(tmp_path_factory.mktemp("films"))
        path = folder / "studies" / "film.dcm"
        path.parent.mkdir()
        phantoms.write_film(path, film=pixels, PatientOrientation=orientation)
        config = PreprocessConfig(detector="profile")
        preprocess(path.parent, folder / "knees", config=config, ids="keep")
        knees = read_knees(folder / "knees")
        images = ImageStore(knees).get(CONTRACT).numpy().astype(float)
        found |= {(hung, side): images[i] for i, side in enumerate(knees["laterality"])}
    return found


@pytest.mark.parametrize("side", ["L", "R"])
def test_a_film_that_hangs_mirrored_gives_the_network_the_same_knee(seen, side):
    usual, mirrored = seen["as usual", side], seen["mirrored", side]
    assert np.abs(usual - mirrored).mean() < 1
    # the phantom has a fibula on one side only, so a swap of medial and lateral would show
    assert np.abs(usual - usual[:, ::-1]).mean() > 4


def test_both_knees_have_their_fibula_on_the_left(seen):
    for image in seen.values():
        below = image[-SIDE_PX // 4 :]
        assert below[:, : SIDE_PX // 3].mean() > below[:, -SIDE_PX // 3 :].mean()
