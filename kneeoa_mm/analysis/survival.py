"""Time to progression or replacement: incidence by group and a Cox model (``kneeoa-mm survival``).

The only module that knows lifelines.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from kneeoa_mm.analysis import figures
from kneeoa_mm.analysis.covariates import Term, design, label_of
from kneeoa_mm.analysis.efron import (
    clustered_variance,
    efron_residuals,
    proportional_hazards_p_values,
)
from kneeoa_mm.analysis.figure_style import save
from kneeoa_mm.analysis.nonparametric import harrell_c
from kneeoa_mm.analysis.results import OUTCOME_NAMES, provenance_of, table_in, write_csv
from kneeoa_mm.analysis.survival_document import (
    COX_COLUMNS,
    INCIDENCE_COLUMNS,
    CoxModel,
    CoxTerm,
    Curves,
    curves_of,
    document_of,
    flat,
)
from kneeoa_mm.analysis.time_to_event import (
    Groups,
    TimeToEvent,
    groups_of,
    read_time_to_event,
)
from kneeoa_mm.config import Settings, validate
from kneeoa_mm.records import Estimate, Outcome, StageResult
from kneeoa_mm.run_folder import open_run, write_json
from kneeoa_mm.tables import COHORT, read_table

SURVIVAL_FILE = "survival.json"
COVARIATES = ("age_years", "sex", "bmi_kg_m2", "knee_injury", "kl_grade")
_FEW_EVENTS_A_TERM = 10
_Z = float(ndtri(0.975))


class SurvivalSettings(Settings):
    """Settings of ``kneeoa-mm survival``."""

    outcome: Outcome
    group: str = "kl_grade"
    covariates: tuple[str, ...] = COVARIATES


def fit_cox(data: TimeToEvent, covariates: Sequence[str], *, where: object = "") -> CoxModel:
    """Fit a Cox proportional-hazards model with person-clustered standard errors.

    lifelines maximises Efron's likelihood; ``efron`` has the sandwich variance and the test for
    proportional hazards.

    Args:
        data: Knees with follow-up.
        covariates: Columns of ``data.rows``.
        where: Named in errors.

    Raises:
        InputError: A covariate is no column, or has too many levels.
    """
    matrix = design(data.rows, covariates, data.event, where=where)
    months, event = data.months[matrix.kept], data.event[matrix.kept]
    persons = data.persons[matrix.kept]

    def without(reason: str) -> CoxModel:
        lines = tuple(CoxTerm(t, Estimate(None, n=len(event), reason=reason)) for t in matrix.terms)
        return CoxModel(lines + empty, len(event), int(event.sum()), matrix.notes, reason=reason)

    empty = tuple(
        CoxTerm(term, Estimate(None, n=len(event), reason=reason))
        for term, reason in matrix.not_estimable.items()
    )
    if not matrix.terms:
        return without("no covariate is left")
    if event.sum() <= len(matrix.terms):
        return without(f"{event.sum()} events are too few for {len(matrix.terms)} terms")
    try:
        coefficients, variance, warned = _fit(matrix.columns, months, event)
    except (ConvergenceError, np.linalg.LinAlgError, ValueError) as error:
        return without(f"the fit does not converge: {str(error).splitlines()[0]}")
    residuals = efron_residuals(matrix.columns, months, event, coefficients)
    clustered = clustered_variance(residuals.score, persons, variance)
    changes = proportional_hazards_p_values(residuals.schoenfeld, months[event == 1], variance)
    lines = tuple(
        _line(term, coefficient, error, change, n=len(event))
        for term, coefficient, error, change in zip(
            matrix.terms, coefficients, np.sqrt(np.diag(clustered)), changes, strict=True
        )
    )
    notes = [*matrix.notes, *warned]
    if event.sum() < _FEW_EVENTS_A_TERM * len(matrix.terms):
        notes.append(f"{event.sum()} events for {len(matrix.terms)} terms: ratios are unstable.")
    concordance = harrell_c(months, event, matrix.columns @ coefficients, persons)
    return CoxModel(lines + empty, len(event), int(event.sum()), tuple(notes), concordance)


def _line(
    term: Term, coefficient: float, standard_error: float, change: float, *, n: int
) -> CoxTerm:
    limits = coefficient + _Z * standard_error * np.array([-1, 1])
    ratio, low, high = (float(each) for each in np.exp([coefficient, *limits]))
    p_value = float(2 * ndtr(-abs(coefficient) / standard_error))
    return CoxTerm(
        term, Estimate(ratio, low, high, n), p_value, float(change) if change >= 0 else None
    )


def _fit(
    columns: NDArray[np.float64], months: NDArray[np.float64], event: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Log hazard ratios (p,), their inverse information (p, p), and what lifelines warns of."""
    frame = pd.DataFrame(columns).add_prefix("x").assign(months=months, event=event)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = CoxPHFitter().fit(frame, duration_col="months", event_col="event")
    coefficients, variance = model.params_.to_numpy(), model.variance_matrix_.to_numpy()
    if not (np.isfinite(coefficients).all() and (np.diag(variance) > 0).all()):
        raise ConvergenceError("a coefficient is not finite")
    warned = sorted({str(w.message).strip().splitlines()[0] for w in caught})
    return coefficients, variance, [f"lifelines warns: {text}" for text in warned]


