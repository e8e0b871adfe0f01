"""What ``survival.json`` says: curves, incidence at round times, the Cox model and its limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.analysis.nonparametric import IncidenceCurve, cumulative_incidence
from kneeoa_mm.analysis.prognosis import PREDICTIONS
from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.analysis.time_models import AftModel, CoxModel
from kneeoa_mm.analysis.time_to_event import Groups, TimeToEvent, horizons_to
from kneeoa_mm.analysis.turnbull import IntervalCurve, interval_incidence
from kneeoa_mm.records import Outcome

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
AFT_COLUMNS = ("term", "time_ratio", "ci_low", "ci_high", "p_value", "n", "reason")

Curve = IncidenceCurve | IntervalCurve
Curves = Mapping[str, Curve]


@dataclass(frozen=True)
class Estimators:
    """The curves of each group by each estimator; empty where it does not apply.

    Attributes:
        kaplan_meier: Events dated at the visit that first showed them.
        turnbull: Events between two visits.
        aalen_johansen: Death as a competing event.
        by_predicted_risk: Thirds of the risk, with death as a competing event where it is known,
            and with whatever competes with cumulative incidences.
        turnbull_by_predicted_risk: The same thirds, of events between two visits.
    """

    kaplan_meier: Curves
    turnbull: Curves
    aalen_johansen: Curves
    by_predicted_risk: Mapping[str, IncidenceCurve]
    turnbull_by_predicted_risk: Curves

    def rivals_by_risk(self) -> bool:
        """Whether another event took knees first in the curves by predicted risk."""
        return any(curve.has_rivals for curve in self.by_predicted_risk.values())


def curves_of(
    months: NDArray[np.float64], status: NDArray[np.int64], data: TimeToEvent, groups: Groups
) -> dict[str, IncidenceCurve]:
    """The cumulative incidence of each group; status 1 is the event, others compete with it."""
    return {
        label: cumulative_incidence(months[of_group], status[of_group], data.persons[of_group])
        for label, of_group in _knees_of(groups)
    }


def interval_curves_of(
    data: TimeToEvent, groups: Groups, *, n_boot: int, seed: int
) -> dict[str, IntervalCurve]:
    """Turnbull's estimate for each group."""
    lower, upper = data.bounds()
    return {
        label: interval_incidence(
            lower[of_group],
            upper[of_group],
            data.persons[of_group],
            n_boot=n_boot,
            seed=seed,
        )
        for label, of_group in _knees_of(groups)
    }


def _knees_of(groups: Groups) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for label in groups.labels:
        of_group = groups.of_knee == label
        if of_group.any():
            yield label, of_group


def document_of(
    data: TimeToEvent,
    groups: Groups,
    estimators: Estimators,
    cox: CoxModel,
    weibull: AftModel,
    prognosis: Mapping[str, Any],
    *,
    left_out: Mapping[str, int],
    unknown: Mapping[str, int],
    horizon_months: float,
) -> dict[str, Any]:
    """All of ``survival.json`` but its provenance.

    Args:
        data: Knees with follow-up.
        groups: Of the curves.
        estimators: Their curves.
        cox: The Cox model.
        weibull: The Weibull model.
        prognosis: Of ``prognosis.judge_models``.
        left_out: Reason to number of knees, those of the regressions' time scale among them.
        unknown: Of those whose event status is not there, the cohort's reason to number of knees.
        horizon_months: Incidence is told at each year, and at this.
    """
    ungrouped = int(np.sum([label is None for label in groups.of_knee]))
    each = vars(estimators)
    return {
        "outcome": str(data.outcome),
        "group": groups.name,
        "counts": {
            "knees": len(data.event),
            "persons": len(np.unique(data.persons)),
            "events": int(data.event.sum()),
        },
        "left_out": {**left_out, f"no_{groups.name}": ungrouped},
        "unknown_by_reason": dict(unknown),
        "groups": {
            label: {"knees": int(of_group.sum()), "events": int(data.event[of_group].sum())}
            for label, of_group in _knees_of(groups)
        },
        "incidence": [
            row
            for name in ("kaplan_meier", "turnbull", "aalen_johansen")
            for row in _at_horizons(name, each[name], horizon_months)
        ],
        "curves": {
            name: {label: _points(curve) for label, curve in curves.items()}
            for name, curves in each.items()
        },
        "cox": _cox_document(cox),
        "weibull_aft": _aft_document(weibull),
        "prognosis": dict(prognosis),
        "notes": [
            *_notes(left_out, unknown, ungrouped, groups),
            *_notes_on_prognosis(prognosis),
            *dict.fromkeys([*cox.notes, *weibull.notes]),
        ],
        "limits": _limits(data.outcome, estimators),
    }


