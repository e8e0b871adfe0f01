"""Incidence curves and concordance against hand computation, lifelines and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import AalenJohansenFitter, KaplanMeierFitter
from lifelines.utils import concordance_index

from kneeoa_mm.analysis.nonparametric import cumulative_incidence, harrell_c
from kneeoa_mm.metrics import bootstrap_rows


def _visits(seed: int, n: int = 120, causes: int = 1):
    """Times at visits, so that events and censorings tie; two knees a person."""
    generator = np.random.default_rng(seed)
    months = np.minimum(np.ceil(generator.exponential(40, n) / 12) * 12, 72)
    status = generator.integers(0, causes + 1, n)
    status[0] = 1
    return months, status, (np.arange(n) // 2).astype(str)


def _singly(months):
    return np.arange(len(months)).astype(str)


def test_kaplan_meier_with_ties_by_hand():
    """Oracle: the product limit and Greenwood's formula, worked out."""
    months = np.array([12.0, 12.0, 24.0, 24.0, 36.0, 48.0])
    event = np.array([1, 0, 1, 1, 0, 0])
    curve = cumulative_incidence(months, event, _singly(months))
    # at risk 6 and 4: free of it 5/6 after 12 months, 5/6 x 2/4 after 24
    assert curve.months.tolist() == [12, 24]
    assert curve.at_risk.tolist() == [6, 4]
    assert curve.events.tolist() == [1, 2]
    assert curve.incidence == pytest.approx([1 / 6, 1 - 5 / 12])
    # Greenwood: 1/(6x5), then + 2/(4x2); limits are those of log(-log S)
    variance = np.array([1 / 30, 1 / 30 + 1 / 4])
    free = np.array([5 / 6, 5 / 12])
    spread = 1.959964 * np.sqrt(variance) / -np.log(free)
    assert curve.ci_low == pytest.approx(1 - free ** np.exp(-spread), abs=1e-6)
    assert curve.ci_high == pytest.approx(1 - free ** np.exp(spread), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_one_knee_a_person_gives_the_curve_and_greenwood_limits_of_lifelines(seed):
    """Oracle: lifelines' Kaplan-Meier estimate."""
    months, event, _ = _visits(seed)
    curve = cumulative_incidence(months, event, _singly(months))
    fitted = KaplanMeierFitter().fit(months, event)
    limits = fitted.confidence_interval_.loc[curve.months].to_numpy()
    assert 1 - curve.incidence == pytest.approx(
        fitted.survival_function_.loc[curve.months].to_numpy().ravel()
    )
    inside = ~np.isnan(curve.ci_low)
    assert inside.any()
    assert 1 - curve.ci_low[inside] == pytest.approx(limits[inside, 1])
    assert 1 - curve.ci_high[inside] == pytest.approx(limits[inside, 0])


def test_competing_causes_in_one_tie_by_hand():
    """Oracle: Aalen and Johansen's sums, worked out."""
    # 12 months: one of each cause among 5; 24: one of cause 1 and one censored; then censored
    months, status = np.array([12.0, 12, 24, 24, 36]), np.array([1, 2, 1, 0, 0])
    first = cumulative_incidence(months, status, _singly(months), cause=1)
    second = cumulative_incidence(months, status, _singly(months), cause=2)
    assert first.incidence == pytest.approx([1 / 5, 1 / 5 + 3 / 5 * 1 / 3])
    assert second.incidence == pytest.approx([1 / 5, 1 / 5])


@given(st.integers(0, 10**6))
def test_causes_and_freedom_from_all_of_them_sum_to_one(seed):
    months, status, persons = _visits(seed, n=40, causes=3)
    curves = [cumulative_incidence(months, status, persons, cause=c) for c in (1, 2, 3)]
    any_cause = cumulative_incidence(months, (status > 0).astype(int), persons)
    assert sum(curve.incidence for curve in curves) == pytest.approx(any_cause.incidence)


def test_without_censoring_incidence_is_the_share_of_events():
    months, status, persons = _visits(1, causes=2)
    status = np.maximum(status, 1)
    curve = cumulative_incidence(months, status, persons, cause=2)
    shares = [np.mean((status == 2) & (months <= time)) for time in curve.months]
    assert curve.incidence == pytest.approx(shares)


@pytest.mark.parametrize("causes", [1, 2])
def test_a_second_knee_that_repeats_the_first_adds_no_certainty(causes):
    months, status, _ = _visits(2, causes=causes)
    alone = cumulative_incidence(months, status, _singly(months))
    doubled = [np.repeat(values, 2) for values in (months, status, _singly(months))]
    paired = cumulative_incidence(*doubled)
    naive = cumulative_incidence(doubled[0], doubled[1], _singly(doubled[0]))
    assert paired.incidence == pytest.approx(alone.incidence)
    assert paired.ci_low == pytest.approx(alone.ci_low, nan_ok=True)
    assert paired.ci_high == pytest.approx(alone.ci_high, nan_ok=True)
    assert np.nanmax(naive.ci_high - alone.ci_high) < 0


def test_limits_with_competing_causes_agree_with_the_person_bootstrap():
    """Oracle: a bootstrap that draws persons."""
    months, status, persons = _visits(3, n=400, causes=2)
    found = cumulative_incidence(months, status, persons).at(36)
    draws = bootstrap_rows(persons, n_boot=400, seed=0)
    drawn = [cumulative_incidence(months[r], status[r], persons[r]).at(36).value for r in draws]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.ci_high - found.ci_low == pytest.approx(high - low, rel=0.15)


def test_times_beyond_follow_up_and_before_events_say_why_they_have_no_interval():
    months, event = np.array([24.0, 36.0, 48.0]), np.array([1, 0, 0])
    curve = cumulative_incidence(months, event, _singly(months))
    assert curve.at(12).value == 0
    assert "no event" in curve.at(12).reason
    assert curve.at(48).value == pytest.approx(1 / 3)
    assert curve.at(60).value is None
    assert "48 months" in curve.at(60).reason
    assert [curve.at_risk_at(m) for m in (0, 24, 25, 48, 49)] == [3, 3, 2, 1, 0]


@pytest.mark.parametrize("seed", range(30))
def test_when_all_had_the_event_the_incidence_is_one_and_has_no_interval(seed):
    """Sums of products round; a limit of 100 % would then be any number."""
    generator = np.random.default_rng(seed)
    months = generator.integers(1, 15, 12).astype(float)
    curve = cumulative_incidence(months, np.ones(12, dtype=int), _singly(months))
    assert curve.incidence[-1] == 1
    assert curve.at(20).reason == "no interval at 100 %"


def test_late_entry_gives_the_curve_and_limits_of_lifelines():
    """Oracle: lifelines' product limit, which honours entries, on times without ties."""
    generator = np.random.default_rng(0)
    entry = generator.uniform(0, 5, 60)
    months = entry + generator.exponential(40, 60)
    # nobody may be the only one at risk: the product would end there
    entry[:10] = 0
    event = generator.integers(0, 2, 60)
    curve = cumulative_incidence(months, event, _singly(months), entry_months=entry)
    fitted = KaplanMeierFitter().fit(months, event, entry=entry)
    free = fitted.survival_function_.loc[curve.months].to_numpy().ravel()
    assert 1 - curve.incidence == pytest.approx(free)
    inside = ~np.isnan(curve.ci_low)
    limits = fitted.confidence_interval_.loc[curve.months].to_numpy()
    # Greenwood's formula is the jackknife's only where all enter together
    assert 1 - curve.ci_low[inside] == pytest.approx(limits[inside, 1], rel=0.01)


def test_competing_causes_without_ties_are_those_of_lifelines():
    """Oracle: lifelines' Aalen-Johansen estimate, which jitters only ties."""
    generator = np.random.default_rng(1)
    months, status = generator.exponential(40, 80), generator.integers(0, 3, 80)
    curve = cumulative_incidence(months, status, _singly(months))
    fitted = AalenJohansenFitter(calculate_variance=False).fit(months, status, event_of_interest=1)
    expected = fitted.cumulative_density_.loc[curve.months].to_numpy().ravel()
    assert curve.incidence == pytest.approx(expected)


def test_concordance_with_late_entry_compares_knees_under_observation_together():
    """Oracle: all pairs, one by one."""
    months, event, persons = _visits(5, n=40)
    entry = np.random.default_rng(0).integers(0, 3, 40) * 6.0
    risk = np.random.default_rng(1).integers(0, 6, 40).astype(float)
    agreed = pairs = 0.0
    for i in np.flatnonzero(event):
        for j in range(40):
            later = months[j] > months[i] or (months[j] == months[i] and not event[j])
            if later and entry[j] < months[i]:
                pairs += 1
                agreed += 0.5 if risk[i] == risk[j] else float(risk[i] > risk[j])
    found = harrell_c(months, event, risk, persons, entry_months=entry)
    assert found.value == pytest.approx(agreed / pairs)


def test_a_group_without_events_has_an_empty_curve():
    months = np.array([12.0, 24.0])
    curve = cumulative_incidence(months, np.zeros(2, dtype=int), _singly(months))
    assert len(curve.months) == 0
    assert curve.at(12).value == 0


@pytest.mark.parametrize("seed", range(5))
def test_concordance_with_ties_in_time_and_risk_is_that_of_lifelines(seed):
    """Oracle: lifelines' concordance index."""
    months, event, persons = _visits(seed)
    risk = np.random.default_rng(seed).integers(0, 8, len(months)) - months / 24
    risk = np.round(risk)
    found = harrell_c(months, event, risk, persons)
    assert found.value == pytest.approx(concordance_index(months, -risk, event))


@given(st.integers(0, 10**6))
def test_turning_the_risk_round_turns_the_concordance_round(seed):
    months, event, persons = _visits(seed, n=30)
    risk = np.random.default_rng(seed).integers(0, 5, 30).astype(float)
    forth, back = harrell_c(months, event, risk, persons), harrell_c(months, event, -risk, persons)
    if forth.value is not None:
        assert forth.value + back.value == pytest.approx(1)


def test_the_interval_of_the_concordance_agrees_with_the_person_bootstrap():
    """Oracle: a bootstrap that draws persons."""
    months, event, persons = _visits(4, n=240)
    severity = np.repeat(np.random.default_rng(0).normal(size=120), 2)
    risk = severity - months / 30
    found = harrell_c(months, event, risk, persons)
    draws = bootstrap_rows(persons, n_boot=300, seed=0)
    drawn = [harrell_c(months[r], event[r], risk[r], persons[r]).value for r in draws]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.ci_high - found.ci_low == pytest.approx(high - low, rel=0.2)


def test_no_comparable_pair_has_a_reason():
    months = np.array([12.0, 12.0])
    found = harrell_c(months, np.array([1, 1]), np.array([0.0, 1.0]), _singly(months))
    assert found.value is None
    assert "compared" in found.reason
