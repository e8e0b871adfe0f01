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
from kneeoa_mm.cohort.readings import reading_patterns
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


def _read_again(n: int, cases: int, controls: int) -> tuple[pd.DataFrame, pd.Series]:
    """A quarter of ``n`` knees are cases; so many of either were read by project 42, too."""
    n_cases = n // 4
    rows = pd.DataFrame({outcome: pd.array([None] * n, dtype="Int64") for outcome in Outcome})
    rows["kl_progression"] = pd.array([1] * n_cases + [0] * (n - n_cases), dtype="Int64")
    again = [i < cases or 0 <= i - n_cases < controls for i in range(n)]
    readings = pd.DataFrame(
        [("s" + str(i), "R", project, 2) for i in range(n) for project in (15, 42)[: 1 + again[i]]],
        columns=["subject_id", "laterality", "reading_project", "kl_grade"],
    )
    patterns = reading_patterns(readings, "kl_grade", (15, 42))
    return rows, pd.Series([patterns["s" + str(i), "R"] for i in range(n)])


def test_knees_that_were_read_again_because_they_progressed_are_refused() -> None:
    """All grades that are kept are of project 15, and the pattern of projects tells all the same.

    Of 200 cases 180 were read again and of 600 controls 60: .9 * .9 + (.1 * .9 + .9 * .1) / 2.
    """
    with pytest.raises(LeakError, match=r"kl_progression 0\.900"):
        reading_pattern_note(*_read_again(800, 180, 60))
    [note] = reading_pattern_note(*_read_again(800, 20, 60))
    assert "kl_progression 0.50" in note


def test_projects_that_are_not_named_and_too_few_cases_are_no_verdict() -> None:
    rows, _ = _read_again(800, 180, 60)
    assert reading_pattern_note(rows, pd.Series(["15"] * 800)) == ()
    [note] = reading_pattern_note(*_read_again(160, 36, 12))
    assert "too few cases" in note
    assert "kl_progression 40" in note


def test_a_project_that_does_not_count_is_no_part_of_the_pattern() -> None:
    readings = pd.DataFrame(
        [("a", "R", 15, 2), ("a", "R", 42, 3), ("a", "R", 37, None), ("b", "L", 42, 1)],
        columns=["subject_id", "laterality", "reading_project", "kl_grade"],
    )
    assert reading_patterns(readings, "kl_grade", (15, 37)) == {("a", "R"): "15"}
    assert reading_patterns(readings, "kl_grade", ()) == {("a", "R"): "15+42", ("b", "L"): "42"}


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
