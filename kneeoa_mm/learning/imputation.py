"""Multiple imputation by a joint normal model, whose mean and covariance are plain numbers.

Columns are taken for jointly normal, dummies of categories among them and never rounded (Schafer
1997, ISBN 9780412040610; Horton, Lipsitz and Parzen 2003, doi 10.1198/0003130032314). What a row
lacks then has, given what it has, a known normal distribution, of which values are drawn or the
expectation is taken. Outcomes have no part in it: at prediction there is none, and a rule that
knows them in training alone is another rule than the one that is applied (Sisk et al. 2023,
doi 10.1177/09622802231165001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MAX_ROUNDS = 200
_TOLERANCE = 1e-4
_LEAST_VARIANCE = 1e-6
"""Added to each, so that a constant column can be divided by."""


def fit_normal(values: Array) -> tuple[Array, Array]:
    """Mean (p,) and covariance (p, p) of the rows by expectation-maximisation.

    Covariances are held back as if there had been p more rows whose columns were unrelated: few
    rows must not seem to foretell each other, and dummies that sum to one have an inverse.

    Args:
        values: Shape (n, p), NaN where missing; each column has a value.
    """
    n, p = values.shape
    patterns = _patterns(values)
    mean = np.nanmean(values, axis=0)
    covariance = np.diag(np.nanvar(values, axis=0) + _LEAST_VARIANCE)
    for _ in range(_MAX_ROUNDS):
        filled, spread = values.copy(), np.zeros((p, p))
        for each in patterns:
            expected, left = each.expected(values, mean, covariance)
            filled[np.ix_(each.rows, each.gaps)] = expected
            spread[np.ix_(each.gaps, each.gaps)] += len(each.rows) * left
        before, mean = mean, filled.mean(axis=0)
        found = (filled - mean).T @ (filled - mean) + spread
        own = np.diag(np.diag(found) / n)
        previous, covariance = covariance, (found + p * own) / (n + p)
        covariance += _LEAST_VARIANCE * np.eye(p)
        change = max(np.abs(mean - before).max(), np.abs(covariance - previous).max())
        if change < _TOLERANCE:
            break
    return mean, covariance


def impute(
    values: Array, mean: Array, covariance: Array, draws: np.random.Generator | None = None
) -> Array:
    """Rows without gaps, (n, p).

    Args:
        values: Shape (n, p), NaN where missing.
        mean: Shape (p,).
        covariance: Shape (p, p).
        draws: Where values are drawn from; None takes what is to be expected.
    """
    filled = values.copy()
    for each in _patterns(values):
        expected, left = each.expected(values, mean, covariance)
        if draws is not None:
            noise = draws.standard_normal(expected.shape)
            expected = expected + noise @ np.linalg.cholesky(left).T
        filled[np.ix_(each.rows, each.gaps)] = expected
    return filled


@dataclass(frozen=True, eq=False)
class _Pattern:
    """Rows that lack the same columns."""

    rows: NDArray[np.int64]
    gaps: NDArray[np.int64]
    known: NDArray[np.int64]

    def expected(self, values: Array, mean: Array, covariance: Array) -> tuple[Array, Array]:
        """What to expect in the gaps, (rows, gaps), and the covariance that is left there."""
        shared = covariance[np.ix_(self.gaps, self.known)]
        slopes = np.linalg.solve(covariance[np.ix_(self.known, self.known)], shared.T).T
        off = values[np.ix_(self.rows, self.known)] - mean[self.known]
        left = covariance[np.ix_(self.gaps, self.gaps)] - slopes @ shared.T
        return mean[self.gaps] + off @ slopes.T, left


def _patterns(values: Array) -> list[_Pattern]:
    found, which = np.unique(np.isnan(values), axis=0, return_inverse=True)
    return [
        _Pattern(
            np.flatnonzero(which.ravel() == number), np.flatnonzero(gaps), np.flatnonzero(~gaps)
        )
        for number, gaps in enumerate(found)
        if gaps.any()
    ]
