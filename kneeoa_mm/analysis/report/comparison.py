"""The section on a comparison: image, clinical factors and both, beside simple models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kneeoa_mm.analysis import figures
from kneeoa_mm.analysis.evaluation import FIGURES_FOLDER
from kneeoa_mm.analysis.report.parts import Section, Table, Tile, figure_picture
from kneeoa_mm.analysis.report.plan import add_plan
from kneeoa_mm.analysis.report.runs import Run, flat_provenance, read_document
from kneeoa_mm.analysis.report.shown import (
    bar_of,
    counted,
    p_value,
    show,
    show_interval,
    tile_of,
    with_interval,
)
from kneeoa_mm.analysis.report.words import (
    METRIC_NAMES,
    MODEL_NAMES,
    in_a_sentence,
    metric_name,
    model_names,
    title_of,
)
from kneeoa_mm.analysis.results import from_json, sha256_of
from kneeoa_mm.records import Estimate

COMPARE_FILE = "compare.json"
_BEST_POSSIBLE = {"image": "image", "clinical": "clinical", "fused": "both"}
_WITHOUT_READING = "_without_reading"
"""Ends the name of a run as it is where no grade was read."""
_READINGS = ("kl_grade", "contralateral_kl_grade")
_WITHOUT_IMAGE = ("clinical", "kl_grade")
_MAIN = ("auroc", "auprc", "auprc_baseline", "brier")
_PAIRED = {
    "concordance": "Case above control",
    "odds_ratio": "Odds ratio, a standard deviation",
    "odds_ratio_adjusted_for_kl": "The same beside the KL grade",
}
_FURTHER = (
    "auroc_kl_1_to_3",
    "auroc_within_kl_1_to_3",
    "scaled_brier",
    "calibration_in_the_large",
    "calibration_slope",
)


def comparison_section(run: Run) -> Section:
    """Image, clinical factors and both, beside the best possible where it is known."""
    path = run.path / COMPARE_FILE
    document = read_document(path)
    title = title_of(document["outcome"])
    section = Section(
        "comparison",
        f"Does fusion help? {title}",
        run.name,
        summary=f"The same {counted(document['n'], 'knee')}, of which {document['events']:,} "
        "have the event, for every model.",
        notes=[str(note) for key in ("verdict", "notes") for note in document.get(key, [])],
        provenance=flat_provenance(document.get("provenance", {})),
    )
    section.provenance[f"{COMPARE_FILE}.sha256"] = sha256_of(path)
    models = {
        name: {metric: from_json(e) for metric, e in metrics.items()}
        for name, metrics in document["models"].items()
    }
    names = model_names(models, document.get("inputs", {}))
    aurocs = {name: e["auroc"] for name, e in models.items() if "auroc" in e}
    best = _best_possible(document.get("best_possible"))
    section.headline += _headline(aurocs, names, best)
    section.tables.append(_model_table(title, models, names, best))
    if pairs := document.get("within_pairs"):
        section.tables.append(_pair_table(title, pairs, names))
    further = [name for name in _FURTHER if any(name in metrics for metrics in models.values())]
    if further:
        section.tables.append(_further_table(title, models, names, further))
    if differences := document.get("differences"):
        section.tables.append(_difference_table(differences, names))
    if inputs := document.get("inputs"):
        rows = [[names.get(name, name), str(text)] for name, text in inputs.items()]
        section.tables.append(Table("What each model is told.", ["Model", "Inputs"], rows))
    _add_figures(section, run, title, aurocs, names, best)
    add_plan(section, document, COMPARE_FILE)
    _tell(section, document, names)
    return section


def _headline(
    aurocs: Mapping[str, Estimate], names: Mapping[str, str], best: Mapping[str, float]
) -> list[Tile]:
    """Every run beside what needs no image: clinical factors, and the grade that was read."""
    runs = [n for n in aurocs if n not in MODEL_NAMES and not n.endswith(_WITHOUT_READING)]
    tiles = []
    for name in (*runs, *(n for n in _WITHOUT_IMAGE if n in aurocs)):
        tile = tile_of(f"{names[name]}: AUROC", aurocs[name])
        known = f"; best possible {best[name]:.2f}" if name in best else ""
        tiles.append(tile._replace(detail=tile.detail + known))
    return tiles


def _add_figures(
    section: Section,
    run: Run,
    title: str,
    aurocs: Mapping[str, Estimate],
    names: Mapping[str, str],
    best: Mapping[str, float],
) -> None:
    if any(estimate.value is not None for estimate in aurocs.values()):
        figure = figures.comparison(
            {names[name]: estimate for name, estimate in aurocs.items()},
            {names[name]: value for name, value in best.items() if name in names},
            title=title,
            xlabel="AUROC (95 % CI)",
        )
        caption = f"{title}: area under the ROC curve of each model"
        caption += ", beside the best that its inputs allow." if best else "."
        section.pictures.append(figure_picture(figure, caption, name="auroc", wide=True))
    else:
        section.notes.append("No AUROC could be computed, so there is no figure of them.")
    caption = f"{title}: ROC curves averaged over folds, and decision curves."
    folder = run.path / FIGURES_FOLDER
    section.add_figure(folder, "comparison", caption, wide=True)
    caption = f"{title}: calibration of each model, knees in bins of about equal counts."
    section.add_figure(folder, "comparison_calibration", caption, wide=True)


def _best_possible(document: Any) -> dict[str, float]:
    """Model to best possible AUROC; empty where the truth is not known."""
    if not isinstance(document, dict):
        return {}
    found = {model: document.get(inputs) for model, inputs in _BEST_POSSIBLE.items()}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _model_table(
    title: str,
    models: Mapping[str, Mapping[str, Estimate]],
    names: Mapping[str, str],
    best: Mapping[str, float],
) -> Table:
    nothing = Estimate(None)
    main = [m for m in _MAIN if m == "auroc" or any(m in each for each in models.values())]
    rows = [
        [
            names[name],
            *(with_interval(estimates.get(metric, nothing), 2) for metric in main),
            *([show(best.get(name), 2)] if best else []),
        ]
        for name, estimates in models.items()
    ]
    columns = ["Model", *(METRIC_NAMES[metric] for metric in main)]
    return Table(
        f"{title}: models compared, with 95 % intervals. AUROC and AUPRC count pairs of knees of "
        "one fold.",
        [*columns, "Best possible AUROC"] if best else columns,
        rows,
        [bar_of(estimates.get("auroc", nothing)) for estimates in models.values()],
    )


def _further_table(
    title: str,
    models: Mapping[str, Mapping[str, Estimate]],
    names: Mapping[str, str],
    metrics: Sequence[str],
) -> Table:
    rows = [
        [names[name], *(with_interval(e.get(m, Estimate(None)), 2) for m in metrics)]
        for name, e in models.items()
    ]
    columns = ["Model", *(METRIC_NAMES[metric] for metric in metrics)]
    return Table(f"{title}: within grades, and calibration, with 95 % intervals.", columns, rows)


def _pair_table(title: str, pairs: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    nothing = Estimate(None)
    rows = [
        [
            names[name],
            *(with_interval(from_json(e[m]) if m in e else nothing, 2) for m in _PAIRED),
        ]
        for name, e in pairs["models"].items()
    ]
    caption = (
        f"{title}: within {counted(pairs['pairs'], 'matched pair')} of a case and its control, "
        "with 95 % intervals; odds ratios by conditional logistic regression."
    )
    return Table(caption, ["Model", *_PAIRED.values()], rows)


def _difference_table(differences: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    rows = []
    for pair, metrics in differences.items():
        first, _, second = pair.partition("-")
        other = in_a_sentence(names.get(second, second))
        name = f"{names.get(first, first)} minus {other}"
        for metric, document in metrics.items():
            estimate = from_json(document)
            shown = with_interval(estimate) if estimate.value is None else show(estimate.value)
            cells = [shown, show_interval(estimate), p_value(document.get("p_value"))]
            rows.append([name, metric_name(metric), *cells])
    caption = (
        "Differences on the same draws of persons; an interval without 0 tells two apart. "
        "Intervals with a P are of DeLong's test with persons as clusters."
    )
    return Table(caption, ["Difference", "Metric", "Value", "95 % CI", "P"], rows)


def _tell(section: Section, document: Mapping[str, Any], names: Mapping[str, str]) -> None:
    shown = [in_a_sentence(name) for name in names.values()]
    section.tell("models", f"Models compared: {', '.join(shown)}", COMPARE_FILE)
    verdict = [str(text) for text in document.get("verdict", [])]
    section.tell("differences", verdict[0] if verdict else "Table of differences", COMPARE_FILE)
    section.tell("sample", section.summary, COMPARE_FILE)
    size = f"{counted(document['n'], 'knee')} ({counted(document['events'], 'event')})"
    section.methods.append(
        f"These models were compared on the same {size}: {'; '.join(shown)}. Differences of AUROC "
        "were tested by DeLong's test with persons as clusters."
    )
    section.methods += _weighting(document) + _imputation(document.get("inputs", {}))


def _weighting(document: Mapping[str, Any]) -> list[str]:
    """How knees that were lost are stood for; nothing where all knees count the same."""
    stood_for = document.get("weighted_to")
    if not stood_for:
        return []
    return [
        "Each knee counted by the inverse of its chance of having been observed, estimated from "
        f"baseline factors, so that the {counted(document['n'], 'knee')} with the outcome stand "
        f"for {stood_for['knees']:,.0f} (effective number {stood_for['effective_n']:,.0f}; share "
        f"of events {stood_for['event_share']:.1%}); the simple models were fitted with these "
        "weights, and complete cases are given beside."
    ]


def _imputation(inputs: Mapping[str, Any]) -> list[str]:
    """What stood for missing factors (docs/decisions/0024); nothing where none can be imputed."""
    factors = str(inputs.get("clinical", "")).partition(";")[0].split(", ")
    if not set(factors) - {"", *_READINGS}:
        return []
    return [
        "Where a clinical factor was missing, the logistic models were fitted on several draws of "
        "it from what the training part alone taught, without outcomes, and risks are means over "
        "them (multiple imputation); readings were never imputed, and boosted trees took gaps as "
        "they were."
    ]
