"""Incidence and concordance of paired knees, with standard errors that cluster on the person.

The two knees of a person are not independent, and lifelines' curves treat them as if they were.
Here the variance of each statistic is the infinitesimal jackknife: the sum over persons of the
squared sum of their knees' influence (R's ``survfit(..., cluster=)`` and ``concordance`` do the
same; Therneau and Grambsch 2000, Modeling Survival Data, section 7.3). With one knee a person the
variance of the Kaplan-Meier curve is Greenwood's, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.metrics import ONE_PERSON, Z_95
from kneeoa_mm.records import Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ROUNDING = 1e-12
CENSORED = 0


@dataclass(frozen=True)
class IncidenceCurve:
    """Cumulative incidence at each time at which anything happened; a step function from 0.

    Attributes:
        months: Times of events of any cause, ascending, shape (k,).
        at_risk: Knees at risk just before each time, shape (k,).
        events: Events of the cause at each time, shape (k,).
        incidence: Probability that the event has happened by each time, shape (k,).
        ci_low: Lower 95 % limit; NaN where the incidence is 0 or 1, shape (k,).
        ci_high: Upper 95 % limit, shape (k,).
        follow_up_months: Event or censoring time of every knee, ascending, shape (n,).
        entry_months: When each knee came under observation, ascending, shape (n,).
        n_persons: Persons that the knees belong to.
        has_rivals: Whether some knee had another event first; without, it is one minus the
            Kaplan-Meier estimate.
    """

    months: Floats
    at_risk: Integers
    events: Integers
    incidence: Floats
    ci_low: Floats
    ci_high: Floats
    follow_up_months: Floats
    entry_months: Floats
    n_persons: int
    has_rivals: bool

    def at_risk_at(self, months: float) -> int:
        """Knees under observation by ``months`` whose event or censoring is not before."""
        entered = int(np.count_nonzero(self.entry_months <= months))
        return entered - int(np.count_nonzero(self.follow_up_months < months))

    def at(self, months: float) -> Estimate:
        """Incidence by ``months``; without a value after the last knee's follow-up."""
        n = len(self.follow_up_months)
        last = self.follow_up_months[-1]
        if months > last and not np.any(self.incidence == 1):
            return Estimate(None, n=n, reason=f"no knee was followed beyond {last:g} months")
        step = int(np.searchsorted(self.months, months, side="right")) - 1
        if step < 0 or self.incidence[step] == 0:
            return Estimate(0.0, n=n, reason="no event by then, so no interval")
        if np.isnan(self.ci_low[step]):
            reason = "no interval at 100 %" if self.n_persons > 1 else ONE_PERSON
            return Estimate(float(self.incidence[step]), n=n, reason=reason)
        low, high = float(self.ci_low[step]), float(self.ci_high[step])
        return Estimate(float(self.incidence[step]), low, high, n)


def cumulative_incidence(
    months: Floats,
    status: Integers,
    persons: NDArray[np.str_],
    *,
    cause: int = 1,
    entry_months: Floats | None = None,
) -> IncidenceCurve:
    """Aalen-Johansen estimate of the cumulative incidence of one cause, exact with tied times.

    With a single cause it is one minus the Kaplan-Meier estimate. At equal times events come
    before censorings, as is usual. Limits are on the scale log(-log(1 - incidence)).

    Args:
        months: Time of the event, above 0, or of censoring, shape (n,).
        status: 0 censored, otherwise the cause of the event, shape (n,).
        persons: Person of each knee, shape (n,).
        cause: The cause of interest; all others compete with it.
        entry_months: When each knee came under observation (left truncation), before its
            ``months``; it is at risk after that time. None for the origin. Shape (n,).

    Returns:
        The curve with person-clustered limits; with late entries, of knees that were free of any
        event when the first came under observation.

    Source:
        Aalen and Johansen 1978, Scand J Stat 5:141.
    """
    cluster = np.unique(persons, return_inverse=True)[1]
    ordered = np.sort(months)
    since = np.zeros(len(months)) if entry_months is None else entry_months
    entries = np.sort(since)
    times = np.unique(months[status != CENSORED])
    at_risk = np.searchsorted(entries, times, "left") - np.searchsorted(ordered, times, "left")
    event_times = months[status != CENSORED]
    any_events = _count(event_times, times)
    cause_events = _count(months[status == cause], times)

    hazard, cause_hazard = any_events / at_risk, cause_events / at_risk
    free_before = np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]]) if len(times) else hazard
    incidence = np.cumsum(free_before * cause_hazard)
    # whoever waits until all have had the event must find exactly 1, not what sums round to
    incidence[incidence > 1 - _ROUNDING] = 1.0

    # d log(free) / d weight and d incidence / d weight of each knee, carried forward in time
    log_free_influence, influence = np.zeros(len(months)), np.zeros(len(months))
    standard_error = np.zeros(len(times))
    for k, time in enumerate(times):
        exposed = (months >= time) & (since < time)
        failed = (months == time) & (status != CENSORED)
        jump = (failed & (status == cause)) - exposed * cause_hazard[k]
        influence += free_before[k] * (jump / at_risk[k] + cause_hazard[k] * log_free_influence)
        standard_error[k] = np.sqrt(np.sum(np.bincount(cluster, weights=influence) ** 2))
        survivors = at_risk[k] - any_events[k]
        if survivors:
            log_free_influence -= (failed - exposed * hazard[k]) / survivors
    n_persons = int(cluster.max(initial=-1)) + 1
    if n_persons < 2:
        standard_error[:] = np.nan
    low, high = _log_log_limits(incidence, standard_error)
    return IncidenceCurve(
        times,
        at_risk,
        cause_events,
        incidence,
        low,
        high,
        ordered,
        entries,
        n_persons,
        has_rivals=bool(np.any(any_events > cause_events)),
    )


