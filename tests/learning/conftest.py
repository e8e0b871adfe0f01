"""Knees that a tiny network can grade: the grade is the height of a bright band."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kneeoa_mm import schemas, tables
from kneeoa_mm.config import load_config
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.settings import PretrainKLConfig

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


_SMALL_GRADER = [
    "members=[{backbone: simple_cnn, image_size_px: 40}]",
    "train.lr=2e-3",
    "train.batch_size=16",
    "train.epochs=2",
]


def seen_until_lost(sex, number):
    """The interval of a knee: progression between 12 and 36 months, or the last film without it."""
    if number % 12 == 0:
        lower, upper = (24.0 if number % 24 else 0.0), None
    else:
        lower, upper = (12.0, 36.0) if sex == "M" else (48.0, None)
    return {
        "jsl_48m_event_observed": int(upper is not None),
        "jsl_48m_lower_months": lower,
        "jsl_48m_upper_months": upper,
    }


@pytest.fixture(scope="session")
def study(tmp_path_factory, knee_of_grade):
    """A cohort whose outcome is decided by sex alone; images and grades as ever.

    Some knees lack the outcome at 48 months; half of those were read free of it up to 24.
    """
    folder = tmp_path_factory.mktemp("study")
    generator = np.random.default_rng(1)
    rows = []
    for number in range(48):
        sex = "FM"[number % 2]
        for side in "LR":
            grade = int(generator.integers(0, 4))
            name = f"{number}{side}.png"
            (folder / "knees" / "images").mkdir(parents=True, exist_ok=True)
            pixels = knee_of_grade(grade, generator)
            Image.fromarray(pixels).save(folder / "knees" / "images" / name)
            rows.append(
                {
                    "knee_id": f"trial:{number}:0:{side}",
                    "subject_id": str(number),
                    "laterality": side,
                    "months": 0,
                    "image_path": f"images/{name}",
                    "flipped": side == "L",
                    "kl_grade": grade,
                    "sex": sex,
                    "age_years": 60.0 + number % 7,
                    "jsl_48m": None if number % 12 == 0 else int(sex == "M"),
                    **seen_until_lost(sex, number),
                }
            )
    frame = pd.DataFrame(rows)
    grades = frame.groupby("subject_id")["kl_grade"]
    frame["contralateral_kl_grade"] = grades.transform(lambda pair: pair.to_numpy()[::-1])
    identity = ["knee_id", "subject_id", "laterality", "months", "image_path", "flipped"]
    tables.write_table(frame[identity], schemas.KNEES, folder / "knees" / "knees.parquet")
    blank = {
        name: None
        for name, column in schemas.COHORT.rules.columns.items()
        if column.required and name not in frame
    }
    cohort = frame.drop(columns=["image_path", "flipped"]).assign(**blank)
    tables.write_table(cohort, schemas.COHORT, folder / "cohort" / "cohort.parquet")
    tables.write_table(frame, schemas.KL_READINGS, folder / "cohort" / "kl_readings.parquet")
    subjects = sorted(set(frame["subject_id"]))
    folds = pd.DataFrame({"subject_id": subjects, "fold": np.arange(len(subjects)) // 2 % 3})
    tables.write_table(folds, schemas.FOLDS, folder / "cohort" / "folds.parquet")
    pretrain_kl(
        folder / "knees",
        folder / "kl",
        config=load_config(PretrainKLConfig, sets=_SMALL_GRADER),
        cohort=folder / "cohort",
        folds=folder / "cohort" / "folds.parquet",
        device="cpu",
    )
    return folder
