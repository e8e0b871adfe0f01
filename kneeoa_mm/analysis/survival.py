"""Time to an outcome: incidence, regressions and prognosis (``kneeoa-mm survival``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from kneeoa_mm.analysis import survival_figures as figures
from kneeoa_mm.analysis.covariates import label_of
from kneeoa_mm.analysis.figure_style import save
from kneeoa_mm.analysis.prognosis import judge_models
from kneeoa_mm.analysis.regression import fit_cox, fit_weibull
from kneeoa_mm.analysis.results import (
    OUTCOME_NAMES,
    from_json,
    provenance_of,
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
from kneeoa_mm.config import validate
from kneeoa_mm.errors import InputError
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.run_folder import open_run, write_json
from kneeoa_mm.settings import Settings
from kneeoa_mm.tables import COHORT, PREDICTIONS, PREDICTIONS_FILE, read_table

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
    horizon_months: float = Field(default=48, gt=0)
    """Horizon of model comparisons, and of the predictions' risks."""
    n_boot: int = Field(default=200, ge=0)
    """Draws of persons for the limits that have no formula."""
    seed: int = 0


def survive(
    cohort: Path,
    out: Path,
    *,
    outcome: Outcome | str,
    group: str = "kl_grade",
    covariates: Sequence[str] = COVARIATES,
    predictions: Path | None = None,
    time_scale: str = "study",
    horizon_months: float = 48,
    n_boot: int = 200,
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
            seen are left out.
        time_scale: ``study``, or ``age`` for regressions on age with late entry.
        horizon_months: Horizon of model comparisons, and of the predictions.
        n_boot: Draws of the person bootstrap.
        seed: Of draws and folds.
        overwrite: Replace an earlier analysis in ``out``.

    Returns:
        What was written; ``figures`` holds the concordance.

    Raises:
        InputError: A column is absent, or no knee has the event.
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
    cohort = table_in(cohort, "cohort.parquet")
    risks = None if predictions is None else _risks(predictions, settings.outcome)
    found = _analyse(read_table(cohort, COHORT), risks, settings, where=cohort)
    document = found.document
    asked = {"command": "survival", **settings.model_dump(mode="json")}
    document["provenance"] = asked | provenance_of(cohort)
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
        figures={"harrell_c": document["cox"]["harrell_c"]},
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
    cohort: pd.DataFrame, risks: pd.Series | None, settings: SurvivalSettings, *, where: object
) -> _Found:
    data = read_time_to_event(cohort, settings.outcome, where=where)
    groups = groups_of(data.rows, settings.group, where=where)
    timed = data if settings.time_scale == "study" else data.since_birth()
    # age is the time itself then
    factors = [c for c in settings.covariates if c != "age_years" or timed is data]
    cox = fit_cox(timed, factors, where=where)
    weibull = fit_weibull(timed, factors, where=where)
    prognosis = judge_models(
        data,
        settings.covariates,
        risks,
        horizon_months=settings.horizon_months,
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
    )
    document = document_of(
        data,
        groups,
        estimators,
        cox,
        weibull,
        prognosis.document,
        left_out=timed.left_out,
        horizon_months=settings.horizon_months,
    )
    return _Found(groups, estimators, cox, weibull, document)


def _risks(path: Path, outcome: Outcome) -> pd.Series:
    """Predicted risk of each knee whose person the model has not seen."""
    path = table_in(path, PREDICTIONS_FILE)
    table = read_table(path, PREDICTIONS)
    column = f"{outcome}_prob"
    if column not in table:
        raise InputError(
            f"These predictions have no risk of {outcome}.",
            expected=f"a column {column}",
            found=", ".join(name for name in table if name.endswith("_prob")) or "none",
            where=path,
        )
    usable = table[(table["status"] == "ok") & ~table["seen_in_training"]]
    risks: pd.Series = usable.set_index("knee_id")[column].dropna()
    return risks


def _draw(settings: SurvivalSettings, found: _Found) -> Iterator[tuple[str, Any]]:
    outcome = OUTCOME_NAMES[settings.outcome]
    with_death = "aalen_johansen" if found.estimators.aalen_johansen else "kaplan_meier"
    for name, curves in vars(found.estimators).items():
        by_risk = name == "by_predicted_risk"
        title, ylabel = _CURVE_TITLES[with_death if by_risk else name]
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
