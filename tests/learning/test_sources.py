"""Reading knees: subjects and sides come from names, and what would leak or mislead is refused."""

import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from kneeoa_mm import schemas, tables
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.learning.sources import add_kl_readings, read_knees


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    return folder


def test_a_graded_folder_with_a_split(tmp_path):
    put(tmp_path, "train/0/1L.png", "train/3/1R.png", "val/4/2L.png")
    (tmp_path / "train" / "0" / "notes.txt").write_text("no image")
    knees = read_knees(tmp_path).set_index("knee_id")
    assert knees["kl_grade"].to_dict() == {"-:1:-:L": 0, "-:1:-:R": 3, "-:2:-:L": 4}
    assert knees["split"].to_dict() == {"-:1:-:L": "train", "-:1:-:R": "train", "-:2:-:L": "val"}
    assert knees["mirror"].to_dict() == {"-:1:-:L": True, "-:1:-:R": False, "-:2:-:L": True}


def test_a_folder_of_one_part_or_without_grades(tmp_path):
    put(tmp_path / "val", "0/1L.png", "1/2L.png")
    assert set(read_knees(tmp_path / "val")["kl_grade"]) == {0, 1}
    put(tmp_path / "plain", "1L.png")
    assert "kl_grade" not in read_knees(tmp_path / "plain")


def test_two_films_of_one_knee_get_a_copy_number(tmp_path):
    put(tmp_path, "a/1L.png", "b/1L.png")
    assert read_knees(tmp_path)["knee_id"].tolist() == ["-:1:-:L", "-:1:-:L:2"]


def test_a_subject_in_two_parts_is_refused(tmp_path):
    put(tmp_path, "train/0/1L.png", "val/0/1R.png", "val/0/2R.png")
    with pytest.raises(LeakError, match="both train and val: 1"):
        read_knees(tmp_path)


def test_an_impossible_grade_is_refused(tmp_path):
    put(tmp_path, "train/0/1L.png", "train/5/2L.png")
    with pytest.raises(InputError, match="folders 0 to 4"):
        read_knees(tmp_path)


def test_names_without_a_subject_are_refused_unless_allowed(tmp_path):
    put(tmp_path, "0/knee-a.png", "1/knee-b.png")
    with pytest.raises(InputError, match="--allow-ungrouped"):
        read_knees(tmp_path)
    allowed = read_knees(tmp_path, allow_ungrouped=True)
    assert allowed["subject_id"].tolist() == ["0_knee-a", "1_knee-b"]
    assert not allowed["subject_known"].any(), "no person has such a name"


def test_images_of_one_name_in_several_folders_are_persons_of_their_own(tmp_path):
    """Otherwise a name such as 1.png would tie a knee of each grade, and each part, together."""
    put(tmp_path, "train/0/1.png", "train/1/1.png", "val/0/1.png", "val/0/a:1.png")
    knees = read_knees(tmp_path, allow_ungrouped=True)
    assert knees["subject_id"].nunique() == 4
    assert knees["knee_id"].tolist()[3] == "-:val_0_a_1:-:-"


def test_to_predict_numbers_of_folders_are_grades_only_where_all_are(tmp_path, capsys):
    put(tmp_path / "years", "2/1L.png", "2024/2L.png")
    put(tmp_path / "2023", "3L.png")
    put(tmp_path / "mixed", "2/4L.png", "5L.png")
    put(tmp_path / "graded", "2/6L.png", "val/0 none/7L.png")
    for name, doubtful in (("years", "2024/2L.png"), ("2023", ""), ("mixed", "5L.png")):
        assert "kl_grade" not in read_knees(tmp_path / name, grades_optional=True), name
        said = capsys.readouterr().err
        assert (doubtful in said) if doubtful else said == ""
    graded = read_knees(tmp_path / "graded", grades_optional=True)
    assert graded["kl_grade"].tolist() == [2, 0]
    with pytest.raises(InputError, match="folders 0 to 4"):
        read_knees(tmp_path / "years")