def _count(values: Floats, times: Floats) -> Integers:
    """How many ``values`` equal each of ``times``, shape (k,)."""
    ordered = np.sort(values)
    right, left = (np.searchsorted(ordered, times, side=side) for side in ("right", "left"))
    counts: Integers = right - left
    return counts


def _log_log_limits(incidence: Floats, standard_error: Floats) -> tuple[Floats, Floats]:
    low, high = np.full(len(incidence), np.nan), np.full(len(incidence), np.nan)
    inside = (incidence > 0) & (incidence < 1)
    free = 1 - incidence[inside]
    spread = Z_95 * standard_error[inside] / (free * -np.log(free))
    low[inside] = 1 - free ** np.exp(-spread)
    high[inside] = 1 - free ** np.exp(spread)
    return low, high


def harrell_c(
    months: Floats,
    event: Integers,
    risk: Floats,
    persons: NDArray[np.str_],
    *,
    entry_months: Floats | None = None,
) -> Estimate:
    """Harrell's concordance: does the knee with the higher risk have the earlier event?

    A pair is comparable when the earlier time is an event; a knee censored at the time of another
    one's event outlived it; two events at one time are not comparable. Equal risks count half.

    Args:
        months: Time of the event or of censoring, shape (n,).
        event: 1 event, 0 censored, shape (n,).
        risk: Higher means earlier, shape (n,).
        persons: Person of each knee, shape (n,).
        entry_months: As in ``cumulative_incidence``; a pair is comparable when both knees were
            under observation at the earlier time.

    Returns:
        The concordance with a person-clustered 95 % interval, or the reason why there is none.

    Source:
        Harrell et al. 1982, JAMA 247:2543.
    """
    n = len(months)
    concordant, comparable = np.zeros(n), np.zeros(n)
    for i in np.flatnonzero(event == 1):
        outlived = (months > months[i]) | ((months == months[i]) & (event == 0))
        if entry_months is not None:
            outlived &= entry_months < months[i]
        agrees = outlived * ((risk < risk[i]) + 0.5 * (risk == risk[i]))
        # a pair belongs to both of its knees, so that each one's influence can be told
        concordant += agrees
        comparable += outlived
        concordant[i] += agrees.sum()
        comparable[i] += outlived.sum()
    total, agreed = comparable.sum() / 2, concordant.sum() / 2
    if total == 0:
        return Estimate(None, n=n, reason="no two knees can be compared")
    value = float(agreed / total)
    cluster = np.unique(persons, return_inverse=True)[1]
    if not cluster.any():
        return Estimate(value, n=n, reason=ONE_PERSON)
    influence = np.bincount(cluster, weights=(concordant - value * comparable) / total)
    spread = Z_95 * float(np.sqrt(np.sum(influence**2)))
    return Estimate(value, max(0.0, value - spread), min(1.0, value + spread), n)
