"""Sets of grades that hold the true one as often as was asked for (split-conformal prediction).

Knees with known grades, which the model never saw, teach how small a probability the true grade may
be given; the set of a new knee holds every grade that is not less likely than that. Nothing is
assumed of the model, only that the new knee's person comes from where those of the calibration came
from (Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2023, Found Trends Mach Learn 16:494).

The knees of a person are alike, so persons are counted, not knees: a person's knees share the
weight of one (Lee, Barber and Willett 2023, arXiv:2306.06342). With one knee a person this is the
ordinary quantile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kneeoa_mm.settings import Settings

Probabilities = NDArray[np.float64]
Method = Literal["lac", "aps"]

_ROUNDING = 1e-9


class SetRule(Settings):
    """Which sets are wanted."""

    method: Method = "lac"
    """``lac``: the smallest sets on average (Sadinle, Lei and Wasserman 2019, JASA 114:223);
    ``aps``: larger where the grader doubts, smaller where it does not (Romano, Sesia and Candès
    2020)."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of knees whose set may miss the true grade."""


class Conformal(SetRule):
    """What the calibration taught."""

    threshold: float | None = None
    """A grade whose ``nonconformity`` exceeds it is left out; None where the persons are too few
    for ``alpha``, and no grade can be left out."""
    n_knees: int
    n_subjects: int

    @classmethod
    def fit(
        cls,
        probabilities: Probabilities,
        grades: NDArray[np.int64],
        persons: NDArray[np.str_],
        rule: SetRule,
    ) -> Conformal:
        """Learn the threshold from knees that the model never saw.

        Args:
            probabilities: Of each grade, shape (n, grades).
            grades: True grades, shape (n,).
            persons: Person of each knee, shape (n,).
            rule: Method and share of misses.
        """
        scores = nonconformity(probabilities, rule.method)[np.arange(len(grades)), grades]
        threshold = conformal_quantile(scores, persons, rule.alpha)
        return cls(
            method=rule.method,
            alpha=rule.alpha,
            threshold=threshold if np.isfinite(threshold) else None,
            n_knees=len(grades),
            n_subjects=len(np.unique(persons)),
        )


def nonconformity(probabilities: Probabilities, method: Method) -> Probabilities:
    """How strange each grade would be for each knee, from 0 to 1.

    ``lac`` is one minus its probability. ``aps`` is the probability of all grades that are at least
    as likely, the grade itself included: the deterministic variant, without the random tie-break
    that makes coverage exact and the same knee's set differ from run to run.

    Args:
        probabilities: Shape (n, grades).
        method: ``lac`` or ``aps``.

    Returns:
        Shape (n, grades).

    Example:
        >>> nonconformity(np.array([[0.5, 0.375, 0.125]]), "aps")
        array([[0.5  , 0.875, 1.   ]])
    """
    if method == "lac":
        return 1 - probabilities
    as_likely = probabilities[:, None, :] >= probabilities[:, :, None]
    total: Probabilities = np.where(as_likely, probabilities[:, None, :], 0).sum(axis=2)
    return total


def conformal_quantile(scores: Probabilities, persons: NDArray[np.str_], alpha: float) -> float:
    """The score that a knee of a new person exceeds with probability ``alpha`` at most.

    With one knee a person it is the k-th smallest of n scores, k = ceil((n + 1) (1 - alpha)). Of
    K persons, the scores of one with m knees weigh 1 / m each, and the new person weighs 1 at
    infinity: the quantile 1 - alpha of that.

    Args:
        scores: Of the true grade of each knee, shape (n,).
        persons: Person of each knee, shape (n,).
        alpha: Above 0 and below 1.

    Returns:
        The score; infinite where 1 / (K + 1) > alpha.

    Example:
        >>> conformal_quantile(np.array([0.1, 0.4, 0.2, 0.3]), np.array(list("abcd")), 0.4)
        0.3
    """
    _, person, knees = np.unique(persons, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(1 / knees[person[order]])
    wanted = (1 - alpha) * (len(knees) + 1)
    # thirds and tenths do not add up to whole numbers exactly
    position = int(np.searchsorted(weight, wanted - _ROUNDING * (len(knees) + 1)))
    return float("inf") if position == len(scores) else float(scores[order[position]])


def prediction_sets(
    probabilities: Probabilities, rules: Sequence[Conformal], predicted: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The set of grades of each knee: never empty, without gaps, and with the predicted grade.

    The rule itself may leave a set empty, leave a gap between two grades, or leave out a grade that
    the members voted for. Grades are then added, never taken away, so a set covers no less often
    than the rule promises.

    Args:
        probabilities: Shape (n, grades).
        rules: One a knee, all of one method.
        predicted: The grade that is reported for each knee, shape (n,).

    Returns:
        Whether each grade belongs to the set, shape (n, grades).
    """
    (method,) = {rule.method for rule in rules}
    thresholds = np.array([np.inf if r.threshold is None else r.threshold for r in rules])
    sets = nonconformity(probabilities, method) <= thresholds[:, None]
    sets[np.arange(len(sets)), predicted] = True
    reached_from_below = np.logical_or.accumulate(sets, axis=1)
    reached_from_above = np.logical_or.accumulate(sets[:, ::-1], axis=1)[:, ::-1]
    return reached_from_below & reached_from_above


def set_texts(sets: NDArray[np.bool_]) -> list[str]:
    """Sets as the column ``kl_set`` writes them.

    Example:
        >>> set_texts(np.array([[False, True, True, False, False]]))
        ['1;2']
    """
    return [";".join(map(str, np.flatnonzero(row))) for row in sets]
