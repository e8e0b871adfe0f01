"""Thirds of a predicted risk: what became of each, and whether it is what was foretold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from kneeoa_mm.analysis.nonparametric import IncidenceCurve, cumulative_incidence
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.analysis.time_to_event import DEATH, TimeToEvent
from kneeoa_mm.analysis.turnbull import IntervalCurve, interval_incidence

THIRDS = ("lowest third", "middle third", "highest third")

Thirds = Mapping[str, NDArray[np.bool_]]
"""Name to the knees of each, (n,)."""


def thirds_of(score: NDArray[np.float64], fold: NDArray[np.int64] | None) -> Thirds:
    """Knees of each third of the risk in their fold; equal risks stay together.

    Args:
        score: Higher where an event is more likely, (n,).
        fold: Whose model told each, (n,); scores of two folds need not agree on a level. None for
            one model of all.

    Example:
        >>> {name: rows.tolist() for name, rows in thirds_of(np.array([0.1, 0.9]), None).items()}
        {'lowest third': [True, False], 'highest third': [False, True]}
    """
    if not np.ptp(score):
        return {}
    part_of = np.zeros(len(score), dtype=np.int64) if fold is None else fold
    third = np.empty(len(score), dtype=int)
    for part in np.unique(part_of):
        rows = part_of == part
        share = (rankdata(score[rows]) - 0.5) / rows.sum()
        third[rows] = np.floor(len(THIRDS) * share)
    return {label: third == k for k, label in enumerate(THIRDS) if (third == k).any()}


def by_third(
    thirds: Thirds,
    data: TimeToEvent,
    risk: NDArray[np.float64] | None,
    months: float,
    ended: NDArray[np.bool_] | None,
) -> tuple[dict[str, IncidenceCurve], list[dict[str, Any]]]:
    """Curves of the thirds, and their mean risk beside what was observed.

    What is observed is of the world that the risks are of. Cumulative incidences are of this one,
    where death competes, and so are the curves. Other risks are of one where nobody dies first, as
    censoring at death makes them.

    Args:
        thirds: Of ``thirds_of``.
        data: The knees.
        risk: Of each knee by ``months``, (n,); None where it is not known.
        months: When risk and observation are held against each other.
        ended: Knees that a rival ended, (n,), where risks are cumulative incidences; else None.
    """
    until, status = data.with_death() or (data.months, data.event)
    if ended is not None:
        until, status = data.months, np.where(ended, DEATH, data.event)
    curves, calibration = {}, []
    for label, rows in thirds.items():
        persons = data.persons[rows]
        curves[label] = cumulative_incidence(until[rows], status[rows], persons)
        alone = cumulative_incidence(data.months[rows], data.event[rows], persons)
        observed = alone if ended is None else curves[label]
        calibration.append(
            {
                "group": label,
                "knees": int(rows.sum()),
                "months": months,
                "predicted": None if risk is None else float(risk[rows].mean()),
                "observed": as_json(observed.at(months)),
            }
        )
    return curves, calibration


def intervals_by_third(
    thirds: Thirds, data: TimeToEvent, *, n_boot: int, seed: int
) -> dict[str, IntervalCurve]:
    """Turnbull's estimate in each third."""
    lower, upper = data.bounds()
    return {
        label: interval_incidence(
            lower[rows], upper[rows], data.persons[rows], n_boot=n_boot, seed=seed
        )
        for label, rows in thirds.items()
    }
