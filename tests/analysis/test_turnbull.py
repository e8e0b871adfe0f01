"""Turnbull's estimate against lifelines', the conditions of its optimum, and real knees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines.fitters.npmle import npmle

from kneeoa_mm.analysis.nonparametric import cumulative_incidence
from kneeoa_mm.analysis.turnbull import interval_incidence

NEVER = np.inf

# Months to cosmetic deterioration of the breast, (lower, upper], after radiotherapy alone and with
# chemotherapy: Finkelstein and Wolfe 1985, Biometrics 41:933
RADIOTHERAPY = """
45- 6-10 0-7 46- 46- 7-16 17- 7-14 37-44 0-8 4-11 15- 11-15 22- 46- 46- 25-37 46- 26-40 46- 27-34
36-44 46- 36-48 37- 40- 17-25 46- 11-18 38- 5-12 37- 0-5 18- 24- 36- 5-11 19-35 17-25 24- 32- 33-
19-26 37- 34- 36-
"""
WITH_CHEMOTHERAPY = """
8-12 0-22 24-31 17-27 17-23 24-30 16-24 13- 11-13 16-20 18-25 17-26 32- 23- 44-48 14-17 0-5 5-8
12-20 11- 33-40 31- 13-39 19-32 34- 13- 16-24 35- 15-22 11-17 22-32 10-35 30-34 13- 10-17 8-21 4-9
11- 14-19 4-8 34- 30-36 18-24 16-60 35-39 21- 11-20 48-
"""


def _intervals(text: str):
    pairs = [interval.split("-") for interval in text.split()]
    lower = np.array([float(low) for low, _ in pairs])
    return lower, np.array([float(high) if high else NEVER for _, high in pairs])


def _persons(lower):
    return np.arange(len(lower)).astype(str)


@pytest.mark.parametrize("text", [RADIOTHERAPY, WITH_CHEMOTHERAPY])
def test_probabilities_of_a_published_study_are_those_of_lifelines(text):
    """Oracle: lifelines' estimate; its intervals are closed, hence the half month."""
    lower, upper = _intervals(text)
    curve = interval_incidence(lower, upper, _persons(lower), n_boot=0)
    mass, places = npmle(lower + 0.5, upper, tol=1e-9)
    expected = {end: p for p, (_, end) in zip(mass, places, strict=True) if p > 1e-4}
    found = dict(zip(curve.upper_months, np.diff(curve.incidence, prepend=0), strict=True))
    if NEVER in expected:
        found[NEVER] = 1 - curve.incidence[-1]
    assert {end: found[end] for end in expected} == pytest.approx(expected, abs=1e-3)
    assert sum(expected.values()) == pytest.approx(1, abs=1e-3)


_OBSERVATION = st.tuples(st.integers(0, 6), st.integers(0, 7)).map(
    lambda pair: (pair[0] * 12.0, NEVER if pair[1] == 7 else (pair[0] + pair[1]) * 12.0)
)


@given(st.lists(_OBSERVATION, min_size=1, max_size=25))
def test_no_other_distribution_has_a_higher_likelihood(observations):
    """Oracle: its derivative by each place's probability is 1 where there is any, never above.

    The log likelihood is concave, so this is sufficient (Gentleman and Geyer 1994).
    """
    # an exact event at 0 would be no follow-up
    late = [12 if low == high else 0 for low, high in observations]
    lower, upper = np.array(observations).T + late
    curve = interval_incidence(lower, upper, _persons(lower), n_boot=0)
    starts = np.append(curve.lower_months, curve.determined_months)
    ends = np.append(curve.upper_months, NEVER)
    mass = np.append(np.diff(curve.incidence, prepend=0), 1 - (curve.incidence[-1:].sum()))

    def holds(low, high, start, end):
        if low == high:
            return low == start and high == end
        return end <= high and (low < start if start == end else low <= start)

    places = list(zip(starts, ends, strict=True))
    holding = np.array(
        [[holds(*pair, *place) for place in places] for pair in zip(lower, upper, strict=True)]
    )
    derivative = (holding / (holding @ mass)[:, None]).mean(axis=0)
    assert np.all(derivative <= 1 + 1e-6)
    assert derivative[mass > 1e-3] == pytest.approx(1, abs=1e-4)


