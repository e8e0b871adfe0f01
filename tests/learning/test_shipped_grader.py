"""The grader that comes with the package: its folder, and that it is the one of the docs."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kneeoa_mm import schemas, tables
from kneeoa_mm.learning.models import load_ensemble
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.model_folder import SHIPPED_GRADER
from kneeoa_mm.workflows.predict import predict

EVERY = 25
"""One real knee of so many is graded here."""
STRANGEST = ("9800285R", "9857800L", "9725279R", "9810432R", "9553149R")
"""The knee of each fold that set the limit of what is a knee, in the training run."""


@pytest.fixture(scope="module")
def shipped():
    return load_ensemble(SHIPPED_GRADER)


def test_it_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in SHIPPED_GRADER.rglob("*")) < 25e6


def test_every_member_says_its_terms_and_origin(shipped):
    assert len(shipped.members) == 5
    assert {member.card.fold for member in shipped.members} == set(range(5))
    for member in shipped.members:
        assert member.card.licence == "CC-BY-4.0"
        assert "10.17632/56rmx5bjcr.1" in member.card.trained_on
    assert (SHIPPED_GRADER / "LICENSE").read_text().startswith("Attribution 4.0 International")


def test_its_card_says_whom_to_name_what_it_is_for_and_the_figures_of_the_docs(repository):
    card = " ".join((SHIPPED_GRADER / "README.md").read_text().split())
    for said in ("10.17632/56rmx5bjcr.1", "CC BY 4.0", "not a medical device", "Limits"):
        assert said in card
    path = repository / "docs" / "results" / "kl-baseline" / "metrics.json"
    figures = json.loads(path.read_text())["kl"]
    for name in ("accuracy", "macro_f1", "qwk", "auroc_kl2"):
        low, high = figures[name]["ci_low"], figures[name]["ci_high"]
        assert f"{figures[name]['value']:.3f} ({low:.3f} to {high:.3f})" in card, name


def test_it_knows_no_path_of_the_machine_that_trained_it():
    texts = [path.read_text() for path in SHIPPED_GRADER.rglob("*.json")]
    assert texts
    assert not [text for text in texts if "/home/" in text or "/tmp/" in text or "/work" in text]


def test_it_abstains_from_noise(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (224, 224), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "9999999L.png")
    out = tmp_path / "grades.parquet"
    predict(tmp_path / "9999999L.png", None, out, device="cpu")
    row = tables.read_table(out, schemas.PREDICTIONS).iloc[0]
    assert row["status"] == "not_a_knee"
    assert pd.isna(row["kl_grade_pred"])


def unpack(archive, choose, folder):
    """Take the images out of an archive that ``choose`` keeps of their sorted names."""
    with tarfile.open(archive) as opened:
        for name in choose(sorted(n for n in opened.getnames() if n.endswith(".png"))):
            opened.extract(name, folder, filter="data")


@pytest.fixture(scope="module")
def some_real_knees(real_data, tmp_path_factory):
    """Folder with a few of the graded images, in their lay-out."""
    folder = tmp_path_factory.mktemp("real")
    unpack(real_data / "knee_kl224-trainval-2.tar", lambda names: names[::EVERY], folder)
    return folder / "knee_kl224"


@pytest.mark.real_data
def test_it_gives_the_out_of_fold_grades_of_the_docs(
    some_real_knees, shipped, repository, tmp_path
):
    """Each knee by the one member that never saw its person, as the published table says."""
    subjects = set(read_knees(some_real_knees)["subject_id"])
    unseen = [subjects - m.card.seen_subjects.in_training(subjects) for m in shipped.members]
    assert sorted(subject for part in unseen for subject in part) == sorted(subjects)
    out = tmp_path / "grades.parquet"
    predict(some_real_knees, None, out, device="cpu")
    found = tables.read_table(out, schemas.PREDICTIONS).set_index("knee_id")
    assert len(found) > 30
    assert not found["seen_in_training"].any()
    path = repository / "docs" / "results" / "kl-baseline" / "out_of_fold.csv"
    published = pd.read_csv(path).set_index("knee_id").loc[found.index]
    probabilities = [f"kl_prob_{grade}" for grade in range(5)]
    # the table is of the run, in single precision; what ships is in half
    np.testing.assert_allclose(found[probabilities], published[probabilities], atol=0.02)
    assert (found["kl_grade_pred"] == published["kl_grade_pred"]).mean() > 0.95


@pytest.mark.real_data
def test_the_strangest_knee_of_each_fold_is_a_knee_to_the_member_that_never_saw_it(
    real_data, tmp_path
):
    """A fresh run grades them all, so its export in half precision must too."""
    for archive in real_data.glob("knee_kl224-trainval-*.tar"):
        unpack(archive, lambda names: [n for n in names if Path(n).stem in STRANGEST], tmp_path)
    out = tmp_path / "grades.parquet"
    predict(tmp_path / "knee_kl224", None, out, device="cpu")
    found = tables.read_table(out, schemas.PREDICTIONS)
    assert sorted(found["subject_id"] + found["laterality"]) == sorted(STRANGEST)
    assert not found["seen_in_training"].any()
    assert set(found["status"]) == {"ok"}
