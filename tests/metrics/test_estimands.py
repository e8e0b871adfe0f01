"""Per knee, per person and per grade: weights against scikit-learn, intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binom, norm
from sklearn import metrics as sk

from kneeoa_mm import metrics


@pytest.fixture(scope="module")
def sample():
    """One to three knees a person, and persons with more knees are the sicker ones."""
    generator = np.random.default_rng(1)
    per_person = generator.integers(1, 4, 60)
    persons = np.repeat(np.arange(60), per_person)
    event = (generator.random(len(persons)) < 0.2 * np.repeat(per_person, per_person)).astype(int)
    risk = np.round(expit(event - 1 + generator.normal(size=len(event))), 1).clip(0.05, 0.95)
    return persons, event, risk


OF_RISKS = {
    "auroc": sk.roc_auc_score,
    "auprc": sk.average_precision_score,
    "brier": sk.brier_score_loss,
    "accuracy": lambda y, p, sample_weight: sk.accuracy_score(
        y, p >= 0.5, sample_weight=sample_weight
    ),
    "recall": lambda y, p, sample_weight: sk.recall_score(y, p >= 0.5, sample_weight=sample_weight),
}


@pytest.mark.parametrize("name", OF_RISKS)
def test_a_metric_per_person_is_that_of_scikit_learn_with_a_persons_share_as_weight(sample, name):
    """Oracle: scikit-learn's ``sample_weight``."""
    persons, event, risk = sample
    shares = metrics.person_shares(persons)
    found = metrics.binary_estimates(event, risk, [], shares=shares)[name].value
    assert found == pytest.approx(OF_RISKS[name](event, risk, sample_weight=shares))
    assert found != pytest.approx(metrics.binary_estimates(event, risk, [])[name].value)


