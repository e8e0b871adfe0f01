"""Whether a figure is the same in all subgroups, also where a person has a knee in two of them.

Cochran 1954 (Biometrics 10:101) for independent estimates; with the covariance of dependent ones it
is Wald's test that all are equal (Wald 1943, Trans Am Math Soc 54:426).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from kneeoa_mm.metrics.metric import Array, UndefinedMetricError


class Heterogeneity(NamedTuple):
    """A test that all estimates are of one value.

    Attributes:
        statistic: Chi-squared on ``df``.
        df: One less than the estimates.
        p_value: Of that or a larger statistic.
    """

    statistic: float
    df: int
    p_value: float


def heterogeneity(values: Array, covariance: Array) -> Heterogeneity:
    """Test that estimates which may depend on each other are of one value.

    Args:
        values: One estimate a subgroup, (k,).
        covariance: Of the estimates, (k, k); diagonal where no person is in two subgroups, and then
            the statistic is Cochran's Q.

    Raises:
        UndefinedMetricError: There are fewer than two, or their differences do not vary.

    Example:
        >>> round(heterogeneity(np.array([0.0, 2.0]), np.eye(2)).statistic, 9)
        2.0
    """
    df = len(values) - 1
    if df < 1:
        raise UndefinedMetricError("fewer than two subgroups have an estimate")
    contrast = np.eye(df, df + 1) - np.eye(df, df + 1, k=1)
    apart, spread = contrast @ values, contrast @ covariance @ contrast.T
    if not np.isfinite(spread).all() or np.linalg.matrix_rank(spread, hermitian=True) < df:
        raise UndefinedMetricError("the estimates do not vary between draws of persons")
    statistic = float(apart @ np.linalg.solve(spread, apart))
    return Heterogeneity(statistic, df, float(chi2.sf(statistic, df)))
