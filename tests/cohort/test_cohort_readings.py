"""One reading project a knee: which one, and that no knee mixes two."""

from __future__ import annotations

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.cohort.readings import one_project

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
