"""Ranking within folds and strata. Oracle: the mean of scikit-learn's values of each block."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from kneeoa_mm import metrics


@pytest.fixture(scope="module")
def folds():
    generator = np.random.default_rng(0)
    fold = generator.integers(0, 4, 300)
    event = (generator.random(300) < 0.25).astype(int)
    score = event + generator.normal(size=300) + 5 * fold
    return event, score, fold


def _parts(fold):
    return [fold == each for each in np.unique(fold)]


def test_area_is_the_mean_of_the_folds_areas_weighted_by_their_pairs(folds):
    event, score, fold = folds
    areas = [roc_auc_score(event[rows], score[rows]) for rows in _parts(fold)]
    pairs = [event[rows].sum() * (1 - event[rows]).sum() for rows in _parts(fold)]
    found = metrics.auroc_within(fold)(event, score)
    assert found == pytest.approx(np.average(areas, weights=pairs))


def test_levels_that_differ_between_folds_change_nothing_within_and_much_when_pooled(folds):
    event, score, fold = folds
    level = score - 5 * fold
    within = metrics.auroc_within(fold)
    assert within(event, score) == pytest.approx(within(event, level))
    assert metrics.auroc(event, score) < metrics.auroc(event, level) - 0.1


def test_average_precision_is_the_mean_of_the_folds_weighted_by_their_events(folds):
    event, score, fold = folds
    values = [average_precision_score(event[rows], score[rows]) for rows in _parts(fold)]
    events = [event[rows].sum() for rows in _parts(fold)]
    found = metrics.auprc_within(fold)(event, score)
    assert found == pytest.approx(np.average(values, weights=events))


def test_the_baseline_is_what_a_constant_score_gets(folds):
    event, _, fold = folds
    constant = np.zeros(len(event))
    found = metrics.prevalence_within(fold)(event, constant)
    assert found == pytest.approx(metrics.auprc_within(fold)(event, constant))


def test_a_constant_within_strata_is_worth_one_half():
    grade = np.array([0, 0, 1, 1, 2, 2])
    event = np.array([0, 1, 0, 1, 0, 1])
    assert metrics.auroc_within(grade)(event, grade.astype(float)) == 0.5


def test_blocks_of_one_class_count_for_nothing_and_alone_for_no_value():
    event, score = np.array([1, 0, 1, 1]), np.array([0.9, 0.1, 0.0, 0.0])
    assert metrics.auroc_within(np.array([0, 0, 1, 1]))(event, score) == 1
    with pytest.raises(metrics.UndefinedMetricError, match="any fold"):
        metrics.auroc_within(np.arange(4))(event, score)


def test_a_draw_within_blocks_is_the_metric_of_its_rows(folds):
    event, score, fold = folds
    persons = np.arange(300) // 2
    weights = metrics.bootstrap_weights(persons, n_boot=10, seed=0)
    rows = metrics.bootstrap_rows(persons, n_boot=10, seed=0)
    for within in (metrics.auroc_within, metrics.auprc_within, metrics.prevalence_within):
        found = metrics.resample(within(fold), event, score, weights)
        expected = [within(fold[drawn])(event[drawn], score[drawn]) for drawn in rows]
        np.testing.assert_allclose(found.draws, expected, atol=1e-12)


def test_the_mean_curve_has_the_area_within_folds(folds):
    event, score, fold = folds
    false_positive, sensitivity = metrics.mean_roc(event, score, fold)
    area = np.trapezoid(sensitivity, false_positive)
    assert area == pytest.approx(metrics.auroc_within(fold)(event, score), abs=2e-3)
    assert sensitivity[-1] == 1
    assert (np.diff(sensitivity) >= 0).all()