def _at_horizons(estimator: str, curves: Curves, horizon_months: float) -> list[dict[str, Any]]:
    last = max((float(c.follow_up_months[-1]) for c in curves.values()), default=0.0)
    rows = []
    for label, curve in curves.items():
        for months in horizons_to(last, horizon_months):
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


def _points(curve: Curve) -> dict[str, list[Any]]:
    def finite(values: NDArray[np.float64]) -> list[float | None]:
        return [float(value) if np.isfinite(value) else None for value in values]

    times = (
        {
            "months": curve.months.tolist(),
            "at_risk": curve.at_risk.tolist(),
            "events": curve.events.tolist(),
        }
        if isinstance(curve, IncidenceCurve)
        else {
            "lower_months": curve.lower_months.tolist(),
            "upper_months": curve.upper_months.tolist(),
        }
    )
    return {
        **times,
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
        "proportional_hazards_p_value": cox.changes_with_time,
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


def _aft_document(weibull: AftModel) -> dict[str, Any]:
    return {
        "knees": weibull.knees,
        "events": weibull.events,
        "reason": weibull.reason,
        "shape": as_json(weibull.shape) if weibull.shape else None,
        "terms": [
            {
                "term": line.term.name,
                "label": line.term.label,
                "time_ratio": as_json(line.ratio),
                "p_value": line.p_value,
            }
            for line in weibull.terms
        ],
    }


def flat(term: Mapping[str, Any], ratio: str) -> dict[str, Any]:
    """A term of a model's document as a row of ``COX_COLUMNS`` or ``AFT_COLUMNS``."""
    estimate = dict(term[ratio])
    return {**term, **estimate, ratio: estimate.pop("value")}


def _notes(
    left_out: Mapping[str, int], unknown: Mapping[str, int], ungrouped: int, groups: Groups
) -> list[str]:
    reasons = ", ".join(f"{number} {reason}" for reason, number in unknown.items())
    counted = [
        (left_out["unknown"], f"were left out, not at risk or never judged: {reasons}"),
        (left_out["no_follow_up"], "were left out: they were never seen after baseline"),
        (left_out.get("no_age", 0), "have no age, which is the time, and are in no regression"),
        (ungrouped, f"have no {groups.name} and no curve"),
    ]
    notes = [f"{number} knees {what}." for number, what in counted if number]
    if len(groups.labels) < 2:
        notes.append(f"All knees are of one group of {groups.name}: there is nothing to compare.")
    return notes


def _notes_on_prognosis(prognosis: Mapping[str, Any]) -> list[str]:
    left_out = prognosis["left_out"]
    alone = "Cox models and differences from them are judged without these"
    nobody = "no model is judged on them"
    is_given = prognosis.get("shown") == PREDICTIONS
    counted = [
        (
            left_out["no_prediction"],
            f"have no prediction, or the model has seen their person, and {nobody}",
        ),
        (left_out["no_covariate"], f"lack a covariate, and {alone if is_given else nobody}"),
    ]
    return [f"Prognosis: {number} knees {what}." for number, what in counted if number]


def _limits(outcome: Outcome, estimators: Estimators) -> list[str]:
    dating = (
        "The Kaplan-Meier estimate and the Cox model date each event at the visit that first "
        "showed it, which is late by up to the time since the visit before; Turnbull's estimate "
        "and the Weibull model know only that it lies between the two."
        if estimators.turnbull
        else "Each event is dated to the day, or the visit, that the table has."
    )
    alone = "estimate, Turnbull's" if estimators.turnbull else "estimate"
    censoring = "treated as censoring, which overstates the risk of those who may die first"
    if estimators.aalen_johansen:
        death = (
            f"The Kaplan-Meier {alone} and the regressions treat death as censoring; the "
            "Aalen-Johansen estimate, and curves by predicted risk, treat it as a competing event."
        )
    elif estimators.rivals_by_risk():
        death = (
            f"By group and in the regressions death is {censoring}; in curves by predicted risk it "
            "competes, and so does replacement where the outcome does not count it."
        )
    else:
        death = f"Death is {censoring}."
    limits = [
        dating,
        death,
        "Harrell's C of the Cox model is of the knees that it was fitted on, and therefore "
        "optimistic; under prognosis every knee is judged by a model that never saw its person.",
    ]
    if outcome is Outcome.TKR:
        limits.append("Replacement is a decision, and not only a state of the joint.")
    return limits
