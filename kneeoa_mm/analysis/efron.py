"""Residuals of a Cox model under Efron's handling of ties, and what is built from them.

Visits tie the times of most events. lifelines 0.30.3 maximises Efron's likelihood rightly, but its
sandwich variance and its scaled Schoenfeld residuals order tied events by their row: shuffling the
table moves standard errors by several per cent, and P values of the test for proportional hazards
from 0.3 to 0.8 (tests/analysis/test_efron.py). Here ties are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, rankdata

Floats = NDArray[np.float64]


class EfronResiduals(NamedTuple):
    """Residuals of a fitted Cox model.

    Attributes:
        score: Derivative of the score by the weight of each knee, shape (n, p); sums to 0.
        schoenfeld: Covariates of each event less their mean over those at risk, shape (e, p), in
            the order of the rows that have the event.
    """

    score: Floats
    schoenfeld: Floats


def efron_residuals(
    columns: Floats,
    months: Floats,
    event: NDArray[np.int64],
    coefficients: Floats,
    *,
    entry_months: Floats | None = None,
) -> EfronResiduals:
    """Score and Schoenfeld residuals of Efron's partial likelihood.

    Of d tied events the k-th sees the risk set less k/d of the tied knees (k = 0 ... d - 1).

    Args:
        columns: Covariates, shape (n, p).
        months: Time of the event or of censoring, shape (n,).
        event: 1 event, 0 censored, shape (n,).
        coefficients: Log hazard ratios, shape (p,).
        entry_months: When each knee came under observation; None for the origin. Shape (n,).

    Source:
        Therneau and Grambsch 2000, Modeling Survival Data, sections 3.3, 4.6 and 6.2.
    """
    since = np.full(len(months), -np.inf) if entry_months is None else entry_months
    hazard = np.exp((columns - columns.mean(axis=0)) @ coefficients)
    weighted = hazard[:, None] * columns
    score, schoenfeld = np.zeros(columns.shape), np.zeros(columns.shape)
    for time in np.unique(months[event == 1]):
        at_risk = (months >= time) & (since < time)
        tied = (months == time) & (event == 1)
        removed = np.arange(tied.sum()) / tied.sum()  # (d,)
        total = hazard[at_risk].sum() - removed * hazard[tied].sum()  # (d,)
        sums = weighted[at_risk].sum(axis=0) - removed[:, None] * weighted[tied].sum(axis=0)
        means = sums / total[:, None]  # (d, p)
        schoenfeld[tied] = columns[tied] - means.mean(axis=0)
        score[tied] += schoenfeld[tied]
        for knees, share in ((at_risk, np.ones_like(removed)), (tied, -removed)):
            weight = share / total
            score[knees] -= weight.sum() * weighted[knees]
            score[knees] += hazard[knees, None] * (weight @ means)
    return EfronResiduals(score, schoenfeld[event == 1])


def efron_cumulative_hazard(
    hazard: Floats, months: Floats, event: NDArray[np.int64], horizons: Floats
) -> Floats:
    """Cumulative baseline hazard by each horizon, with ties as in Efron's likelihood.

    Breslow's, which lifelines has, is too low where visits tie many events. Without covariates this
    one is Fleming and Harrington's: d events among n at risk add 1 / n + ... + 1 / (n - d + 1), as
    if they came one after another, where Breslow's adds d / n.

    Args:
        hazard: Relative hazard of each knee, shape (n,).
        months: Time of the event or of censoring, shape (n,).
        event: 1 event, 0 censored, shape (n,).
        horizons: Months, shape (m,).

    Returns:
        Shape (m,); finite also where everybody has had the event.

    Source:
        Therneau and Grambsch 2000, Modeling Survival Data, section 10.2.
    """
    times = np.unique(months[event == 1])
    steps = np.zeros(len(times) + 1)
    for k, time in enumerate(times):
        tied = (months == time) & (event == 1)
        removed = np.arange(tied.sum()) / tied.sum()
        steps[k + 1] = np.sum(1 / (hazard[months >= time].sum() - removed * hazard[tied].sum()))
    return np.cumsum(steps)[np.searchsorted(times, horizons, side="right")]


def clustered_variance(score: Floats, persons: NDArray[np.str_], variance: Floats) -> Floats:
    """Sandwich variance of the coefficients that sums the knees of a person before it squares.

    Args:
        score: From ``efron_residuals``, shape (n, p).
        persons: Person of each knee, shape (n,).
        variance: Inverse information of the coefficients, shape (p, p).

    Returns:
        Shape (p, p).

    Source:
        Lin and Wei 1989, JASA 84:1074.
    """
    cluster = np.unique(persons, return_inverse=True)[1]
    sums = np.zeros((cluster.max() + 1, score.shape[1]))
    np.add.at(sums, cluster, score)
    influence = sums @ variance
    return np.asarray(influence.T @ influence)


def proportional_hazards_p_values(
    schoenfeld: Floats, event_months: Floats, variance: Floats
) -> Floats:
    """Test each coefficient for a trend over the rank of time.

    Args:
        schoenfeld: From ``efron_residuals``, shape (e, p).
        event_months: Times of the same events, shape (e,).
        variance: Inverse information of the coefficients, shape (p, p); the test takes the knees
            as independent.

    Returns:
        Shape (p,); NaN where all events are at one time.

    Source:
        Grambsch and Therneau 1994, Biometrika 81:515.
    """
    rank = rankdata(event_months)
    rank -= rank.mean()
    n_events = len(rank)
    trend = rank @ (n_events * schoenfeld @ variance)
    spread = n_events * np.diag(variance) * np.sum(rank**2)
    if not np.any(rank):
        return np.full(len(spread), np.nan)
    return np.asarray(chi2.sf(trend**2 / spread, 1))


def proportional_hazards_p_value(
    schoenfeld: Floats, event_months: Floats, variance: Floats
) -> float | None:
    """The same test of all coefficients together; None where all events are at one time.

    Args:
        schoenfeld: From ``efron_residuals``, shape (e, p).
        event_months: Times of the same events, shape (e,).
        variance: Inverse information of the coefficients, shape (p, p).
    """
    rank = rankdata(event_months)
    rank -= rank.mean()
    if not np.any(rank):
        return None
    trend = rank @ schoenfeld
    statistic = len(rank) * trend @ variance @ trend / np.sum(rank**2)
    return float(chi2.sf(statistic, len(trend)))
