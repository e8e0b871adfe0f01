"""Intervals where few persons have the event: when there is none, and what doubts the others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from kneeoa_mm import metrics

TRUE_AUROC = ndtr(1 / np.sqrt(2))
"""Of two normal scores one standard deviation apart: P(X > Y) where X - Y has mean 1, variance 2.
Oracle of the simulations below."""


def _study(events: int, seed: int, n_persons: int = 80):
    """Two knees a person that are alike; ``events`` persons have the event in one knee."""
    generator = np.random.default_rng(seed)
    persons = np.repeat(np.arange(n_persons), 2)
    event = np.zeros(2 * n_persons, dtype=np.int64)
    event[2 * np.arange(events)] = 1
    alike = np.repeat(generator.normal(size=n_persons), 2)
    score = event + np.sqrt(0.5) * (alike + generator.normal(size=2 * n_persons))
    weights = metrics.bootstrap_weights(persons, n_boot=200, seed=seed)
    return event, score, weights


def _held(events: int, n_studies: int = 200) -> float:
    """Share of studies whose percentile limits hold the true AUROC, told or not."""
    held = 0
    for seed in range(n_studies):
        draws = metrics.resample(metrics.auroc, *_study(events, seed)).draws
        low, high = np.nanpercentile(draws, metrics.CI_PERCENTILES)
        held += low <= TRUE_AUROC <= high
    return held / n_studies


def test_intervals_hold_the_truth_less_often_where_fewer_than_ten_persons_have_the_event():
    """Oracle: simulation with a known AUROC; it is why such intervals carry a note."""
    few, enough = _held(4), _held(20)
    assert few < 0.88
    assert enough > 0.91


@pytest.mark.parametrize(("events", "is_doubtful"), [(9, True), (10, False)])
def test_an_interval_of_few_events_carries_a_note(events, is_doubtful):
    event, score, weights = _study(events, 0)
    found = metrics.estimate(metrics.auroc, event, score, weights)
    assert found.ci_low is not None
    assert (found.note is not None) == is_doubtful
    assert not is_doubtful or "9 persons have a knee with the event" in found.note
    few_without = metrics.estimate(metrics.auroc, 1 - event, score, weights)
    assert (few_without.note is not None) == is_doubtful


@pytest.mark.parametrize("persons", [1, 9, 10])
@pytest.mark.parametrize("blocks", [None, np.arange(160) // 80])
def test_osteoarthritis_of_few_persons_is_told_like_any_event(persons, blocks):
    """Oracle: the area of the same risks for the event "KL 2 or more"."""
    event, score, weights = _study(persons, 0)
    risk = 1 / (1 + np.exp(-score))
    grades = np.where(event == 1, 2 + np.arange(160) % 3, np.arange(160) // 2 % 2)
    probabilities = np.outer(1 - risk, [0.5, 0.5, 0, 0, 0]) + np.outer(risk, [0, 0, 0.5, 0.3, 0.2])
    graded = metrics.grade_ranking(blocks)["auroc_kl2"]
    area = metrics.auroc if blocks is None else metrics.auroc_within(blocks)
    found = metrics.estimate(graded, grades, probabilities, weights)
    expected = metrics.estimate(area, event, risk, weights)
    assert (found.ci_low, found.ci_high) == (expected.ci_low, expected.ci_high)
    for told, of_event in ((found.reason, expected.reason), (found.note, expected.note)):
        assert told == (of_event and of_event.replace("the event", "KL 2 or more"))


def test_without_nearly_all_draws_there_is_no_interval():
    """Two persons with the event are missing from an eighth of the draws: (1 - 2 / n)^n.

    Limits of the other draws would be of samples that happened to have events.
    """
    event, score, weights = _study(2, 1)
    found = metrics.resample(metrics.auroc, event, score, weights)
    assert np.mean(np.isnan(found.draws)) == pytest.approx((1 - 2 / 80) ** 80, abs=0.06)
    estimate = found.estimate()
    assert estimate.value is not None
    assert (estimate.ci_low, estimate.ci_high) == (None, None)
    assert "of the draws" in estimate.reason
    other = metrics.resample(metrics.auroc, event, -score, weights)
    assert (found - other).estimate().ci_low is None


def test_who_asks_for_no_draws_is_told_so_and_not_that_draws_failed():
    event, score, _ = _study(20, 0)
    none = metrics.bootstrap_weights(np.arange(len(event)), n_boot=0, seed=0)
    model = metrics.resample(metrics.auroc, event, ndtr(score), none)
    for found in (model.estimate(), (model - model).estimate()):
        assert found.ci_low is None
        assert found.reason == metrics.NO_DRAWS


def test_one_person_with_the_event_gives_no_interval_of_any_metric():
    """Also of the Brier score, which every draw defines: one event says nothing of others."""
    event, score, weights = _study(1, 2)
    event[1] = 1  # both knees of that person
    risk = ndtr(score)
    for metric in (metrics.brier, metrics.auroc, metrics.prevalence):
        found = metrics.estimate(metric, event, risk, weights)
        assert found.value is not None
        assert found.ci_low is None
        assert "one person alone" in found.reason


def test_grades_that_happen_to_be_0_and_1_are_no_events():
    """Accuracy is a mean over knees: one person with grade 1 takes no more from it than another."""
    grade, _, weights = _study(1, 0)
    predicted = np.where(np.arange(len(grade)) % 4 == 0, 1 - grade, grade)
    found = metrics.kl_estimates(grade, predicted, np.eye(5)[predicted], None, weights)
    for name in ("accuracy", "mae", "qwk", "brier", "ece"):
        assert found[name].ci_low is not None, name
        assert found[name].note is None, name
    assert metrics.estimate(metrics.of_one_grade("recall", 0), grade, predicted, weights).ci_low
    assert metrics.estimate(metrics.brier, grade, predicted.astype(float), weights).ci_low is None
