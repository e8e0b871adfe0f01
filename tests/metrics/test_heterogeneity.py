"""The test that subgroups differ: Cochran's formula, and its size where persons are in two."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm, t

from kneeoa_mm import metrics


@given(st.integers(2, 8), st.integers(0, 10**6))
def test_of_independent_estimates_it_is_cochrans_q(k, seed):
    """Oracle: Cochran 1954, the weighted squares about the inverse-variance mean."""
    generator = np.random.default_rng(seed)
    values, variances = generator.normal(size=k), generator.uniform(0.1, 2, k)
    found = metrics.heterogeneity(values, np.diag(variances))
    mean = np.average(values, weights=1 / variances)
    assert found.statistic == pytest.approx(np.sum((values - mean) ** 2 / variances))
    assert found.df == k - 1


def test_of_two_dependent_estimates_it_is_the_square_of_their_z():
    """Oracle: closed form of a difference with a covariance."""
    covariance = np.array([[0.04, 0.02], [0.02, 0.09]])
    found = metrics.heterogeneity(np.array([0.7, 0.1]), covariance)
    z = 0.6 / np.sqrt(0.04 + 0.09 - 2 * 0.02)
    assert found.statistic == pytest.approx(z**2)
    assert found.p_value == pytest.approx(2 * norm.sf(z))


@given(st.integers(0, 10**6))
def test_the_order_of_subgroups_does_not_matter(seed):
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(4, 6))
    values, covariance, order = generator.normal(size=4), root @ root.T, generator.permutation(4)
    turned = metrics.heterogeneity(values[order], covariance[np.ix_(order, order)])
    assert turned.statistic == pytest.approx(metrics.heterogeneity(values, covariance).statistic)


@pytest.mark.parametrize(
    ("values", "covariance", "why"),
    [
        ([0.5], [[1.0]], "fewer than two"),
        ([0.5, 0.7], [[0.0, 0.0], [0.0, 0.0]], "do not vary"),
        ([0.5, 0.7], [[1.0, np.nan], [np.nan, 1.0]], "do not vary"),
    ],
)
def test_what_cannot_be_tested_says_why(values, covariance, why):
    with pytest.raises(metrics.UndefinedMetricError, match=why):
        metrics.heterogeneity(np.array(values), np.array(covariance))


def test_with_few_persons_two_estimates_are_compared_by_t():
    """Oracle: the square of t on as many degrees of freedom is F, here scipy's t."""
    found = metrics.heterogeneity(np.array([0.7, 0.1]), np.diag([0.04, 0.05]), residual_df=18)
    assert found.p_value == pytest.approx(2 * t.sf(0.6 / 0.3, 18))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_every_set_of_hypotheses_that_holds_it_rejects(p_values):
    """Oracle: the closed test of Bonferroni (Marcus et al. 1976, Biometrika 63:655), set by set."""
    named = {str(k): p for k, p in enumerate(p_values)}

    def closed(name):
        others = [each for each in named if each != name]
        sets = [(name, *rest) for k in range(len(named)) for rest in combinations(others, k)]
        return min(1, max(len(each) * min(named[n] for n in each) for each in sets))

    assert metrics.holm(named) == pytest.approx({name: closed(name) for name in named})


def test_it_rejects_as_often_as_it_says_where_a_person_has_a_knee_in_both_subgroups():
    """Simulation: accuracy of left and right knees, which are alike, has no difference.

    With the covariance of the person-clustered bootstrap the test keeps its 5 %; as if subgroups
    were independent it would hardly ever reject.
    """
    generator, trials, persons = np.random.default_rng(0), 300, 150
    sides = np.tile([0, 1], persons)
    rejected, naive = 0, 0
    for trial in range(trials):
        alike = np.repeat(generator.random(persons) < 0.7, 2)
        own = generator.random(2 * persons) < 0.7
        right = np.where(alike, np.repeat(own[::2], 2), own).astype(int)
        weights = metrics.bootstrap_weights(
            np.repeat(np.arange(persons), 2), n_boot=200, seed=trial
        )
        found = [
            metrics.resample(
                metrics.accuracy,
                np.ones(persons, dtype=int),
                right[sides == s],
                weights[sides == s],
            )
            for s in (0, 1)
        ]
        values = np.array([each.value for each in found])
        covariance = np.cov(np.stack([each.draws for each in found]))
        rejected += metrics.heterogeneity(values, covariance).p_value < 0.05
        naive += metrics.heterogeneity(values, np.diag(np.diag(covariance))).p_value < 0.05
    low, high = binom.interval(0.999, trials, 0.05)
    assert low <= rejected <= high
    assert naive < low
