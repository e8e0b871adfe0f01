"""Predictions and their truth to metrics with intervals, and figures (``kneeoa-mm evaluate``).

Only knees that a model can be judged on count; whatever is left out is counted and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from kneeoa_mm.analysis.estimates import (
    ESTIMANDS,
    beside_the_grade,
    estimates_of,
    has_value,
    mark_exploratory,
    named_by,
    per_grade,
    places_of,
    ranking_of,
)
from kneeoa_mm.analysis.evaluation_figures import curves_of, draw
from kneeoa_mm.analysis.evaluation_notes import notes_of
from kneeoa_mm.analysis.external import (
    external_validation,
    read_development,
    refuse_overlap,
)
from kneeoa_mm.analysis.figure_style import save
from kneeoa_mm.analysis.looks import held_out_knees, log_beside, log_look
from kneeoa_mm.analysis.prespecified import (
    EXPLORATORY,
    Prespecified,
    read_plan,
    thresholds_of,
)
from kneeoa_mm.analysis.results import provenance_of, sha256_of, table_in, write_csv
from kneeoa_mm.analysis.subgroups import (
    BANDS,
    FACTORS,
    MIN_PERSONS,
    Bands,
    metrics_of,
    subgroups_of,
)
from kneeoa_mm.analysis.targets import KL, Target, read_targets
from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.config import validate
from kneeoa_mm.errors import InputError
from kneeoa_mm.progress import say
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.run_folder import open_run
from kneeoa_mm.schemas import COHORT, PREDICTIONS, PREDICTIONS_FILE
from kneeoa_mm.settings import Seed, Settings
from kneeoa_mm.tables import read_table

METRICS_FILE = "metrics.json"
FIGURES_FOLDER = "figures"
THRESHOLDS = (0.1, 0.2, 0.3)
"""Where decisions are judged unless other risks are stated."""
_ESTIMATE = ("value", "ci_low", "ci_high", "n", "reason", "note", EXPLORATORY)
_COLUMNS = ("target", "estimand", "metric", *_ESTIMATE)
_SUBGROUP_COLUMNS = (
    "target",
    "factor",
    "level",
    "knees",
    "persons",
    "events",
    "metric",
    *_ESTIMATE,
    "heterogeneity_p",
    "heterogeneity_p_adjusted",
)


class EvaluateSettings(Settings):
    """Settings of ``kneeoa-mm evaluate``."""

    outcomes: tuple[Outcome, ...] | None = None
    """None: every outcome of which the table has truth and probability."""
    n_boot: int = Field(default=1000, ge=0)
    """Bootstrap draws of persons; 0 gives no intervals."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = THRESHOLDS
    """Risks of an outcome at which decisions are judged; state them before you look."""
    subgroups: tuple[str, ...] = FACTORS
    """Columns of the predictions or the cohort in whose levels figures are given."""
    bands: Bands = BANDS
    """Of subgroups by a number."""
    min_persons: int = Field(default=MIN_PERSONS, ge=1)
    """A subgroup of fewer has no figures."""
    held_out: bool = False
    """All knees were held out: log the look at them."""
    seed: Seed = 0


