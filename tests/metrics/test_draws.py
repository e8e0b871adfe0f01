"""All draws weighed at once, against scikit-learn on the rows of each draw."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from kneeoa_mm import metrics

N_DRAWS = 25
N_PERSONS = 45


@pytest.fixture(scope="module")
def sample():
    """Two knees a person; a risk with ties, and grades of which one is rare enough to be lost."""
    generator = np.random.default_rng(3)
    n = 2 * N_PERSONS
    persons = np.repeat(np.arange(N_PERSONS), 2)
    event = generator.integers(0, 2, n)
    risk = np.round(1 / (1 + np.exp(-event - generator.normal(size=n))), 1)
    grade = generator.choice(4, n, p=[0.5, 0.3, 0.18, 0.02])
    probabilities = 0.7 * generator.dirichlet(np.ones(5), n) + 0.3 * np.eye(5)[grade]
    weights = metrics.bootstrap_weights(persons, n_boot=N_DRAWS, seed=0)
    rows = metrics.bootstrap_rows(persons, n_boot=N_DRAWS, seed=0)
    return event, risk, grade, probabilities, weights, rows


def _kappa(truth, predicted):
    return sk.cohen_kappa_score(truth, predicted, weights="quadratic", labels=range(5))


def _macro(score):
    def macro(truth, predicted):
        return score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)

    return macro


def _each_grade(score):
    def mean(truth, probabilities):
        return np.mean([score(truth == k, probabilities[:, k]) for k in np.unique(truth)])

    return mean


def _at_half(score):
    return lambda event, risk: score(event, risk >= 0.5)


OF_GRADES = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "precision": _macro(sk.precision_score),
    "recall": _macro(sk.recall_score),
    "macro_f1": _macro(sk.f1_score),
    "qwk": _kappa,
    "mae": sk.mean_absolute_error,
}
OF_PROBABILITIES = {
    "auroc": _each_grade(sk.roc_auc_score),
    "auprc": _each_grade(sk.average_precision_score),
    "auroc_kl2": lambda grade, p: sk.roc_auc_score(grade >= 2, p[:, 2:].sum(axis=1)),
    "brier": lambda grade, p: len(p[0]) * sk.mean_squared_error(np.eye(5)[grade], p),
}
OF_RISKS = {
    "auroc": sk.roc_auc_score,
    "auprc": sk.average_precision_score,
    "brier": sk.brier_score_loss,
    "accuracy": _at_half(sk.accuracy_score),
    "balanced_accuracy": _at_half(sk.balanced_accuracy_score),
    "precision": _at_half(sk.precision_score),
    "recall": _at_half(sk.recall_score),
    "f1": _at_half(sk.f1_score),
}


def _equal_on_each_draw(metric, oracle, truth, prediction, weights, rows):
    found = metrics.resample(metric, truth, prediction, weights)
    with warnings.catch_warnings():
        # balanced accuracy warns of predicted grades that a draw's truth lacks, and skips them too
        warnings.simplefilter("ignore", category=UserWarning)
        expected = [oracle(truth[drawn], prediction[drawn]) for drawn in rows]
        assert found.value == pytest.approx(oracle(truth, prediction), abs=1e-12)
    np.testing.assert_allclose(found.draws, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OF_GRADES)
def test_metrics_of_grades_are_scikit_learns_on_each_draw(sample, name):
    _, _, grade, probabilities, weights, rows = sample
    predicted = probabilities.argmax(axis=1)
    metric = metrics.GRADE_METRICS[name]
    _equal_on_each_draw(metric, OF_GRADES[name], grade, predicted, weights, rows)


@pytest.mark.parametrize("name", OF_PROBABILITIES)
def test_metrics_of_grade_probabilities_are_scikit_learns_on_each_draw(sample, name):
    _, _, grade, probabilities, weights, rows = sample
    metric = metrics.GRADE_PROBABILITY_METRICS[name]
    _equal_on_each_draw(metric, OF_PROBABILITIES[name], grade, probabilities, weights, rows)


@pytest.mark.parametrize("name", OF_RISKS)
def test_metrics_of_risks_are_scikit_learns_on_each_draw(sample, name):
    event, risk, _, _, weights, rows = sample
    metric = metrics.BINARY_METRICS[name]
    _equal_on_each_draw(metric, OF_RISKS[name], event, risk, weights, rows)


def test_every_metric_of_a_table_is_compared_or_has_a_test_of_its_own():
    assert set(OF_GRADES) == set(metrics.GRADE_METRICS)
    assert set(OF_PROBABILITIES) | {"ece"} == set(metrics.GRADE_PROBABILITY_METRICS)
    assert set(OF_RISKS) == set(metrics.BINARY_METRICS)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.ece,
        metrics.kl_brier,
    ],
)
def test_a_draw_is_what_the_metric_says_of_its_rows(sample, metric):
    _, _, grade, probabilities, weights, rows = sample
    found = metrics.resample(metric, grade, probabilities, weights)
    expected = [metric(grade[drawn], probabilities[drawn]) for drawn in rows]
    np.testing.assert_allclose(found.draws, expected, rtol=0, atol=1e-12)


def test_calibration_slope_is_the_unpenalised_logistic_regression_of_scikit_learn(sample):
    event, risk, _, _, weights, rows = sample
    risk = np.clip(risk, 0.05, 0.95)
    found = metrics.resample(metrics.calibration_slope, event, risk, weights)

    def slope(drawn):
        model = LogisticRegression(C=np.inf, tol=1e-10, solver="newton-cholesky")
        return model.fit(np.log(risk / (1 - risk))[drawn, None], event[drawn]).coef_[0, 0]

    np.testing.assert_allclose(found.draws[:8], [slope(d) for d in rows[:8]], rtol=1e-5)


def test_rows_and_weights_are_the_same_draws():
    persons = np.array(["b", "a", "b", "c"])
    weights = metrics.bootstrap_weights(persons, n_boot=30, seed=5)
    rows = metrics.bootstrap_rows(persons, n_boot=30, seed=5)
    counts = np.stack([np.bincount(drawn, minlength=4) for drawn in rows], axis=1)
    assert np.array_equal(counts, weights)
    assert np.array_equal(weights[0], weights[2]), "both knees of a person come together"


def test_chunks_do_not_change_a_draw(sample, monkeypatch):
    event, risk, _, _, weights, _ = sample
    whole = metrics.resample(metrics.auroc, event, risk, weights).draws
    monkeypatch.setattr("kneeoa_mm.metrics.intervals._CELLS_AT_ONCE", 3 * len(event))
    assert np.array_equal(metrics.resample(metrics.auroc, event, risk, weights).draws, whole)


def test_a_difference_is_taken_draw_by_draw(sample):
    event, risk, _, _, weights, _ = sample
    one = metrics.resample(metrics.auroc, event, risk, weights)
    other = metrics.resample(metrics.auroc, event, -risk, weights)
    found = one - other
    # with all signs turned the area is 1 less it
    assert found.value == pytest.approx(2 * one.value - 1)
    np.testing.assert_allclose(found.draws, 2 * one.draws - 1)
    assert (one - one).estimate().ci_high == 0


def test_a_difference_with_an_undefined_metric_keeps_the_reason():
    event, risk = np.zeros(4, dtype=int), np.linspace(0, 1, 4)
    undefined = metrics.resample(metrics.auroc, event, risk, np.ones((4, 3)))
    found = (metrics.resample(metrics.brier, event, risk, np.ones((4, 3))) - undefined).estimate()
    assert found.value is None
    assert "one class" in found.reason


def test_knees_of_one_person_have_no_interval_in_a_stratum_either():
    """Each draw is the sample itself some times over, and would look like certainty."""
    persons = np.array([0, 0, 1, 1, 2, 2])
    event, risk = np.array([0, 1, 0, 1, 0, 1]), np.array([0.2, 0.9, 0.7, 0.4, 0.1, 0.8])
    weights = metrics.bootstrap_weights(persons, n_boot=50, seed=0)
    alone, two = persons == 2, persons > 0
    of_one = metrics.resample(metrics.brier, event[alone], risk[alone], weights[alone])
    of_two = metrics.resample(metrics.brier, event[two], risk[two], weights[two])
    assert of_one.value == pytest.approx(np.mean((event - risk)[alone] ** 2))
    for found in (of_one, of_one - of_one):
        estimate = found.estimate()
        assert (estimate.ci_low, estimate.ci_high) == (None, None)
        assert "one person" in estimate.reason
    assert of_two.estimate().ci_low < of_two.estimate().ci_high
