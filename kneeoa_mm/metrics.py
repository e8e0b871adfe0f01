"""Metrics of graders and of binary risks, with person-clustered bootstrap intervals.

The two knees of a person are not independent, so intervals resample persons, not knees. A metric
that a sample does not define (one class only, say) has no value but a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

from kneeoa_mm.records import UNKNOWN, Estimate, KLGrade

Labels = NDArray[np.int64]
Array = NDArray[np.float64]

CI_PERCENTILES = (2.5, 97.5)
DECISION_THRESHOLD = 0.5
_OSTEOARTHRITIS = 2
_ECE_BINS = 15


class UndefinedMetricError(ValueError):
    """The sample does not define the metric; the message says why."""


def accuracy(truth: Labels, predicted: Labels) -> float:
    """Share of knees whose predicted grade is the true one."""
    return float(np.mean(truth == predicted))


def _macro(score: Callable[..., float]) -> Callable[[Labels, Labels], float]:
    """Mean over the grades that the truth contains; 0 for one that is never predicted."""

    def metric(truth: Labels, predicted: Labels) -> float:
        present = np.unique(truth)
        return float(score(truth, predicted, labels=present, average="macro", zero_division=0))

    return metric


def qwk(truth: Labels, predicted: Labels) -> float:
    """Quadratic weighted kappa (Cohen 1968, Psychol Bull 70:213).

    Raises:
        UndefinedMetricError: Truth and prediction are one and the same constant.
    """
    if len(np.unique(np.concatenate([truth, predicted]))) < 2:
        raise UndefinedMetricError("truth and prediction are one constant grade")
    # all grades named: scikit-learn weighs by position, and absent grades would move the others
    grades = [int(grade) for grade in KLGrade]
    return float(sk.cohen_kappa_score(truth, predicted, weights="quadratic", labels=grades))


def mae(truth: Labels, predicted: Labels) -> float:
    """Mean absolute error in grades."""
    return float(np.mean(np.abs(truth - predicted)))


GRADE_METRICS: Mapping[str, Callable[[Labels, Labels], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": _macro(sk.recall_score),
    "precision": _macro(sk.precision_score),
    "recall": _macro(sk.recall_score),
    "macro_f1": _macro(sk.f1_score),
    "qwk": qwk,
    "mae": mae,
}
"""Of true and predicted grades, both (n,). Averages over grades are unweighted and count the grades
that the truth contains; balanced accuracy is the mean recall."""


def _one_against_rest(score: Callable[..., float]) -> Callable[[Labels, Array], float]:
    def metric(truth: Labels, probabilities: Array) -> float:
        present = np.unique(truth)
        if len(present) < 2:
            raise UndefinedMetricError("only one grade in the truth")
        return float(np.mean([score(truth == k, probabilities[:, k]) for k in present]))

    return metric


def kl_brier(truth: Labels, probabilities: Array) -> float:
    """Multi-class Brier score: mean over knees of the sum over grades of (p - y)^2, 0 to 2."""
    target = np.eye(probabilities.shape[1])[truth]
    return float(np.mean(np.sum((probabilities - target) ** 2, axis=1)))


def auroc_kl2(truth: Labels, probabilities: Array) -> float:
    """Area under the ROC curve for osteoarthritis, KL 2 or more, by the probability of that.

    Raises:
        UndefinedMetricError: All knees are below 2, or none is.
    """
    diseased = (truth >= _OSTEOARTHRITIS).astype(np.int64)
    return auroc(diseased, probabilities[:, _OSTEOARTHRITIS:].sum(axis=1))


def ece(truth: Labels, probabilities: Array) -> float:
    """Expected calibration error of the most probable grade (Guo et al. 2017, arXiv:1706.04599).

    Knees are sorted by the probability of their most probable grade into 15 bins of equal width;
    the mean over knees of how far, in their bin, the mean of that probability is from the share
    that it is right in. Chance keeps the two apart in each bin, so a finite sample of a perfectly
    calibrated grader is above 0.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * _ECE_BINS).astype(np.int64) - 1, 0, _ECE_BINS - 1)
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(truth))


