"""Metrics against their definitions, and the person-clustered bootstrap against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kneeoa_mm import metrics

GRADES = arrays.arrays(np.int64, st.integers(2, 40), elements=st.integers(0, 4))


def _probabilities(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(5), n)


# graders


def test_macro_averages_count_the_grades_in_the_truth_and_score_the_never_predicted_as_zero():
    """Oracle: worked out by hand."""
    truth = np.array([0, 0, 0, 1, 1, 4])
    predicted = np.array([0, 0, 1, 1, 3, 0])
    # recalls 2/3, 1/2, 0; precisions 2/3, 1/2, 0 of grades 0, 1, 4; grade 3 is not in the truth
    expected = (2 / 3 + 1 / 2 + 0) / 3
    found = metrics.GRADE_METRICS
    assert found["recall"](truth, predicted) == pytest.approx(expected)
    assert found["balanced_accuracy"](truth, predicted) == pytest.approx(expected)
    assert found["precision"](truth, predicted) == pytest.approx(expected)
    assert found["macro_f1"](truth, predicted) == pytest.approx(expected)
    assert found["accuracy"](truth, predicted) == pytest.approx(3 / 6)
    assert found["mae"](truth, predicted) == pytest.approx((1 + 2 + 4) / 6)


def _kappa_by_definition(truth: np.ndarray, predicted: np.ndarray) -> float:
    """1 - observed / expected squared distance, the expectation over all pairs of the margins."""
    observed = np.mean((truth - predicted) ** 2)
    expected = np.mean((truth[:, None] - predicted[None, :]) ** 2)
    return float(1 - observed / expected)


@given(GRADES, st.integers(0, 10**6))
def test_quadratic_kappa_is_its_definition_also_where_grades_are_absent(truth, seed):
    """Oracle: Cohen's formula of 1968, with the expectation over all pairs of the margins."""
    predicted = np.random.default_rng(seed).choice([0, 2, 4], len(truth))
    if len(np.unique(np.concatenate([truth, predicted]))) < 2:
        return
    expected = _kappa_by_definition(truth, predicted)
    assert metrics.qwk(truth, predicted) == pytest.approx(expected, abs=1e-12)