@pytest.mark.parametrize("make", [True, False])
def test_a_folder_without_images_or_no_folder_is_refused(tmp_path, make):
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(InputError, match="nothing"):
        read_knees(folder)


def table_of_knees(folder, **columns):
    frame = pd.DataFrame(
        {
            "knee_id": ["oai:1:0:L", "oai:1:24:L:2", "oai:2:0:R"],
            "subject_id": ["1", "1", "2"],
            "laterality": ["L", "L", "R"],
            "image_path": ["images/a.png", "images/b.png", "images/c.png"],
            **columns,
        }
    )
    return tables.write_table(frame, schemas.KNEES, folder / "knees.parquet")


def test_an_image_that_preprocess_mirrored_is_not_mirrored_again(tmp_path):
    path = table_of_knees(tmp_path, flipped=[True, False, False])
    knees = read_knees(path)
    assert knees["mirror"].tolist() == [False, True, False]
    assert knees["image_path"][0] == str(tmp_path / "images" / "a.png")


def test_images_of_preprocess_without_their_table_are_refused(tmp_path, monkeypatch):
    """Their names tell a left knee, which would be mirrored a second time; the table knows."""
    out = tmp_path / "knees"
    put(out / "images", "oai_9003175_0_L.png")
    table = table_of_knees(out)
    monkeypatch.chdir(out / "images")
    for alone in (out / "images", out / "images" / "oai_9003175_0_L.png", Path()):
        with pytest.raises(InputError, match=f"give {re.escape(str(out))}"):
            read_knees(alone, allow_ungrouped=True, grades_optional=True)
    assert len(read_knees(out)) == len(read_knees(table)) == 3
    table.unlink()
    assert len(read_knees(out / "images")) == 1, "any other folder may have that name"


def test_the_split_of_a_table_has_the_names_that_folders_have(tmp_path):
    path = table_of_knees(tmp_path, split=["Auto_Test", "auto_test", "valid"])
    assert read_knees(path)["split"].tolist() == ["test", "test", "val"]
    path = table_of_knees(tmp_path, split=[None, None, "train"])
    assert read_knees(path)["split"].isna().tolist() == [True, True, False]
    path = table_of_knees(tmp_path, split=["train", "train", "held out"])
    with pytest.raises(InputError, match=r"found: +held out"):
        read_knees(path)


def test_one_person_under_two_names_of_a_part_is_in_one_part(tmp_path):
    path = table_of_knees(tmp_path, split=["val", "validation", "train"])
    assert set(read_knees(path)["split"]) == {"val", "train"}


def test_a_table_says_itself_whose_subject_is_unknown(tmp_path):
    path = table_of_knees(tmp_path, subject_id=["1", "1", "-"])
    assert read_knees(path)["subject_known"].tolist() == [True, True, False]


def readings(folder, knee_ids):
    frame = pd.DataFrame({"knee_id": knee_ids, "kl_grade": range(len(knee_ids))})
    frame[["subject_id", "laterality"]] = [k.split(":")[1::2] for k in knee_ids]
    tables.write_table(frame, schemas.KL_READINGS, folder / "kl_readings.parquet")


def test_readings_of_a_cohort_grade_each_visit_and_every_copy(tmp_path):
    knees = read_knees(table_of_knees(tmp_path))
    readings(tmp_path, ["oai:1:0:L", "oai:1:24:L"])
    assert add_kl_readings(knees, tmp_path)["kl_grade"].tolist() == [0, 1, pd.NA]


def test_readings_of_another_cohort_are_refused(tmp_path):
    knees = read_knees(table_of_knees(tmp_path))
    readings(tmp_path, ["most:1:0:L"])
    with pytest.raises(InputError, match="same --cohort name"):
        add_kl_readings(knees, tmp_path)