GRADE_PROBABILITY_METRICS: Mapping[str, Callable[[Labels, Array], float]] = {
    "auroc": _one_against_rest(sk.roc_auc_score),
    "auprc": _one_against_rest(sk.average_precision_score),
    "auroc_kl2": auroc_kl2,
    "brier": kl_brier,
    "ece": ece,
}
"""Of true grades (n,) and their probabilities (n, 5); the first two are of one grade against the
rest, unweighted."""

_RAISED_BY_NOISE = frozenset({"ece"})


def coverage(truth: Labels, sets: NDArray[np.bool_]) -> float:
    """Share of knees whose set of grades holds the true one.

    Raises:
        UndefinedMetricError: Some knees have no set.
    """
    _all_have_sets(sets)
    return float(np.mean(sets[np.arange(len(truth)), truth]))


def set_size(truth: Labels, sets: NDArray[np.bool_]) -> float:
    """Mean number of grades in a set.

    Raises:
        UndefinedMetricError: Some knees have no set.
    """
    _all_have_sets(sets)
    return float(np.mean(sets.sum(axis=1)))


def _all_have_sets(sets: NDArray[np.bool_]) -> None:
    without = int((~sets.any(axis=1)).sum())
    if without:
        raise UndefinedMetricError(f"knees without a set of grades: {without}")


SET_METRICS: Mapping[str, Callable[[Labels, NDArray[np.bool_]], float]] = {
    "coverage": coverage,
    "set_size": set_size,
}
"""Of true grades (n,) and whether each grade belongs to the knee's set (n, 5)."""


def _both_classes(truth: Labels) -> None:
    if len(np.unique(truth)) < 2:
        raise UndefinedMetricError("only one class in the truth")


def auroc(truth: Labels, probability: Array) -> float:
    """Area under the ROC curve.

    Raises:
        UndefinedMetricError: Events or non-events are missing.
    """
    _both_classes(truth)
    return float(sk.roc_auc_score(truth, probability))


def auprc(truth: Labels, probability: Array) -> float:
    """Average precision; its floor is the prevalence.

    Raises:
        UndefinedMetricError: Events or non-events are missing.
    """
    _both_classes(truth)
    return float(sk.average_precision_score(truth, probability))


def brier(truth: Labels, probability: Array) -> float:
    """Brier score: mean squared difference of probability and event, 0 to 1."""
    return float(np.mean((probability - truth) ** 2))


def _at_threshold(score: Callable[..., float], undefined: str) -> Callable[[Labels, Array], float]:
    """The score of the decisions; ``undefined`` says when it would divide by zero."""

    def metric(truth: Labels, probability: Array) -> float:
        predicted = (probability >= DECISION_THRESHOLD).astype(int)
        value = float(score(truth, predicted, zero_division=np.nan))
        if np.isnan(value):
            raise UndefinedMetricError(undefined)
        return value

    return metric


def binary_accuracy(truth: Labels, probability: Array) -> float:
    """Share of knees on the right side of the threshold 0.5."""
    return float(np.mean((probability >= DECISION_THRESHOLD) == truth))


def binary_balanced_accuracy(truth: Labels, probability: Array) -> float:
    """Mean of sensitivity and specificity at the threshold 0.5.

    Raises:
        UndefinedMetricError: Events or non-events are missing.
    """
    _both_classes(truth)
    return float(sk.balanced_accuracy_score(truth, probability >= DECISION_THRESHOLD))


BINARY_METRICS: Mapping[str, Callable[[Labels, Array], float]] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "accuracy": binary_accuracy,
    "balanced_accuracy": binary_balanced_accuracy,
    "precision": _at_threshold(sk.precision_score, "no probability reaches the threshold 0.5"),
    "recall": _at_threshold(sk.recall_score, "no events in the truth"),
    "f1": _at_threshold(sk.f1_score, "no events, and no probability reaches the threshold 0.5"),
}
"""Of events (n,) coded 0 and 1 and probabilities (n,). Decisions use the threshold 0.5."""


