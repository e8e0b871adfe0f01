"""Efron's partial likelihood written out, the oracle of what the package finds by other ways."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize


def minus_log_likelihood(beta, columns, months, event, weights=None):
    """Efron 1977, JASA 72:557, with R's case weights.

    Args:
        beta: Log hazard ratios, shape (p,).
        columns: Covariates, shape (n, p).
        months: Time of the event or of censoring, shape (n,).
        event: 1 event, 0 censored, shape (n,).
        weights: Of each knee, shape (n,); None for 1.
    """
    weights = np.ones(len(months)) if weights is None else weights
    score = columns @ beta
    total = 0.0
    for time in np.unique(months[event == 1]):
        tied = (months == time) & (event == 1)
        at_risk = (weights * np.exp(score))[months >= time].sum()
        of_tied = (weights * np.exp(score))[tied].sum()
        shares = np.arange(tied.sum()) / tied.sum()
        total += (weights * score)[tied].sum()
        total -= weights[tied].mean() * np.log(at_risk - shares * of_tied).sum()
    return -total


def maximum(columns, months, event):
    """The coefficients of the highest likelihood, shape (p,)."""
    start = np.zeros(columns.shape[1])
    return minimize(minus_log_likelihood, start, args=(columns, months, event), tol=1e-10).x
