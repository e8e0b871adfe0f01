"""What a cohort saw of each knee, in the bins of a model of when there is progression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from kneeoa_mm.learning.hazards import DeathAfterGap, Observed, observe
from kneeoa_mm.records import Outcome

_REPLACEMENT_COMPETES = {*Outcome} - {Outcome.TKR, Outcome.JSL_OR_KR_48M}
"""Outcomes of which replacement is no part; pain of the joint is none once the joint is gone."""


def observed_of(
    knees: pd.DataFrame,
    outcome: Outcome,
    visits_months: Sequence[int],
    *,
    death_after_gap: DeathAfterGap = "censor",
) -> Observed:
    """Put the intervals of a cohort into bins (t_{j-1}, t_j] that end with visits.

    A knee is free through the last bin that ends by ``<outcome>_lower_months``, and its event lies
    in one of the bins up to that which holds ``<outcome>_upper_months``. What happened after the
    last visit counts as not seen. A replacement or death on a day before a film that carries the
    date of its visit comes after that film.

    Args:
        knees: Rows of a cohort.
        outcome: Whose progression.
        visits_months: Ends of the bins, rising.
        death_after_gap: What a death after skipped visits says; see :func:`hazards.observe`.

    Returns:
        One element a knee; a knee without an interval, such as one not at risk, teaches nothing.
    """
    visits = np.asarray(visits_months, dtype=float)
    lower = _months(knees, f"{outcome}_lower_months")
    is_event = _months(knees, f"{outcome}_event_observed") == 1
    progressed = _bin_of(
        np.where(is_event, _months(knees, f"{outcome}_upper_months"), np.nan), visits
    )
    free = np.searchsorted(visits, np.nan_to_num(lower, nan=-1.0), side="right")
    # where the day is known, both ends of the interval are that day
    free = np.where(progressed > 0, np.minimum(free, progressed - 1), free)
    is_known = ~np.isnan(lower) & ~np.isnan(_months(knees, f"{outcome}_event_observed"))
    replaced_months = np.full(len(knees), np.nan)
    if outcome in _REPLACEMENT_COMPETES:
        is_replaced = _months(knees, "tkr_event_observed") == 1
        replaced_months = np.where(is_replaced, _months(knees, "tkr_upper_months"), np.nan)
    replaced, died = (
        _after(_bin_of(months, visits), free, len(visits))
        for months in (replaced_months, _months(knees, "death_months"))
    )
    free = np.where(is_known, free, -1)
    events = (np.where(is_known, each, 0) for each in (progressed, replaced, died))
    bins = (torch.from_numpy(each.astype(np.int64)) for each in (free, *events))
    return observe(*bins, death_after_gap=death_after_gap)


def _months(knees: pd.DataFrame, column: str) -> NDArray[np.float64]:
    values = knees.get(column, pd.Series(pd.NA, index=knees.index, dtype="Float64"))
    return pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)


def _bin_of(months: NDArray[np.float64], visits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the bin, from 1, that holds each time; 0 where there is none up to the last."""
    number = np.searchsorted(visits, months, side="left") + 1
    return np.where(np.isnan(months) | (number > len(visits)), 0, number)


def _after(event: NDArray[np.int64], free: NDArray[np.int64], n_bins: int) -> NDArray[np.int64]:
    """The bin of an event, moved behind the last film without progression; 0 for none."""
    moved = np.where(event > 0, np.maximum(event, free + 1), 0)
    return np.where(moved > n_bins, 0, moved)