def survive(
    cohort: Path,
    out: Path,
    *,
    outcome: Outcome | str,
    group: str = "kl_grade",
    covariates: Sequence[str] = COVARIATES,
    overwrite: bool = False,
) -> StageResult:
    """Estimate when an outcome happens, by group, and what goes with it.

    Args:
        cohort: Cohort table, ``.parquet`` or ``.csv``, schema ``COHORT``; or its folder.
        out: Gets ``survival.json``, ``incidence.csv``, ``cox.csv`` and ``figures/``.
        outcome: The event.
        group: Column whose values (or thirds) get a curve each.
        covariates: Columns of the Cox model.
        overwrite: Replace an earlier analysis in ``out``.

    Returns:
        What was written; ``figures`` holds the concordance and the hazard ratios.

    Raises:
        InputError: A column is absent, or no knee has the event.
        TableError: The table breaks its schema, or its times contradict each other.
        OutputExistsError: ``out`` holds something else.
    """
    chosen = {"outcome": outcome, "group": group, "covariates": tuple(covariates)}
    settings = validate(SurvivalSettings, chosen, where="survival")
    cohort = table_in(cohort, "cohort.parquet")
    data = read_time_to_event(read_table(cohort, COHORT), settings.outcome, where=cohort)
    groups = groups_of(data.rows, settings.group, where=cohort)
    curves = curves_of(data.months, data.event, data, groups)
    with_death = data.with_death()
    competing = curves_of(*with_death, data, groups) if with_death else {}
    cox = fit_cox(data, settings.covariates, where=cohort)
    asked = {"command": "survival", **settings.model_dump(mode="json")}
    document = document_of(data, groups, curves, competing, cox)
    document["provenance"] = asked | provenance_of(cohort)
    with open_run(out, config_yaml=settings.to_yaml(), overwrite=overwrite) as run:
        for name, figure in _draw(settings, groups, curves, competing, cox):
            save(figure, run / "figures", name)
        write_csv(document["incidence"], INCIDENCE_COLUMNS, run / "incidence.csv")
        write_csv([flat(term) for term in document["cox"]["terms"]], COX_COLUMNS, run / "cox.csv")
        # last, so that a folder that has it is whole
        write_json(run / SURVIVAL_FILE, document)
    return StageResult(
        command="survival",
        out=out,
        outputs={
            "survival": out / SURVIVAL_FILE,
            "incidence": out / "incidence.csv",
            "cox": out / "cox.csv",
            "figures": out / "figures",
        },
        counts=document["counts"],
        figures={"harrell_c": document["cox"]["harrell_c"]},
        notes=tuple(document["notes"]),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _draw(
    settings: SurvivalSettings, groups: Groups, curves: Curves, competing: Curves, cox: CoxModel
) -> Iterator[tuple[str, Any]]:
    title = OUTCOME_NAMES[settings.outcome]
    yield (
        "kaplan_meier",
        figures.incidence(
            curves,
            title=f"{title}: Kaplan-Meier",
            ylabel="Cumulative incidence (1 - Kaplan-Meier)",
            group=label_of(groups.name),
            ordered=groups.ordered,
        ),
    )
    if competing:
        yield (
            "aalen_johansen",
            figures.incidence(
                competing,
                title=f"{title}: death as a competing event",
                ylabel="Cumulative incidence (Aalen-Johansen)",
                group=label_of(groups.name),
                ordered=groups.ordered,
            ),
        )
    if cox.reason is None:
        ratios = {line.term.label: line.ratio for line in cox.terms}
        yield "cox", figures.hazard_ratios(ratios, title=f"{title}: Cox model")
