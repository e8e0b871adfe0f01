"""Prediction sets: the quantile by hand, coverage by simulation, and what a set never is."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from kneeoa_mm.learning.conformal import (
    Conformal,
    SetRule,
    conformal_quantile,
    nonconformity,
    prediction_sets,
    set_texts,
)

METHODS = ("lac", "aps")
methods = st.sampled_from(METHODS)
knees = arrays(float, st.tuples(st.integers(1, 12), st.just(5)), elements=st.floats(0.01, 1)).map(
    lambda raw: raw / raw.sum(axis=1, keepdims=True)
)


def rule(method, threshold):
    return Conformal(method=method, threshold=threshold, n_knees=1, n_subjects=1)


def sets_of(probabilities, method, threshold):
    rules = [rule(method, threshold)] * len(probabilities)
    return prediction_sets(probabilities, rules, probabilities.argmax(axis=1))


@given(st.integers(1, 60), st.integers(1, 99), st.randoms(use_true_random=False))
def test_with_one_knee_a_person_the_quantile_is_the_order_statistic(n, percent, random):
    scores = [random.random() for _ in range(n)]
    rank = ceil((n + 1) * (1 - Fraction(percent, 100)))
    expected = sorted(scores)[rank - 1] if rank <= n else np.inf
    persons = np.arange(n).astype(str)
    assert conformal_quantile(np.array(scores), persons, percent / 100) == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 7), st.floats(0.01, 0.99))
def test_alike_knees_of_a_person_count_as_one(scores, times, alpha):
    alone, persons = np.array(scores), np.arange(len(scores)).astype(str)
    together = conformal_quantile(np.repeat(alone, times), np.repeat(persons, times), alpha)
    assert together == conformal_quantile(alone, persons, alpha)


def test_a_person_of_two_knees_weighs_half_for_each():
    """K = 4 persons, alpha 0.4: the score at which a weight of 3 of 5 is reached."""
    scores = np.array([0.1, 0.9, 0.2, 0.3, 0.4])
    persons = np.array(["a", "a", "b", "c", "d"])
    # weights 0.5, 1, 1, 1, 0.5 in order of the scores 0.1, 0.2, 0.3, 0.4, 0.9
    assert conformal_quantile(scores, persons, 0.4) == 0.4


def test_too_few_persons_for_alpha_leave_every_grade_in_the_set():
    probabilities = softmax(np.random.default_rng(0).normal(0, 3, (8, 5)), axis=1)
    persons = np.arange(8).astype(str)
    learned = Conformal.fit(probabilities, np.zeros(8, dtype=int), persons, SetRule(alpha=0.1))
    assert learned.threshold is None
    rules = [learned] * 8
    assert prediction_sets(probabilities, rules, probabilities.argmax(axis=1)).all()


def test_scores_by_hand():
    knee = np.array([[0.1, 0.5, 0.2, 0.2, 0.0]])
    np.testing.assert_allclose(nonconformity(knee, "lac"), [[0.9, 0.5, 0.8, 0.8, 1.0]])
    np.testing.assert_allclose(nonconformity(knee, "aps"), [[1.0, 0.5, 0.9, 0.9, 1.0]])


@given(knees, methods, st.floats(0, 1))
def test_a_set_is_never_empty_has_no_gap_and_only_grows_on_its_rule(probabilities, method, limit):
    predicted = np.arange(len(probabilities)) % 5
    sets = prediction_sets(probabilities, [rule(method, limit)] * len(probabilities), predicted)
    assert (sets | ~(nonconformity(probabilities, method) <= limit)).all()
    for knee, grade in zip(sets, predicted, strict=True):
        members = np.flatnonzero(knee)
        assert grade in members
        assert members.tolist() == list(range(members[0], members[-1] + 1))


@pytest.mark.parametrize(("method", "limit"), [("lac", 0.65), ("aps", 0.9)])
def test_a_gap_between_two_likely_grades_is_filled(method, limit):
    knee = np.array([[0.02, 0.4, 0.1, 0.45, 0.03]])
    assert set_texts(nonconformity(knee, method) <= limit) == ["1;3"]
    assert set_texts(sets_of(knee, method, limit)) == ["1;2;3"]


@given(knees, knees, methods, st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_who_accepts_fewer_misses_gets_larger_sets(calibration, new, method, one, other):
    low, high = sorted([one, other])
    grades, persons = np.arange(len(calibration)) % 5, np.arange(len(calibration)).astype(str)
    careful, bold = (
        Conformal.fit(calibration, grades, persons, SetRule(method=method, alpha=alpha))
        for alpha in (low, high)
    )
    predicted = new.argmax(axis=1)
    larger = prediction_sets(new, [careful] * len(new), predicted)
    smaller = prediction_sets(new, [bold] * len(new), predicted)
    assert (larger | ~smaller).all()


def overconfident(n, seed):
    """A grader twice as sure as it should be, and the truth."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.2, (n, 5))
    grades = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    return softmax(2 * logits, axis=1), np.minimum(grades, 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alpha", [0.1, 0.3])
def test_sets_cover_as_promised_however_wrong_the_probabilities_are(method, alpha):
    """Over many calibrations on 60 knees: between 1 - alpha and 1 / 61 above it."""
    probabilities, grades = overconfident(20_000, seed=0)
    scores = nonconformity(probabilities, method)[np.arange(20_000), grades]
    generator = np.random.default_rng(1)
    covered, filled = [], []
    for _ in range(300):
        chosen = generator.choice(20_000, 260, replace=False)
        learning, new = chosen[:60], chosen[60:]
        learned = Conformal.fit(
            probabilities[learning],
            grades[learning],
            learning.astype(str),
            SetRule(method=method, alpha=alpha),
        )
        covered.append(np.mean(scores[new] <= learned.threshold))
        sets = sets_of(probabilities[new], method, learned.threshold)
        filled.append(np.mean(sets[np.arange(200), grades[new]]))
    error = 3 * np.std(covered) / np.sqrt(300)
    assert 1 - alpha - error <= np.mean(covered) <= 1 - alpha + 1 / 61 + error
    assert np.mean(filled) >= np.mean(covered)


def test_a_random_knee_of_a_new_person_is_covered_where_persons_differ():
    """Persons with many knees are easy, persons with one are hard: counting knees would fail."""
    generator = np.random.default_rng(2)
    trials, covered, naive = 300, [], []
    for _ in range(trials):
        hard = generator.random(101) < 0.5
        sizes = np.where(hard, 1, 6)
        persons = np.repeat(np.arange(101), sizes)
        scores = generator.random(len(persons)) * np.where(hard[persons], 1.0, 0.3)
        known = persons < 100
        names = persons[known].astype(str)
        limit = conformal_quantile(scores[known], names, 0.2)
        covered.append(np.mean(scores[~known] <= limit))
        knee_by_knee = np.arange(known.sum()).astype(str)
        naive.append(
            np.mean(scores[~known] <= conformal_quantile(scores[known], knee_by_knee, 0.2))
        )
    error = 3 * np.std(covered) / np.sqrt(trials)
    assert 0.8 - error <= np.mean(covered) <= 0.8 + 1 / 101 + error
    assert np.mean(naive) < 0.8 - error, "else this test tells nothing"
