"""Covariates that tell the events, alone or together, for which no ratio is finite.

A likelihood has no maximum where some direction of the coefficients never lowers it and somewhere
raises it. Whether there is such a direction is a linear programme (Albert and Anderson 1984,
Biometrika 71:1; for Cox models Bryson and Johnson 1981, Technometrics 23:381).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from kneeoa_mm.analysis.covariates import Design
from kneeoa_mm.analysis.time_to_event import TimeToEvent
from kneeoa_mm.errors import rows_named

Floats = NDArray[np.float64]
_TOLERANCE = 1e-7


def separates_hazards(columns: Floats, data: TimeToEvent) -> bool:
    """Whether a sum of covariates ranks every event above all who outlived it, or beside them.

    Knees with the event at one time are not held against each other: which came first is not
    known, and Efron's approximation alone would keep such a ratio finite.

    Args:
        columns: Covariates, (n, p).
        data: The n knees.
    """
    entry = np.full(len(data.months), -np.inf) if data.entry_months is None else data.entry_months
    happened = data.event == 1
    times = np.unique(data.months[happened])
    parts = [(happened & (data.months == t), (data.months >= t) & (entry < t)) for t in times]
    sets = [(np.flatnonzero(case), np.flatnonzero(risk & ~case)) for case, risk in parts]
    sets = [(cases, others) for cases, others in sets if len(others)]
    gain = np.zeros(columns.shape[1])
    for cases, others in sets:
        gain += columns[cases].mean(axis=0) - columns[others].mean(axis=0)
    # pairs are too many to be listed: those that a direction breaks are added until none is broken
    pairs = np.empty((0, columns.shape[1]))
    while True:
        direction = _best(gain, pairs)
        if gain @ direction <= _TOLERANCE * len(sets):
            return False
        score = columns @ direction
        lowest = [cases[np.argmin(score[cases])] for cases, _ in sets]
        highest = [others[np.argmax(score[others])] for _, others in sets]
        broken = score[lowest] < score[highest] - _TOLERANCE
        if not broken.any():
            return True
        pairs = np.concatenate([pairs, (columns[lowest] - columns[highest])[broken]])


def separates_times(columns: Floats, data: TimeToEvent) -> bool:
    """Whether the likelihood of a Weibull model of intervals rises for ever in some direction.

    In the inverse of the error's scale and the coefficients over that scale it is concave. It
    never falls where each knee's time may move away from when it was last free of the event, and
    towards when the event was seen.

    Args:
        columns: Covariates, (n, p).
        data: The n knees.

    Source:
        Burridge 1981, J R Stat Soc B 43:41, for the parameters in which it is concave.
    """
    lower, upper = data.bounds()
    since = np.zeros(len(lower)) if data.entry_months is None else data.entry_months
    free, seen = lower > since, np.isfinite(upper)
    level = np.column_stack([columns, np.ones(len(columns))])
    later = np.column_stack([level[free], -np.log(lower[free])])
    sooner = np.column_stack([-level[seen], np.log(upper[seen])])
    moves = np.concatenate([later, sooner])
    gain = moves.sum(axis=0)
    return bool(gain @ _best(gain, moves, is_scaled=True) > _TOLERANCE * len(moves))


def _best(gain: Floats, pairs: Floats, *, is_scaled: bool = False) -> Floats:
    """The direction of most gain, within a box, in which no row of ``pairs`` falls.

    Args:
        gain: (p,).
        pairs: (rows, p).
        is_scaled: The last number is of a scale, and not below 0.
    """
    if not len(gain):
        return gain
    bounds = [(-1.0, 1.0)] * len(gain)
    if is_scaled:
        bounds[-1] = (0.0, 1.0)
    found = linprog(-gain, A_ub=-pairs, b_ub=np.zeros(len(pairs)), bounds=bounds)
    # 0 is always allowed: without an answer nothing was found
    return np.zeros(len(gain)) if found.x is None else np.asarray(found.x)


def separation_of(
    matrix: Design, data: TimeToEvent, separates: Callable[[Floats, TimeToEvent], bool]
) -> str | None:
    """Which terms separate the events from all others, or None.

    Args:
        matrix: Columns of the regression.
        data: Its knees.
        separates: ``separates_hazards`` or ``separates_times``.
    """
    columns = (matrix.columns - matrix.columns.mean(axis=0)) / matrix.columns.std(axis=0)
    if not separates(columns, data):
        return None
    needed = list(range(len(matrix.terms)))
    for term in range(len(matrix.terms)):
        fewer = [each for each in needed if each != term]
        if separates(columns[:, fewer], data):
            needed = fewer
    cases = rows_named(list(data.rows.index[data.event == 1]))
    if not needed:
        return f"the times alone, whatever the covariates, fit no finite model: {cases}"
    labels = " and ".join(matrix.terms[term].label for term in needed)
    verb = "separates" if len(needed) == 1 else "together separate"
    return f"{labels} {verb} the events from all others, so no ratio is finite: {cases}"
