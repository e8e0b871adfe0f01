"""The composite, the FNIH's definition and the sensitivities against cases worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord, Reason
from kneeoa_mm.cohort.joint_space_loss import jsl_48m, jsl_fnih, jsl_or_kr_48m
from kneeoa_mm.cohort.outcomes import from_label, kl_progression, tkr


def _knee(jsw: dict[int, float] | None = None, **more: object) -> KneeHistory:
    known: dict[str, object] = {"kl_grades": {0: 2}, "last_contact_months": 108.0}
    return KneeHistory(mjsw_medial_mm=jsw or {}, **{**known, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("widths", "record"),
    [
        # a loss that is taken back counts all the same
        ({0: 4.0, 24: 3.2, 36: 3.9, 48: 3.9}, OutcomeRecord(1, None, 1, 0.0, 24.0)),
        ({0: 4.0, 12: 3.9, 24: 3.8, 48: 3.0}, OutcomeRecord(1, None, 1, 24.0, 48.0)),
        # 12 months is no film of this definition
        ({0: 4.0, 12: 3.0, 24: 3.9, 36: 3.8, 48: 3.9}, OutcomeRecord(0, None, 0, 48.0, None)),
        # known without the film of 48 months
        ({0: 4.0, 12: 3.9, 36: 3.2}, OutcomeRecord(1, None, 1, 12.0, 36.0)),
        ({0: 4.0, 24: 3.9, 36: 3.9}, OutcomeRecord(None, Reason.NO_READING, 0, 36.0, None)),
        ({0: 0.6, 48: 0.0}, OutcomeRecord(None, Reason.BASELINE_JSW_BELOW_THRESHOLD)),
    ],
)
def test_fnih_loss_on_any_of_three_films(widths: dict[int, float], record: OutcomeRecord) -> None:
    assert jsl_fnih(_knee(widths)) == record


@pytest.mark.parametrize(
    ("grade", "reason"), [(0, Reason.BASELINE_KL_NOT_ELIGIBLE), (4, Reason.BASELINE_KL_4)]
)
def test_fnih_leaves_out_knees_of_grade_0_and_4(grade: int, reason: Reason) -> None:
    knee = _knee({0: 4.0, 48: 1.0}, kl_grades={0: grade})
    assert jsl_fnih(knee) == OutcomeRecord(None, reason)


def test_fnih_films_and_grades_are_a_choice() -> None:
    knee = _knee({0: 4.0, 24: 3.0, 48: 3.9}, kl_grades={0: 0})
    assert jsl_fnih(knee, months_read=(48,), kl_grades=(0, 1)).value == 0


_AT_30 = {"is_replaced": True, "replacement_months": 30.0}
_REPORTED_AT_30 = {"is_replacement_unconfirmed": True, "replacement_months": 30.0}


@pytest.mark.parametrize(
    ("knee", "record"),
    [
        (_knee({0: 4.0, 48: 3.0}), OutcomeRecord(1, None, 1, 0.0, 48.0)),
        (_knee({0: 4.0, 48: 3.9}), OutcomeRecord(0, None, 0, 48.0, None)),
        # replaced without a loss on film before: since the last film without one
        (_knee({0: 4.0, 24: 3.9}, **_AT_30), OutcomeRecord(1, None, 1, 24.0, 30.0)),
        (_knee({0: 4.0}, **_AT_30), OutcomeRecord(1, None, 1, 0.0, 30.0)),
        # lost before it was replaced: the loss came first
        (_knee({0: 4.0, 12: 3.9, 24: 3.0}, **_AT_30), OutcomeRecord(1, None, 1, 12.0, 24.0)),
        # a film dated after the replacement shows the prosthesis
        (_knee({0: 4.0, 24: 3.9, 48: 3.9}, **_AT_30), OutcomeRecord(1, None, 1, 24.0, 30.0)),
        (
            _knee({0: 4.0, 48: 3.9}, is_replaced=True, replacement_months=60.0),
            OutcomeRecord(0, None, 0, 48.0, None),
        ),
        # on an unknown day: by the horizon only if the last contact was
        (
            _knee({0: 4.0, 24: 3.9}, is_replaced=True, last_contact_months=36.0),
            OutcomeRecord(1, None, 1, 24.0, 36.0),
        ),
        (
            _knee({0: 4.0, 24: 3.9}, is_replaced=True),
            OutcomeRecord(None, Reason.REPLACED, 0, 24.0, None),
        ),
        (
            _knee({0: 4.0, 24: 3.9}, **_REPORTED_AT_30),
            OutcomeRecord(None, Reason.UNCONFIRMED, 0, 24.0, None),
        ),
        (_knee({0: 4.0, 48: 3.9}, **_REPORTED_AT_30), OutcomeRecord(0, None, 0, 48.0, None)),
        (
            _knee({0: 4.0, 24: 3.9}, is_dead=True, death_months=30.0),
            OutcomeRecord(None, Reason.DIED, 0, 24.0, None),
        ),
        # not at risk stays not at risk, replaced or not
        (
            _knee({0: 4.0}, kl_grades={0: 4}, **_AT_30),
            OutcomeRecord(None, Reason.BASELINE_KL_4),
        ),
    ],
)
def test_loss_or_replacement_by_48_months(knee: KneeHistory, record: OutcomeRecord) -> None:
    assert jsl_or_kr_48m(knee) == record


@given(
    st.dictionaries(st.sampled_from([12, 24, 36, 48]), st.integers(0, 6000)),
    st.one_of(st.none(), st.floats(0.5, 108.0)),
)
def test_the_composite_is_known_wherever_the_loss_is_and_never_rarer(
    follow_up: dict[int, int], replaced: float | None
) -> None:
    widths = {0: 4.0, **{months: um / 1000 for months, um in follow_up.items()}}
    knee = _knee(widths, is_replaced=replaced is not None, replacement_months=replaced)
    loss, composite = jsl_48m(knee), jsl_or_kr_48m(knee)
    if loss.value is not None:
        assert composite.value is not None
        assert composite.value >= loss.value
    if composite.value == 1:
        assert composite.lower_months <= composite.upper_months <= 48
    if replaced is not None and replaced <= 48:
        assert composite.value == 1


@pytest.mark.parametrize(
    ("counts", "record"),
    [
        ("confirmed", OutcomeRecord(1, None, 1, 30.0, 30.0)),
        ("total", OutcomeRecord(None, Reason.NOT_TOTAL, 0, 30.0, None)),
        ("reported", OutcomeRecord(1, None, 1, 30.0, 30.0)),
    ],
)
def test_a_partial_replacement_counts_unless_only_total_ones_do(
    counts: str, record: OutcomeRecord
) -> None:
    assert tkr(_knee(is_total=False, **_AT_30), counts=counts) == record  # type: ignore[arg-type]


def test_a_reported_replacement_counts_only_where_reports_do() -> None:
    knee = _knee(**_REPORTED_AT_30)
    assert tkr(knee, counts="reported") == OutcomeRecord(1, None, 1, 30.0, 30.0)
    assert tkr(knee, counts="total").reason is Reason.UNCONFIRMED


def test_a_replacement_known_to_the_visit_lies_since_the_visit_before() -> None:
    knee = _knee(is_replaced=True, replacement_months=30.0, replacement_after_months=15.0)
    assert tkr(knee) == OutcomeRecord(1, None, 1, 15.0, 30.0)
    assert knee.replaced_by(30.0)  # the film of that visit shows the prosthesis


_FOUND_DEAD_AT_60 = {"is_dead": True, "death_months": 60.0, "death_after_months": 30.0}


@pytest.mark.parametrize("horizon", [60, 84])
def test_a_death_known_to_the_visit_tells_nothing_of_the_time_since_the_last_contact(
    horizon: int,
) -> None:
    """Filmed last at 30 months, found dead at 60: no knee that was followed to 60."""
    knee = _knee(kl_grades={0: 1, 30: 1}, last_contact_months=30.0, **_FOUND_DEAD_AT_60)
    assert tkr(knee, horizon_months=horizon) == OutcomeRecord(None, Reason.DIED, 0, 30.0, None)
    alive_at = _knee(last_contact_months=None, **_FOUND_DEAD_AT_60)
    assert tkr(alive_at, horizon_months=horizon).lower_months == 30.0


def test_who_is_found_dead_at_the_horizon_is_not_lost() -> None:
    knee = _knee(kl_grades={0: 1, 30: 1}, last_contact_months=30.0, **_FOUND_DEAD_AT_60)
    found = kl_progression(knee, horizon_months=60)
    assert found == OutcomeRecord(None, Reason.DIED, 0, 30.0, None)
    assert kl_progression(knee, horizon_months=30).value == 0


def test_the_step_from_0_to_1_counts_on_request() -> None:
    knee = _knee(kl_grades={0: 0, 12: 1, 48: 1})
    assert kl_progression(knee).value == 0
    assert kl_progression(knee, step_to_doubtful_counts=True) == OutcomeRecord(1, None, 1, 0.0, 12)


@pytest.mark.parametrize(
    ("event", "lower", "upper", "value"),
    [
        (1, 36.0, 48.0, 1),
        (1, 12.0, 60.0, None),  # around the horizon: open
        (1, 48.0, 60.0, 0),
        (0, 48.0, None, 0),
        (0, 36.0, None, None),
    ],
)
def test_a_ready_made_interval_has_a_value_where_it_decides_one(
    event: int, lower: float, upper: float | None, value: int | None
) -> None:
    record = from_label(None, event, lower, upper, horizon_months=48)
    assert (record.value, record.lower_months, record.upper_months) == (value, lower, upper)
    assert (record.reason is None) == (value is not None)
