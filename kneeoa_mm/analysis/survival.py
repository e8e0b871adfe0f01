"""Time to an outcome: incidence, regressions and prognosis (``kneeoa-mm survival``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from kneeoa_mm.analysis import looks
from kneeoa_mm.analysis import survival_figures as figures
from kneeoa_mm.analysis.competing import until_rivals
from kneeoa_mm.analysis.covariates import label_of
from kneeoa_mm.analysis.figure_style import save
from kneeoa_mm.analysis.given_risks import Given, read_given
from kneeoa_mm.analysis.prognosis import judge_models
from kneeoa_mm.analysis.regression import fit_cox, fit_weibull
from kneeoa_mm.analysis.results import (
    OUTCOME_NAMES,
    from_json,
    provenance_of,
    sha256_of,
    table_in,
    write_csv,
)
from kneeoa_mm.analysis.survival_document import (
    AFT_COLUMNS,
    COX_COLUMNS,
    INCIDENCE_COLUMNS,
    Estimators,
    curves_of,
    document_of,
    flat,
    interval_curves_of,
)
from kneeoa_mm.analysis.time_models import AftModel, CoxModel
from kneeoa_mm.analysis.time_to_event import Groups, groups_of, read_time_to_event
from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.cohort_spec import OutcomesSpec, horizon_in
from kneeoa_mm.config import validate
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.settings import Seed, Settings
from kneeoa_mm.tables import read_table

SURVIVAL_FILE = "survival.json"
COVARIATES = ("age_years", "sex", "bmi_kg_m2", "knee_injury", "kl_grade")
MODEL_NAMES: Mapping[str, str] = {
    "kl_grade": "KL grade",
    "clinical": "Clinical",
    "clinical_and_kl_grade": "Clinical and KL grade",
    "predictions": "Predictions",
}
"""Models of the prognosis in words; the order is that of figures and tables."""

_CURVE_TITLES = {
    "kaplan_meier": ("Kaplan-Meier", "Cumulative incidence (1 - Kaplan-Meier)"),
    "turnbull": ("events between visits", "Cumulative incidence (Turnbull)"),
    "aalen_johansen": (
        "death as a competing event",
        "Cumulative incidence (Aalen-Johansen)",
    ),
}


class SurvivalSettings(Settings):
    """Settings of ``kneeoa-mm survival``."""

    outcome: Outcome
    group: str = "kl_grade"
    covariates: tuple[str, ...] = COVARIATES
    time_scale: Literal["study", "age"] = "study"
    """Time of the regressions: since baseline, or age with knees under observation since theirs."""
    horizon_months: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Horizon of model comparisons, and of the predictions' risks; None: when the cohort judges the
    outcome."""
    n_boot: int = Field(default=1000, ge=0)
    """Draws of persons for the limits that have no formula."""
    seed: Seed = 0


