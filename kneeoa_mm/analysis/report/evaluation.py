"""Sections of the report on what came out: comparison, evaluation, survival."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kneeoa_mm.analysis import figures
from kneeoa_mm.analysis.covariates import label_of
from kneeoa_mm.analysis.evaluation import FIGURES_FOLDER, METRICS_FILE
from kneeoa_mm.analysis.report_parts import (
    Section,
    Table,
    Tile,
    bar_of,
    figure_picture,
    flat_provenance,
    read_document,
    show,
    show_interval,
    tile_of,
)
from kneeoa_mm.analysis.results import OUTCOME_NAMES, from_json, sha256_of
from kneeoa_mm.analysis.survival import SURVIVAL_FILE
from kneeoa_mm.analysis.targets import KL
from kneeoa_mm.records import Estimate, Outcome

COMPARE_FILE = "compare.json"
_HORIZON_MONTHS = 48
_METRIC_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "macro_f1": "Macro F1",
    "f1": "F1",
    "qwk": "Quadratic weighted kappa",
    "mae": "Mean absolute error, grades",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "auroc_kl2": "AUROC, KL 2 or more",
    "brier": "Brier score",
    "ece": "Expected calibration error",
    "coverage": "Coverage of the sets of grades",
    "set_size": "Grades in a set",
    "auprc_baseline": "AUPRC without any skill",
    "scaled_brier": "Scaled Brier score",
    "calibration_in_the_large": "Calibration in the large, log odds",
    "calibration_slope": "Calibration slope",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "net_benefit": "Net benefit",
    "treat_all": "Net benefit of treating all",
    "auroc_kl_1_to_3": "AUROC, KL 1 to 3",
    "auroc_within_kl_1_to_3": "AUROC within each of KL 1 to 3",
}
_MODEL_NAMES = {
    "image": "Image only",
    "clinical": "Clinical factors only",
    "fused": "Image and clinical factors",
    "kl_grade": "KL grade as read",
    "clinical_boosted": "Clinical factors only, boosted trees",
    "mjsw": "Minimum joint-space width only",
    "kl+grader": "KL grade and the grader's probabilities",
}
_BEST_POSSIBLE = {"image": "image", "clinical": "clinical", "fused": "both"}
_HEADLINE_METRICS = {KL: ("accuracy", "qwk", "auroc")}
_HAS_NO_BAR = ("mae", "brier", "ece", "set_size", "scaled", "calibration", "net_benefit", "treat")
"""Starts of the names of metrics that do not run from 0 to 1, or are good where they are small."""
_OUTCOME_HEADLINE = ("auroc", "auprc")


def _title(target: str) -> str:
    return "KL grade" if target == KL else OUTCOME_NAMES[target]


def evaluation_section(folder: Path, source: str) -> Section:
    """Metrics with intervals, and the figures of each target."""
    path = folder / METRICS_FILE
    document = read_document(path)
    targets = [name for name in (KL, *Outcome) if name in document]
    section = Section(
        "evaluation",
        "Evaluation: " + ", ".join(_title(target) for target in targets),
        source,
        notes=[str(note) for note in document.get("notes", [])],
        provenance=flat_provenance(document.get("provenance", {})),
    )
    section.provenance[f"{METRICS_FILE}.sha256"] = sha256_of(path)
    for target in targets:
        estimates = {name: from_json(e) for name, e in document[target].items()}
        section.headline += _headline(target, estimates)
        caption = f"{_title(target)}. {_size(document, target)}"
        section.tables.append(_metric_table(caption, estimates))
        for name, caption in _figure_captions(target).items():
            section.add_figure(folder / FIGURES_FOLDER, f"{target}_{name}", caption)
    return section


def _metric_table(caption: str, estimates: Mapping[str, Estimate]) -> Table:
    rows = [
        [_metric_name(name), show(e.value), show_interval(e), f"{e.n:,}", e.reason or ""]
        for name, e in estimates.items()
    ]
    bars = [None if name.startswith(_HAS_NO_BAR) else bar_of(e) for name, e in estimates.items()]
    columns = ["Metric", "Value", "95 % CI", "Knees", "Why not"]
    if not any(row[-1] for row in rows):
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    return Table(caption, columns, rows, bars)


def _metric_name(name: str) -> str:
    """A metric in words; ``..._at_0.2`` is one at that risk."""
    metric, at, threshold = name.partition("_at_")
    return _METRIC_NAMES.get(metric, metric) + (f" at the risk {threshold}" if at else "")


def _headline(target: str, estimates: Mapping[str, Estimate]) -> list[Tile]:
    wanted = _HEADLINE_METRICS.get(target, _OUTCOME_HEADLINE)
    return [
        tile_of(f"{_title(target)}: {_METRIC_NAMES[name]}", estimates[name])
        for name in wanted
        if name in estimates
    ]


def _size(document: Mapping[str, Any], target: str) -> str:
    counts = document.get("counts", {}).get(target)
    if not counts:
        return ""
    text = f"{counts['knees']:,} knees of {counts['persons']:,} persons"
    if target != KL and counts["knees"]:
        events = counts["knees_by_truth"]["1"]
        text += f"; {events:,} events ({events / counts['knees']:.1%})"
    return text + "."


def _figure_captions(target: str) -> dict[str, str]:
    title = _title(target)
    if target == KL:
        return {
            "confusion_matrix": f"{title}: knees by true and predicted grade, with the share of "
            "the true grade.",
            "roc": f"{title}: receiver operating characteristic, one grade against the rest.",
            "precision_recall": f"{title}: precision and recall, one grade against the rest; "
            "dashes mark the prevalence.",
            "calibration": f"{title}: how often the predicted grade is right, by its probability, "
            "in bins of equal counts with Wilson intervals.",
        }
    return {
        "roc": f"{title}: receiver operating characteristic.",
        "precision_recall": f"{title}: precision and recall; the dash marks the prevalence.",
        "calibration": f"{title}: observed share of events by predicted probability, in bins of "
        "equal counts with Wilson intervals.",
        "decision_curve": f"{title}: net benefit of treating by the model, beside treating all and "
        "none.",
        "confusion_matrix": f"{title}: decisions at the probability 0.5.",
    }


def comparison_section(folder: Path, source: str) -> Section:
    """Image, clinical factors and both, beside the best possible where it is known."""
    path = folder / COMPARE_FILE
    document = read_document(path)
    title = _title(document["outcome"])
    section = Section(
        "comparison",
        f"Does fusion help? {title}",
        source,
        summary=f"The same {document['n']:,} knees, of which {document['events']:,} "
        "have the event, for every model.",
        notes=[str(note) for key in ("verdict", "notes") for note in document.get(key, [])],
        provenance={f"{COMPARE_FILE}.sha256": sha256_of(path)},
    )
    models = {
        name: {metric: from_json(e) for metric, e in metrics.items()}
        for name, metrics in document["models"].items()
    }
    aurocs = {name: e["auroc"] for name, e in models.items() if "auroc" in e}
    best = _best_possible(document.get("best_possible"))
    for name in ("image", "clinical", "fused"):
        if name in aurocs:
            tile = tile_of(f"{_MODEL_NAMES[name]}: AUROC", aurocs[name])
            known = f"; best possible {best[name]:.2f}" if name in best else ""
            section.headline.append(tile._replace(detail=tile.detail + known))
    section.tables.append(_model_table(title, models, best))
    section.pictures.append(
        figure_picture(
            figures.comparison(
                {_model_name(name): estimate for name, estimate in aurocs.items()},
                {_model_name(name): value for name, value in best.items()},
                title=title,
                xlabel="AUROC (95 % CI)",
            ),
            f"{title}: area under the ROC curve of each model"
            + (", beside the best that its inputs allow." if best else "."),
            wide=True,
        )
    )
    if differences := document.get("differences"):
        section.tables.append(_difference_table(differences))
    return section


def _model_name(name: str) -> str:
    return _MODEL_NAMES.get(name, name)


def _in_a_sentence(name: str) -> str:
    return name if name.startswith("KL") else name[:1].lower() + name[1:]


def _best_possible(document: Any) -> dict[str, float]:
    """Model to best possible AUROC; empty where the truth is not known."""
    if not isinstance(document, dict):
        return {}
    found = {model: document.get(inputs) for model, inputs in _BEST_POSSIBLE.items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _model_table(
    title: str, models: Mapping[str, Mapping[str, Estimate]], best: Mapping[str, float]
) -> Table:
    metrics = ("auroc", "auprc", "brier")
    nothing = Estimate(None)
    rows = [
        [
            _model_name(name),
            *(_with_interval(estimates.get(metric, nothing), 2) for metric in metrics),
            *([show(best.get(name), 2)] if best else []),
        ]
        for name, estimates in models.items()
    ]
    columns = ["Model", *(_METRIC_NAMES[metric] for metric in metrics)]
    return Table(
        f"{title}. Estimates with 95 % intervals.",
        [*columns, "Best possible AUROC"] if best else columns,
        rows,
        [bar_of(estimates.get("auroc", nothing)) for estimates in models.values()],
    )


def _with_interval(estimate: Estimate, digits: int = 3) -> str:
    if estimate.value is None:
        return estimate.reason or show(None)
    if estimate.ci_low is None:
        return show(estimate.value, digits)
    return f"{show(estimate.value, digits)} ({show_interval(estimate, digits)})"


def _difference_table(differences: Mapping[str, Any]) -> Table:
    rows = []
    for pair, metrics in differences.items():
        first, _, second = pair.partition("-")
        name = f"{_model_name(first)} minus {_in_a_sentence(_model_name(second))}"
        for metric, document in metrics.items():
            estimate = from_json(document)
            p_value = _p_value(document.get("p_value"))
            cells = [show(estimate.value), show_interval(estimate), p_value]
            rows.append([name, _metric_name(metric), *cells])
    caption = (
        "Differences on the same draws of persons; an interval without 0 tells two apart. "
        "P by DeLong's test with persons as clusters."
    )
    return Table(caption, ["Difference", "Metric", "Value", "95 % CI", "P"], rows)


def survival_section(folder: Path, source: str) -> Section:
    """Incidence by group, and the Cox model."""
    path = folder / SURVIVAL_FILE
    document = read_document(path)
    counts, cox = document["counts"], document["cox"]
    section = Section(
        "survival",
        f"Time to event: {_title(document['outcome'])}",
        source,
        summary=f"{counts['events']:,} events among {counts['knees']:,} knees of "
        f"{counts['persons']:,} persons.",
        notes=[str(note) for note in document["notes"]],
        limits=[str(limit) for limit in document["limits"]],
        provenance=flat_provenance(document.get("provenance", {})),
    )
    section.provenance[f"{SURVIVAL_FILE}.sha256"] = sha256_of(path)
    section.tables += [_incidence_table(document)]
    if cox["terms"]:
        section.tables.append(_cox_table(cox))
    if cox["reason"]:
        section.notes.append(f"There is no Cox model: {cox['reason']}.")
    else:
        concordance = from_json(cox["harrell_c"])
        section.headline.append(tile_of(f"{_title(document['outcome'])}: Harrell's C", concordance))
    captions = {
        "kaplan_meier": "Cumulative incidence (1 - Kaplan-Meier) with 95 % bands that count "
        "persons, and knees at risk.",
        "aalen_johansen": "Cumulative incidence with death as a competing event (Aalen-Johansen).",
        "cox": "Hazard ratios of the Cox model with person-clustered 95 % intervals.",
    }
    for name, caption in captions.items():
        section.add_figure(folder / FIGURES_FOLDER, name, caption, wide=True)
    return section


def _incidence_table(document: Mapping[str, Any]) -> Table:
    months = sorted({row["months"] for row in document["incidence"]})
    horizon = _HORIZON_MONTHS if _HORIZON_MONTHS in months else max(months, default=0)
    named = {"kaplan_meier": "Kaplan-Meier", "aalen_johansen": "Aalen-Johansen"}
    rows, bars = [], []
    for row in document["incidence"]:
        if row["months"] != horizon:
            continue
        estimate = from_json({**row, "value": row["incidence"]})
        group = f"{label_of(document['group'])} {row['group']}"
        shown = _with_interval(estimate)
        rows.append([group, named[row["estimator"]], f"{row['n']:,}", f"{row['at_risk']:,}", shown])
        bars.append(bar_of(estimate))
    caption = f"Cumulative incidence by {horizon:g} months."
    columns = ["Group", "Estimator", "Knees", "At risk then", "Incidence (95 % CI)"]
    return Table(caption, columns, rows, bars)


def _cox_table(cox: Mapping[str, Any]) -> Table:
    rows = []
    for term in cox["terms"]:
        ratio = from_json(term["hazard_ratio"])
        rows.append(
            [
                str(term.get("label", term["term"])),
                _with_interval(ratio, 2),
                _p_value(term["p_value"]),
                _p_value(term["proportional_hazards_p_value"]),
            ]
        )
    caption = f"Cox model, {cox['knees']:,} knees and {cox['events']:,} events."
    return Table(caption, ["Term", "Hazard ratio (95 % CI)", "P", "P, changes with time"], rows)


def _p_value(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return show(None)
    return "<0.001" if value < 0.001 else f"{value:.3f}"
