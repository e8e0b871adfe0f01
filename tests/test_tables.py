"""Tables: faults come all at once with their rows; what is written reads back with provenance."""

import pandas as pd
import pytest

from kneeoa_mm import __version__, schemas, tables
from kneeoa_mm.errors import InputError, TableError


@pytest.fixture
def knees():
    return pd.DataFrame(
        {
            "knee_id": ["oai:007:0:L", "oai:007:0:R"],
            "subject_id": ["007", "007"],
            "laterality": ["L", "R"],
            "image_path": ["images/a.png", "images/b.png"],
            "kl_grade": [2, None],
        }
    )


def test_every_fault_is_reported_at_once_with_its_rows(knees):
    knees["laterality"] = ["L", "B"]
    knees["kl_grade"] = [9, 1]
    knees["pixel_spacing_row_mm"] = [0.2, 0.0]
    with pytest.raises(TableError) as caught:
        schemas.check(knees.drop(columns="image_path"), schemas.KNEES, where="knees.csv")
    faults = "\n".join(caught.value.faults)
    assert "column image_path is missing" in faults
    assert "column laterality" in faults
    assert "'B' in row(s) 1" in faults
    assert "KL grade must be 0 to 4" in faults
    assert "9 in row(s) 0" in faults
    assert "pixel_spacing_row_mm" in faults
    assert caught.value.exit_code == 3


def test_a_knee_that_stands_twice_is_refused(knees):
    with pytest.raises(TableError, match="knee_id"):
        schemas.check(pd.concat([knees, knees]), schemas.KNEES)


def test_a_table_reads_back_as_it_was_written_with_its_provenance(knees, tmp_path):
    path = tables.write_table(
        knees, schemas.KNEES, tmp_path / "knees.parquet", config_digest="abc", extra={"seed": 3}
    )
    read = tables.read_table(path, schemas.KNEES)
    assert read["subject_id"].tolist() == ["007", "007"], "leading zeros are part of an id"
    assert read["kl_grade"].tolist() == [2, pd.NA]
    assert tables.read_provenance(path) == {
        "schema": "knees",
        "schema_version": 1,
        "package_version": __version__,
        "config": "abc",
        "seed": 3,
    }


def test_a_csv_export_keeps_leading_zeros_and_disarms_formulas(knees, tmp_path):
    knees["source"] = ["=HYPERLINK(1)", "a.dcm"]
    path = tables.write_table(knees, schemas.KNEES, tmp_path / "knees.csv")
    assert ",=HYPERLINK" not in path.read_text()
    assert tables.read_table(path, schemas.KNEES)["subject_id"].tolist() == ["007", "007"]


def test_a_refused_table_leaves_the_old_file_as_it_was(knees, tmp_path):
    path = tables.write_table(knees, schemas.KNEES, tmp_path / "knees.parquet")
    before = path.read_bytes()
    with pytest.raises(TableError):
        tables.write_table(knees.assign(laterality="?"), schemas.KNEES, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["knees.parquet"]


def test_another_kind_of_table_is_refused_by_name(knees, tmp_path):
    path = tables.write_table(knees, schemas.KNEES, tmp_path / "knees.parquet")
    with pytest.raises(InputError, match=r"expected: folds\n.*found:    knees"):
        tables.read_table(path, schemas.FOLDS)


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet"])
def test_a_damaged_table_is_refused_by_its_path(content, tmp_path):
    path = tmp_path / "knees.parquet"
    path.write_bytes(content)
    with pytest.raises(InputError, match=str(path)):
        tables.read_table(path, schemas.KNEES)
