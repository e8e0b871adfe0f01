"""Whether a figure is the same in all subgroups, also where a person has a knee in two of them.

Cochran 1954 (Biometrics 10:101) for independent estimates; with the covariance of dependent ones it
is Wald's test that all are equal (Wald 1943, Trans Am Math Soc 54:426). Where the covariance is
itself an estimate from few persons, F takes the place of chi-squared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, f

from kneeoa_mm.metrics.metric import Array, UndefinedMetricError


class Heterogeneity(NamedTuple):
    """A test that all estimates are of one value.

    Attributes:
        statistic: Chi-squared on ``df``, or ``df`` times F.
        df: One less than the estimates.
        p_value: Of that or a larger statistic.
    """

    statistic: float
    df: int
    p_value: float


def heterogeneity(
    values: Array, covariance: Array, *, residual_df: int | None = None
) -> Heterogeneity:
    """Test that estimates which may depend on each other are of one value.

    Args:
        values: One estimate a subgroup, (k,).
        covariance: Of the estimates, (k, k); diagonal where no person is in two subgroups, and then
            the statistic is Cochran's Q.
        residual_df: What the covariance was estimated from: persons less estimates. None takes it
            as known.

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
    if residual_df is None:
        return Heterogeneity(statistic, df, float(chi2.sf(statistic, df)))
    return Heterogeneity(statistic, df, float(f.sf(statistic / df, df, residual_df)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P values adjusted for their number, so that 5 % is the chance of any false one among them.

    Source:
        Holm 1979, Scand J Stat 6:65.

    Example:
        >>> holm({"sex": 0.01, "age": 0.04, "race": 0.03})
        {'sex': 0.03, 'age': 0.06, 'race': 0.06}
    """
    order = sorted(p_values, key=lambda name: p_values[name])
    steps = [(len(order) - k) * p_values[name] for k, name in enumerate(order)]
    adjusted = dict(zip(order, np.minimum(1, np.maximum.accumulate(steps)), strict=True))
    return {name: float(adjusted[name]) for name in p_values}
