"""The reader meets the public graded knees as any user's folder; skips where they are absent."""

import csv
import tarfile

import pytest

from kneeoa_mm.learning.dataset import is_negative, read_grey
from kneeoa_mm.learning.sources import read_knees

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def shard(real_data, tmp_path_factory):
    """One of the archives, unpacked; its images by their path in knees.csv."""
    folder = tmp_path_factory.mktemp("real")
    with tarfile.open(real_data / "knee_kl224-trainval-2.tar") as archive:
        archive.extractall(folder, filter="data")
    with (real_data / "knees.csv").open(newline="") as stream:
        listed = {row["path"]: row for row in csv.DictReader(stream)}
    return folder / "knee_kl224", listed


def test_names_folders_and_split_are_read_as_the_list_says(shard):
    folder, listed = shard
    knees = read_knees(folder)
    assert len(knees) == len(list(folder.rglob("*.png"))) > 1000
    for row in knees.itertuples():
        expected = listed[row.image_path.removeprefix(f"{folder}/")]
        found = (row.split, row.subject_id, row.laterality, str(row.kl_grade))
        assert found == tuple(
            expected[k] for k in ("split", "subject_id", "laterality", "kl_grade")
        )


def test_photometric_negatives_are_told_from_positives(shard):
    folder, listed = shard
    wrong = [
        path
        for path, row in listed.items()
        if (folder / path).exists()
        and is_negative(read_grey(folder / path)) != (row["suspected_inverted"] == "True")
    ]
    assert not wrong
