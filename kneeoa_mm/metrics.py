"""Metrics of graders and of binary risks, with person-clustered bootstrap intervals.

The two knees of a person are not independent, so intervals resample persons, not knees. A metric
that a sample does not define (one class only, say) has no value but a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

from kneeoa_mm.records import Estimate

Array = NDArray[np.float64]
Metric = Callable[[NDArray[np.int64], Array], float]

CI_PERCENTILES = (2.5, 97.5)
DECISION_THRESHOLD = 0.5


class UndefinedMetricError(ValueError):
    """The sample does not define the metric; the message says why."""


def _graded(probabilities: Array) -> NDArray[np.int64]:
    grades: NDArray[np.int64] = probabilities.argmax(axis=1)
    return grades


def _macro(score: Callable[..., float]) -> Metric:
    """Mean over the classes that the truth contains; 0 for one that is never predicted."""

    def metric(truth: NDArray[np.int64], probabilities: Array) -> float:
        present = np.unique(truth)
        predicted = _graded(probabilities)
        return float(score(truth, predicted, labels=present, average="macro", zero_division=0))

    return metric


def accuracy(truth: NDArray[np.int64], probabilities: Array) -> float:
    """Share of knees whose most probable grade is the true one."""
    return float(np.mean(truth == _graded(probabilities)))


def balanced_accuracy(truth: NDArray[np.int64], probabilities: Array) -> float:
    """Mean recall over the grades that the truth contains."""
    return _macro(sk.recall_score)(truth, probabilities)


def qwk(truth: NDArray[np.int64], probabilities: Array) -> float:
    """Quadratic weighted kappa (Cohen 1968, Psychol Bull 70:213).

    Raises:
        UndefinedMetricError: Truth and prediction are one and the same constant.
    """
    predicted = _graded(probabilities)
    if len(np.unique(np.concatenate([truth, predicted]))) < 2:
        raise UndefinedMetricError("truth and prediction are one constant grade")
    # all grades named: scikit-learn weighs by position, and absent grades would move the others
    grades = np.arange(probabilities.shape[1])
    return float(sk.cohen_kappa_score(truth, predicted, weights="quadratic", labels=grades))


def mae(truth: NDArray[np.int64], probabilities: Array) -> float:
    """Mean absolute error of the most probable grade, in grades."""
    return float(np.mean(np.abs(truth - _graded(probabilities))))


def _one_against_rest(score: Callable[[Array, Array], float]) -> Metric:
    def metric(truth: NDArray[np.int64], probabilities: Array) -> float:
        present = np.unique(truth)
        if len(present) < 2:
            raise UndefinedMetricError("only one grade in the truth")
        return float(np.mean([score(truth == k, probabilities[:, k]) for k in present]))

    return metric


def kl_brier(truth: NDArray[np.int64], probabilities: Array) -> float:
    """Multi-class Brier score: mean over knees of the sum over grades of (p - y)^2, 0 to 2."""
    target = np.eye(probabilities.shape[1])[truth]
    return float(np.mean(np.sum((probabilities - target) ** 2, axis=1)))


KL_METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "precision": _macro(sk.precision_score),
    "recall": _macro(sk.recall_score),
    "macro_f1": _macro(sk.f1_score),
    "qwk": qwk,
    "mae": mae,
    "auroc": _one_against_rest(sk.roc_auc_score),
    "auprc": _one_against_rest(sk.average_precision_score),
    "brier": kl_brier,
}
"""Of grades (n,) and probabilities (n, 5). Averages over grades are unweighted and count the grades
that the truth contains; ``auroc`` and ``auprc`` are one grade against the rest."""


def _both_classes(truth: NDArray[np.int64]) -> None:
    if len(np.unique(truth)) < 2:
        raise UndefinedMetricError("only one class in the truth")


def auroc(truth: NDArray[np.int64], probability: Array) -> float:
    """Area under the ROC curve.

    Raises:
        UndefinedMetricError: Events or non-events are missing.
    """
    _both_classes(truth)
    return float(sk.roc_auc_score(truth, probability))


def auprc(truth: NDArray[np.int64], probability: Array) -> float:
    """Average precision; its floor is the prevalence.

    Raises:
        UndefinedMetricError: Events or non-events are missing.
    """
    _both_classes(truth)
    return float(sk.average_precision_score(truth, probability))


def brier(truth: NDArray[np.int64], probability: Array) -> float:
    """Brier score: mean squared difference of probability and event, 0 to 1."""
    return float(np.mean((probability - truth) ** 2))


def _at_threshold(score: Callable[..., float]) -> Metric:
    def metric(truth: NDArray[np.int64], probability: Array) -> float:
        predicted = (probability >= DECISION_THRESHOLD).astype(int)
        return float(score(truth, predicted, zero_division=0))

    return metric


def binary_accuracy(truth: NDArray[np.int64], probability: Array) -> float:
    """Share of knees on the right side of the threshold 0.5."""
    return float(np.mean((probability >= DECISION_THRESHOLD) == truth))


def binary_balanced_accuracy(truth: NDArray[np.int64], probability: Array) -> float:
    """Mean of sensitivity and specificity at the threshold 0.5.

    Raises:
        UndefinedMetricError: Events or non-events are missing.
    """
    _both_classes(truth)
    return float(sk.balanced_accuracy_score(truth, probability >= DECISION_THRESHOLD))


BINARY_METRICS: Mapping[str, Metric] = {
    "auroc": auroc,
    "auprc": auprc,
    "brier": brier,
    "accuracy": binary_accuracy,
    "balanced_accuracy": binary_balanced_accuracy,
    "precision": _at_threshold(sk.precision_score),
    "recall": _at_threshold(sk.recall_score),
    "f1": _at_threshold(sk.f1_score),
}
"""Of events (n,) coded 0 and 1 and probabilities (n,). Decisions use the threshold 0.5."""


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
    metric: Metric,
    truth: NDArray[np.int64],
    probabilities: Array,
    draws: list[NDArray[np.int64]],
) -> Estimate:
    """Value of a metric with its percentile interval over bootstrap draws.

    Args:
        metric: One of ``KL_METRICS`` or ``BINARY_METRICS``.
        truth: Grades or events, shape (n,).
        probabilities: Shape (n, 5) or (n,).
        draws: Rows of each draw, from ``bootstrap_rows``.

    Returns:
        The estimate; without a value, and with the reason, where the sample does not define it.
    """
    if len(truth) == 0:
        return Estimate(None, n=0, reason="no knee has both a truth and a prediction")
    try:
        value = metric(truth, probabilities)
    except UndefinedMetricError as error:
        return Estimate(None, n=len(truth), reason=str(error))
    resampled = []
    for rows in draws:
        with suppress(UndefinedMetricError):
            resampled.append(metric(truth[rows], probabilities[rows]))
    if not resampled:
        return Estimate(value, n=len(truth), reason="no bootstrap draw defines an interval")
    low, high = np.percentile(resampled, CI_PERCENTILES)
    return Estimate(value, float(low), float(high), len(truth))
