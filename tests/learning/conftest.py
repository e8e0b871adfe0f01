"""Knees that a tiny network can grade: the grade is the height of a bright band."""

import numpy as np
import pytest
from PIL import Image

SIZE_PX = 40


def draw_knee(grade, generator):
    """A bright bone column with a dark gap whose height narrows with the grade."""
    pixels = np.full((SIZE_PX, SIZE_PX), 40.0)
    pixels[:, 12:28] = 160
    gap = 10 - 2 * grade
    pixels[20 - gap // 2 : 20 + gap // 2, 12:28] = 60
    return np.clip(pixels + generator.normal(0, 5, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def knee_of_grade():
    """The drawing function, for tests that lay out their own files."""
    return draw_knee


@pytest.fixture
def graded_folder(tmp_path):
    """``train`` and ``val`` with both knees of each subject, all five grades."""
    generator = np.random.default_rng(0)
    number = 9000000
    for part, n_subjects in (("train", 30), ("val", 15)):
        for index in range(n_subjects):
            number += 1
            for side in "LR":
                folder = tmp_path / "graded" / part / str(index % 5)
                folder.mkdir(parents=True, exist_ok=True)
                pixels = draw_knee(index % 5, generator)
                Image.fromarray(pixels).save(folder / f"{number}{side}.png")
    return tmp_path / "graded"