def persons_of(subject_ids: ArrayLike, knee_ids: ArrayLike) -> NDArray[np.str_]:
    """The person of each row; a knee whose subject is unknown counts as a person of its own.

    Args:
        subject_ids: Subject of each row, ``-`` where unknown, shape (n,).
        knee_ids: Knee of each row, shape (n,).

    Returns:
        What intervals cluster on, shape (n,).

    Example:
        >>> persons_of(["9000017", "-"], ["a:9000017:0:L", "-:-:-:L"]).tolist()
        ['9000017', '-:-:-:L']
    """
    subjects, knees = np.asarray(subject_ids, dtype=str), np.asarray(knee_ids, dtype=str)
    return np.where(subjects == UNKNOWN, knees, subjects)


def bootstrap_rows(subject_ids: ArrayLike, *, n_boot: int, seed: int) -> list[NDArray[np.int64]]:
    """Draw persons with replacement, and return the rows of each draw.

    Args:
        subject_ids: Subject of each row, shape (n,).
        n_boot: Number of draws.
        seed: Seed of the draws.

    Returns:
        For each draw the indices of its rows; all rows of a person come together, as often as the
        person was drawn.
    """
    persons, inverse = np.unique(np.asarray(subject_ids, dtype=str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(inverse))[:-1]) if len(persons) else []
    generator = np.random.default_rng(seed)
    return [
        np.concatenate([rows_of[i] for i in generator.integers(len(persons), size=len(persons))])
        for _ in range(n_boot)
        if len(persons)
    ]


def estimate(
    metric: Callable[[Labels, Any], float],
    truth: Labels,
    prediction: Labels | Array | NDArray[np.bool_],
    draws: list[NDArray[np.int64]],
    *,
    centred: bool = False,
) -> Estimate:
    """Value of a metric with its percentile interval over bootstrap draws.

    Args:
        metric: One of the metrics above.
        truth: Grades or events, shape (n,).
        prediction: What the metric wants beside the truth, n rows.
        draws: Rows of each draw, from ``bootstrap_rows``.
        centred: Move the draws so that their mean is the value. For a metric that noise can only
            raise: drawing adds noise of its own, and would lift the interval off the value.

    Returns:
        The estimate; without a value, and with the reason, where the sample does not define it.
    """
    if len(truth) == 0:
        return Estimate(None, n=0, reason="no knee has both a truth and a prediction")
    try:
        value = metric(truth, prediction)
    except UndefinedMetricError as error:
        return Estimate(None, n=len(truth), reason=str(error))
    resampled = []
    for rows in draws:
        with suppress(UndefinedMetricError):
            resampled.append(metric(truth[rows], prediction[rows]))
    if not resampled:
        return Estimate(value, n=len(truth), reason="no bootstrap draw defines an interval")
    low, high = np.percentile(resampled, CI_PERCENTILES)
    if centred:
        low, high = np.maximum(0, np.array([low, high]) - np.mean(resampled) + value)
    return Estimate(value, float(low), float(high), len(truth))


def kl_estimates(
    truth: Labels,
    predicted: Labels,
    probabilities: Array,
    sets: NDArray[np.bool_] | None,
    draws: list[NDArray[np.int64]],
) -> dict[str, Estimate]:
    """All metrics of a grader.

    Args:
        truth: True grades, shape (n,).
        predicted: Grades by the ensemble's voting rule, shape (n,).
        probabilities: Grade probabilities, shape (n, 5).
        sets: Whether each grade belongs to the knee's set, shape (n, 5); None without sets.
        draws: Rows of each draw, from ``bootstrap_rows``.
    """
    graded = {k: estimate(m, truth, predicted, draws) for k, m in GRADE_METRICS.items()}
    ranked = {
        k: estimate(m, truth, probabilities, draws, centred=k in _RAISED_BY_NOISE)
        for k, m in GRADE_PROBABILITY_METRICS.items()
    }
    if sets is None:
        return graded | ranked
    return graded | ranked | {k: estimate(m, truth, sets, draws) for k, m in SET_METRICS.items()}


def binary_estimates(
    truth: Labels, probability: Array, draws: list[NDArray[np.int64]]
) -> dict[str, Estimate]:
    """All metrics of a binary risk; events (n,) coded 0 and 1, probabilities (n,)."""
    return {k: estimate(m, truth, probability, draws) for k, m in BINARY_METRICS.items()}