def test_quadratic_kappa_weighs_a_miss_by_its_distance_even_when_middle_grades_are_absent():
    """Oracle: worked out by hand."""
    near = metrics.qwk(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    far = metrics.qwk(np.array([0, 0, 4, 4]), np.array([0, 4, 4, 4]))
    mixed = metrics.qwk(np.array([0, 0, 4, 4, 1]), np.array([0, 4, 4, 4, 0]))
    assert near == pytest.approx(far)
    assert mixed == pytest.approx(
        _kappa_by_definition(np.array([0, 0, 4, 4, 1]), np.array([0, 4, 4, 4, 0]))
    )


def test_quadratic_kappa_of_one_constant_grade_is_undefined():
    with pytest.raises(metrics.UndefinedMetricError, match="constant"):
        metrics.qwk(np.array([2, 2]), np.array([2, 2]))


def test_multiclass_brier_runs_from_zero_for_certainty_to_two_for_certain_error():
    """Oracle: its two ends, by definition."""
    truth = np.array([0, 3])
    assert metrics.kl_brier(truth, np.eye(5)[truth]) == 0
    assert metrics.kl_brier(truth, np.eye(5)[(truth + 1) % 5]) == pytest.approx(2)
    assert metrics.kl_brier(truth, np.full((2, 5), 0.2)) == pytest.approx(0.8**2 + 4 * 0.2**2)


def test_one_against_rest_averages_over_the_grades_that_are_there():
    """Oracle: all pairs of each grade and the rest, counted one by one."""
    truth = np.array([0, 0, 1, 1, 3, 3, 3])
    probability = _probabilities(len(truth))
    each = [_auroc_by_pairs((truth == k).astype(int), probability[:, k]) for k in (0, 1, 3)]
    found = metrics.GRADE_PROBABILITY_METRICS["auroc"](truth, probability)
    assert found == pytest.approx(np.mean(each))


def test_osteoarthritis_is_ranked_by_the_probability_of_two_and_more():
    """Oracle: all pairs, counted one by one."""
    truth = np.array([0, 1, 1, 2, 3, 4, 0, 2])
    probability = _probabilities(len(truth))
    expected = _auroc_by_pairs((truth >= 2).astype(int), 1 - probability[:, 0] - probability[:, 1])
    assert metrics.auroc_kl2(truth, probability) == pytest.approx(expected)
    with pytest.raises(metrics.UndefinedMetricError, match="one class"):
        metrics.auroc_kl2(np.array([0, 1]), probability[:2])


def _knees_of_confidence(confidence: list[float]) -> np.ndarray:
    """Grade 0 is the most probable, the others share the rest."""
    top = np.array(confidence)[:, None]
    return np.hstack([top, np.repeat((1 - top) / 4, 4, axis=1)])


def test_calibration_error_by_hand():
    """Bins of a fifteenth: 0.61 and 0.65 share one (mean 0.63, half right), 0.9 is alone, wrong."""
    probability = _knees_of_confidence([0.61, 0.65, 0.9, 0.9])
    truth = np.array([0, 3, 1, 2])
    assert metrics.ece(truth, probability) == pytest.approx(0.5 * 0.13 + 0.5 * 0.9)


def test_a_certain_and_right_grader_has_no_calibration_error():
    truth = np.array([0, 3, 4, 1])
    assert metrics.ece(truth, np.eye(5)[truth]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_calibration_error_is_that_of_torchmetrics(seed):
    """Oracle: torchmetrics."""
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    generator = np.random.default_rng(seed)
    probability = generator.dirichlet(np.full(5, 0.4), 300)
    truth = generator.integers(0, 5, 300)
    expected = multiclass_calibration_error(
        torch.from_numpy(probability), torch.from_numpy(truth), num_classes=5, n_bins=15, norm="l1"
    )
    assert metrics.ece(truth, probability) == pytest.approx(float(expected), abs=1e-6)


def _calibration_error_of(flattery: float, trial: int) -> tuple[metrics.Estimate, ...]:
    """Its centred and its plain interval, for a grader that is that much surer than right."""
    generator = np.random.default_rng(trial)
    confidence = generator.choice([0.45, 0.62, 0.77, 0.97], 300)
    truth = np.where(generator.random(300) < confidence - flattery, 0, 1)
    weights = metrics.bootstrap_weights(np.repeat(np.arange(150), 2), n_boot=100, seed=trial)
    probability = _knees_of_confidence(confidence.tolist())
    centred = metrics.estimate(metrics.ece, truth, probability, weights, centred=True)
    return centred, metrics.estimate(metrics.ece, truth, probability, weights)


def test_intervals_of_the_calibration_error_cover_the_true_one():
    """Oracle: simulation of graders with a known calibration error."""
    intervals = [_calibration_error_of(0.2, trial)[0] for trial in range(60)]
    # 0.95 within three standard errors of 60 trials
    assert np.mean([each.ci_low <= 0.2 <= each.ci_high for each in intervals]) >= 0.86


def test_the_interval_of_a_small_calibration_error_holds_its_value():
    """Drawing adds noise to each bin, and lifts the draws of a calibrated grader off the value."""
    for trial in range(20):
        centred, plain = _calibration_error_of(0, trial)
        assert 0 <= centred.ci_low <= centred.value <= centred.ci_high
        assert plain.ci_low > centred.ci_low


def test_coverage_and_size_of_sets_by_hand():
    """Oracle: counted by hand."""
    sets = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 0]], dtype=bool)
    truth = np.array([1, 3, 3])
    assert metrics.coverage(truth, sets) == pytest.approx(2 / 3)
    assert metrics.set_size(truth, sets) == pytest.approx(2)


def test_knees_without_a_set_leave_coverage_without_a_value():
    sets = np.array([[True, False, False, False, False], [False] * 5])
    truth, probability = np.array([0, 1]), _probabilities(2)
    estimates = metrics.kl_estimates(truth, truth, probability, sets, [])
    assert estimates["coverage"].value is None
    assert "without a set of grades: 1" in estimates["coverage"].reason
    assert estimates["accuracy"].value == 1


