"""Sustained rise of pain against cases worked by hand, and through the tables of a release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord, Reason
from kneeoa_mm.cohort.pain import pain_progression
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import TableError
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import read_table


def _knee(pain: dict[int, float], **more: object) -> KneeHistory:
    return KneeHistory(womac_pain=pain, **{"last_contact_months": 96.0, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pain", "record"),
    [
        # two visits, next to each other or not, and the first of them dates it
        ({0: 3, 24: 5, 36: 5, 48: 3}, OutcomeRecord(1, None, 1, 0.0, 24.0)),
        ({0: 3, 24: 4, 36: 5, 48: 6}, OutcomeRecord(1, None, 1, 24.0, 36.0)),
        ({0: 3, 24: 6, 36: 3, 48: 6}, OutcomeRecord(1, None, 1, 0.0, 24.0)),
        # once is not sustained; 12 months does not count
        ({0: 3, 12: 9, 24: 3, 36: 9, 48: 3}, OutcomeRecord(0, None, 0, 48.0, None)),
        ({0: 3, 24: 3, 36: 3, 48: 9}, OutcomeRecord(0, None, 0, 36.0, None)),
        # less than 2 points
        ({0: 3, 24: 4.9, 36: 4.9, 48: 4.9}, OutcomeRecord(0, None, 0, 48.0, None)),
        # one unanswered visit cannot make it two, or can
        ({0: 3, 24: 3, 48: 3}, OutcomeRecord(0, None, 0, 48.0, None)),
        ({0: 3, 24: 3, 48: 6}, OutcomeRecord(None, Reason.NO_READING, 0, 24.0, None)),
        ({0: 3, 48: 3}, OutcomeRecord(None, Reason.NO_READING, 0, 48.0, None)),
        # known as soon as two visits show it
        ({0: 3, 24: 6, 36: 6}, OutcomeRecord(1, None, 1, 0.0, 24.0)),
        # 18 of 20 can rise by 2, 18.5 cannot
        ({0: 18, 24: 20, 36: 20}, OutcomeRecord(1, None, 1, 0.0, 24.0)),
        ({0: 18.5, 24: 20, 36: 20}, OutcomeRecord(None, Reason.BASELINE_PAIN_TOO_HIGH)),
        ({24: 9, 36: 9}, OutcomeRecord(None, Reason.NO_BASELINE_READING)),
    ],
)
def test_pain_progresses_when_a_rise_is_sustained(
    pain: dict[int, float], record: OutcomeRecord
) -> None:
    assert pain_progression(_knee(pain)) == record


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"is_replaced": True, "replacement_months": 30.0}, Reason.REPLACED),
        ({"is_dead": True, "death_months": 30.0}, Reason.DIED),
        ({"last_contact_months": 30.0}, Reason.LOST),
    ],
)
def test_pain_after_replacement_or_death_is_not_the_knees(
    more: dict[str, object], reason: Reason
) -> None:
    pain = {0: 3, 24: 6} if reason is Reason.LOST else {0: 3, 24: 6, 36: 6, 48: 6}
    assert pain_progression(_knee(pain, **more)) == OutcomeRecord(None, reason, 0, 0.0, None)


def test_visits_and_rise_are_a_choice() -> None:
    knee = _knee({0: 3, 15: 4, 30: 4})
    assert pain_progression(knee, threshold=1.0, months_asked=(15, 30, 60)).value == 1


@given(st.dictionaries(st.sampled_from([12, 24, 36, 48]), st.integers(0, 20)), st.integers(0, 18))
def test_one_more_answer_never_changes_what_is_settled(
    later: dict[int, float], baseline: int
) -> None:
    record = pain_progression(_knee({0: baseline, **later}))
    if record.value is not None:
        for months in (24, 36, 48):
            for score in (0, 20):
                more = pain_progression(_knee({0: baseline, months: score, **later}))
                assert more.value == record.value
    if record.event_observed:
        assert record.lower_months < record.upper_months


def _asked(rows: dict[str, tuple[str, str]], digits: str) -> str:
    lines = [f"{subject}|{right}|{left}" for subject, (right, left) in rows.items()]
    return "\n".join([f"ID|V{digits}WOMKPR|V{digits}WOMKPL", *lines]) + "\n"


def test_scores_of_all_visits_are_read_from_a_release(
    release: dict[str, str],
    tables: Callable[[dict[str, str]], Path],
    spec: CohortSpec,
    tmp_path: Path,
) -> None:
    header, *lines = release["AllClinical00.txt"].splitlines()
    scored = [f"{header}|V00WOMKPR|V00WOMKPL", *(f"{line}|3|4" for line in lines)]
    release["AllClinical00.txt"] = "\n".join(scored) + "\n"
    release["AllClinical03.txt"] = _asked({"9000001": ("5", "4"), "9000002": ("3", ".A")}, "03")
    release["ALLCLINICAL05.txt"] = _asked({"9000001": ("5.5", "4"), "9000002": ("9", "9")}, "05")
    release["AllClinical06.txt"] = _asked({"9000001": ("3", "4"), "9000002": ("3", "9")}, "06")
    build_cohort(tables(release), tmp_path / "out", spec=spec)
    cohort = read_table(tmp_path / "out" / "cohort.parquet", COHORT).set_index("knee_id")
    found = {
        name: tuple(None if pd.isna(cell) else cell for cell in row)
        for name, *row in cohort[
            ["pain_progression", "pain_progression_lower_months", "pain_progression_upper_months"]
        ].itertuples()
    }
    assert found["synthetic:9000001:0:R"] == (1, 0, 24)
    assert found["synthetic:9000001:0:L"] == (0, 48, None)
    assert found["synthetic:9000002:0:R"] == (0, 48, None)
    assert found["synthetic:9000002:0:L"] == (1, 0, 36)
    assert cohort.loc["synthetic:9000006:0:R", "pain_progression_reason"] == "no_reading"
    assert "womac_pain" not in cohort  # no predictor: later scores stand in the same columns


def test_a_score_beyond_the_scale_is_refused(
    release: dict[str, str],
    tables: Callable[[dict[str, str]], Path],
    spec: CohortSpec,
    tmp_path: Path,
) -> None:
    release["AllClinical03.txt"] = _asked({"9000001": ("21", "4")}, "03")
    with pytest.raises(TableError, match=r"V03WOMKPR|V03WOMKP.*0 to 20.*21"):
        build_cohort(tables(release), tmp_path / "out", spec=spec)
