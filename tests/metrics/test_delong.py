"""Clustered DeLong: against the paper's own data, the plain formula, simulation, the bootstrap."""

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
patients of DeLong et al. 1988."""


def test_the_example_of_delong_1988_comes_out_as_published():
    """Figures of the SAS/STAT User's Guide, PROC LOGISTIC, on comparing ROC curves."""
    albumin, protein, score, popind = np.array(PATIENTS.split(), dtype=float).reshape(-1, 4).T
    event = (popind == 0).astype(int)
    found = metrics.clustered_aurocs(
        event, np.stack([-albumin, score, -protein], axis=1), np.arange(len(event))
    )
    assert found.values == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    errors = np.sqrt(np.diag(found.covariance))
    assert errors == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    # albumin, then total protein, against the K-G score
    assert found.p_value(0, 1) == pytest.approx(0.9102, abs=5e-5)
    assert found.p_value(2, 1) == pytest.approx(0.4561, abs=5e-5)


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
        p_values.append(metrics.clustered_aurocs(event, scores, persons).p_value(0, 1))
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


def test_two_equal_models_have_no_p_value():
    event, scores, persons = _knees(np.random.default_rng(3), 50)
    found = metrics.clustered_aurocs(event, scores[:, [0, 0]], persons)
    assert found.p_value(0, 1) is None


def test_one_class_has_no_area():
    with pytest.raises(metrics.UndefinedMetricError, match="events and non-events"):
        metrics.clustered_aurocs(np.zeros(4, dtype=int), np.zeros((4, 1)), np.arange(4))
