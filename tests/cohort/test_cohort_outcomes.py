"""Each outcome against cases worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord, Reason, months_from_days
from kneeoa_mm.cohort.joint_space_loss import jsl_48m
from kneeoa_mm.cohort.outcomes import has_grade_drop, kl_progression, tkr


def _knee(jsw: dict[int, float] | None = None, **more: object) -> KneeHistory:
    known: dict[str, object] = {"kl_grades": {0: 2}, "last_contact_months": 108.0}
    return KneeHistory(mjsw_medial_mm=jsw or {}, **{**known, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("baseline_mm", "follow_up_mm", "value"),
    [
        (4.0, 3.3, 1),
        (2.9, 2.2, 1),  # 0.7 exactly, which binary floating point makes 0.6999...
        (3.1, 2.4, 1),
        (4.0, 3.301, 0),
        (4.0, 4.5, 0),
        (0.7, 0.0, 1),  # the narrowest knee at risk, bone on bone at follow-up
    ],
)
def test_jsl_counts_a_loss_of_at_least_seven_tenths(
    baseline_mm: float, follow_up_mm: float, value: int
) -> None:
    assert jsl_48m(_knee({0: baseline_mm, 48: follow_up_mm})).value == value


@given(st.integers(700, 8000), st.integers(0, 9000))
def test_jsl_equals_the_definition_in_whole_micrometres(baseline: int, follow_up: int) -> None:
    record = jsl_48m(_knee({0: baseline / 1000, 48: follow_up / 1000}))
    assert record.value == int(baseline - follow_up >= 700)


@pytest.mark.parametrize(
    ("knee", "reason"),
    [
        (_knee({48: 3.0}), Reason.NO_BASELINE_READING),
        (_knee({0: 4.0, 48: 3.0}, kl_grades={48: 2}), Reason.NO_BASELINE_READING),
        (_knee({0: 4.0, 48: 3.0}, kl_grades={0: 4}), Reason.BASELINE_KL_4),
        (_knee({0: 0.699, 48: 0.0}), Reason.BASELINE_JSW_BELOW_THRESHOLD),
    ],
)
def test_jsl_is_undefined_for_knees_not_at_risk(knee: KneeHistory, reason: Reason) -> None:
    assert jsl_48m(knee) == OutcomeRecord(None, reason)


@pytest.mark.parametrize(
    ("knee", "reason"),
    [
        (_knee({0: 4.0, 24: 2.0}, is_replaced=True, replacement_months=30.0), Reason.REPLACED),
        (_knee({0: 4.0, 24: 2.0}, is_replaced=True), Reason.REPLACED),
        (_knee({0: 4.0, 24: 2.0}, is_dead=True, death_months=30.0), Reason.DIED),
        (_knee({0: 4.0, 24: 2.0}, last_contact_months=36.0), Reason.LOST),
        (_knee({0: 4.0, 24: 2.0}), Reason.NO_READING),
        (
            _knee({0: 4.0, 24: 2.0, 48: 1.0}, jsw_not_comparable=frozenset({48})),
            Reason.POSITION_DIFFERS,
        ),
        # a reading dated after the replacement is no reading of this knee
        (
            _knee({0: 4.0, 24: 2.0, 48: 1.0}, is_replaced=True, replacement_months=47.9),
            Reason.REPLACED,
        ),
    ],
)
def test_jsl_without_a_reading_at_48_months_keeps_the_reason_and_the_interval(
    knee: KneeHistory, reason: Reason
) -> None:
    assert jsl_48m(knee) == OutcomeRecord(None, reason, 1, 0.0, 24.0)


def test_replacement_after_48_months_leaves_the_reading_alone() -> None:
    knee = _knee({0: 4.0, 48: 3.0}, is_replaced=True, replacement_months=48.5)
    assert jsl_48m(knee) == OutcomeRecord(1, None, 1, 0.0, 48.0)


def test_a_loss_that_a_later_film_takes_back_is_no_event() -> None:
    knee = _knee({0: 4.0, 12: 3.2, 24: 3.9, 36: 3.1, 48: 3.0})
    assert jsl_48m(knee) == OutcomeRecord(1, None, 1, 24.0, 36.0)
    assert jsl_48m(_knee({0: 4.0, 12: 3.2, 48: 3.9})) == OutcomeRecord(0, None, 0, 48.0, None)


def test_a_loss_first_seen_after_the_horizon_is_no_event() -> None:
    assert jsl_48m(_knee({0: 4.0, 48: 3.9, 72: 1.0})) == OutcomeRecord(0, None, 0, 48.0, None)


def test_a_baseline_film_that_cannot_be_compared_spoils_every_loss() -> None:
    knee = _knee({0: 4.0, 24: 3.0, 48: 3.0}, jsw_not_comparable=frozenset({0}))
    assert jsl_48m(knee) == OutcomeRecord(None, Reason.POSITION_DIFFERS, 0, 0.0, None)


@given(
    st.dictionaries(st.sampled_from([12, 24, 36, 48]), st.integers(0, 6000)),
    st.integers(700, 6000),
)
def test_the_interval_of_jsl_never_contradicts_its_value(
    follow_up: dict[int, int], baseline: int
) -> None:
    widths = {0: baseline / 1000, **{months: um / 1000 for months, um in follow_up.items()}}
    record = jsl_48m(_knee(widths))
    if record.value is not None:
        assert record.event_observed == record.value
    if record.event_observed:
        assert record.lower_months < record.upper_months <= 48
    else:
        assert record.lower_months == max(widths)


@pytest.mark.parametrize(
    ("grades", "record"),
    [
        ({0: 2, 48: 3}, OutcomeRecord(1, None, 1, 0.0, 48.0)),
        ({0: 0, 12: 1, 48: 2}, OutcomeRecord(1, None, 1, 12.0, 48.0)),
        ({0: 1, 12: 1, 36: 2, 48: 2}, OutcomeRecord(1, None, 1, 12.0, 36.0)),
        ({0: 0, 48: 1}, OutcomeRecord(0, None, 0, 48.0, None)),
        ({0: 3, 48: 3}, OutcomeRecord(0, None, 0, 48.0, None)),
        ({0: 3, 24: 2, 48: 3}, OutcomeRecord(0, None, 0, 48.0, None)),
        # seen by 24 months, so known at 48 without a film
        ({0: 1, 24: 3}, OutcomeRecord(1, None, 1, 0.0, 24.0)),
        ({0: 1, 24: 1}, OutcomeRecord(None, Reason.NO_READING, 0, 24.0, None)),
        # films after the horizon decide no value, and the interval has them
        ({0: 1, 48: 1, 72: 3}, OutcomeRecord(0, None, 1, 48.0, 72.0)),
        ({0: 1, 48: 1, 72: 1}, OutcomeRecord(0, None, 0, 72.0, None)),
        ({0: 1, 24: 1, 72: 3}, OutcomeRecord(None, Reason.NO_READING, 1, 24.0, 72.0)),
        ({0: 1, 24: 1, 72: 1}, OutcomeRecord(None, Reason.NO_READING, 0, 72.0, None)),
        ({0: 1}, OutcomeRecord(None, Reason.NO_READING, 0, 0.0, None)),
        ({0: 4, 48: 4}, OutcomeRecord(None, Reason.BASELINE_KL_4)),
        ({48: 3}, OutcomeRecord(None, Reason.NO_BASELINE_READING)),
    ],
)
def test_kl_progression(grades: dict[int, int], record: OutcomeRecord) -> None:
    assert kl_progression(_knee(kl_grades=grades)) == record


def test_kl_progression_before_a_replacement_counts_and_after_it_does_not() -> None:
    grades = {0: 2, 24: 3, 48: 3}
    replaced_late = _knee(kl_grades=grades, is_replaced=True, replacement_months=30.0)
    assert kl_progression(replaced_late) == OutcomeRecord(1, None, 1, 0.0, 24.0)
    replaced_early = _knee(kl_grades=grades, is_replaced=True, replacement_months=20.0)
    assert kl_progression(replaced_early) == OutcomeRecord(None, Reason.REPLACED, 0, 0.0, None)


@given(st.dictionaries(st.sampled_from([15, 30, 60, 84]), st.integers(0, 4)))
def test_the_interval_of_kl_progression_is_of_all_films_whatever_the_horizon(
    follow_up: dict[int, int],
) -> None:
    knee = _knee(kl_grades={0: 1, **follow_up})
    last, early, middle = (kl_progression(knee, horizon_months=m) for m in (84, 30, 60))
    for record in (early, middle):
        assert record.event_observed == last.event_observed
        assert (record.lower_months, record.upper_months) == (last.lower_months, last.upper_months)
    if last.event_observed:
        assert (early.value == 1) is (last.upper_months <= 30)
    for horizon, record in ((30, early), (60, middle)):
        assert record.followed_months <= horizon
        assert (record.value == 0) is (horizon in follow_up and record.value != 1)


@pytest.mark.parametrize(
    ("grades", "drops"), [({0: 3, 24: 2, 48: 3}, True), ({0: 2, 48: 2}, False), ({48: 1}, False)]
)
def test_a_drop_in_grade_is_noticed(grades: dict[int, int], drops: bool) -> None:
    assert has_grade_drop(_knee(kl_grades=grades)) is drops


@pytest.mark.parametrize(
    ("knee", "record"),
    [
        (
            _knee(is_replaced=True, replacement_months=29.5),
            OutcomeRecord(1, None, 1, 29.5, 29.5),
        ),
        # replaced, but only after the horizon of the value: the interval still tells it
        (
            _knee(is_replaced=True, replacement_months=60.0),
            OutcomeRecord(0, None, 1, 60.0, 60.0),
        ),
        # on an unknown day up to the last contact: by 48 months only if that is
        (_knee(is_replaced=True), OutcomeRecord(None, Reason.REPLACED, 1, 0.0, 108.0)),
        (
            _knee(is_replaced=True, last_contact_months=48.0),
            OutcomeRecord(1, None, 1, 0.0, 48.0),
        ),
        (
            _knee(is_replaced=True, last_contact_months=None),
            OutcomeRecord(None, Reason.REPLACED),
        ),
        # found by a visit: the value needs both ends on one side of the horizon
        (
            _knee(is_replaced=True, replacement_months=60.0, replacement_after_months=30.0),
            OutcomeRecord(None, Reason.REPLACED, 1, 30.0, 60.0),
        ),
        (
            _knee(is_replaced=True, replacement_months=60.0, replacement_after_months=48.0),
            OutcomeRecord(0, None, 1, 48.0, 60.0),
        ),
        (_knee(), OutcomeRecord(0, None, 0, 108.0, None)),
        (_knee(last_contact_months=48.0), OutcomeRecord(0, None, 0, 48.0, None)),
        (_knee(last_contact_months=36.0), OutcomeRecord(None, Reason.LOST, 0, 36.0, None)),
        (
            _knee(is_dead=True, death_months=40.5, last_contact_months=36.0),
            OutcomeRecord(None, Reason.DIED, 0, 40.5, None),
        ),
        (
            _knee(is_dead=True, death_months=80.0, last_contact_months=72.0),
            OutcomeRecord(0, None, 0, 80.0, None),
        ),
        # dead a year after the last contact, and when the next was missed: lost before
        (
            _knee(is_dead=True, death_months=36.0, last_contact_months=24.0),
            OutcomeRecord(None, Reason.DIED, 0, 36.0, None),
        ),
        (
            _knee(is_dead=True, death_months=36.1, last_contact_months=24.0),
            OutcomeRecord(None, Reason.LOST, 0, 24.0, None),
        ),
        (
            _knee(is_dead=True, death_months=100.0, last_contact_months=12.0),
            OutcomeRecord(None, Reason.LOST, 0, 12.0, None),
        ),
        (
            _knee(is_dead=True, death_months=100.0, last_contact_months=60.0),
            OutcomeRecord(0, None, 0, 60.0, None),
        ),
        # a cohort without contacts knows of the death alone
        (
            _knee(is_dead=True, death_months=100.0, last_contact_months=None),
            OutcomeRecord(0, None, 0, 100.0, None),
        ),
        # dead on an unknown day: known to be free only up to the last contact
        (
            _knee(is_dead=True, last_contact_months=36.0),
            OutcomeRecord(None, Reason.DIED, 0, 36.0, None),
        ),
        (
            _knee(is_replacement_unconfirmed=True, replacement_months=23.0),
            OutcomeRecord(None, Reason.UNCONFIRMED, 0, 23.0, None),
        ),
        (
            _knee(is_replacement_unconfirmed=True, replacement_months=70.0),
            OutcomeRecord(0, None, 0, 70.0, None),
        ),
        (_knee(last_contact_months=None), OutcomeRecord(None, Reason.NO_OUTCOME_RECORD)),
    ],
)
def test_tkr_by_48_months(knee: KneeHistory, record: OutcomeRecord) -> None:
    assert tkr(knee, horizon_months=48) == record


@pytest.mark.parametrize(
    ("knee", "followed_months"),
    [
        (_knee(is_replaced=True), 0.0),
        (_knee(is_replaced=True, last_contact_months=36.0), 36.0),
        # some day before death, however long after the last contact: by 48 months or not
        (_knee(is_replaced=True, is_dead=True, death_months=100.0, last_contact_months=12.0), 0.0),
        (_knee(is_replaced=True, replacement_months=29.5), 29.5),
        (_knee(is_replaced=True, replacement_months=60.0), 48.0),
    ],
)
def test_a_replaced_knee_is_followed_until_its_value_is_decided(
    knee: KneeHistory, followed_months: float
) -> None:
    """Without a value, until it was last known not to be replaced; never beyond the horizon."""
    assert tkr(knee, horizon_months=48).followed_months == followed_months


def test_a_year_of_days_is_twelve_months() -> None:
    assert months_from_days(365.25) == pytest.approx(12, abs=1e-12)