# binary risks


def _auroc_by_pairs(event: np.ndarray, score: np.ndarray) -> float:
    """Mann and Whitney: share of event/non-event pairs in the right order, ties half."""
    pairs = score[event == 1][:, None] - score[event == 0][None, :]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


@given(st.integers(0, 10**6))
def test_auroc_is_the_share_of_ordered_pairs_with_ties(seed):
    """Oracle: all pairs, counted one by one, ties half."""
    generator = np.random.default_rng(seed)
    event = np.concatenate([[0, 1], generator.integers(0, 2, 30)])
    score = generator.integers(0, 6, 32) / 5
    assert metrics.auroc(event, score) == pytest.approx(_auroc_by_pairs(event, score))


def test_average_precision_by_hand():
    """Oracle: the sum over recalls, by hand."""
    # ranked events: 1, 0, 1 -> precision 1 at recall 1/2, 2/3 at recall 1
    found = metrics.auprc(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7]))
    assert found == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_scaled_brier_is_one_for_certainty_and_zero_for_the_prevalence():
    """Oracle: its two fixed points, by definition."""
    event = np.array([1, 0, 0, 0])
    assert metrics.scaled_brier(event, event.astype(float)) == pytest.approx(1)
    assert metrics.scaled_brier(event, np.full(4, 0.25)) == pytest.approx(0)
    # Brier (0.16 + 3 * 0.04) / 4 = 0.07 against 0.25 * 0.75
    assert metrics.scaled_brier(event, np.array([0.6, 0.2, 0.2, 0.2])) == pytest.approx(
        1 - 0.07 / 0.1875
    )


