"""Probabilities that can be taken at their word: temperature scaling, fitted and cross-fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import folds_of, make_folds
from kneeoa_mm.learning.conformal import Conformal, SetRule
from kneeoa_mm.settings import Positive, Settings

Probabilities = NDArray[np.float64]
Grades = NDArray[np.int64]

MIN_KNEES = 50
"""On fewer the temperature is a guess: for a simulated grader that is right in 61 % its standard
error is 22 % of it on 50 knees, 6 % on 500."""
TEMPERATURES = (0.1, 10.0)
_LEAST = float(np.finfo(np.float32).tiny)


def at_temperature(
    probabilities: Probabilities, temperature: float | NDArray[np.float64]
) -> Probabilities:
    """Probabilities as their logits divided by a temperature would have given them.

    Above 1 they come closer to each other, below 1 they part; their order stays.

    Args:
        probabilities: Shape (..., n, grades); NaN stays NaN.
        temperature: One, or one a knee, shape (n,).

    Returns:
        The same shape.

    Example:
        >>> at_temperature(np.array([[0.8, 0.2]]), 2.0).round(3)
        array([[0.667, 0.333]])
    """
    logits = np.log(np.maximum(probabilities, _LEAST))
    scaled: Probabilities = softmax(logits / np.asarray(temperature)[..., None], axis=-1)
    return scaled


def fit_temperature(probabilities: Probabilities, grades: Grades) -> float:
    """The temperature of the greatest likelihood (Guo et al. 2017, ICML, arXiv:1706.04599).

    Where several members speak of a knee, their probabilities are scaled first and averaged then,
    as in prediction, so that what averaging does to calibration is made up for as well.

    Args:
        probabilities: Shape (members, n, grades); NaN where a member has no say.
        grades: True grades, shape (n,).

    Returns:
        Between 0.1 and 10.

    Raises:
        InputError: There are fewer than ``MIN_KNEES`` knees.
    """
    if len(grades) < MIN_KNEES:
        raise InputError(
            "There are too few knees to calibrate on.",
            expected=f"{MIN_KNEES} graded knees that the model never saw",
            found=f"{len(grades)}",
            fix="validate on more knees, or cross-validate",
        )
    knees = np.arange(len(grades))

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = at_temperature(probabilities, np.exp(log_temperature))
        given = np.nanmean(scaled, axis=0)[knees, grades]
        return float(-np.log(np.maximum(given, _LEAST)).mean())

    best = minimize_scalar(
        negative_log_likelihood,
        bounds=tuple(np.log(TEMPERATURES)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(best.x))


class Calibration(Settings):
    """How probabilities are scaled, and which sets they give; by default neither."""

    temperature: Positive = 1.0
    conformal: Conformal | None = None

    @classmethod
    def fit(
        cls,
        probabilities: Probabilities,
        grades: Grades,
        persons: NDArray[np.str_],
        rule: SetRule,
    ) -> Calibration:
        """Learn both from knees that the members with a say never saw.

        Args:
            probabilities: Shape (members, n, grades); NaN where a member has no say.
            grades: True grades, shape (n,).
            persons: Person of each knee, shape (n,).
            rule: Which sets are wanted.

        Raises:
            InputError: There are fewer than ``MIN_KNEES`` knees.
        """
        temperature = fit_temperature(probabilities, grades)
        mean = np.nanmean(at_temperature(probabilities, temperature), axis=0)
        conformal = Conformal.fit(mean, grades, persons, rule)
        return cls(temperature=temperature, conformal=conformal)


@dataclass(frozen=True)
class CrossFit:
    """What knees taught about others.

    Attributes:
        whole: What all knees taught together, for new ones.
        by_part: Part to what the knees of all other parts taught.
        of_knee: For each knee what the other parts taught, so that its own grade, and that of the
            same person's other knee, had no part in it.
    """

    whole: Calibration
    by_part: dict[int, Calibration]
    of_knee: list[Calibration]


def cross_fit(
    probabilities: Probabilities,
    grades: Grades,
    persons: NDArray[np.str_],
    parts: NDArray[np.int64] | None,
    rule: SetRule,
) -> CrossFit:
    """Learn from all knees, and for each part from the others.

    Args:
        probabilities: Shape (members, n, grades); NaN where a member has no say.
        grades: True grades, shape (n,).
        persons: Person of each knee, shape (n,).
        parts: Fold of each knee, shape (n,); None makes two halves of the persons.
        rule: Which sets are wanted.

    Raises:
        InputError: There are too few knees, or persons, outside some part.
    """
    if parts is None:
        halves = make_folds(persons, grades, n_folds=2, seed=0)
        parts = folds_of(persons, halves)
    by_part = {}
    for part in np.unique(parts).tolist():
        others = parts != part
        by_part[part] = Calibration.fit(
            probabilities[:, others], grades[others], persons[others], rule
        )
    whole = Calibration.fit(probabilities, grades, persons, rule)
    return CrossFit(whole, by_part, [by_part[part] for part in parts.tolist()])