def test_per_person_and_per_knee_are_one_where_all_persons_have_two_knees(sample):
    _, event, risk = sample
    n = len(event) // 2 * 2
    persons = np.repeat(np.arange(n // 2), 2)
    weights = metrics.bootstrap_weights(persons, n_boot=20, seed=0)
    shares = metrics.person_shares(persons)
    plain = metrics.binary_estimates(event[:n], risk[:n], weights)
    for name, each in metrics.binary_estimates(event[:n], risk[:n], weights, shares=shares).items():
        assert each.value == pytest.approx(plain[name].value), name
        assert each.ci_low == pytest.approx(plain[name].ci_low), name


def test_shares_of_each_person_add_up_to_one(sample):
    persons, _, _ = sample
    assert np.bincount(persons, weights=metrics.person_shares(persons)) == pytest.approx(1)


@pytest.mark.parametrize("name", metrics.OF_ONE_GRADE)
def test_metrics_of_one_grade_are_those_of_scikit_learn(name):
    """Oracle: scikit-learn with ``average=None``."""
    generator = np.random.default_rng(0)
    truth = generator.choice(5, 200)
    predicted = np.where(generator.random(200) < 0.6, truth, generator.choice(5, 200))
    score = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}[name]
    expected = score(truth, predicted, average=None, labels=range(5))
    found = [metrics.of_one_grade(name, grade)(truth, predicted) for grade in range(5)]
    assert found == pytest.approx(expected)


def test_a_grade_that_is_absent_or_never_called_has_no_value_but_a_reason():
    truth, predicted = np.array([0, 1, 1]), np.array([0, 1, 0])
    for name, why in (("precision", "called"), ("recall", "has this"), ("f1", "none is called")):
        with pytest.raises(metrics.UndefinedMetricError, match=why):
            metrics.of_one_grade(name, 4)(truth, predicted)


def test_net_benefit_is_that_of_dcurves():
    """Oracle: R's dcurves on family history of cancer.

    750 patients, 105 with cancer, of whom 24, and of the others 91, have it
    (github.com/MSKCC-Epi-Bio/dcurves, dcurves/data/r_dca_famhistory.csv).
    """
    event = np.repeat([1, 1, 0, 0], [24, 81, 91, 554])
    risk = np.repeat([1.0, 0.0, 1.0, 0.0], [24, 81, 91, 554])
    published = {
        0.05: (0.025614035087719297, 0.09473684210526317),
        0.1: (0.018518518518518517, 0.04444444444444445),
        0.2: (0.0016666666666666635, -0.07499999999999998),
        0.35: (-0.033333333333333354, -0.32307692307692315),
    }
    for threshold, (model, everybody) in published.items():
        assert metrics.net_benefit(threshold)(event, risk) == pytest.approx(model, abs=1e-12)
        assert metrics.treat_all(threshold)(event, risk) == pytest.approx(everybody, abs=1e-12)


def test_calibration_in_the_large_makes_the_mean_risk_the_share_of_events(sample):
    """Oracle: the root of its own equation, found by scipy's bisection."""
    _, event, risk = sample
    expected = brentq(lambda a: expit(logit(risk) + a).mean() - event.mean(), -5, 5)
    assert metrics.calibration_in_the_large(event, risk) == pytest.approx(expected, abs=1e-8)


def test_recalibrating_the_intercept_alone_keeps_the_distances_of_log_odds_within_a_fold(sample):
    """Closed form: every log odds of a fold moves by the intercept of the other folds."""
    persons, event, risk = sample
    folds = persons % 3
    found = metrics.recalibrated(event, risk, folds, slope_is_free=False)
    for fold in range(3):
        rest, rows = folds != fold, folds == fold
        moved = metrics.calibration_in_the_large(event[rest], risk[rest])
        assert logit(found[rows]) == pytest.approx(logit(risk[rows]) + moved, abs=1e-6)


def _two_or_one(generator, persons):
    """Knees of persons, of whom half are seen with one knee; scores of a person are alike."""
    per_person = generator.integers(1, 3, persons)
    person = np.repeat(np.arange(persons), per_person)
    event = (generator.random(len(person)) < 0.4).astype(int)
    common = np.repeat(generator.normal(size=persons), per_person)
    noise = np.sqrt(0.6) * common + np.sqrt(0.4) * generator.normal(size=len(person))
    return person, event, event + noise


@pytest.mark.parametrize("per_person", [False, True])
def test_bootstrap_intervals_of_the_auroc_cover_the_true_one(per_person):
    """Simulation: the true area is that of two normals one standard deviation apart.

    It is the same per knee and per person, since here the number of knees tells nothing.
    """
    generator, true, trials = np.random.default_rng(2), norm.cdf(1 / np.sqrt(2)), 250
    covered = 0
    for trial in range(trials):
        person, event, score = _two_or_one(generator, 120)
        weights = metrics.bootstrap_weights(person, n_boot=200, seed=trial)
        shares = metrics.person_shares(person) if per_person else None
        found = metrics.estimate(metrics.auroc, event, score, weights, shares=shares)
        covered += found.ci_low <= true <= found.ci_high
    low, high = binom.interval(0.999, trials, 0.95)
    assert low <= covered <= high


def test_the_two_estimands_differ_where_persons_with_two_knees_are_graded_better():
    """Closed form: accuracy 1 in the two knees of half of the persons, 0 in the one of the rest."""
    persons = np.array([0, 0, 1, 2, 2, 3])
    right = np.array([1, 1, 0, 1, 1, 0])
    truth = np.ones(6, dtype=int)
    per_knee = metrics.resample(metrics.accuracy, truth, right, [])
    shares = metrics.person_shares(persons)
    per_person = metrics.resample(metrics.accuracy, truth, right, [], shares=shares)
    assert per_knee.value == pytest.approx(4 / 6)
    assert per_person.value == pytest.approx(1 / 2)


@pytest.mark.parametrize("name", ["auroc", "auprc", "scaled_brier"])
def test_one_class_is_recognised_whatever_the_shares_of_persons_sum_to(name):
    """Thirds and sevenths do not add up exactly, so that the share of events is 1 but for them."""
    for persons in range(2, 40):
        person = np.repeat(np.arange(persons), np.where(np.arange(persons) % 2, 3, 7))
        risk = np.random.default_rng(persons).random(len(person))
        shares = metrics.person_shares(person)
        for every in (0, 1):
            truth = np.full(len(person), every)
            found = metrics.binary_estimates(truth, risk, [], shares=shares)[name]
            assert found.value is None, (persons, every)
            assert "one class" in found.reason
