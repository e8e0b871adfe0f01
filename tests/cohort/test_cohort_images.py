"""Graded PNGs with a table of labels beside them, and what ``check`` says of folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort.check import check_folder
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.schemas import COHORT, FOLDS, KNEES
from kneeoa_mm.tables import read_table

Write = Callable[[dict[str, str]], Path]

_KNEES = [  # subject, side, split, grade; of six people in two splits
    (f"900000{n}", side, "train" if n < 5 else "val", (n + (side == "L")) % 4)
    for n in range(1, 7)
    for side in "RL"
]


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Graded images (their bytes are no picture, and nobody opens them) and three label tables."""
    folder = tmp_path / "collection"
    labels = {"kl_time_to_progression": [], "kl_progression": [], "tkr_case_control": []}
    for n, (subject, side, split, grade) in enumerate(_KNEES):
        image = folder / "knees" / split / str(grade) / f"{subject}{side}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(f"{subject}{side}".encode())
        path = image.relative_to(folder / "knees").as_posix()
        key = f"{subject},{side},{split},{grade}"
        times = ("12,24,1", "48,,0", "24,,0", "36,60,1")[n % 4]
        labels["kl_time_to_progression"].append(f"{key},{times},{path}")
        labels["kl_progression"].append(f"{key},{n % 3},{n % 3},{path}")
        labels["tkr_case_control"].append(f"{key},{n % 2},{n // 3},{path}")
    key = "subject_id,laterality,split,kl_grade"
    headers = {
        "kl_time_to_progression": f"{key},lower_months,upper_months,event_observed,path",
        "kl_progression": f"{key},kl_increase,progressor,path",
        "tkr_case_control": f"{key},tkr_within_9_years,matched_pair,path",
    }
    for name, rows in labels.items():
        (folder / f"{name}.csv").write_text("\n".join([headers[name], *rows]) + "\n")
    return folder


def test_labels_beside_graded_images_become_a_cohort_and_its_knees(
    collection: Path, tmp_path: Path
) -> None:
    build_cohort(collection, tmp_path / "out", spec=read_cohort_spec("mendeley"), folds=3)
    cohort = read_table(tmp_path / "out" / "cohort.parquet", COHORT).set_index("knee_id")
    assert len(cohort) == len(_KNEES)
    first = cohort.loc[["mendeley:9000001:0:R", "mendeley:9000001:0:L"]]
    assert first["kl_progression"].tolist() == [1, 0]
    assert first["kl_progression_upper_months"].tolist()[0] == 24
    third = cohort.loc["mendeley:9000002:0:R"]
    assert (third["kl_progression_reason"], third["contralateral_kl_grade"]) == ("lost", 3)
    knees = read_table(tmp_path / "out" / "knees.parquet", KNEES)
    assert set(knees["knee_id"]) == set(cohort.index)
    for row in knees.itertuples():
        image = tmp_path / "out" / row.image_path
        assert image.read_bytes() == f"{row.subject_id}{row.laterality}".encode()


def test_a_label_table_in_another_shape_needs_only_another_map(
    collection: Path, tmp_path: Path
) -> None:
    build_cohort(collection, tmp_path / "a", spec=read_cohort_spec("mendeley/tiulpin"), folds=2)
    published = read_table(tmp_path / "a" / "cohort.parquet", COHORT)
    assert published["kl_progression"].sum() == sum(n % 3 > 0 for n in range(len(_KNEES)))
    assert published["kl_progression_event_observed"].isna().all()


def test_folds_of_a_matched_study_keep_pairs_together(collection: Path, tmp_path: Path) -> None:
    build_cohort(collection, tmp_path / "out", spec=read_cohort_spec("mendeley/tkr"), folds=2)
    cohort = read_table(tmp_path / "out" / "cohort.parquet", COHORT)
    folds = read_table(tmp_path / "out" / "folds.parquet", FOLDS).set_index("subject_id")["fold"]
    assert (
        cohort.assign(fold=cohort["subject_id"].map(folds))
        .groupby("matched_pair")["fold"]
        .nunique()
        .eq(1)
        .all()
    )


def test_knees_without_their_image_are_counted_and_none_at_all_is_refused(
    collection: Path, tmp_path: Path
) -> None:
    next((collection / "knees" / "train").rglob("9000001R.png")).unlink()
    spec = read_cohort_spec("mendeley")
    build_cohort(collection, tmp_path / "out", spec=spec, folds=2)
    attrition = pd.read_csv(tmp_path / "out" / "attrition.csv").set_index("step")["knees"]
    assert attrition["no image"] == 1
    (collection / "knees").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="images that are not there"):
        build_cohort(collection, tmp_path / "again", spec=spec, folds=2)


