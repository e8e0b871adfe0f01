"""The whole stage on the release of ``conftest.py``, against outcomes worked out by hand."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort.summary import baseline_table
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import ConfigError, InputError, OutputExistsError, TableError
from kneeoa_mm.records import KneeKey, Outcome
from kneeoa_mm.schemas import COHORT, FOLDS, KL_READINGS
from kneeoa_mm.tables import read_provenance, read_table

Write = Callable[[dict[str, str]], Path]
Release = dict[str, str]

# knee: value, reason, event_observed, lower_months, upper_months
_NAN = None
_JSL = {
    "9000001:R": (1, None, 1, 12, 24),  # 2.9 to 2.2 mm is 0.7 exactly; 2.0 at 24 months
    "9000001:L": (0, None, 0, 48, None),  # 4.0 to 3.301; a loss at 12 months was noise
    "9000002:R": (1, None, 1, 0, 48),  # 1.0 mm to bone on bone
    "9000002:L": (None, "baseline_jsw_below_threshold", None, None, None),
    "9000003:R": (None, "baseline_kl_4", None, None, None),
    "9000003:L": (None, "replaced", 0, 12, None),
    "9000004:R": (None, "died", 0, 0, None),
    "9000004:L": (None, "died", 0, 0, None),
    "9000005:R": (None, "lost", 1, 0, 24),
    "9000006:R": (None, "no_reading", 0, 36, None),
    "9000006:L": (None, "position_differs", 0, 0, None),
    "0000007:R": (0, None, 0, 48, None),  # project 20 would have made it 8 mm
    "0000007:L": (None, "no_baseline_reading", None, None, None),
    "9000008:R": (1, None, 1, 0, 48),  # replaced only at 60 months
    "9000008:L": (0, None, 0, 48, None),
    "9000009:R": (0, None, 0, 48, None),
    "9000009:L": (None, "no_baseline_reading", None, None, None),
}
_KL = {
    "9000001:R": (1, None, 1, 12, 48),
    "9000001:L": (0, None, 0, 48, None),
    "9000002:R": (1, None, 1, 0, 48),
    "9000002:L": (0, None, 0, 48, None),
    "9000003:R": (None, "baseline_kl_4", None, None, None),
    "9000003:L": (None, "replaced", 0, 24, None),  # its grade 4 at 36 months is a prosthesis
    "9000004:R": (None, "died", 0, 0, None),
    "9000004:L": (1, None, 1, 0, 12),  # seen before the death
    "9000005:R": (None, "lost", 0, 24, None),
    "9000006:R": (0, None, 0, 48, None),
    "9000006:L": (0, None, 0, 48, None),
    "0000007:R": (1, None, 1, 0, 48),  # project 37, the only preferred one with both ends
    "0000007:L": (0, None, 0, 48, None),  # project 15, though 37 saw a rise
    "9000008:R": (0, None, 0, 48, None),
    "9000008:L": (0, None, 0, 48, None),
    "9000009:R": (0, None, 0, 48, None),  # a drop at 24 months
    "9000009:L": (0, None, 0, 48, None),  # 0 to 1
}
_DAY_913, _DAY_487, _DAY_700 = 29.9959, 16.0, 22.9979
_TKR = {
    "9000001:R": (0, None, 0, 108, None),
    "9000001:L": (0, None, 0, 108, None),
    "9000002:R": (0, None, 0, 96, None),
    "9000002:L": (0, None, 0, 96, None),
    "9000003:R": (0, None, 0, 96, None),
    "9000003:L": (1, None, 1, _DAY_913, _DAY_913),
    "9000004:R": (None, "died", 0, _DAY_487, None),
    "9000004:L": (None, "died", 0, _DAY_487, None),
    "9000005:R": (None, "lost", 0, 24, None),
    "9000006:R": (0, None, 0, 96, None),  # reported, but adjudication found none
    "9000006:L": (0, None, 0, 96, None),
    "0000007:R": (0, None, 0, 96, None),
    "0000007:L": (0, None, 0, 96, None),
    "9000008:R": (1, None, 1, 60, 60),
    "9000008:L": (None, "unconfirmed", 0, _DAY_700, None),
    "9000009:R": (None, "lost", 0, 60, None),
    "9000009:L": (None, "lost", 0, 60, None),
}


@pytest.fixture
def cohort(tables: Write, release: Release, spec: CohortSpec, tmp_path: Path) -> Path:
    build_cohort(tables(release), tmp_path / "out", spec=spec)
    return tmp_path / "out"


def _read(folder: Path) -> pd.DataFrame:
    return read_table(folder / "cohort.parquet", COHORT).set_index("knee_id")


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(Outcome.JSL_48M, _JSL), (Outcome.KL_PROGRESSION, _KL), (Outcome.TKR, _TKR)],
)
def test_outcomes_are_those_worked_out_by_hand(
    cohort: Path, outcome: Outcome, expected: dict[str, tuple[object, ...]]
) -> None:
    parts = ("", "_reason", "_event_observed", "_lower_months", "_upper_months")
    frame = _read(cohort)[[outcome + part for part in parts]]
    found = {
        f"{KneeKey.parse(knee).subject_id}:{KneeKey.parse(knee).laterality}": tuple(
            None if pd.isna(cell) else round(cell, 4) if isinstance(cell, float) else cell
            for cell in row
        )
        for knee, *row in frame.itertuples()
    }
    assert found == expected


def test_clinical_values_are_in_our_vocabulary_and_missing_ones_say_why(cohort: Path) -> None:
    frame = _read(cohort)
    right = frame.loc["synthetic:9000001:0:R"]
    names = ["sex", "race", "site", "age_years", "bmi_kg_m2", "knee_injury", "fta_deg"]
    assert right[names].tolist() == ["M", "white", "A", 60.0, 27.5, 0, -2.5]
    assert right[["kl_grade", "oarsi_jsn_medial", "mjsw_medial_mm"]].tolist() == [2, 1.0, 2.9]
    assert right["missing_reasons"] is None
    left = frame.loc["synthetic:9000002:0:L"]
    assert pd.isna(left["knee_injury"])
    assert left["missing_reasons"] == (
        "knee_injury: .A: Not Expected; fta_deg: no row in the table"
    )
    assert frame.loc["synthetic:0000007:0:L", "missing_reasons"].endswith(
        "mjsw_medial_mm: the reader could not measure it"
    )


def test_grades_of_all_visits_come_from_the_project_of_the_baseline(cohort: Path) -> None:
    readings = read_table(cohort / "kl_readings.parquet", KL_READINGS).set_index("knee_id")
    right = readings[(readings["subject_id"] == "0000007") & (readings["laterality"] == "R")]
    assert right["kl_grade"].to_dict() == {
        "synthetic:0000007:0:R": 2,
        "synthetic:0000007:48:R": 3,
    }
    assert set(right["reading_project"]) == {37}
    assert "reading_project" not in _read(cohort)
    baseline = readings[readings["months"] == 0]["kl_grade"]
    pd.testing.assert_series_equal(baseline.sort_index(), _read(cohort)["kl_grade"].sort_index())


def test_attrition_starts_with_everybody_and_adds_up(cohort: Path) -> None:
    table = pd.read_csv(cohort / "attrition.csv")
    assert table.loc[table["flow"] == "cohort", ["step", "knees"]].values.tolist() == [
        ["enrolled", 20],
        ["replaced at baseline", 1],
        ["no KL grade at baseline", 2],
        ["in the cohort", 17],
    ]
    for _, flow in table.groupby("flow"):
        knees = flow.groupby("kind")["knees"].sum()
        assert knees["start"] - knees["removed"] == knees["left"]


def test_folds_hold_each_subject_once(cohort: Path) -> None:
    folds = read_table(cohort / "folds.parquet", FOLDS)
    assert sorted(folds["subject_id"]) == sorted(set(_read(cohort)["subject_id"]))
    assert set(folds["fold"]) == set(range(5))


def test_the_table_tells_the_hash_of_each_file_that_it_was_made_of(
    cohort: Path, release: Release
) -> None:
    sources = read_provenance(cohort / "cohort.parquet")["sources"]
    assert sources == {
        name: hashlib.sha256(text.encode("latin-1")).hexdigest() for name, text in release.items()
    }


def test_the_export_and_the_configuration_say_the_same_as_the_table(cohort: Path) -> None:
    export, table = (read_table(cohort / f"cohort.{kind}", COHORT) for kind in ("csv", "parquet"))
    same_null = [frame.astype(object).where(frame.notna(), None) for frame in (export, table)]
    pd.testing.assert_frame_equal(*same_null)
    config = yaml.safe_load((cohort / "config.yaml").read_text())
    assert config["cohort"]["reading_projects"] == [15, 37, 42]
    assert config["ids"] == "kept"
    assert read_provenance(cohort / "cohort.parquet")["config"]


def test_the_order_of_rows_does_not_matter(
    cohort: Path, release: Release, tables: Write, spec: CohortSpec, tmp_path: Path
) -> None:
    shuffled = {}
    for name, text in release.items():
        header, *lines = text.splitlines()
        random.Random(name).shuffle(lines)
        shuffled[name] = "\n".join([header, *lines]) + "\n"
    build_cohort(tables(shuffled), tmp_path / "again", spec=spec)
    for name in ("cohort", "kl_readings", "folds"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(cohort / f"{name}.parquet"),
            pd.read_parquet(tmp_path / "again" / f"{name}.parquet"),
        )


def test_a_key_hides_identifiers_everywhere_and_keeps_tables_joined(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    out = tmp_path / "hashed"
    build_cohort(tables(release), out, spec=spec, ids=str(key))
    subjects = set(_read(out)["subject_id"])
    assert len(subjects) == 9
    assert subjects == set(pd.read_parquet(out / "folds.parquet")["subject_id"])
    for path in (path for path in out.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert b"9000001" not in data, path.name
        assert b"abab" not in data, path.name


def _lines(text: str, *more: str) -> str:
    return text + "".join(line + "\n" for line in more)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("kxr_sq_bu00.txt", "0.9|4|3", "0.9|1.9|3", r"V00XRKL: 1.9 is no whole .* line\(s\) 6"),
        (
            "kxr_sq_bu06.txt",
            "0.9|4|3",
            "0.9|9|3",
            r"V06XRKL: KL grade .* found 9 in line\(s\) 4",
        ),
        ("kxr_sq_bu00.txt", "1: Right", "3: Both", r"SIDE: code 3 is unknown.* line\(s\) 2, 4"),
        ("Enrollees.txt", "1: Male", "M", r"P02SEX: code M is unknown, .* line\(s\) 2, 5"),
        ("AllClinical00.txt", "|27.5|", "|275|", r"P01BMI: must lie in .* 275.* line\(s\) 2"),
        ("AllClinical00.txt", "|27.5|", "|2.75|", r"P01BMI: must lie in .* 2.75 in line\(s\) 2"),
        ("Outcomes99.txt", "|913|", "|-913|", r"V99E\?KDAYS: must not be negative"),
        ("Outcomes99.txt", "|487|1", "|487|12", r"V99RNTCNT: code 12 is unknown"),
        ("Enrollees.txt", "9000002", "9000001", r"a subject twice in line\(s\) 2, 3"),
        ("Enrollees.txt", "9000002", "", r"column ID: must not be missing in line\(s\) 3"),
        ("Enrollees.txt", "9000002", "9000:02", r"column ID: must hold neither colons"),
    ],
)
def test_faulty_cells_are_refused_with_their_lines_before_anything_is_written(
    tables: Write,
    release: Release,
    spec: CohortSpec,
    tmp_path: Path,
    file: str,
    old: str,
    new: str,
    message: str,
) -> None:
    assert old in release[file]
    release[file] = release[file].replace(old, new)
    with pytest.raises(TableError, match=message):
        build_cohort(tables(release), tmp_path / "out", spec=spec)
    assert not (tmp_path / "out").exists()


def test_all_faults_of_all_tables_come_in_one_message(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    release["AllClinical00.txt"] = release["AllClinical00.txt"].replace("|27.5|", "|275|")
    release["kxr_sq_bu06.txt"] = release["kxr_sq_bu06.txt"].replace("0.9|4|3", "0.9|8|3")
    with pytest.raises(TableError) as caught:
        build_cohort(tables(release), tmp_path / "out", spec=spec)
    assert len(caught.value.faults) == 2


def test_one_reading_twice_is_one_reading_and_two_values_are_refused(
    cohort: Path, tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    original = release["kxr_sq_bu06.txt"]
    release["kxr_sq_bu06.txt"] = _lines(original, "9000001|1: Right|15|0.8|3|2|0")
    build_cohort(tables(release), tmp_path / "again", spec=spec)
    pd.testing.assert_frame_equal(_read(cohort), _read(tmp_path / "again"))
    release["kxr_sq_bu06.txt"] = _lines(original, "9000001|1: Right|15|0.9|2|2|0")
    with pytest.raises(TableError, match=r"rows of one knee that differ in line\(s\) 2, 17"):
        build_cohort(tables(release), tmp_path / "third", spec=spec)


def test_readings_of_strangers_are_left_out_and_told(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    release["kxr_sq_bu00.txt"] = _lines(release["kxr_sq_bu00.txt"], "9999999|1: Right|15|0.9|2|1|0")
    result = build_cohort(tables(release), tmp_path / "out", spec=spec)
    assert "kl: 1 subject(s) are not in enrollees, left out" in result.notes
    assert result.counts["knees"] == 17


def test_subjects_that_match_no_reading_stop_the_run(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    release["Enrollees.txt"] = (
        release["Enrollees.txt"].replace("9000", "8000").replace("0000007", "8000007")
    )
    with pytest.raises(InputError, match="No knee of the enrolled subjects"):
        build_cohort(tables(release), tmp_path / "out", spec=spec)
    assert not (tmp_path / "out").exists()


def test_an_earlier_run_is_kept_unless_overwritten(
    cohort: Path, tables: Write, release: Release, spec: CohortSpec
) -> None:
    before = (cohort / "cohort.parquet").read_bytes()
    with pytest.raises(OutputExistsError):
        build_cohort(tables(release), cohort, spec=spec)
    assert (cohort / "cohort.parquet").read_bytes() == before
    build_cohort(tables(release), cohort, spec=spec, seed=1, overwrite=True)
    assert yaml.safe_load((cohort / "config.yaml").read_text())["seed"] == 1


def test_fewer_than_two_folds_are_refused(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="folds"):
        build_cohort(tables(release), tmp_path / "out", spec=spec, folds=1)


def test_a_seed_below_zero_is_refused_before_anything_is_read(
    spec: CohortSpec, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="seed"):
        build_cohort(tmp_path / "no-tables", tmp_path / "out", spec=spec, seed=-1)


def test_death_can_come_as_a_date(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    # 1 March 2005 and 487 days is 1 July 2006
    release["Outcomes99.txt"] = release["Outcomes99.txt"].replace("|487|", "|07/01/2006|")
    release["Dates.txt"] = "ID|V00EVDATE\n9000004|03/01/2005\n"
    document = spec.model_dump()
    outcomes = document["tables"]["outcomes"]["columns"]
    outcomes["death_date"] = outcomes.pop("death_days")
    document["tables"]["clinical"]["columns"].pop("baseline_date")
    columns = {"subject_id": "ID", "baseline_date": "V00EVDATE"}
    document["tables"]["dates"] = {"file": "Dates.txt", "columns": columns}
    dated = CohortSpec.model_validate(document)
    build_cohort(tables(release), tmp_path / "out", spec=dated)
    months = _read(tmp_path / "out").loc["synthetic:9000004:0:L", "death_months"]
    assert months == pytest.approx(16.0, abs=1e-3)


def test_a_plain_csv_study_with_neither_widths_nor_outcomes_is_a_cohort(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("participant,gender,age\n001,1,60\n002,2,70\n")
    for visit, grades in (("00", "2 1 3 0"), ("06", "3 1 9 0")):
        rows = zip(("001", "001", "002", "002"), "RLRL", grades.split(), strict=True)
        text = "participant,side,kl\n" + "".join(f"{','.join(row)}\n" for row in rows)
        (tmp_path / f"grades_{visit}.csv").write_text(text)
    grades = {**{grade: grade for grade in range(5)}, 9: None}
    spec = CohortSpec.model_validate(
        {
            "name": "mystudy",
            "visits": {"V00": 0, "V06": 48},
            "tables": {
                "enrollees": {
                    "file": "people.csv",
                    "separator": ",",
                    "columns": {
                        "subject_id": "participant",
                        "sex": {"column": "gender", "codes": {1: "M", 2: "F"}},
                        "age_years": "age",
                    },
                },
                "kl": {
                    "file": "grades_{visit}.csv",
                    "separator": ",",
                    "columns": {
                        "subject_id": "participant",
                        "laterality": "side",
                        "kl_grade": {"column": "kl", "codes": grades},
                    },
                },
            },
        }
    )
    build_cohort(tmp_path, tmp_path / "out", spec=spec, folds=2)
    frame = _read(tmp_path / "out")
    assert frame["kl_progression"].fillna(-1).to_dict() == {
        "mystudy:001:0:L": 0,
        "mystudy:001:0:R": 1,
        "mystudy:002:0:L": 0,
        "mystudy:002:0:R": -1,
    }
    assert frame["kl_progression_reason"].dropna().tolist() == ["no_reading"]
    assert frame["jsl_48m_reason"].unique().tolist() == ["no_baseline_reading"]
    assert frame["tkr_reason"].unique().tolist() == ["no_outcome_record"]
    assert frame["bmi_kg_m2"].isna().all()
    assert "bmi_kg_m2: not in cohort.yaml" in frame["missing_reasons"].iloc[0]


def test_a_width_by_another_project_is_told_as_such_and_not_as_no_reading(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    """9000001's right knee: its width is there, of project 20, which the cohort does not list."""
    widths = release["kxr_qjsw_duryea00.txt"]
    release["kxr_qjsw_duryea00.txt"] = widths.replace("9000001|1: Right|16", "9000001|1: Right|20")
    result = build_cohort(tables(release), tmp_path / "out", spec=spec)
    right = _read(tmp_path / "out").loc["synthetic:9000001:0:R"]
    assert pd.isna(right["mjsw_medial_mm"])
    assert right["jsl_48m_reason"] == "no_baseline_reading"
    assert right["missing_reasons"] == "mjsw_medial_mm: read by another project (20)"
    # 16 knees have a row of project 16, of which 0000007's left could not be measured
    assert "joint-space widths: project 16 for 14 knee(s)" in result.notes
    assert any("do not count, of knees with no other: project 20 for 1" in n for n in result.notes)


