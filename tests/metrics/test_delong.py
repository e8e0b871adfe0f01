"""Clustered DeLong: against pROC, the plain formulas, simulation, and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from kneeoa_mm import metrics

PATIENTS = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0
2.5 5.7  8 0  1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1
4.1 6.6  5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6  6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6  6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1
3.3 6.8  6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7  9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
3.6 6.6  5 1
"""
"""Albumin, total protein, K-G score and whether the patient gained from surgery, of the 43 complete
patients of DeLong et al. 1988, as the SAS/STAT User's Guide lists them (The LOGISTIC Procedure,
Comparing Receiver Operating Characteristic Curves;
https://support.sas.com/documentation/cdl/en/statug/68162/HTML/default/statug_logistic_examples08.htm).
"""


def test_the_variance_is_that_of_proc_with_ties():
    """Oracle: pROC's own tests, var(r.wfns) on its data aSAH (tests/testthat/test-var.R).

    Their WFNS grades, 1 to 5, of the 72 patients with a good and the 41 with a poor outcome.
    """
    good, poor = [37, 20, 3, 8, 4], [2, 12, 1, 8, 18]
    grades = np.arange(1, 6)
    score = np.concatenate([np.repeat(grades, good), np.repeat(grades, poor)]).astype(float)
    event = np.repeat([0, 1], [72, 41])
    found = metrics.clustered_aurocs(event, score[:, None], np.arange(len(event)))
    assert found.covariance[0, 0] == pytest.approx(0.00146991470882363, rel=1e-12)


def test_patients_of_delong_1988_come_out_by_her_formula():
    """Oracle: the structural components of DeLong et al. 1988, with one row a person.

    They are the share of non-events below each event and of events above each non-event; their
    sample covariances, each by its number, make the covariance.
    """
    albumin, protein, score, popind = np.array(PATIENTS.split(), dtype=float).reshape(-1, 4).T
    event = (popind == 0).astype(int)
    scores = np.stack([-albumin, score, -protein], axis=1)
    found = metrics.clustered_aurocs(event, scores, np.arange(len(event)))
    x, y = scores[event == 1][:, None], scores[event == 0][None]
    order = (x > y) + 0.5 * (x == y)
    of_events, of_others = order.mean(axis=1), order.mean(axis=0)
    covariance = np.cov(of_events.T) / len(of_events) + np.cov(of_others.T) / len(of_others)
    assert found.values == pytest.approx(order.mean(axis=(0, 1)))
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10)
    for i, j in ((0, 1), (2, 1)):
        z = (found.values[i] - found.values[j]) / np.sqrt(
            covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        )
        assert found.difference(i, j).p_value == pytest.approx(2 * norm.sf(abs(z)))


def _plain(event, scores, persons):
    """Obuchowski's formulas as printed, over all pairs and all persons, O(n m)."""
    x, y = scores[event == 1], scores[event == 0]
    order = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])
    of_events, of_others, area = order.mean(axis=1), order.mean(axis=0), order.mean(axis=(0, 1))
    m, n = len(x), len(y)
    clusters = np.unique(persons)
    s10, s01, s11 = 0.0, 0.0, 0.0
    for person in clusters:
        mine, other = persons[event == 1] == person, persons[event == 0] == person
        up = of_events[mine].sum(axis=0) - mine.sum() * area
        down = of_others[other].sum(axis=0) - other.sum() * area
        s10 = s10 + np.outer(up, up)
        s01 = s01 + np.outer(down, down)
        s11 = s11 + np.outer(up, down)
    i10, i01 = len(np.unique(persons[event == 1])), len(np.unique(persons[event == 0]))
    i = len(clusters)
    covariance = (
        i10 / ((i10 - 1) * m) * s10 / m
        + i01 / ((i01 - 1) * n) * s01 / n
        + i / (i - 1) * (s11 + s11.T) / (m * n)
    )
    return area, covariance


@pytest.mark.parametrize("per_person", [1, 2, 3])
def test_it_is_the_plain_formula_with_and_without_clusters_and_with_ties(per_person):
    generator = np.random.default_rng(per_person)
    n = 24 * per_person
    persons = np.repeat(np.arange(24), per_person)
    event = generator.integers(0, 2, n)
    scores = np.stack(
        [generator.normal(size=n) + event, generator.integers(0, 4, n) + event], axis=1
    )
    found = metrics.clustered_aurocs(event, scores, persons)
    area, covariance = _plain(event, scores, persons)
    np.testing.assert_allclose(found.values, area)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10)