def test_every_name_of_the_test_part_is_test_in_the_cohort(
    collection: Path, tmp_path: Path
) -> None:
    """Looks at held-out knees are counted by that name, whatever the release calls the part."""
    file = collection / "kl_time_to_progression.csv"
    text = file.read_text().replace(",val,", ",auto_test,")
    file.write_text(text)
    build_cohort(collection, tmp_path / "out", spec=read_cohort_spec("mendeley"), folds=3)
    cohort = read_table(tmp_path / "out" / "cohort.parquet", COHORT)
    assert cohort["split"].value_counts().to_dict() == {"train": 8, "test": 4}
    assert set(read_table(tmp_path / "out" / "knees.parquet", KNEES)["split"]) == {"train", "test"}
    file.write_text(text.replace(",auto_test,", ",elsewhere,"))
    with pytest.raises(InputError, match="elsewhere"):
        build_cohort(collection, tmp_path / "no", spec=read_cohort_spec("mendeley"), folds=3)


def test_one_image_in_two_parts_of_the_split_stops_the_cohort(
    collection: Path, tmp_path: Path
) -> None:
    [copy] = (collection / "knees" / "val").rglob("9000006R.png")
    copy.write_bytes(b"9000001R")
    with pytest.raises(LeakError, match=r"9000001R.png in train is 9000006R.png in val"):
        build_cohort(collection, tmp_path / "out", spec=read_cohort_spec("mendeley"), folds=2)
    with pytest.raises(LeakError, match=r"9000001R.png in train is 9000006R.png in val"):
        check_folder(collection)


def test_one_image_in_two_folds_stops_the_cohort(collection: Path, tmp_path: Path) -> None:
    """Two persons of one part of the sources' split; one fold a person keeps them apart."""
    [copy] = (collection / "knees" / "train").rglob("9000002R.png")
    copy.write_bytes(b"9000001R")
    with pytest.raises(LeakError, match=r"9000001R.png in fold \d is 9000002R.png in fold \d"):
        build_cohort(collection, tmp_path / "out", spec=read_cohort_spec("mendeley"), folds=6)
    assert not (tmp_path / "out").exists()
    with pytest.raises(LeakError, match=r"9000001R.png in fold \d is 9000002R.png in fold \d"):
        check_folder(collection)


def _read_by_two(folder: Path, n: int, cases: int) -> str:
    """Knees of n people; half progress, and project 42 read so many of these, too."""
    folder.mkdir()
    (folder / "people.csv").write_text("\n".join(["id", *map(str, range(n))]) + "\n")
    readings = [
        f"{i},R,{visit},{project},{2 if visit == 'V06' and i < n / 2 else 1}"
        for i in range(n)
        for visit in ("V00", "V06")
        for project in (15, 42)[: 1 + (i < cases)]
    ]
    (folder / "kl.csv").write_text("\n".join(["id,side,visit,project,kl", *readings]) + "\n")
    names = {"laterality": "side", "visit": "visit", "reading_project": "project", "kl_grade": "kl"}
    tables = {
        "enrollees": {"file": "people.csv", "columns": {"subject_id": "id"}},
        "kl": {"file": "kl.csv", "columns": {"subject_id": "id", **names}},
    }
    spec = {"name": "t", "visits": {"V00": 0, "V06": 48}, "reading_projects": [15, 42]}
    (folder / "cohort.yaml").write_text(yaml.safe_dump({**spec, "tables": tables}))
    return str(folder / "cohort.yaml")


@pytest.mark.parametrize(
    ("n", "cases", "message"),
    [
        (200, 90, "The reading projects alone tell the outcome"),
        (4, 0, "There are too few subjects for the folds"),
    ],
)
def test_check_stops_where_the_cohort_would_and_says_the_same(
    tmp_path: Path, n: int, cases: int, message: str
) -> None:
    folder = tmp_path / "tables"
    name = _read_by_two(folder, n, cases)
    with pytest.raises(InputError, match=message) as built:
        build_cohort(folder, tmp_path / "out", spec=read_cohort_spec(name))
    with pytest.raises(InputError, match=message) as checked:
        check_folder(folder, cohort=name)
    assert str(checked.value) == str(built.value)


