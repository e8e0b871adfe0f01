"""Predictions and their truth to metrics with intervals, and figures (``kneeoa-mm evaluate``).

Only knees that a model can be judged on count; whatever is left out is counted and said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from kneeoa_mm.analysis import figures
from kneeoa_mm.analysis.comparison_figures import decision_curve
from kneeoa_mm.analysis.figure_style import save
from kneeoa_mm.analysis.figures import Scored
from kneeoa_mm.analysis.results import OUTCOME_NAMES, as_json, provenance_of, table_in, write_csv
from kneeoa_mm.analysis.targets import KL, Target, read_targets
from kneeoa_mm.config import Settings, validate
from kneeoa_mm.metrics import (
    CURVE_THRESHOLDS,
    binary_estimates,
    bootstrap_weights,
    kl_estimates,
    net_benefit,
    treat_all,
)
from kneeoa_mm.progress import say
from kneeoa_mm.records import UNKNOWN, Estimate, Outcome, StageResult
from kneeoa_mm.run_folder import open_run, write_json
from kneeoa_mm.tables import PREDICTIONS, read_table

METRICS_FILE = "metrics.json"
FIGURES_FOLDER = "figures"
THRESHOLDS = (0.1, 0.2, 0.3)
"""Where decisions are judged unless other risks are stated."""
_COLUMNS = ("target", "metric", "value", "ci_low", "ci_high", "n", "reason")


class EvaluateSettings(Settings):
    """Settings of ``kneeoa-mm evaluate``."""

    outcomes: tuple[Outcome, ...] | None = None
    """None: every outcome of which the table has truth and probability."""
    n_boot: int = Field(default=1000, ge=0)
    """Bootstrap draws of persons; 0 gives no intervals."""
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = THRESHOLDS
    """Risks of an outcome at which decisions are judged; state them before you look."""
    seed: int = 0


def evaluate(
    predictions: Path,
    out: Path,
    *,
    outcomes: Sequence[Outcome | str] | None = None,
    n_boot: int = 1000,
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Judge a prediction table by the truth in it.

    Args:
        predictions: Table of predictions, ``.parquet`` or ``.csv``, schema ``PREDICTIONS``; or the
            folder of a run that has a ``predictions.parquet``.
        out: Gets ``metrics.json``, ``metrics.csv`` and ``figures/``.
        outcomes: Progression outcomes to judge; None for all that the table allows.
        n_boot: Draws of the person-clustered bootstrap.
        thresholds: Risks, stated beforehand, at which decisions on an outcome are judged.
        seed: Seed of the draws.
        overwrite: Replace an earlier evaluation in ``out``.

    Returns:
        What was written; ``figures`` holds the metrics.

    Raises:
        InputError: Nothing in the table can be judged.
        TableError: The table breaks its schema, or grade probabilities do not sum to 1.
        OutputExistsError: ``out`` holds something else.
    """
    asked = {"outcomes": outcomes, "n_boot": n_boot, "thresholds": tuple(thresholds), "seed": seed}
    settings = validate(EvaluateSettings, asked, where="evaluate")
    predictions = table_in(predictions, "predictions.parquet")
    table = read_table(predictions, PREDICTIONS)
    targets, left_out = read_targets(table, settings.outcomes, where=predictions)
    document: dict[str, Any] = {
        **{target.name: {} for target in targets},
        "confusion_matrix": {target.name: target.confusion().tolist() for target in targets},
        "counts": {target.name: target.counts() for target in targets},
        "left_out": left_out,
        "provenance": {
            "command": "evaluate",
            **provenance_of(predictions),
            "n_boot": settings.n_boot,
            "seed": settings.seed,
            "intervals": "95 %, percentiles of a bootstrap that draws persons",
        },
    }
    document["notes"] = _notes(document, targets, table)
    with open_run(out, config_yaml=settings.to_yaml(), overwrite=overwrite) as run:
        document |= {target.name: _metrics(target, settings) for target in targets}
        write_csv(_rows(document, targets), _COLUMNS, run / "metrics.csv")
        for name, figure in (each for target in targets for each in draw(target)):
            save(figure, run / FIGURES_FOLDER, name)
        # last, so that a folder that has it is whole
        write_json(run / METRICS_FILE, document)
    return StageResult(
        command="evaluate",
        out=out,
        outputs={
            "metrics": out / METRICS_FILE,
            "table": out / "metrics.csv",
            "figures": out / FIGURES_FOLDER,
        },
        counts={f"{target.name}_knees": len(target.truth) for target in targets},
        figures={target.name: document[target.name] for target in targets},
        notes=tuple(document["notes"]),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _rows(document: Mapping[str, Any], targets: Sequence[Target]) -> list[dict[str, Any]]:
    return [
        {"target": target.name, "metric": name, **estimate}
        for target in targets
        for name, estimate in document[target.name].items()
    ]


def _metrics(target: Target, settings: EvaluateSettings) -> dict[str, dict[str, Any]]:
    say(f"evaluate: {target.name} on {len(target.truth)} knees, {settings.n_boot} draws of persons")
    estimates = estimates_of(
        target, n_boot=settings.n_boot, thresholds=settings.thresholds, seed=settings.seed
    )
    return {name: as_json(estimate) for name, estimate in estimates.items()}


def estimates_of(
    target: Target, *, n_boot: int, thresholds: tuple[float, ...] = (), seed: int
) -> dict[str, Estimate]:
    """All metrics of a target, with person-clustered intervals."""
    one_person = len(np.unique(target.persons)) < 2
    # draws of a single person are all the same, and their interval would look like certainty
    n_boot = 0 if one_person else n_boot
    weights = bootstrap_weights(target.persons, n_boot=n_boot, seed=seed)
    if target.name == KL:
        estimates = kl_estimates(
            target.truth, target.predicted, target.probability, target.sets, weights
        )
    else:
        estimates = binary_estimates(
            target.truth, target.probability, weights, thresholds=thresholds
        )
    if one_person and len(target.truth):
        reason = "all knees are of one person, so there is no interval"
        estimates = {
            name: replace(estimate, reason=reason) if estimate.value is not None else estimate
            for name, estimate in estimates.items()
        }
    return estimates


def _notes(
    document: Mapping[str, Any], targets: Sequence[Target], table: pd.DataFrame
) -> list[str]:
    left_out = document["left_out"]
    source = document["provenance"].get("source_provenance", {})
    notes = []
    if part := source.get("part"):
        notes.append(f"The predictions are of this part of the data: {part}.")
    if taught := source.get("calibration"):
        notes.append(f"Temperature and sets of grades were calibrated: {taught}.")
    if left_out["seen_in_training"]:
        notes.append(
            f"{left_out['seen_in_training']} knees were left out: the model has seen their persons."
        )
    if left_out["not_ok"]:
        failed = ", ".join(f"{n} {status}" for status, n in left_out["not_ok"].items())
        notes.append(f"Knees without a prediction were left out: {failed}.")
    for target in targets:
        if number := left_out["no_truth"][target.name]:
            notes.append(f"{target.name}: {number} knees have no truth.")
        if number := left_out["no_prediction"][target.name]:
            notes.append(f"{target.name}: {number} knees have a truth but no probability.")
        if len(target.truth) and len(np.unique(target.truth)) < 2:
            notes.append(f"{target.name}: one class only, so there is no ROC curve.")
    if (table["subject_id"] == UNKNOWN).any():
        notes.append(
            "Some subjects are unknown: each of their knees counts as a person, so intervals may "
            "be too narrow, and whether the model has seen them cannot be told."
        )
    return notes


def draw(target: Target) -> Iterator[tuple[str, Figure]]:
    """The figures of a target, each with the name of its file."""
    if not len(target.truth):
        return
    title = _title(target)
    yield (
        f"{target.name}_confusion_matrix",
        figures.confusion_matrix(target.confusion(), target.labels, title=f"{title}: confusion"),
    )
    curves = _curves(target)
    if curves:
        against = ", one against the rest" if target.name == KL else ""
        yield f"{target.name}_roc", figures.roc(curves, title=f"{title}: ROC{against}")
        yield (
            f"{target.name}_precision_recall",
            figures.precision_recall(curves, title=f"{title}: precision and recall"),
        )
    if target.name == KL:
        confidence = target.probability[np.arange(len(target.truth)), target.predicted]
        right = (target.truth == target.predicted).astype(np.int64)
        scored = Scored(right, confidence)
        xlabel, ylabel = "Probability of the predicted grade", "Share predicted correctly"
    else:
        scored = Scored(target.truth, target.probability)
        xlabel, ylabel = "Predicted probability", "Observed share of events"
        yield f"{target.name}_decision_curve", _decision_curve(target)
    yield (
        f"{target.name}_calibration",
        figures.reliability(
            {title: scored}, title=f"{title}: calibration", xlabel=xlabel, ylabel=ylabel
        ),
    )


def _decision_curve(target: Target) -> Figure:
    return decision_curve(
        [net_benefit(t)(target.truth, target.probability) for t in CURVE_THRESHOLDS],
        [treat_all(t)(target.truth, target.probability) for t in CURVE_THRESHOLDS],
        thresholds=CURVE_THRESHOLDS,
        title=f"{_title(target)}: decision curve",
    )


def _title(target: Target) -> str:
    return "KL grade" if target.name == KL else OUTCOME_NAMES[target.name]


def _curves(target: Target) -> dict[str, Scored]:
    """One curve for an outcome, one a grade for KL; classes that are absent have none."""
    if len(np.unique(target.truth)) < 2:
        return {}
    if target.name != KL:
        return {_title(target): Scored(target.truth, target.probability)}
    return {
        f"KL {grade}": Scored(
            (target.truth == grade).astype(np.int64), target.probability[:, grade]
        )
        for grade in np.unique(target.truth)
    }