def test_exact_times_give_the_kaplan_meier_estimate():
    """Oracle: the product-limit estimate, which Turnbull's is for exact times."""
    generator = np.random.default_rng(0)
    months = generator.integers(1, 30, 80).astype(float)
    event = generator.integers(0, 2, 80)
    upper = np.where(event == 1, months, NEVER)
    curve = interval_incidence(months, upper, _persons(months), n_boot=0)
    expected = cumulative_incidence(months, event, _persons(months))
    for time in range(1, 29):
        assert curve.at(time).value == pytest.approx(expected.at(time).value, abs=1e-4)


def test_within_an_interval_it_says_that_visits_do_not_tell():
    lower, upper = np.array([0.0, 24, 24, 48]), np.array([24.0, 48, 48, NEVER])
    curve = interval_incidence(lower, upper, _persons(lower), n_boot=50)
    assert curve.at(24).value == pytest.approx(0.25)
    assert curve.at(48).value == pytest.approx(0.75)
    assert "between 24 and 48 months visits only tell" in curve.at(36).reason
    assert "between 0.250 and 0.750" in curve.at(36).reason
    assert "beyond 48 months" in curve.at(60).reason
    assert [curve.at_risk_at(m) for m in (0, 24, 25, 49)] == [4, 3, 1, 0]


def test_a_second_knee_that_repeats_the_first_adds_no_certainty():
    lower, upper = _intervals(WITH_CHEMOTHERAPY)
    alone = interval_incidence(lower, upper, _persons(lower), n_boot=200)
    doubled = interval_incidence(
        np.repeat(lower, 2), np.repeat(upper, 2), np.repeat(_persons(lower), 2), n_boot=200
    )
    assert doubled.incidence == pytest.approx(alone.incidence, abs=1e-3)
    assert doubled.ci_low == pytest.approx(alone.ci_low, abs=5e-3)
    assert doubled.ci_high == pytest.approx(alone.ci_high, abs=5e-3)


def test_one_person_has_no_interval():
    curve = interval_incidence(np.array([0.0, 12]), np.array([12.0, NEVER]), np.array(["a", "a"]))
    assert "one person" in curve.at(12).reason


def test_limits_cover_the_truth_about_as_often_as_they_say():
    """Oracle: simulated knees of known incidence, read at visits that some of them skip."""
    generator = np.random.default_rng(5)
    truth, covered = 1 - np.exp(-36 / 60), 0
    for _ in range(60):
        happens = np.repeat(generator.exponential(60, 100), 2)
        seen = np.sort(np.where(generator.random((200, 4)) < 0.8, [12, 24, 36, 48], 0), axis=1)
        lower = np.where(seen < happens[:, None], seen, 0).max(axis=1).astype(float)
        upper = np.where(seen >= happens[:, None], seen, NEVER).min(axis=1)
        persons = np.repeat(np.arange(100), 2).astype(str)
        curve = interval_incidence(lower, upper, persons, n_boot=60, seed=1)
        found = curve.at(36)
        covered += found.ci_low <= truth <= found.ci_high
    # 95 % but for 60 trials, and draws so few
    assert covered >= 50


@pytest.mark.real_data
def test_risk_of_real_knees_at_48_months_by_grade(real_data):
    """Oracle: the figures that came with this table."""
    table = pd.read_csv(real_data / "kl_time_to_progression.csv", dtype={"subject_id": str})
    found = []
    for _, knees in table[table["kl_grade"] < 4].groupby("kl_grade"):
        seen = knees[(knees["event_observed"] == 1) | (knees["lower_months"] > 0)]
        curve = interval_incidence(
            seen["lower_months"].to_numpy(float),
            seen["upper_months"].fillna(NEVER).to_numpy(float),
            seen["subject_id"].to_numpy(str),
            n_boot=0,
        )
        found.append(round(curve.at(48).value, 3))
    assert found == [0.045, 0.202, 0.169, 0.254]
