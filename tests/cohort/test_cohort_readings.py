"""One reading project a knee: which one, and that no knee mixes two."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.cohort.readings import (
    one_project,
    projects_in_words,
    refuse_unlisted_projects,
    why_unread_at_baseline,
)
from kneeoa_mm.errors import InputError

_PREFERENCE = (15, 37, 42)


def _readings(*rows: tuple[str, int, int, int | None]) -> pd.DataFrame:
    """Rows are subject, months, project and grade; all are of right knees."""
    frame = pd.DataFrame(rows, columns=["subject_id", "months", "reading_project", "kl_grade"])
    return frame.assign(laterality="R", kl_grade=frame["kl_grade"].astype("Int64"))


def _kept(*rows: tuple[str, int, int, int | None]) -> list[tuple[int, int]]:
    kept = one_project(_readings(*rows), "kl_grade", _PREFERENCE)
    return list(zip(kept["months"], kept["reading_project"], strict=True))


def test_the_preferred_project_wins_where_both_read_both_ends() -> None:
    rows = [("a", 0, 37, 2), ("a", 48, 37, 3), ("a", 0, 15, 2), ("a", 24, 15, 2), ("a", 48, 15, 2)]
    assert _kept(*rows) == [(0, 15), (24, 15), (48, 15)]


def test_a_project_that_read_both_ends_wins_over_a_preferred_one_that_did_not() -> None:
    assert _kept(("a", 0, 15, 2), ("a", 0, 37, 2), ("a", 48, 37, 3)) == [(0, 37), (48, 37)]


def test_a_project_without_baseline_is_never_chosen() -> None:
    assert _kept(("a", 48, 15, 2), ("a", 0, 42, 2)) == [(0, 42)]
    assert _kept(("a", 12, 15, 2), ("a", 48, 15, 2)) == []


def test_readings_without_a_grade_and_other_projects_do_not_count() -> None:
    assert _kept(("a", 0, 15, None), ("a", 0, 20, 2), ("a", 0, 37, 2)) == [(0, 37)]


_ROW = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from([0, 12, 24, 36, 48, 72]),
    st.sampled_from([15, 20, 37, 42]),
    st.one_of(st.none(), st.integers(0, 4)),
)


@given(st.lists(_ROW, unique_by=lambda row: row[:3]), st.randoms(use_true_random=False))
def test_each_knee_has_one_project_and_a_baseline_in_any_order_of_rows(
    rows: list[tuple[str, int, int, int | None]], random: object
) -> None:
    kept = one_project(_readings(*rows), "kl_grade", _PREFERENCE)
    groups = kept.groupby("subject_id")
    assert (groups["reading_project"].nunique() == 1).all()
    assert (groups["months"].min() == 0).all()
    random.shuffle(rows)  # type: ignore[attr-defined]
    shuffled = one_project(_readings(*rows), "kl_grade", _PREFERENCE)
    pd.testing.assert_frame_equal(kept, shuffled)


def test_readings_of_which_no_project_counts_are_refused() -> None:
    """Project 17 for 16 would leave every knee without an outcome, and nobody would be told."""
    read = _readings(("a", 0, 17, 2), ("a", 48, 17, 2), ("b", 0, 18, 3), ("b", 0, 16, None))
    with pytest.raises(InputError) as refusal:
        refuse_unlisted_projects(read, "kl_grade", (16,), setting="jsw_projects", where="tables")
    told = str(refusal.value)
    assert "jsw_projects: 16" in told
    assert "2 of project 17, 1 of project 18" in told
    for preference in ((), (16, 18)):
        refuse_unlisted_projects(read, "kl_grade", preference, setting="jsw_projects", where="")
    refuse_unlisted_projects(read.iloc[:0], "kl_grade", (16,), setting="jsw_projects", where="")


def test_a_knee_that_another_project_read_says_so_unless_its_own_says_why() -> None:
    read = _readings(
        ("a", 0, 17, 2), ("b", 0, 15, None), ("b", 0, 17, 2), ("c", 0, 15, 2), ("d", 48, 17, 2)
    )
    codes = [None, ".T: Technical Problems", None, None, None]
    why = why_unread_at_baseline(read.assign(kl_grade_missing=codes), "kl_grade", (15,))
    assert why == {
        ("a", "R"): "read by another project (17)",
        ("b", "R"): ".T: Technical Problems",
    }


def test_a_note_counts_the_knees_that_only_other_projects_read() -> None:
    read = _readings(
        ("a", 0, 15, 2), ("a", 0, 17, 2), ("b", 0, 17, 2), ("c", 0, 17, 2), ("c", 48, 15, 2)
    )
    kept = one_project(read, "kl_grade", (15,))
    assert projects_in_words(read, kept, "kl_grade", what="KL readings") == [
        "KL readings: project 15 for 1 knee(s)",
        "KL readings by projects that do not count, of knees with no other: project 17 for 2 "
        "knee(s)",
    ]
