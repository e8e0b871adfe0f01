"""Covariates that foretell every event perfectly, for which no ratio is finite."""

from __future__ import annotations

import numpy as np

from kneeoa_mm.analysis.covariates import Design
from kneeoa_mm.analysis.time_to_event import TimeToEvent, rows_named


def separation_of(matrix: Design, data: TimeToEvent) -> str | None:
    """Which term separates events from all others at risk, or None.

    Where every event has the highest value (or every one the lowest) of all knees at risk at its
    time, the likelihood rises for ever with the coefficient.

    Args:
        matrix: Columns of the regression.
        data: Its knees.

    Source:
        Bryson and Johnson 1981, Technometrics 23:381.
    """
    entry = np.full(len(data.months), -np.inf) if data.entry_months is None else data.entry_months
    highest, lowest = (np.ones(len(matrix.terms), dtype=bool) for _ in range(2))
    for time in np.unique(data.months[data.event == 1]):
        at_risk = matrix.columns[(data.months >= time) & (entry < time)]
        cases = matrix.columns[(data.months == time) & (data.event == 1)]
        highest &= cases.min(axis=0) >= at_risk.max(axis=0)
        lowest &= cases.max(axis=0) <= at_risk.min(axis=0)
        if not (highest.any() or lowest.any()):
            return None
    place = int(np.flatnonzero(highest | lowest)[0])
    extreme = "highest" if highest[place] else "lowest"
    cases = data.rows.index[data.event == 1]
    return (
        f"{matrix.terms[place].label} separates the events, whose value is always the {extreme} "
        f"of those at risk, so no ratio is finite: {rows_named(list(cases))}"
    )