def evaluate(
    predictions: Path,
    out: Path,
    *,
    outcomes: Sequence[Outcome | str] | None = None,
    n_boot: int = 1000,
    thresholds: Sequence[float] | None = None,
    cohort: Path | None = None,
    subgroups: Sequence[str] | None = None,
    prespecified: Path | None = None,
    external_to: Path | None = None,
    held_out: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Judge a prediction table by the truth in it.

    Args:
        predictions: Table of predictions, ``.parquet`` or ``.csv``, schema ``PREDICTIONS``; or the
            folder of a run that has a ``predictions.parquet``.
        out: Gets ``metrics.json``, ``metrics.csv``, ``subgroups.csv`` and ``figures/``.
        outcomes: Progression outcomes to judge; None for all that the table allows.
        n_boot: Draws of the person-clustered bootstrap.
        thresholds: Risks, stated beforehand, at which decisions on an outcome are judged; None for
            those of the plan, or else ``THRESHOLDS``. Those of the plan are always judged.
        cohort: Output folder of ``cohort``, or a cohort table: factors of subgroups, and the split.
        subgroups: Columns that make subgroups; None for those that every cohort may have. Those of
            the plan are always judged.
        prespecified: What was decided beforehand, a file of ``prespecified.Plan``.
        external_to: Run that made the predictions, where these are of another cohort than its own.
        held_out: The knees were held out, whatever the table says; the look at them is logged.
        seed: Seed of the draws.
        overwrite: Replace an earlier evaluation in ``out``.

    Returns:
        What was written; ``figures`` holds the metrics.

    Raises:
        InputError: Nothing in the table can be judged, the cohort has none of its knees, or a look
            could not be logged.
        TableError: The table breaks its schema, or grade probabilities do not sum to 1.
        LeakError: With ``external_to``, the model has seen a person of the table.
        OutputExistsError: ``out`` holds something else.
    """
    plan = read_plan(prespecified) if prespecified else None
    asked = {
        "outcomes": outcomes,
        "n_boot": n_boot,
        "thresholds": thresholds_of(plan, thresholds, THRESHOLDS),
        **_chosen(plan, subgroups),
        "held_out": held_out or external_to is not None,
        "seed": seed,
    }
    settings = validate(EvaluateSettings, asked, where="evaluate")
    named = plan is not None and plan.plan.thresholds
    stated = "in the plan" if named else "with the command" if thresholds else "by default"
    predictions = table_in(predictions, PREDICTIONS_FILE)
    table = read_table(predictions, PREDICTIONS)
    targets, left_out = read_targets(table, settings.outcomes, where=predictions)
    factors = _factors(table, cohort)
    development = read_development(external_to) if external_to else None
    if development:
        refuse_overlap(development, table, where=predictions)
    document: dict[str, Any] = {
        **{target.name: {} for target in targets},
        "estimands": dict(ESTIMANDS),
        "ranking": {target.name: ranking_of(target) for target in targets},
        "confusion_matrix": {target.name: target.confusion().tolist() for target in targets},
        "counts": {target.name: target.counts() for target in targets},
        "left_out": left_out,
        "provenance": _provenance(predictions, cohort, settings, stated=stated),
    }
    with open_run(out, config_yaml=settings.to_yaml(), overwrite=overwrite) as run:
        document |= _figures(targets, factors, settings)
        document["external"] = development and external_validation(
            development, table, targets, n_boot=settings.n_boot, seed=settings.seed
        )
        document["prespecified"] = plan and _judge_plan(document, plan)
        document["looks"] = _look(document, targets, factors, predictions, settings)
        document["notes"] = notes_of(document, targets, factors)
        write_csv(_rows(document, targets), _COLUMNS, run / "metrics.csv")
        write_csv(_subgroup_rows(document, targets), _SUBGROUP_COLUMNS, run / "subgroups.csv")
        for target in targets:
            for name, figure in draw(target, document):
                save(figure, run / FIGURES_FOLDER, name)
        # last, so that a folder that has it is whole
        write_json(run / METRICS_FILE, document)
    return StageResult(
        command="evaluate",
        out=out,
        outputs={
            "metrics": out / METRICS_FILE,
            "table": out / "metrics.csv",
            "subgroups": out / "subgroups.csv",
            "figures": out / FIGURES_FOLDER,
        },
        counts={f"{target.name}_knees": len(target.truth) for target in targets},
        figures={target.name: document[target.name] for target in targets},
        notes=tuple(document["notes"]),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _chosen(plan: Prespecified | None, subgroups: Sequence[str] | None) -> dict[str, Any]:
    """Subgroups and bands: those of the plan, and what was asked for beside it."""
    if plan is None:
        return {"subgroups": subgroups or FACTORS}
    named = [*plan.plan.subgroups, *(subgroups or FACTORS)]
    return {"subgroups": tuple(dict.fromkeys(named)), "bands": {**BANDS, **plan.plan.bands}}


def _factors(table: pd.DataFrame, cohort: Path | None) -> pd.DataFrame:
    """Columns of the predictions by ``knee_id``, with those of the cohort that they lack."""
    own = table.set_index("knee_id", drop=False)
    if cohort is None:
        return own
    path = table_in(cohort, "cohort.parquet")
    rows = read_table(path, COHORT).set_index("knee_id")
    # it would give no factor, and no split by which looks at held-out knees are logged
    if len(own) and not own.index.isin(rows.index).any():
        raise InputError(
            "The cohort has none of the knees of the predictions.",
            expected=f"knees such as {own.index[0]}",
            found=f"{len(rows)} others" + (f", such as {rows.index[0]}" if len(rows) else ""),
            where=path,
            fix="name the cohort of these predictions; its knees are of baseline, and its ids kept "
            "or hashed as theirs",
        )
    return own.join(rows[[name for name in rows if name not in own]])


def _provenance(
    predictions: Path, cohort: Path | None, settings: EvaluateSettings, *, stated: str
) -> dict[str, Any]:
    cohort_file = cohort and table_in(cohort, "cohort.parquet")
    return {
        "command": "evaluate",
        **provenance_of(predictions),
        "cohort_sha256": cohort_file and sha256_of(cohort_file),
        "n_boot": settings.n_boot,
        "seed": settings.seed,
        "thresholds": list(settings.thresholds),
        "thresholds_stated": stated,
        "intervals": "95 %, percentiles of a bootstrap that draws persons",
    }


def _figures(
    targets: Sequence[Target], factors: pd.DataFrame, settings: EvaluateSettings
) -> dict[str, Any]:
    """The parts of ``metrics.json`` that the draws of persons make."""
    parts: dict[str, Any] = {
        name: {} for name in ("per_person", "per_grade", "curves", "subgroups")
    }
    for target in targets:
        name = target.name
        say(f"evaluate: {name} on {len(target.truth)} knees, {settings.n_boot} draws of persons")
        weights = target.draws(n_boot=settings.n_boot, seed=settings.seed)
        for part, per_person in ((parts, False), (parts["per_person"], True)):
            part[name] = estimates_of(
                target, weights, thresholds=settings.thresholds, per_person=per_person
            )
            if name != KL:
                grades = _grades(factors, target)
                part[name] |= beside_the_grade(target, grades, weights, per_person=per_person)
        if name == KL:
            parts["per_grade"] = per_grade(target, weights)
        parts["curves"][name] = curves_of(target)
        parts["subgroups"][name] = subgroups_of(
            target,
            factors,
            weights,
            factors=settings.subgroups,
            bands=settings.bands,
            min_persons=settings.min_persons,
        )
    return parts


def _grades(factors: pd.DataFrame, target: Target) -> NDArray[np.float64]:
    """Read grade of each judged knee, NaN where there is none, (n,)."""
    if "kl_grade" not in factors:
        return np.full(len(target.knee_ids), np.nan)
    grades = factors["kl_grade"].reindex(target.knee_ids)
    return np.asarray(grades.to_numpy(np.float64, na_value=np.nan), dtype=np.float64)


def _judge_plan(document: Mapping[str, Any], plan: Prespecified) -> dict[str, Any]:
    mark_exploratory(document, plan.plan)
    computed = (place for place, figure in places_of(document) if has_value(figure))
    return plan.judge(computed, named_by(plan.plan))


def _look(
    document: Mapping[str, Any],
    targets: Sequence[Target],
    factors: pd.DataFrame,
    predictions: Path,
    settings: EvaluateSettings,
) -> dict[str, Any] | None:
    """Log that held-out knees were looked at, and count the looks."""
    judged = set(np.concatenate([target.knee_ids for target in targets]))
    knees = judged if settings.held_out else judged.intersection(held_out_knees(factors))
    return log_look(
        log_beside(predictions),
        command="evaluate",
        run=predictions.parent.resolve().name,
        predictions_sha256=sha256_of(predictions),
        knees=knees,
        metrics=(place for place, _ in places_of(document)),
        held_out="declared" if settings.held_out else "split test",
    )


def _rows(document: Mapping[str, Any], targets: Sequence[Target]) -> list[dict[str, Any]]:
    return [
        {"target": target.name, "estimand": estimand, "metric": name, **estimate}
        for estimand, figures in (("per_knee", document), ("per_person", document["per_person"]))
        for target in targets
        for name, estimate in figures[target.name].items()
    ]


def _subgroup_rows(document: Mapping[str, Any], targets: Sequence[Target]) -> list[dict[str, Any]]:
    return [
        {
            "target": target.name,
            "factor": name,
            "level": level,
            **{key: found[key] for key in ("knees", "persons", "events")},
            "metric": metric,
            **found[metric],
            "heterogeneity_p": factor["heterogeneity"][metric]["p_value"],
            "heterogeneity_p_adjusted": factor["heterogeneity"][metric].get("adjusted_p_value"),
            EXPLORATORY: factor.get(EXPLORATORY),
        }
        for target in targets
        for name, factor in document["subgroups"][target.name].items()
        for level, found in factor["levels"].items()
        for metric in metrics_of(target)
    ]
