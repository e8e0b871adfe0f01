"""Events that leave no time for the one of interest: death, and replacement where it is no part.

A model of times with rivals (docs/concepts/hazards.md) foretells a cumulative incidence: the share
of knees that will have the event before anything else ends them. What is held against it must be
of the same world, in which who died first is known never to have had the event, and not lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.analysis.nonparametric import cumulative_incidence
from kneeoa_mm.analysis.regression import cox_risks
from kneeoa_mm.analysis.time_to_event import DEATH, TimeToEvent
from kneeoa_mm.records import Outcome

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_COUNTS_REPLACEMENT = (Outcome.TKR, Outcome.JSL_OR_KR_48M)


def until_rivals(cohort: pd.DataFrame, outcome: Outcome) -> pd.DataFrame:
    """A cohort in which knees that a rival ended are known to be free of the event up to then.

    What is read off films is known up to the last one. A rival before the next film was due came to
    a knee free of the event, as far as anybody saw; after a film that was skipped the event may
    have come first, and the knee stays censored at its last film. Films are due when any knee of
    the cohort had one; the day of a replacement that is the event is no film. Replacement alone is
    known to the day, and the cohort censors it at death.

    Args:
        cohort: Rows that obey the schema ``COHORT``.
        outcome: The event.
    """
    if outcome is Outcome.TKR:
        return cohort
    first = _first_rival(cohort, outcome)
    lower = _numbers(cohort, f"{outcome}_lower_months")
    due = np.append(_film_months(cohort, outcome), np.inf)
    next_film = due[np.minimum(np.searchsorted(due, lower, side="right"), len(due) - 1)]
    ended = (_numbers(cohort, f"{outcome}_event_observed") == 0) & (first <= next_film)
    # a day before the film that carries the date of its visit comes after that film
    return cohort.assign(
        **{f"{outcome}_lower_months": np.where(ended, np.fmax(first, lower), lower)}
    )


def with_rivals(data: TimeToEvent) -> tuple[TimeToEvent, Flags] | None:
    """The knees of a cohort ``until_rivals``, and which of them a rival ended; None for no such."""
    if data.outcome is Outcome.TKR:
        died = data.with_death()
        return died and (replace(data, months=died[0]), died[1] == DEATH)
    ended = (data.event == 0) & (_first_rival(data.rows, data.outcome) <= data.months)
    return (data, ended) if ended.any() else None


def cox_incidences(
    columns: Floats,
    data: TimeToEvent,
    ended: Flags,
    learns: Flags,
    horizons: Sequence[float],
) -> tuple[Floats, Floats]:
    """As ``cox_risks``, but of a world in which rivals come first to some.

    Each step of a knee's risk counts by the share of the knees that learn to which no rival had
    come before, which are taken to spare nobody by covariates.

    Args:
        columns: Covariates, shape (n, p).
        data: The same n knees.
        ended: Those that a rival ended, (n,).
        learns: Which of them the model learns from, shape (n,).
        horizons: Months, ascending.

    Raises:
        ConvergenceError: The fit does not converge.
    """
    times = np.unique(data.months[learns & (data.event == 1) & (data.months <= horizons[-1])])
    score, alone = cox_risks(columns, data, learns, times.tolist())
    taught = data.subset(learns)
    curve = cumulative_incidence(taught.months, ended[learns].astype(np.int64), taught.persons)
    gone = np.append(0.0, curve.incidence)[np.searchsorted(curve.months, times, side="left")]
    steps = np.diff(alone, axis=1, prepend=0.0) * (1 - gone)
    risk = np.hstack([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)])
    by_horizon: Floats = risk[:, np.searchsorted(times, horizons, side="right")]
    return score, by_horizon


def _film_months(rows: pd.DataFrame, outcome: Outcome) -> Floats:
    """Months at which any knee had a film, in order; the day of an event is none."""
    lower, upper = (_numbers(rows, f"{outcome}_{end}_months") for end in ("lower", "upper"))
    on_a_day = lower == upper
    replaced_then = (upper == _replaced(rows)) & (outcome in _COUNTS_REPLACEMENT)
    films = np.concatenate([lower[~on_a_day], upper[~(on_a_day | replaced_then)]])
    months: Floats = np.unique(films[~np.isnan(films)])
    return months


def _first_rival(rows: pd.DataFrame, outcome: Outcome) -> Floats:
    """When death or replacement, where that is no part of the outcome, came first; else NaN."""
    died = _numbers(rows, "death_months")
    if outcome in _COUNTS_REPLACEMENT:
        return died
    first: Floats = np.fmin(died, _replaced(rows))
    return first


def _replaced(rows: pd.DataFrame) -> Floats:
    """When each knee was replaced; else NaN."""
    is_replaced = _numbers(rows, "tkr_event_observed") == 1
    when: Floats = np.where(is_replaced, _numbers(rows, "tkr_upper_months"), np.nan)
    return when


def _numbers(rows: pd.DataFrame, name: str) -> Floats:
    if name not in rows:
        return np.full(len(rows), np.nan)
    values: Floats = rows[name].astype(float).to_numpy(np.float64)
    return values
