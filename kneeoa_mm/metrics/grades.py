"""Metrics of graders: of grades, of their probabilities, and of sets of grades."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.metrics.metric import (
    Array,
    Labels,
    Metric,
    UndefinedMetricError,
    Weighed,
    mean_of,
    metric,
    ratio,
)
from kneeoa_mm.metrics.risks import auprc, auroc
from kneeoa_mm.metrics.within import Blocks, auprc_within, auroc_within
from kneeoa_mm.records import OSTEOARTHRITIS, KLGrade

_GRADES = np.arange(len(KLGrade))
_ECE_BINS = 15


@metric(of_grades=True)
def accuracy(truth: Labels, predicted: Labels) -> Weighed:
    """Share of knees whose predicted grade is the true one."""
    return mean_of(truth == predicted)


@metric(of_grades=True)
def mae(truth: Labels, predicted: Labels) -> Weighed:
    """Mean absolute error in grades."""
    return mean_of(np.abs(truth - predicted))


def _confusion(truth: Labels, predicted: Labels) -> Weighed:
    """Weighs the counts (grades, grades, draws); row is the truth, column the prediction."""
    size = len(_GRADES)
    cells = np.arange(size**2)[:, None] == (truth * size + predicted)
    is_in = cells.astype(np.float64)
    return lambda weights: (is_in @ weights).reshape(size, size, -1)


@metric(undefined="truth and prediction are one constant grade", of_grades=True)
def qwk(truth: Labels, predicted: Labels) -> Weighed:
    """Quadratic weighted kappa (Cohen 1968, Psychol Bull 70:213)."""
    confusion = _confusion(truth, predicted)
    squared = (_GRADES[:, None] - _GRADES) ** 2

    def weighed(weights: Array) -> Array:
        counts = confusion(weights)
        observed = np.einsum("ij,ijd->d", squared, counts) * counts.sum(axis=(0, 1))
        margins = counts.sum(axis=1), counts.sum(axis=0)
        return 1 - ratio(observed, np.einsum("ij,id,jd->d", squared, *margins))

    return weighed


def _macro(score: Callable[[Array, Array, Array], Array], text: str) -> Metric:
    """Mean over the grades that the truth contains of a score of (right, true, called)."""

    def prepare(truth: Labels, predicted: Labels) -> Weighed:
        confusion = _confusion(truth, predicted)

        def weighed(weights: Array) -> Array:
            counts = confusion(weights)
            right = np.einsum("iid->id", counts)
            true, called = counts.sum(axis=1), counts.sum(axis=0)
            # a grade that is never predicted scores 0
            scores = np.nan_to_num(score(right, true, called))
            return ratio(np.where(true > 0, scores, 0).sum(axis=0), (true > 0).sum(axis=0))

        return weighed

    prepare.__doc__ = text
    return Metric(prepare, "no knee", of_grades=True)


recall = _macro(lambda right, true, _: ratio(right, true), "Mean recall over grades.")
precision = _macro(lambda right, _, called: ratio(right, called), "Mean precision over grades.")
macro_f1 = _macro(lambda right, true, called: 2 * ratio(right, true + called), "Mean F1 of grades.")

GRADE_METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": recall,
    "precision": precision,
    "recall": recall,
    "macro_f1": macro_f1,
    "qwk": qwk,
    "mae": mae,
}
"""Of true and predicted grades, both (n,). Averages over grades are unweighted and count the grades
that the truth contains; balanced accuracy is the mean recall."""


_OF_ONE_GRADE: Mapping[str, tuple[Callable[[Array, Array, Array], Array], str]] = {
    "precision": (lambda right, _, called: ratio(right, called), "no knee is called this grade"),
    "recall": (lambda right, true, _: ratio(right, true), "no knee has this grade"),
    "f1": (
        lambda right, true, called: 2 * ratio(right, true + called),
        "no knee has this grade, and none is called it",
    ),
}


def of_one_grade(name: str, grade: int) -> Metric:
    """Precision, recall or F1 of one grade against the rest, of true and predicted grades.

    Args:
        name: ``precision``, ``recall`` or ``f1``.
        grade: The grade.
    """
    score, undefined = _OF_ONE_GRADE[name]

    def prepare(truth: Labels, predicted: Labels) -> Weighed:
        true, called = truth == grade, predicted == grade
        cells = np.stack([true & called, true, called]).astype(np.float64)
        return lambda weights: score(*(cells @ weights))

    prepare.__doc__ = f"{name} of grade {grade}"
    return Metric(prepare, undefined, of_grades=True)


OF_ONE_GRADE = tuple(_OF_ONE_GRADE)
"""Names of the metrics of one grade."""


def _one_against_rest(area: Metric, text: str) -> Metric:
    """Mean over the grades that the truth contains of an area of each against the rest."""

    def prepare(truth: Labels, probabilities: Array) -> Weighed:
        of_grades = [
            area.prepare((truth == grade).astype(np.int64), probabilities[:, grade])
            for grade in np.unique(truth)
        ]

        def weighed(weights: Array) -> Array:
            scores = np.stack([of_grade(weights) for of_grade in of_grades])
            found = ~np.isnan(scores)
            mean = ratio(np.where(found, scores, 0).sum(axis=0), found.sum(axis=0))
            return np.where(found.sum(axis=0) > 1, mean, np.nan)

        return weighed

    prepare.__doc__ = text
    return Metric(prepare, "only one grade in the truth", of_grades=True)


@metric(of_grades=True)
def kl_brier(truth: Labels, probabilities: Array) -> Weighed:
    """Multi-class Brier score: mean over knees of the sum over grades of (p - y)^2, 0 to 2."""
    target = np.eye(probabilities.shape[1])[truth]
    return mean_of(np.sum((probabilities - target) ** 2, axis=1))


def _kl2(area: Metric) -> Metric:
    """Area under the ROC curve for osteoarthritis, KL 2 or more, by the probability of that."""

    def prepare(truth: Labels, probabilities: Array) -> Weighed:
        diseased = (truth >= OSTEOARTHRITIS).astype(np.int64)
        return area.prepare(diseased, probabilities[:, OSTEOARTHRITIS:].sum(axis=1))

    prepare.__doc__ = _kl2.__doc__
    undefined, event_from = "only one class in the truth", int(OSTEOARTHRITIS)
    return Metric(prepare, undefined, of_grades=True, event_from=event_from)


auroc_kl2 = _kl2(auroc)


def grade_ranking(blocks: Blocks | None = None) -> dict[str, Metric]:
    """How well probabilities of grades rank knees: of one grade against the rest, and of KL 2.

    Args:
        blocks: Block of each row, such as its fold, (n,); only rows of one block are held against
            each other. None for all together.
    """
    area, precision = auroc, auprc
    if blocks is not None:
        area, precision = auroc_within(blocks), auprc_within(blocks)
    return {
        "auroc": _one_against_rest(area, "Mean AUROC, grade against rest."),
        "auprc": _one_against_rest(precision, "Mean AUPRC, grade against rest."),
        "auroc_kl2": _kl2(area),
    }


@metric(of_grades=True)
def ece(truth: Labels, probabilities: Array) -> Weighed:
    """Expected calibration error of the most probable grade (Guo et al. 2017, arXiv:1706.04599).

    Knees are sorted by the probability of their most probable grade into 15 bins of equal width;
    the mean over knees of how far, in their bin, the mean of that probability is from the share
    that it is right in. Chance keeps the two apart in each bin, so a finite sample of a perfectly
    calibrated grader is above 0.
    """
    confidence = probabilities.max(axis=1)
    excess = (probabilities.argmax(axis=1) == truth) - confidence
    bins = np.clip(np.ceil(confidence * _ECE_BINS).astype(np.int64) - 1, 0, _ECE_BINS - 1)
    in_bin = (np.arange(_ECE_BINS)[:, None] == bins) * excess
    return lambda weights: ratio(np.abs(in_bin @ weights).sum(axis=0), weights.sum(axis=0))


GRADE_PROBABILITY_METRICS: Mapping[str, Metric] = {
    **grade_ranking(),
    "brier": kl_brier,
    "ece": ece,
}
"""Of true grades (n,) and their probabilities (n, 5); the first two are of one grade against the
rest, unweighted."""


@metric(of_grades=True)
def coverage(truth: Labels, sets: NDArray[np.bool_]) -> Weighed:
    """Share of knees whose set of grades holds the true one; undefined where a knee has no set."""
    _all_have_sets(sets)
    return mean_of(sets[np.arange(len(truth)), truth])


@metric(of_grades=True)
def set_size(truth: Labels, sets: NDArray[np.bool_]) -> Weighed:
    """Mean number of grades in a set; undefined where a knee has no set."""
    _all_have_sets(sets)
    return mean_of(sets.sum(axis=1))


def _all_have_sets(sets: NDArray[np.bool_]) -> None:
    without = int((~sets.any(axis=1)).sum())
    if without:
        raise UndefinedMetricError(f"knees without a set of grades: {without}")


SET_METRICS: Mapping[str, Metric] = {"coverage": coverage, "set_size": set_size}
"""Of true grades (n,) and whether each grade belongs to the knee's set (n, 5)."""
