"""Scores of a Weibull accelerated-failure-time model of intervals, for its clustered variance.

log T = columns @ coefficients + error, so that a coefficient multiplies time by its exponential.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def weibull_scores(
    columns: Floats,
    lower_months: Floats,
    upper_months: Floats,
    coefficients: Floats,
    log_shape: float,
    *,
    entry_months: Floats | None = None,
) -> Floats:
    """Derivatives of each knee's log likelihood; their sum is 0 at the maximum.

    With scale s = exp(columns @ coefficients) and shape r, survival is exp(-(t / s)^r). An interval
    contributes log(survival(lower) - survival(upper)), an exact event the log density, and late
    entry takes away log survival(entry).

    Args:
        columns: Covariates and a column of ones, shape (n, p).
        lower_months: Last time known free of the event, shape (n,).
        upper_months: First time it was seen; infinite without an event; equal where exact, (n,).
        coefficients: Log time ratios and the log scale, shape (p,).
        log_shape: Logarithm of the shape.
        entry_months: When each knee came under observation; None for the origin. Shape (n,).

    Returns:
        By the coefficients and the log shape, shape (n, p + 1).

    Source:
        Kalbfleisch and Prentice 2002, The Statistical Analysis of Failure Time Data, section 3.5.
    """
    log_scale, shape = columns @ coefficients, np.exp(log_shape)

    def hazard(months: Floats) -> tuple[Floats, Floats, Floats]:
        """Cumulative hazard and its derivatives by the log scale and the log shape, (n,) each."""
        # at 0 and at infinity nothing changes with the parameters
        inside = (months > 0) & np.isfinite(months)
        exponent = np.where(inside, shape * (np.log(np.where(inside, months, 1)) - log_scale), 0)
        value = np.where(inside, np.exp(exponent), np.where(months > 0, np.inf, 0.0))
        change = np.where(inside, value, 0)
        return value, -shape * change, exponent * change

    (low, *low_by), (high, *high_by) = hazard(lower_months), hazard(upper_months)
    (_, *entry_by) = hazard(np.zeros(len(low)) if entry_months is None else entry_months)
    exact = lower_months == upper_months
    # survival(upper) / survival(lower)
    kept = np.exp(-np.where(exact, 1.0, high - np.where(exact, 0.0, low)))
    by_parameter = []
    for k, exact_part in enumerate((-shape, 1 + shape * _log_ratio(lower_months, log_scale))):
        interval = -(low_by[k] - kept * high_by[k]) / (1 - kept)
        by_parameter.append(np.where(exact, exact_part - low_by[k], interval) + entry_by[k])
    by_scale, by_shape = by_parameter
    return np.column_stack([by_scale[:, None] * columns, by_shape])


def _log_ratio(months: Floats, log_scale: Floats) -> Floats:
    return np.log(np.where(months > 0, months, 1.0)) - log_scale
