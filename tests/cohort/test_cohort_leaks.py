"""What must not leak is refused; folds keep together who belongs together."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.cohort.audit import late_factors, refuse_projects
from kneeoa_mm.cohort.leaks import audit_split, reading_pattern_note
from kneeoa_mm.cohort.partition import connected_subjects, site_folds
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec, shipped_cohorts
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.records import Outcome


@pytest.mark.parametrize("name", list(shipped_cohorts()))
def test_no_shipped_cohort_has_a_factor_from_after_baseline(name: str) -> None:
    spec = read_cohort_spec(name)
    assert late_factors(spec) == []
    refuse_projects(spec)


def _with_table(name: str, table: dict[str, object]) -> CohortSpec:
    document = read_cohort_spec("oai").model_dump()
    document["tables"][name] = table
    return CohortSpec.model_validate(document)


def test_the_full_limb_angle_is_no_baseline_factor() -> None:
    columns = {"subject_id": "ID", "laterality": "SIDE", "hka_deg": "V01HKANGLE"}
    spec = _with_table("limbs", {"file": "flxr_kneealign_cooke01.txt", "columns": columns})
    assert late_factors(spec) == ["hka_deg from V01HKANGLE of flxr_kneealign_cooke01.txt"]
    # with 12 months as the landmark it is
    document = spec.model_dump()
    document["visits"] = {"V01": 0, "V03": 12, "V05": 24, "V06": 36}
    document["tables"] = {n: document["tables"][n] for n in ("enrollees", "limbs")}
    document["tables"]["enrollees"]["columns"].pop("site")
    assert late_factors(CohortSpec.model_validate(document)) == []


def test_a_factor_of_all_visits_in_one_file_needs_its_baseline_rows_chosen() -> None:
    columns = {"subject_id": "ID", "visit": "visit", "hka_deg": "angle"}
    table = {"file": "angles.txt", "columns": columns}
    assert late_factors(_with_table("angles", table)) == ["hka_deg from angle of angles.txt"]
    assert late_factors(_with_table("angles", {**table, "rows": {"visit": ["V06"]}}))
    assert late_factors(_with_table("angles", {**table, "rows": {"visit": ["V00"]}})) == []


def test_the_reading_project_cannot_be_mapped_to_a_factor() -> None:
    columns = {"subject_id": "ID", "laterality": "SIDE", "hka_deg": "READPRJ"}
    with pytest.raises(LeakError, match="hka_deg from READPRJ"):
        refuse_projects(_with_table("limbs", {"file": "limbs.txt", "columns": columns}))


def _mixed(risk_of_42: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    n = 400
    rows = pd.DataFrame({"subject_id": [f"s{i}" for i in range(n)], "laterality": "R"})
    is_second = rows.index >= n // 2
    readings = rows.assign(reading_project=[42 if second else 15 for second in is_second])
    for outcome in Outcome:
        rows[outcome] = pd.array([pd.NA] * n, dtype="Int64")
    value = [
        int(i % 100 < (100 * risk_of_42 if second else 25)) for i, second in enumerate(is_second)
    ]
    rows["kl_progression"] = pd.array(value, dtype="Int64")
    return rows, readings


def test_a_cohort_whose_reading_project_tells_the_outcome_is_refused() -> None:
    with pytest.raises(LeakError, match="kl_progression"):
        reading_pattern_note(*_mixed(0.8))
    [note] = reading_pattern_note(*_mixed(0.3))
    assert "kl_progression 0.5" in note


def test_a_person_or_an_image_in_two_parts_of_a_split_is_refused(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    rows = pd.DataFrame(
        {"subject_id": ["1", "1", "2"], "laterality": ["R", "L", "R"], "split": ["a", "a", "b"]}
    )
    images = pd.Series([str(tmp_path / f"{name}.png") for name in "abc"])
    audit_split(rows, images, where="here")
    with pytest.raises(LeakError, match="A subject stands in two parts"):
        audit_split(rows.assign(split=["a", "b", "b"]), images, where="here")
    (tmp_path / "c.png").write_bytes(b"a")
    with pytest.raises(LeakError, match=r"a.png in a is c.png in b"):
        audit_split(rows, images, where="here")


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("1234")), min_size=1))
def test_subjects_tied_by_pairs_form_one_group(ties: list[tuple[str, str]]) -> None:
    frame = pd.DataFrame(ties, columns=["subject_id", "matched_pair"])
    group_of = connected_subjects(frame)
    for _, members in frame.groupby("matched_pair"):
        assert len({group_of[subject] for subject in members["subject_id"]}) == 1
    # no larger than needed: shuffling the pairs' names cannot change the number of groups
    renamed = frame.assign(matched_pair=frame["matched_pair"].map(dict(zip("1234", "4321"))))  # noqa: B905
    assert len(set(connected_subjects(renamed).values())) == len(set(group_of.values()))


def test_each_site_is_a_fold() -> None:
    rows = pd.DataFrame({"subject_id": ["1", "1", "2", "3"], "site": ["B", "B", "A", "B"]})
    folds = site_folds(rows)
    assert folds.values.tolist() == [["1", 1, "B"], ["2", 0, "A"], ["3", 1, "B"]]
    with pytest.raises(InputError, match="split by site"):
        site_folds(rows.assign(site="A"))