def _knees(generator, n_persons, *, shift=1.0, shared=0.7):
    """Two knees a person; events and scores of both knees go together."""
    persons = np.repeat(np.arange(n_persons), 2)
    alike = np.repeat(generator.random(n_persons) < shared, 2)
    own = generator.random(2 * n_persons) < 0.3
    event = np.where(alike, np.repeat(own[::2], 2), own).astype(int)

    def noise():
        common = np.repeat(generator.normal(size=n_persons), 2)
        return np.sqrt(shared) * common + np.sqrt(1 - shared) * generator.normal(size=len(own))

    base = noise()
    scores = np.stack([shift * event + base, shift * event + 0.6 * base + 0.8 * noise()], axis=1)
    return event, scores, persons


def test_intervals_cover_the_true_area_and_those_that_ignore_persons_do_not():
    """Simulation: the true area is that of two normals one standard deviation apart."""
    generator = np.random.default_rng(0)
    true = norm.cdf(1 / np.sqrt(2))
    trials = 600
    covered, ignoring = 0, 0
    for _ in range(trials):
        event, scores, persons = _knees(generator, 120)
        for clusters, is_ours in ((persons, True), (np.arange(len(event)), False)):
            found = metrics.clustered_aurocs(event, scores[:, :1], clusters)
            half = 1.96 * np.sqrt(found.covariance[0, 0])
            holds = abs(found.values[0] - true) <= half
            covered += holds and is_ours
            ignoring += holds and not is_ours
    # 0.95 within three standard errors of 600 trials
    assert 0.923 <= covered / trials <= 0.977
    assert ignoring / trials < 0.92


def test_the_test_of_no_difference_rejects_as_often_as_it_says():
    generator = np.random.default_rng(1)
    trials = 600
    p_values = []
    for _ in range(trials):
        event, scores, persons = _knees(generator, 100)
        p_values.append(metrics.clustered_aurocs(event, scores, persons).difference(0, 1).p_value)
    # 0.05 within three standard errors of 600 trials
    assert 0.023 <= np.mean(np.array(p_values) < 0.05) <= 0.077


def test_standard_errors_agree_with_the_person_bootstrap_also_within_blocks():
    event, scores, persons = _knees(np.random.default_rng(2), 400)
    fold = persons % 5
    for blocks, metric in ((None, metrics.auroc), (fold, metrics.auroc_within(fold))):
        found = metrics.clustered_aurocs(event, scores, persons, blocks=blocks)
        weights = metrics.bootstrap_weights(persons, n_boot=2000, seed=0)
        drawn = [metrics.resample(metric, event, scores[:, i], weights) for i in (0, 1)]
        assert [each.value for each in drawn] == pytest.approx(found.values.tolist())
        expected = np.cov(np.stack([each.draws for each in drawn]))
        np.testing.assert_allclose(found.covariance, expected, rtol=0.12)


def test_a_row_that_counts_thrice_is_three_rows_of_its_person():
    """Oracle: the table in which each row stands as often as it counts."""
    generator = np.random.default_rng(4)
    event, scores, persons = _knees(generator, 60)
    fold, counts = persons % 3, generator.integers(1, 5, len(event))
    weighted = metrics.clustered_aurocs(
        event, scores, persons, blocks=fold, shares=counts.astype(float)
    )
    rows = np.repeat(np.arange(len(event)), counts)
    repeated = metrics.clustered_aurocs(event[rows], scores[rows], persons[rows], blocks=fold[rows])
    np.testing.assert_allclose(weighted.values, repeated.values)
    np.testing.assert_allclose(weighted.covariance, repeated.covariance)


def test_the_interval_of_a_difference_holds_nothing_exactly_where_p_says_so():
    generator = np.random.default_rng(5)
    for _ in range(50):
        event, scores, persons = _knees(generator, 60, shift=generator.uniform(0, 1))
        apart = metrics.clustered_aurocs(event, scores, persons).difference(0, 1)
        low, high = apart.limits
        assert (low <= 0 <= high) == (apart.p_value >= 0.05)


def test_two_equal_models_have_no_p_value():
    event, scores, persons = _knees(np.random.default_rng(3), 50)
    found = metrics.clustered_aurocs(event, scores[:, [0, 0]], persons)
    apart = found.difference(0, 1)
    assert apart.value == 0
    assert apart.p_value is None
    assert apart.limits is None


def test_events_of_one_person_have_no_p_value():
    event = np.array([1, 1, 0, 0, 0, 0])
    scores = np.array([[0.9, 0.2], [0.4, 0.8], [0.5, 0.1], [0.3, 0.9], [0.2, 0.3], [0.6, 0.7]])
    found = metrics.clustered_aurocs(event, scores, np.array([0, 0, 1, 1, 2, 2]))
    assert np.isfinite(found.values).all()
    assert found.difference(0, 1).p_value is None


def test_one_class_has_no_area():
    with pytest.raises(metrics.UndefinedMetricError, match="events and non-events"):
        metrics.clustered_aurocs(np.zeros(4, dtype=int), np.zeros((4, 1)), np.arange(4))
