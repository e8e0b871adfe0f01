"""Cumulative incidence where an event is known only to lie between two visits.

The nonparametric maximum-likelihood estimate for intervals (lower, upper] puts probability on a few
innermost intervals and says nothing of where within them (Turnbull 1976, J R Stat Soc B 38:290).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.analysis.nonparametric import Floats
from kneeoa_mm.metrics import CI_PERCENTILES, NO_DRAWS, ONE_PERSON, bootstrap_weights
from kneeoa_mm.records import Estimate

_TOLERANCE, _TOLERANCE_OF_DRAWS = 1e-8, 1e-4
_MAX_STEPS = 20_000
_CLOSED_LEFT, _RIGHT, _OPEN_LEFT = 0, 1, 2
"""Order of end points at one time: an exact event starts before, what is open starts after it."""


@dataclass(frozen=True)
class IntervalCurve:
    """Turnbull's estimate: flat but for innermost intervals, within which it is not determined.

    Attributes:
        lower_months: Start of each innermost interval with an end, ascending, shape (k,).
        upper_months: Its end, by which the incidence has risen; equal for exact events, shape (k,).
        incidence: Probability that the event has happened by each end, shape (k,).
        ci_low: Lower 95 % limit, NaN without an interval, shape (k,).
        ci_high: Upper 95 % limit, shape (k,).
        determined_months: Beyond this time nothing is known.
        follow_up_months: Last time at which each knee was known to be free, ascending, shape (n,).
        n_persons: Persons that the knees belong to.
    """

    lower_months: Floats
    upper_months: Floats
    incidence: Floats
    ci_low: Floats
    ci_high: Floats
    determined_months: float
    follow_up_months: Floats
    n_persons: int

    def at_risk_at(self, months: float) -> int:
        """Knees known to be free of the event at ``months``."""
        return int(np.sum(self.follow_up_months >= months))

    def at(self, months: float) -> Estimate:
        """Incidence by ``months``, or why it is not determined there."""
        n = len(self.follow_up_months)
        if months > self.determined_months:
            last = f"no knee was followed beyond {self.determined_months:g} months"
            return Estimate(None, n=n, reason=last)
        inside = (self.lower_months < months) & (months < self.upper_months)
        if inside.any():
            k = int(np.flatnonzero(inside)[0])
            before = self.incidence[k - 1] if k else 0.0
            span = f"{self.lower_months[k]:g} and {self.upper_months[k]:g} months"
            return Estimate(
                None,
                n=n,
                reason=f"between {span} visits only tell that it lies between {before:.3f} and "
                f"{self.incidence[k]:.3f}",
            )
        step = int(np.searchsorted(self.upper_months, months, side="right")) - 1
        if step < 0:
            return Estimate(0.0, n=n, reason="no event by then, so no interval")
        value, low, high = (each[step] for each in (self.incidence, self.ci_low, self.ci_high))
        if np.isnan(low):
            reason = ONE_PERSON if self.n_persons < 2 else NO_DRAWS
            return Estimate(float(value), n=n, reason=reason)
        return Estimate(float(value), float(low), float(high), n)


def interval_incidence(
    lower_months: Floats,
    upper_months: Floats,
    persons: NDArray[np.str_],
    *,
    n_boot: int = 200,
    seed: int = 0,
) -> IntervalCurve:
    """Turnbull's estimate of the cumulative incidence, with person-bootstrap limits.

    Args:
        lower_months: Last time known free of the event, shape (n,).
        upper_months: First time it was seen, at least the lower; infinite without an event; equal
            where the time is exact. The event lies in (lower, upper]. Shape (n,).
        persons: Person of each knee, shape (n,).
        n_boot: Draws of persons; 0 for no limits.
        seed: Seed of the draws.

    Returns:
        The curve with percentile limits.
    """
    starts, ends, contains, same = _innermost(lower_months, upper_months)
    mass = _maximise(contains, np.bincount(same)[:, None].astype(float), _TOLERANCE)
    rises = ends < np.inf
    n_persons = len(np.unique(persons))
    low, high = (np.full(int(rises.sum()), np.nan) for _ in range(2))
    if n_boot and n_persons > 1 and rises.any():
        drawn = bootstrap_weights(persons, n_boot=n_boot, seed=seed)
        weights = np.zeros((len(contains), n_boot))
        np.add.at(weights, same, drawn)
        draws = _maximise(contains, weights, _TOLERANCE_OF_DRAWS)
        low, high = np.percentile(np.cumsum(draws, axis=0)[rises], CI_PERCENTILES, axis=1)
    return IntervalCurve(
        starts[rises],
        ends[rises],
        np.cumsum(mass[:, 0])[rises],
        low,
        high,
        float(starts[-1]) if ends[-1] == np.inf else np.inf,
        np.sort(lower_months),
        n_persons,
    )


def _innermost(
    lower: Floats, upper: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Innermost intervals, which of them each different observation contains, and whose it is.

    Returns:
        Starts and ends, shape (k,); contained ones, shape (u, k); and for each knee the row among
        these u, shape (n,).
    """
    exact = lower == upper
    left = np.column_stack([lower, np.where(exact, _CLOSED_LEFT, _OPEN_LEFT)])
    right = np.column_stack([upper, np.full(len(upper), _RIGHT)])
    points, rank = np.unique(np.concatenate([left, right]), axis=0, return_inverse=True)
    rank = rank.reshape(-1)
    observed, same = np.unique(
        np.column_stack([rank[: len(lower)], rank[len(lower) :]]), axis=0, return_inverse=True
    )
    is_right = points[:, 1] == _RIGHT
    first = np.flatnonzero(~is_right[:-1] & is_right[1:])
    contains = (observed[:, :1] <= first) & (first + 1 <= observed[:, 1:])
    return points[first, 0], points[first + 1, 0], contains, same.reshape(-1)


def _maximise(contains: NDArray[np.bool_], weights: Floats, tolerance: float) -> Floats:
    """Probability of each innermost interval by expectation and maximisation, for each draw.

    It stops when the likelihood, as a mean over knees, is within ``tolerance`` of its maximum: the
    largest derivative bounds what is left (Gentleman and Geyer 1994, Biometrika 81:618).

    Args:
        contains: Shape (u, k).
        weights: Knees of each different observation in each draw, shape (u, draws).
        tolerance: Of the mean log likelihood.

    Returns:
        Shape (k, draws).
    """
    design = contains.astype(float)
    share = weights / weights.sum(axis=0)
    mass = np.full((design.shape[1], weights.shape[1]), 1 / design.shape[1])
    for _ in range(_MAX_STEPS):
        # an observation that was not drawn may be left without any mass
        likelihood = np.maximum(design @ mass, np.finfo(float).tiny)
        derivative = design.T @ (share / likelihood)
        mass *= derivative
        if derivative.max() <= 1 + tolerance:
            break
    return mass