@given(st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_net_benefit_is_the_formula_of_vickers_and_elkin(seed, threshold):
    """Closed form, as dcurves writes it: tp / n - fp / n * t / (1 - t)."""
    generator = np.random.default_rng(seed)
    event, risk = generator.integers(0, 2, 50), generator.random(50)
    hits = np.sum((risk >= threshold) & (event == 1))
    alarms = np.sum((risk >= threshold) & (event == 0))
    expected = hits / 50 - alarms / 50 * threshold / (1 - threshold)
    assert metrics.net_benefit(threshold)(event, risk) == pytest.approx(expected)
    share = event.mean()
    all_treated = share - (1 - share) * threshold / (1 - threshold)
    assert metrics.treat_all(threshold)(event, risk) == pytest.approx(all_treated)


def test_treating_all_is_worth_nothing_at_the_prevalence_and_nobody_gains_by_a_useless_model():
    """Oracle: Vickers and Elkin's formula at the prevalence, where gain and cost cancel."""
    event = np.array([1, 0, 0, 0])
    assert metrics.treat_all(0.25)(event, np.zeros(4)) == pytest.approx(0)
    assert metrics.net_benefit(0.2)(event, np.zeros(4)) == 0


def test_sensitivity_and_specificity_count_a_risk_at_the_threshold_as_positive():
    """Oracle: counted by hand."""
    event, risk = np.array([1, 1, 0, 0, 0]), np.array([0.2, 0.1, 0.2, 0.1, 0.0])
    assert metrics.sensitivity(0.2)(event, risk) == pytest.approx(1 / 2)
    assert metrics.specificity(0.2)(event, risk) == pytest.approx(2 / 3)
    with pytest.raises(metrics.UndefinedMetricError, match="no events"):
        metrics.sensitivity(0.2)(np.zeros(5, dtype=int), risk)


def test_brier_score_by_hand():
    """Oracle: two squares, by hand."""
    assert metrics.brier(np.array([1, 0]), np.array([0.8, 0.4])) == pytest.approx(0.1)


def test_decisions_are_at_one_half_and_one_half_is_positive():
    """Oracle: the four cells, counted by hand."""
    event, risk = np.array([1, 1, 0, 0, 0]), np.array([0.5, 0.2, 0.5, 0.1, 0.4])
    found = {name: metric(event, risk) for name, metric in metrics.BINARY_METRICS.items()}
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["precision"] == pytest.approx(1 / 2)
    assert found["recall"] == pytest.approx(1 / 2)
    assert found["f1"] == pytest.approx(1 / 2)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_without_events_ranking_and_recall_have_no_value_but_a_reason():
    estimates = metrics.binary_estimates(np.zeros(8, dtype=int), np.linspace(0, 0.4, 8), [])
    for name in ("auroc", "auprc", "balanced_accuracy", "recall", "precision", "f1"):
        assert estimates[name].value is None
        assert estimates[name].reason
        assert estimates[name].n == 8
    assert estimates["brier"].value is not None


# intervals


def test_a_draw_takes_all_knees_of_a_person_or_none():
    persons = np.array(["a", "b", "a", "c", "b", "a"])
    for rows in metrics.bootstrap_rows(persons, n_boot=50, seed=3):
        times = {name: np.sum(persons[rows] == name) for name in "abc"}
        assert times["a"] % 3 == 0
        assert times["b"] % 2 == 0
        assert times["a"] / 3 + times["b"] / 2 + times["c"] == 3


def test_draws_depend_on_the_seed_alone():
    persons = np.arange(20) // 2
    first, second, other = (
        np.concatenate(metrics.bootstrap_rows(persons, n_boot=5, seed=seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_two_alike_knees_a_person_carry_no_more_than_one():
    """Against the closed form of a share; a bootstrap of knees would be narrower by root two."""
    generator = np.random.default_rng(0)
    right = (generator.random(400) < 0.7).astype(int)
    truth, persons = np.ones(800, dtype=int), np.repeat(np.arange(400), 2)
    predicted = np.repeat(right, 2)
    half_width = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)

    def width(cluster: np.ndarray) -> float:
        weights = metrics.bootstrap_weights(cluster, n_boot=2000, seed=1)
        estimate = metrics.estimate(metrics.accuracy, truth, predicted, weights)
        return estimate.ci_high - estimate.ci_low

    assert width(persons) == pytest.approx(2 * half_width, rel=0.08)
    assert width(np.arange(800)) == pytest.approx(2 * half_width / np.sqrt(2), rel=0.08)


def test_intervals_cover_the_truth_in_clustered_data():
    """A share of 0.7 with correlated knees: 95 % intervals must hold it about that often."""
    generator = np.random.default_rng(5)
    persons = np.repeat(np.arange(80), 2)
    covered = 0
    for trial in range(200):
        # half of the persons have alike knees, the others independent ones
        alike = np.repeat(generator.random(80) < 0.5, 2)
        own, shared = generator.random(160) < 0.7, np.repeat(generator.random(80) < 0.7, 2)
        right = np.where(alike, shared, own).astype(int)
        weights = metrics.bootstrap_weights(persons, n_boot=200, seed=trial)
        estimate = metrics.estimate(metrics.accuracy, np.ones(160, dtype=int), right, weights)
        covered += estimate.ci_low <= 0.7 <= estimate.ci_high
    # 0.95 within three standard errors of 200 trials
    assert 0.90 <= covered / 200 <= 0.995


def test_draws_that_do_not_define_a_metric_are_left_out_of_its_interval():
    """One of 19 draws has no event; the others rank their pairs right, so the limits are 1."""
    event, risk = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.8, 0.1, 0.2, 0.3])
    without_events, others = [0, 0, 2, 2, 1], ([1, 2, 1, 1, 0], [2, 1, 1, 0, 1])
    weights = np.array([without_events, *(others * 9)]).T
    estimate = metrics.estimate(metrics.auroc, event, risk, weights)
    assert (estimate.ci_low, estimate.ci_high) == (1.0, 1.0)


def test_an_empty_sample_has_a_reason():
    empty = np.array([], dtype=int)
    estimate = metrics.estimate(metrics.accuracy, empty, empty, [])
    assert estimate.value is None
    assert estimate.n == 0
    assert "no knee" in estimate.reason


def test_knees_of_unknown_subjects_are_persons_of_their_own():
    persons = metrics.persons_of(["7", "7", "-", "-"], ["c:7:0:L", "c:7:0:R", "-:-:-:L", "-:-:-:R"])
    assert len(np.unique(persons)) == 3
    assert persons[0] == persons[1]
