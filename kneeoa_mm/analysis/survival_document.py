"""What ``survival.json`` says: curves, incidence at round times, the Cox model and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.analysis.covariates import Term
from kneeoa_mm.analysis.nonparametric import IncidenceCurve, cumulative_incidence
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.analysis.time_to_event import Groups, TimeToEvent
from kneeoa_mm.records import Estimate, Outcome

INCIDENCE_COLUMNS = (
    "estimator",
    "group",
    "months",
    "at_risk",
    "incidence",
    "ci_low",
    "ci_high",
    "n",
    "reason",
)
COX_COLUMNS = (
    "term",
    "hazard_ratio",
    "ci_low",
    "ci_high",
    "p_value",
    "proportional_hazards_p_value",
    "n",
    "reason",
)
_MONTHS_BETWEEN_HORIZONS = 12

Curves = Mapping[str, IncidenceCurve]


@dataclass(frozen=True)
class CoxTerm:
    """One line of a Cox model.

    Attributes:
        term: What the hazard ratio belongs to.
        ratio: Hazard ratio with its person-clustered 95 % interval, or why there is none.
        p_value: Wald test, person-clustered.
        changes_with_time: P value of the test for a ratio that changes with time.
    """

    term: Term
    ratio: Estimate
    p_value: float | None = None
    changes_with_time: float | None = None


@dataclass(frozen=True)
class CoxModel:
    """A Cox model, or the reason why there is none.

    Attributes:
        terms: Its lines, also of terms that cannot be estimated.
        knees: Knees in the model.
        events: Their events.
        notes: What was left out, and what to be careful about.
        harrell_c: Concordance on the knees of the fit.
        reason: Why there is no model.
    """

    terms: tuple[CoxTerm, ...]
    knees: int
    events: int
    notes: tuple[str, ...]
    harrell_c: Estimate | None = None
    reason: str | None = None


def curves_of(
    months: NDArray[np.float64], status: NDArray[np.int64], data: TimeToEvent, groups: Groups
) -> dict[str, IncidenceCurve]:
    """The cumulative incidence of each group; status 1 is the event, others compete with it."""
    curves = {}
    for label in groups.labels:
        of_group = groups.of_knee == label
        if of_group.any():
            curves[label] = cumulative_incidence(
                months[of_group], status[of_group], data.persons[of_group]
            )
    return curves


def document_of(
    data: TimeToEvent, groups: Groups, curves: Curves, competing: Curves, cox: CoxModel
) -> dict[str, Any]:
    """All of ``survival.json`` but its provenance."""
    ungrouped = int(np.sum([label is None for label in groups.of_knee]))
    return {
        "outcome": str(data.outcome),
        "group": groups.name,
        "counts": {
            "knees": len(data.event),
            "persons": len(np.unique(data.persons)),
            "events": int(data.event.sum()),
        },
        "left_out": {**data.left_out, f"no_{groups.name}": ungrouped},
        "groups": {
            label: {"knees": len(curve.follow_up_months), "events": int(curve.events.sum())}
            for label, curve in curves.items()
        },
        "incidence": [
            *_at_horizons("kaplan_meier", curves),
            *_at_horizons("aalen_johansen", competing),
        ],
        "curves": {
            "kaplan_meier": {label: _points(curve) for label, curve in curves.items()},
            "aalen_johansen": {label: _points(curve) for label, curve in competing.items()},
        },
        "cox": _cox_document(cox),
        "notes": [*_notes(data, ungrouped, groups), *cox.notes],
        "limits": _limits(data.outcome, known_deaths=bool(competing)),
    }


def _at_horizons(estimator: str, curves: Curves) -> list[dict[str, Any]]:
    last = max((float(c.follow_up_months[-1]) for c in curves.values()), default=0.0)
    horizons = np.arange(_MONTHS_BETWEEN_HORIZONS, last + 1, _MONTHS_BETWEEN_HORIZONS)
    rows = []
    for label, curve in curves.items():
        for months in horizons:
            estimate = as_json(curve.at(months))
            rows.append(
                {
                    "estimator": estimator,
                    "group": label,
                    "months": float(months),
                    "at_risk": curve.at_risk_at(months),
                    "incidence": estimate.pop("value"),
                    **estimate,
                }
            )
    return rows


def _points(curve: IncidenceCurve) -> dict[str, list[Any]]:
    def finite(values: NDArray[np.float64]) -> list[float | None]:
        return [float(value) if np.isfinite(value) else None for value in values]

    return {
        "months": curve.months.tolist(),
        "at_risk": curve.at_risk.tolist(),
        "events": curve.events.tolist(),
        "incidence": curve.incidence.tolist(),
        "ci_low": finite(curve.ci_low),
        "ci_high": finite(curve.ci_high),
    }


def _cox_document(cox: CoxModel) -> dict[str, Any]:
    return {
        "knees": cox.knees,
        "events": cox.events,
        "reason": cox.reason,
        "ties": "efron",
        "harrell_c": as_json(cox.harrell_c) if cox.harrell_c else None,
        "terms": [
            {
                "term": line.term.name,
                "label": line.term.label,
                "hazard_ratio": as_json(line.ratio),
                "p_value": line.p_value,
                "proportional_hazards_p_value": line.changes_with_time,
            }
            for line in cox.terms
        ],
    }


def flat(term: Mapping[str, Any]) -> dict[str, Any]:
    """A term of the Cox document as a row of ``COX_COLUMNS``."""
    ratio = dict(term["hazard_ratio"])
    return {**term, **ratio, "hazard_ratio": ratio.pop("value")}


def _notes(data: TimeToEvent, ungrouped: int, groups: Groups) -> list[str]:
    counted = [
        (data.left_out["unknown"], "were left out: whether they have the event is unknown"),
        (data.left_out["no_follow_up"], "were left out: they were never seen after baseline"),
        (ungrouped, f"have no {groups.name} and no curve"),
    ]
    return [f"{number} knees {what}." for number, what in counted if number]


def _limits(outcome: Outcome, *, known_deaths: bool) -> list[str]:
    dating = (
        "Replacements are dated to the day of surgery where the cohort has it."
        if outcome is Outcome.TKR
        else "Each event is dated at the visit that first showed it, which is late by up to the "
        "time since the visit before; a knee that skipped a visit is dated later still."
    )
    death = (
        "The Kaplan-Meier estimate and the Cox model treat death as censoring; the Aalen-Johansen "
        "estimate beside them treats it as a competing event."
        if known_deaths
        else "Death is treated as censoring, which overstates the risk of those who may die first."
    )
    return [
        dating,
        death,
        "Harrell's C is of the knees that the model was fitted on, and therefore optimistic.",
    ]
