"""The section on times to an event: incidence, numbers at risk, regressions, prognosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kneeoa_mm.analysis.covariates import label_of
from kneeoa_mm.analysis.evaluation import FIGURES_FOLDER
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.plan import add_looks
from kneeoa_mm.analysis.report.runs import Run, flat_provenance, read_document
from kneeoa_mm.analysis.report.shown import (
    bar_of,
    counted,
    listed,
    p_value,
    show,
    tile_of,
    with_interval,
)
from kneeoa_mm.analysis.report.words import METRIC_NAMES, in_a_sentence, title_of
from kneeoa_mm.analysis.results import from_json, sha256_of
from kneeoa_mm.analysis.survival import MODEL_NAMES, SURVIVAL_FILE
from kneeoa_mm.records import Estimate

_ESTIMATORS = {
    "kaplan_meier": "Kaplan-Meier",
    "turnbull": "Turnbull",
    "aalen_johansen": "Aalen-Johansen",
}
_CAPTIONS = {
    "kaplan_meier": "Cumulative incidence (1 - Kaplan-Meier) with 95 % bands that count persons, "
    "and knees at risk.",
    "turnbull": "Cumulative incidence where the event lies between two visits (Turnbull).",
    "aalen_johansen": "Cumulative incidence with death as a competing event (Aalen-Johansen), and "
    "knees at risk.",
    "by_predicted_risk": "Cumulative incidence by third of the predicted risk, and knees at risk.",
    "turnbull_by_predicted_risk": "Cumulative incidence by third of the predicted risk, where the "
    "event lies between two visits (Turnbull).",
    "cox": "Hazard ratios of the Cox model with person-clustered 95 % intervals.",
    "weibull_aft": "Time ratios of the Weibull model with 95 % intervals.",
    "auroc_by_months": "AUROC by horizon, of persons that the models never saw.",
}
_PROGNOSIS = ("uno_c", "auroc", "brier", "integrated_brier")


def survival_section(run: Run) -> Section:
    """Incidence by group, the regressions, and what the risks are worth."""
    path = run.path / SURVIVAL_FILE
    document = read_document(path)
    counts, cox = document["counts"], document["cox"]
    title = title_of(document["outcome"])
    section = Section(
        "survival",
        f"Time to event: {title}",
        run.name,
        summary=f"{counted(counts['events'], 'event')} among {counted(counts['knees'], 'knee')} of "
        f"{counted(counts['persons'], 'person')}.",
        notes=[str(note) for note in document["notes"]],
        limits=[str(limit) for limit in document["limits"]],
        provenance=flat_provenance(document.get("provenance", {})),
    )
    section.provenance[f"{SURVIVAL_FILE}.sha256"] = sha256_of(path)
    if document["incidence"]:
        section.tables.append(_incidence_table(document))
        section.tables.append(_at_risk_table(document))
    else:
        section.notes.append("No knee was followed for a year, so no incidence is tabled.")
    _add_model(section, cox, "hazard_ratio", "Cox model", "Hazard ratio")
    _add_model(
        section, document.get("weibull_aft") or {}, "time_ratio", "Weibull model", "Time ratio"
    )
    _add_prognosis(section, document.get("prognosis") or {}, title)
    add_looks(section, document, SURVIVAL_FILE)
    for name, caption in _CAPTIONS.items():
        section.add_figure(run.path / FIGURES_FOLDER, name, caption, wide=True)
    _tell(section, document, title)
    return section


def _incidence_table(document: Mapping[str, Any]) -> Table:
    months = {row["months"] for row in document["incidence"]}
    asked = document.get("provenance", {}).get("horizon_months")
    horizon = asked if asked in months else max(months)
    rows, bars = [], []
    for row in document["incidence"]:
        if row["months"] != horizon:
            continue
        estimate = from_json({**row, "value": row["incidence"]})
        group = f"{label_of(document['group'])} {row['group']}"
        estimator = _ESTIMATORS.get(row["estimator"], row["estimator"])
        shown = with_interval(estimate)
        rows.append([group, estimator, f"{row['n']:,}", _count(row.get("at_risk")), shown])
        bars.append(bar_of(estimate))
    caption = f"Cumulative incidence by {horizon:g} months."
    columns = ["Group", "Estimator", "Knees", "At risk then", "Incidence (95 % CI)"]
    return Table(caption, columns, rows, bars)


def _count(value: Any) -> str:
    return NOTHING if value is None else f"{value:,}"


def _at_risk_table(document: Mapping[str, Any]) -> Table:
    """Knees still followed and free of the event, by group and year."""
    rows = [row for row in document["incidence"] if row["estimator"] == "kaplan_meier"]
    months = sorted({row["months"] for row in rows})
    at_risk = {(row["group"], row["months"]): row.get("at_risk") for row in rows}
    groups = list(dict.fromkeys(row["group"] for row in rows))
    cells = [
        [
            f"{label_of(document['group'])} {group}",
            _count(document.get("groups", {}).get(group, {}).get("knees")),
            *(_count(at_risk.get((group, month))) for month in months),
        ]
        for group in groups
    ]
    heads = [f"{month:g} months" for month in months]
    return Table("Knees at risk.", ["Group", "At baseline", *heads], cells)


def _add_model(
    section: Section, model: Mapping[str, Any], ratio: str, name: str, head: str
) -> None:
    if model.get("reason"):
        section.notes.append(f"There is no {name}: {model['reason']}.")
    if not model.get("terms"):
        return
    changes = "proportional_hazards_p_value"
    has_changes = any(changes in term for term in model["terms"])
    rows = []
    for term in model["terms"]:
        cells = [with_interval(from_json(term[ratio]), 2), p_value(term["p_value"])]
        cells += [p_value(term.get(changes))] if has_changes else []
        rows.append([str(term.get("label", term["term"])), *cells])
    columns = ["Term", f"{head} (95 % CI)", "P"] + (["P, changes with time"] * has_changes)
    caption = f"{name}, {counted(model['knees'], 'knee')} and {counted(model['events'], 'event')}."
    section.tables.append(Table(caption, columns, rows))


def _add_prognosis(section: Section, prognosis: Mapping[str, Any], title: str) -> None:
    if prognosis.get("reason"):
        section.notes.append(f"Prognosis could not be judged: {prognosis['reason']}.")
    models = {n: m for n, m in (prognosis.get("models") or {}).items() if not m.get("reason")}
    for name, model in (prognosis.get("models") or {}).items():
        if model.get("reason"):
            section.notes.append(f"{MODEL_NAMES.get(name, name)}: {model['reason']}.")
    metrics = [m for m in _PROGNOSIS if any(m in model for model in models.values())]
    if not metrics:
        return
    section.notes += [str(text) for text in prognosis.get("estimand", [])]
    if shown := models.get(prognosis.get("shown")):
        label = f"{title}: Uno's C ({_model_name(prognosis['shown'])})"
        section.headline.append(tile_of(label, _estimate(shown, "uno_c")))
    rows = [
        [_model_name(name), *(with_interval(_estimate(model, metric), 2) for metric in metrics)]
        for name, model in models.items()
    ]
    caption = f"Prognosis, every knee judged by others' models; {_spans(prognosis)}."
    columns = ["Model", *(METRIC_NAMES[metric] for metric in metrics)]
    section.tables.append(Table(caption, columns, rows))
    if differences := prognosis.get("differences"):
        section.tables.append(_differences(differences))
    if calibration := prognosis.get("calibration"):
        section.tables.append(_calibration(calibration, prognosis["horizon_months"]))
    section.tell("prognosis", f"{caption} Measures: {', '.join(columns[1:])}", SURVIVAL_FILE)


def _model_name(name: str) -> str:
    return MODEL_NAMES.get(name, "No covariates" if name == "no_covariates" else name)


def _spans(prognosis: Mapping[str, Any]) -> str:
    """When each measure is of."""
    horizons = prognosis["horizons"]
    text = (
        f"AUROC and Brier score at {show(prognosis['horizon_months'], 0)} months, Uno's C of "
        f"events by {show(horizons[-1], 0)} months"
    )
    if len(horizons) > 1:
        span = f"{show(horizons[0], 0)} to {show(horizons[-1], 0)}"
        text += f", integrated Brier score from {span} months"
    return text


def _differences(differences: Mapping[str, Any]) -> Table:
    rows = []
    for pair, metrics in differences.items():
        first, _, second = pair.partition("-")
        name = f"{_model_name(first)} minus {_model_name(second)}"
        rows += [
            [name, METRIC_NAMES[metric], with_interval(from_json(each))]
            for metric, each in metrics.items()
        ]
    caption = (
        "Prognosis: differences on the same draws of persons; an interval without 0 tells two "
        "apart."
    )
    return Table(caption, ["Difference", "Measure", "Value (95 % CI)"], rows)


def _calibration(thirds: Sequence[Mapping[str, Any]], months: float) -> Table:
    rows = [
        [
            str(row["group"]),
            f"{row['knees']:,}",
            show(row.get("predicted")),
            with_interval(_estimate(row, "observed")),
        ]
        for row in thirds
    ]
    title = f"Predicted and observed risk by {show(months, 0)} months, by third of the risk."
    return Table(title, ["Third", "Knees", "Predicted", "Observed"], rows)


def _estimate(document: Mapping[str, Any], name: str) -> Estimate:
    return from_json(document[name]) if document.get(name) else Estimate(None)


def _tell(section: Section, document: Mapping[str, Any], title: str) -> None:
    estimators = [
        label for name, label in _ESTIMATORS.items() if document.get("curves", {}).get(name)
    ]
    grouped = label_of(document["group"])
    text = f"{title}: incidence by {grouped} ({listed(estimators)}), with knees at risk"
    section.tell("incidence", text, SURVIVAL_FILE)
    left = ", ".join(f"{n} {name}" for name, n in document.get("left_out", {}).items() if n)
    knees = f"{section.summary[:-1]}; left out: {left}" if left else section.summary[:-1]
    section.tell(
        "censoring", f"{title}: {knees}; knees without the event are censored", SURVIVAL_FILE
    )
    models = {"cox": "Cox regression", "weibull_aft": "Weibull regression of intervals"}
    fitted = [n for m, n in models.items() if (document.get(m) or {"reason": ""})["reason"] is None]
    regressed = f", and by {listed(fitted)} with person-clustered errors" if fitted else ""
    section.methods.append(
        f"Time to {in_a_sentence(title)} ({section.summary[:-1]}) was described by "
        f"{listed(estimators)} estimates by {in_a_sentence(grouped)}{regressed}."
    )