def test_check_tells_how_well_the_reading_projects_tell_an_outcome(tmp_path: Path) -> None:
    """10 of 100 cases were read again, and no control: (1 + .1) / 2 is no reason to stop."""
    folder = tmp_path / "tables"
    notes = check_folder(folder, cohort=_read_by_two(folder, 200, 10)).notes
    assert any("reading projects alone" in note and "kl_progression 0.55" in note for note in notes)


def test_knees_without_their_image_and_strangers_are_named(
    collection: Path, tables: Write, release: dict[str, str], spec: CohortSpec, tmp_path: Path
) -> None:
    next((collection / "knees" / "train").rglob("9000001R.png")).unlink()
    build_cohort(collection, tmp_path / "out", spec=read_cohort_spec("mendeley"), folds=2)
    unmatched = pd.read_csv(tmp_path / "out" / "unmatched.csv", dtype=str)
    assert unmatched.values.tolist() == [["enrollees", "9000001", "R", "no such image"]]
    release["kxr_sq_bu00.txt"] += "9999999|1: Right|15|0.9|2|1|0\n"
    result = build_cohort(tables(release), tmp_path / "strangers", spec=spec)
    unmatched = pd.read_csv(result.outputs["unmatched"], dtype=str)
    assert unmatched[["table", "subject_id", "why"]].values.tolist() == [
        ["kl", "9999999", "not in enrollees"]
    ]


def test_the_site_is_no_candidate_predictor(tables: Write, release: dict[str, str]) -> None:
    """By hand: age, BMI, injury, alignment and WOMAC one each, sex 1, race 3, KL grade 4."""
    figures = check_folder(tables(release)).figures["jsl_48m"]
    assert figures["candidate_parameters"] == 5 + 1 + 3 + 4


def test_check_recognises_a_release_and_says_what_would_be_lost(
    tables: Write, release: dict[str, str]
) -> None:
    result = check_folder(tables(release))
    assert any(note.startswith("read as synthetic") for note in result.notes)
    assert (
        "cohort, in knees: 20 enrolled; less 1 replaced at baseline; "
        "less 2 no KL grade at baseline; leaves 17 in the cohort"
    ) in result.notes
    assert result.figures["jsl_48m"]["events"] == 3
    assert result.figures["jsl_48m"]["knees_needed"] > 7
    assert result.figures["jsl_48m"]["parameters_it_can_bear"] == 0
    assert "--cohort synthetic" in result.next_step
    assert result.failed == 0


def test_check_says_what_is_missing(tables: Write, release: dict[str, str]) -> None:
    del release["SubjectChar00.txt"]
    result = check_folder(tables(release), cohort="synthetic")
    assert "missing: SubjectChar00.txt: no such file" in result.notes
    assert result.failed == 1


def test_check_knows_graded_images_dicom_films_and_unknown_tables(
    collection: Path, tmp_path: Path
) -> None:
    for table in collection.glob("*.csv"):
        table.unlink()
    (collection / "film").write_bytes(b"\0" * 128 + b"DICM")
    (collection / "study.csv").write_text("who,grade\n1,2\n")
    result = check_folder(collection)
    assert result.counts == {"tables": 1, "graded_images": 12, "dicom_films": 1}
    assert "graded images by split: 8 train, 4 val" in result.notes
    assert any("tables of no cohort that is known: study.csv" in note for note in result.notes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Nothing here"):
        check_folder(tmp_path / "empty")


def test_a_flag_to_exclude_is_a_step_of_the_attrition(
    tables: Write, release: dict[str, str], spec: CohortSpec, tmp_path: Path
) -> None:
    release["Fractures.txt"] = "ID|FXR|FXL\n9000001|1: Yes|0: No\n"
    document = spec.model_dump()
    document["tables"]["fractures"] = {
        "file": "Fractures.txt",
        "columns": {"subject_id": "ID", "exclude_fracture": {"column": "FX{side}"}},
    }
    document["tables"]["fractures"]["columns"]["exclude_fracture"]["codes"] = {0: 0, 1: 1}
    build_cohort(tables(release), tmp_path / "out", spec=CohortSpec.model_validate(document))
    attrition = pd.read_csv(tmp_path / "out" / "attrition.csv").set_index("step")["knees"]
    assert attrition["fracture"] == 1
    drawn = (tmp_path / "out" / "attrition.svg").read_text()
    assert "fracture" in drawn
    assert "jsl_or_kr_48m is 1" in drawn