def survive(
    cohort: Path,
    out: Path,
    *,
    outcome: Outcome | str,
    group: str = "kl_grade",
    covariates: Sequence[str] = COVARIATES,
    predictions: Path | None = None,
    time_scale: str = "study",
    horizon_months: float | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Estimate when an outcome happens, by group, and what goes with it.

    Args:
        cohort: Cohort table, ``.parquet`` or ``.csv``, schema ``COHORT``; or its folder.
        out: Gets ``survival.json``, ``incidence.csv``, ``cox.csv``, ``weibull_aft.csv`` and
            ``figures/``.
        outcome: The event.
        group: Column whose values (or thirds) get a curve each.
        covariates: Columns of the regressions.
        predictions: Table with the risk ``<outcome>_prob`` of knees, schema ``PREDICTIONS``, or the
            folder of a run; judged beside Cox models of the covariates. Persons that the model has
            seen are left out. ``<outcome>_cif_24`` is its risk by 24 months.
        time_scale: ``study``, or ``age`` for regressions on age with late entry.
        horizon_months: Horizon of model comparisons, and of the predictions; None for that at
            which the cohort judges the outcome.
        n_boot: Draws of the person bootstrap.
        seed: Of draws and folds.
        overwrite: Replace an earlier analysis in ``out``.

    Returns:
        What was written; ``figures`` holds the concordance.

    Raises:
        InputError: A column is absent, no knee has the event, or the predictions are of another
            horizon.
        TableError: The table breaks its schema, or its times contradict each other.
        OutputExistsError: ``out`` holds something else.
    """
    settings = validate(
        SurvivalSettings,
        {
            "outcome": outcome,
            "group": group,
            "covariates": tuple(covariates),
            "time_scale": time_scale,
            "horizon_months": horizon_months,
            "n_boot": n_boot,
            "seed": seed,
        },
        where="survival",
    )
    refuse_taken(out, overwrite=overwrite)
    cohort = table_in(cohort, "cohort.parquet")
    defined = horizon_in(cohort.parent, settings.outcome)
    horizon = settings.horizon_months or defined or OutcomesSpec().horizon_of(settings.outcome)
    settings = settings.model_copy(update={"horizon_months": float(horizon)})
    given = None
    if predictions is not None:
        given = read_given(predictions, settings.outcome, horizon_months=horizon, defined=defined)
    table = read_table(cohort, COHORT)
    found = _analyse(table, given, settings, horizon, where=cohort)
    document = found.document
    asked = {"command": "survival", **settings.model_dump(mode="json")}
    document["provenance"] = asked | provenance_of(cohort)
    document["looks"] = None if given is None else _look(table, given)
    document["notes"] += looks.notes_of(document["looks"])
    with open_run(out, config_yaml=settings.to_yaml(), overwrite=overwrite) as run:
        for name, figure in _draw(settings, found):
            save(figure, run / "figures", name)
        write_csv(document["incidence"], INCIDENCE_COLUMNS, run / "incidence.csv")
        for name, ratio, columns in (
            ("cox", "hazard_ratio", COX_COLUMNS),
            ("weibull_aft", "time_ratio", AFT_COLUMNS),
        ):
            terms = [flat(term, ratio) for term in document[name]["terms"]]
            write_csv(terms, columns, run / f"{name}.csv")
        # last, so that a folder that has it is whole
        write_json(run / SURVIVAL_FILE, document)
    return StageResult(
        command="survival",
        out=out,
        outputs={
            "survival": out / SURVIVAL_FILE,
            "incidence": out / "incidence.csv",
            "cox": out / "cox.csv",
            "weibull_aft": out / "weibull_aft.csv",
            "figures": out / "figures",
        },
        counts=document["counts"],
        figures=_headline(document["prognosis"]),
        notes=tuple(document["notes"]),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


@dataclass(frozen=True)
class _Found:
    """What the analysis found; ``document`` is ``survival.json`` but its provenance."""

    groups: Groups
    estimators: Estimators
    cox: CoxModel
    weibull: AftModel
    document: dict[str, Any]


def _analyse(
    cohort: pd.DataFrame,
    given: Given | None,
    settings: SurvivalSettings,
    horizon_months: float,
    *,
    where: object,
) -> _Found:
    data = read_time_to_event(cohort, settings.outcome, where=where)
    groups = groups_of(data.rows, settings.group, where=where)
    timed = data if settings.time_scale == "study" else data.since_birth()
    # age is the time itself then
    factors = [c for c in settings.covariates if c != "age_years" or timed is data]
    cox = fit_cox(timed, factors, where=where)
    weibull = fit_weibull(timed, factors, where=where)
    judged = data
    if given is not None and given.predicted.is_incidence:
        of_rivals = until_rivals(cohort, settings.outcome)
        judged = read_time_to_event(of_rivals, settings.outcome, where=where)
    prognosis = judge_models(
        judged,
        settings.covariates,
        None if given is None else given.predicted,
        horizon_months=horizon_months,
        n_boot=settings.n_boot,
        seed=settings.seed,
        where=where,
    )
    with_death = data.with_death()
    between = data.has_intervals()
    estimators = Estimators(
        kaplan_meier=curves_of(data.months, data.event, data, groups),
        turnbull=interval_curves_of(data, groups, n_boot=settings.n_boot, seed=settings.seed)
        if between
        else {},
        aalen_johansen=curves_of(*with_death, data, groups) if with_death else {},
        by_predicted_risk=prognosis.curves,
        turnbull_by_predicted_risk=prognosis.interval_curves,
    )
    document = document_of(
        data,
        groups,
        estimators,
        cox,
        weibull,
        prognosis.document,
        left_out=timed.left_out,
        unknown=_unknown_by_reason(cohort, settings.outcome),
        horizon_months=horizon_months,
    )
    return _Found(groups, estimators, cox, weibull, document)


def _unknown_by_reason(cohort: pd.DataFrame, outcome: Outcome) -> dict[str, int]:
    """Knees without an event status: those not at risk, and those of whom nothing is known."""
    absent = cohort[cohort[f"{outcome}_event_observed"].isna()]
    reasons = absent.get(f"{outcome}_reason", pd.Series(None, absent.index, dtype=object))
    return {str(why): int(n) for why, n in reasons.fillna("no reason").value_counts().items()}


def _look(cohort: pd.DataFrame, given: Given) -> dict[str, Any] | None:
    """Log that risks of held-out knees were judged, and count the looks."""
    known = set(given.predicted.risks.index)
    held_out = {*looks.held_out_knees(cohort), *given.held_out}
    return looks.log_look(
        looks.log_beside(given.path),
        command="survival",
        run=given.path.parent.resolve().name,
        predictions_sha256=sha256_of(given.path),
        knees=known & held_out & set(cohort["knee_id"]),
        metrics=("uno_c", "auroc", "brier", "integrated_brier"),
    )


def _headline(prognosis: Mapping[str, Any]) -> dict[str, Any]:
    """Uno's C of the risk that thirds are made of, or why there is none."""
    model = prognosis["models"].get(prognosis.get("shown"), {})
    why = prognosis["reason"] or "no model with a covariate could be judged"
    return {"uno_c": model.get("uno_c", {"value": None, "reason": why})}


def _draw(settings: SurvivalSettings, found: _Found) -> Iterator[tuple[str, Any]]:
    outcome = OUTCOME_NAMES[settings.outcome]
    by_third = "aalen_johansen" if found.estimators.rivals_by_risk() else "kaplan_meier"
    estimator_of = {"by_predicted_risk": by_third, "turnbull_by_predicted_risk": "turnbull"}
    for name, curves in vars(found.estimators).items():
        by_risk = name in estimator_of
        title, ylabel = _CURVE_TITLES[estimator_of.get(name, name)]
        if curves:
            yield (
                name,
                figures.incidence(
                    curves,
                    title=f"{outcome}: {'by predicted risk' if by_risk else title}",
                    ylabel=ylabel,
                    group="Predicted risk" if by_risk else label_of(found.groups.name),
                    ordered=by_risk or found.groups.ordered,
                ),
            )
    models: tuple[tuple[str, CoxModel | AftModel, str], ...] = (
        ("Cox model", found.cox, "Hazard ratio"),
        ("Weibull model of intervals", found.weibull, "Time ratio"),
    )
    for title, model, xlabel in models:
        if model.reason is None:
            ratios = {line.term.label: line.ratio for line in model.terms}
            name = "cox" if model is found.cox else "weibull_aft"
            yield name, figures.ratios(ratios, title=f"{outcome}: {title}", xlabel=xlabel)
    over_time = {
        MODEL_NAMES[name]: [(row["months"], from_json(row)) for row in model["auroc_by_months"]]
        for name, model in found.document["prognosis"]["models"].items()
        if "auroc_by_months" in model
    }
    if over_time:
        title = f"{outcome}: AUROC by horizon, of persons the models never saw"
        yield "auroc_by_months", figures.over_time(over_time, title=title)