@pytest.mark.parametrize("setting", ["jsw_projects", "reading_projects"])
def test_a_cohort_whose_projects_match_no_reading_is_refused(
    setting: str, tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    wrong = spec.model_copy(update={setting: (99,)})
    with pytest.raises(InputError, match=f"{setting}: 99"):
        build_cohort(tables(release), tmp_path / "out", spec=wrong)
    assert not (tmp_path / "out").exists()


def test_the_code_of_a_film_without_a_reading_is_kept(cohort: Path) -> None:
    reasons = _read(cohort)["missing_reasons"]
    assert reasons["synthetic:9000006:0:R"].endswith(
        "jsl_48m at 48 months: the reader could not measure it; "
        "jsl_fnih at 48 months: the reader could not measure it; "
        "jsl_or_kr_48m at 48 months: the reader could not measure it"
    )


def test_a_code_of_kl_at_the_horizon_is_kept(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    rows = release["kxr_sq_bu06.txt"]
    release["kxr_sq_bu06.txt"] = rows.replace(
        "9000002|2: Left|15|0.9|3|3|0", "9000002|2: Left|15|0.9|.P: Prosthesis|.|."
    )
    build_cohort(tables(release), tmp_path / "out", spec=spec)
    left = _read(tmp_path / "out").loc["synthetic:9000002:0:L"]
    assert left["kl_progression_reason"] == "no_reading"
    assert left["missing_reasons"].endswith("kl_progression at 48 months: .P: Prosthesis")


def test_folds_are_stratified_on_the_primary_outcome_and_the_run_offers_it(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    """What became of 9000003's left knee, replaced at 30 months, only the composite knows."""
    result = build_cohort(tables(release), tmp_path / "out", spec=spec)
    [note] = [note for note in result.notes if "primary" in note]
    assert "--outcome jsl_or_kr_48m" in note
    assert "counts 1 replaced knee(s) that jsl_48m leaves out" in note


@pytest.mark.parametrize("tables_of_widths", ["none", "the fixed location alone"])
def test_the_width_at_a_fixed_location_needs_no_minimum(
    tmp_path: Path, tables_of_widths: str
) -> None:
    """Knee 1 loses 1.0 mm and knee 2 nothing; without widths no knee has a baseline to compare."""
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "people.csv").write_text("id\n1\n2\n")
    grades = [f"{i},R,{visit},2" for i in (1, 2) for visit in ("V00", "V06")]
    (folder / "kl.csv").write_text("\n".join(["id,side,visit,kl", *grades]) + "\n")
    widths = ["1,R,V00,4.0", "1,R,V06,3.0", "2,R,V00,4.0", "2,R,V06,4.0"]
    (folder / "jsw.csv").write_text("\n".join(["id,side,visit,width", *widths]) + "\n")
    key = {"subject_id": "id", "laterality": "side", "visit": "visit"}
    document = {
        "name": "fixed",
        "visits": {"V00": 0, "V06": 48},
        "outcomes": {"width": "jsw_fixed_mm"},
        "tables": {
            "enrollees": {"file": "people.csv", "columns": {"subject_id": "id"}},
            "kl": {"file": "kl.csv", "columns": {**key, "kl_grade": "kl"}},
            "jsw": {"file": "jsw.csv", "columns": {**key, "jsw_fixed_mm": "width"}},
        },
    }
    if tables_of_widths == "none":
        del document["tables"]["jsw"]
    build_cohort(folder, tmp_path / "out", spec=CohortSpec.model_validate(document), folds=2)
    frame = _read(tmp_path / "out")
    if tables_of_widths == "none":
        assert set(frame["jsl_48m_reason"]) == {"no_baseline_reading"}
    else:
        assert frame["jsl_48m"].tolist() == [1, 0]
    assert frame["mjsw_medial_mm"].isna().all()


def test_the_visit_of_joint_space_loss_is_a_choice(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    """At 24 months 9000001's right knee has lost 0.9 mm and 9000005's 1.0 mm; no other was read."""
    document = spec.model_dump()
    document["outcomes"]["jsl_horizon_months"] = 24
    build_cohort(tables(release), tmp_path / "out", spec=CohortSpec.model_validate(document))
    known = _read(tmp_path / "out")["jsl_48m"].dropna()
    assert known.to_dict() == {"synthetic:9000001:0:R": 1, "synthetic:9000005:0:R": 1}


def test_table_one_counts_what_is_there(cohort: Path) -> None:
    table = baseline_table(_read(cohort).reset_index(), by=Outcome.JSL_48M)
    assert table.loc["knees"].tolist() == ["17", "4", "3", "10", ""]
    # right knees of 9000001 (60), 9000002 (61) and 9000008 (67)
    assert table.loc["age_years, mean (SD)", "yes"] == "62.7 (3.8)"
    assert table.loc["sex = F, n (%)", "yes"] == "2 (67%)"
    # controls are 9000001 L (M), 0000007 R (M), 9000008 L (F), 9000009 R (M): shares 2/3 and 1/4,
    # (0.6667 - 0.25) / sqrt((0.2222 + 0.1875) / 2)
    assert table.loc["sex = F, n (%)", "difference"] == "0.92"
    assert table.loc["bmi_kg_m2 missing, n", "unknown"] == "2"


def test_the_sub_cohort_is_carried_where_the_release_has_it(
    tables: Write, release: Release, spec: CohortSpec, tmp_path: Path
) -> None:
    """Codes of the OAI's V00COHORT; it describes people and is no clinical factor."""
    codes = {"9000001": "1: Progression", "9000002": "2: Incidence", "9000006": "3: Non-exposed"}
    lines = release["Enrollees.txt"].strip().splitlines()
    rows = [f"{line}|{codes.get(line.split('|')[0], '2: Incidence')}" for line in lines[1:]]
    text = "\n".join([f"{lines[0]}|V00COHORT", *rows])
    build_cohort(tables(release | {"Enrollees.txt": f"{text}\n"}), tmp_path / "out", spec=spec)
    cohort = pd.read_parquet(tmp_path / "out" / "cohort.parquet").set_index("subject_id")
    assert set(cohort.loc["9000001", "sub_cohort"]) == {"progression"}
    assert set(cohort["sub_cohort"]) == {"progression", "incidence", "not exposed"}
