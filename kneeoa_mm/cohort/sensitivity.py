"""How much the definition matters: each outcome counted by every variant of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord
from kneeoa_mm.cohort.joint_space_loss import jsl_48m, jsl_fnih
from kneeoa_mm.cohort.measurement_error import error_sd_mm, false_crossing, mirrored_gains
from kneeoa_mm.cohort.outcomes import has_grade_drop, kl_progression, tkr
from kneeoa_mm.cohort_spec import OutcomesSpec
from kneeoa_mm.records import Outcome

_COLUMNS = ["outcome", "variant", "knees", "events", "risk"]


def sensitivity_table(
    cohort: pd.DataFrame, histories: Sequence[KneeHistory], spec: OutcomesSpec
) -> pd.DataFrame:
    """Count each outcome as defined, weighted for dropout, and by its variants.

    Args:
        cohort: Rows with outcomes and their weights.
        histories: What is known of each row's knee.
        spec: The cohort's settings.

    Returns:
        One row a variant: ``outcome``, ``variant``, ``knees`` with a value, ``events`` and
        ``risk``. Rows on measurement error have only a risk where they come from a formula.
    """
    rows = [*_as_defined(cohort)]
    if any(knee.mjsw_medial_mm for knee in histories):
        rows += _joint_space_loss(histories, spec)
    grades = [knee for knee in histories if len(knee.kl_grades) > 1]
    if grades:
        rows += _kl_progression(grades, spec)
    if any(knee.last_contact_months is not None for knee in histories):
        rows += _replacement(histories, spec)
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"knees": "Int64", "events": "Int64"})


def _as_defined(cohort: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for outcome in Outcome:
        known = cohort[cohort[outcome].notna()]
        if known.empty:
            continue
        value = known[outcome].astype(float)
        rows.append(_row(outcome, "as defined, complete cases", len(known), int(value.sum())))
        weight = known[f"{outcome}_weight"]
        weighted = _row(outcome, "weighted for being observed", len(known), int(value.sum()))
        rows.append({**weighted, "risk": float((value * weight).sum() / weight.sum())})
    return rows


def _joint_space_loss(histories: Sequence[KneeHistory], spec: OutcomesSpec) -> list[dict[str, Any]]:
    threshold_mm, horizon_months = spec.jsl_threshold_mm, spec.jsl_horizon_months
    sd_mm = error_sd_mm(histories, horizon_months=horizon_months)
    records = [
        jsl_48m(knee, threshold_mm=threshold_mm, horizon_months=horizon_months)
        for knee in histories
    ]
    fnih = [
        jsl_fnih(
            knee,
            threshold_mm=threshold_mm,
            months_read=spec.fnih_months,
            kl_grades=spec.fnih_kl_grades,
        )
        for knee in histories
    ]
    rows = []
    for outcome, made, months in (
        (Outcome.JSL_48M, records, (horizon_months,)),
        (Outcome.JSL_FNIH, fnih, spec.fnih_months),
    ):
        gained, read = mirrored_gains(
            histories, made, threshold_mm=threshold_mm, months_read=months
        )
        rows.append(_row(outcome, "gains as large: error alone", read, gained))
        if sd_mm:
            chance = false_crossing(error_sd_mm=sd_mm, threshold_mm=threshold_mm, looks=len(months))
            what = f"expected of knees that lose nothing, reading error {sd_mm:.2f} mm"
            rows.append({"outcome": str(outcome), "variant": what, "risk": chance})
    return rows


def _kl_progression(histories: Sequence[KneeHistory], spec: OutcomesSpec) -> list[dict[str, Any]]:
    def made(counts: bool, knees: Sequence[KneeHistory]) -> list[OutcomeRecord]:
        horizon = spec.kl_horizon_months
        return [
            kl_progression(knee, horizon_months=horizon, step_to_doubtful_counts=counts)
            for knee in knees
        ]

    steady = [knee for knee in histories if not has_grade_drop(knee)]
    return [
        _counted(Outcome.KL_PROGRESSION, "a step from 0 to 1 counts", made(True, histories)),
        _counted(Outcome.KL_PROGRESSION, "a step from 0 to 1 does not", made(False, histories)),
        _counted(
            Outcome.KL_PROGRESSION,
            "without knees whose grade drops",
            made(spec.kl_step_to_doubtful_counts, steady),
        ),
    ]


def _replacement(histories: Sequence[KneeHistory], spec: OutcomesSpec) -> list[dict[str, Any]]:
    def made(counts: Any) -> list[OutcomeRecord]:
        return [
            tkr(knee, horizon_months=spec.tkr_horizon_months, counts=counts) for knee in histories
        ]

    rows = [_counted(Outcome.TKR, "self-reports count, too", made("reported"))]
    if any(knee.is_total is not None for knee in histories):
        rows.insert(0, _counted(Outcome.TKR, "total replacements only", made("total")))
    return rows


def _counted(outcome: Outcome, variant: str, records: Sequence[OutcomeRecord]) -> dict[str, Any]:
    values = [record.value for record in records if record.value is not None]
    return _row(outcome, variant, len(values), sum(values))


def _row(outcome: Outcome, variant: str, knees: int, events: int) -> dict[str, Any]:
    return {
        "outcome": str(outcome),
        "variant": variant,
        "knees": knees,
        "events": events,
        "risk": events / knees if knees else None,
    }
