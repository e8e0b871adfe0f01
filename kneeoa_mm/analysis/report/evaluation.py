"""The section on an evaluation: metrics with intervals, figures, what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kneeoa_mm.analysis.evaluation import FIGURES_FOLDER, METRICS_FILE
from kneeoa_mm.analysis.report.external import add_external
from kneeoa_mm.analysis.report.parts import Section, Table, Tile
from kneeoa_mm.analysis.report.plan import add_plan
from kneeoa_mm.analysis.report.runs import Run, flat_provenance, read_document
from kneeoa_mm.analysis.report.shown import bar_of, counted, listed, show, show_interval, tile_of
from kneeoa_mm.analysis.report.subgroups import add_subgroups
from kneeoa_mm.analysis.report.words import METRIC_NAMES, metric_name, title_of
from kneeoa_mm.analysis.results import from_json, sha256_of
from kneeoa_mm.analysis.targets import KL
from kneeoa_mm.records import Estimate, Outcome

HAS_NO_BAR = (
    *("mae", "brier", "ece", "set_size", "scaled", "calibration", "net_benefit", "treat"),
    "auroc_above",
)
"""Starts of the names of metrics that do not run from 0 to 1, or are good where they are small."""
_HEADLINE_METRICS = {KL: ("accuracy", "qwk", "auroc")}
_OUTCOME_HEADLINE = ("auroc", "auroc_of_kl_grade", "auprc")
_EXPLORATORY = "* Not named by the pre-specification: exploratory."


def evaluation_section(run: Run) -> Section:
    """Metrics with intervals, and the figures of each target."""
    path = run.path / METRICS_FILE
    document = read_document(path)
    targets = [name for name in (KL, *Outcome) if name in document]
    section = Section(
        "evaluation",
        "Evaluation: " + ", ".join(title_of(target) for target in targets),
        run.name,
        notes=[str(note) for note in document.get("notes", [])],
        provenance=flat_provenance(document.get("provenance", {})),
    )
    section.provenance[f"{METRICS_FILE}.sha256"] = sha256_of(path)
    if not targets:
        section.notes.append("Nothing could be judged: no knee has both a truth and a prediction.")
    for target in targets:
        _add_target(section, run, document, target)
    add_subgroups(section, run, document)
    add_external(section, document)
    add_plan(section, document, METRICS_FILE)
    _tell(section, document, targets)
    return section


def _add_target(section: Section, run: Run, document: Mapping[str, Any], target: str) -> None:
    estimates = {name: from_json(e) for name, e in document[target].items()}
    new = {name for name, e in document[target].items() if e.get("exploratory")}
    section.headline += _headline(target, estimates)
    size = _size(document, target)
    ranking = document.get("ranking", {}).get(target, "")
    caption = f"{title_of(target)}, by knee. {size} {ranking}".strip()
    section.tables.append(_metric_table(caption, estimates, new))
    if persons := document.get("per_person", {}).get(target):
        said = document.get("estimands", {}).get("per_person", "each person weighs the same")
        caption = f"{title_of(target)}, by person: {said}"
        by_person = {name: from_json(e) for name, e in persons.items()}
        marked = {name for name, e in persons.items() if e.get("exploratory")}
        section.tables.append(_metric_table(caption, by_person, marked))
    if target == KL and document.get("per_grade"):
        section.tables.append(_grade_table(document["per_grade"]))
    for name, caption in _figure_captions(target).items():
        section.add_figure(run.path / FIGURES_FOLDER, f"{target}_{name}", caption)
    undefined = sorted({e.reason for e in estimates.values() if e.value is None and e.reason})
    if undefined:
        section.notes.append(
            f"{title_of(target)}: some metrics cannot be computed, because {listed(undefined)}."
        )


def _metric_table(caption: str, estimates: Mapping[str, Estimate], new: set[str]) -> Table:
    rows = [
        [
            metric_name(name) + (" *" if name in new else ""),
            show(e.value),
            show_interval(e),
            f"{e.n:,}",
            e.reason or e.note or "",
        ]
        for name, e in estimates.items()
    ]
    bars = [None if name.startswith(HAS_NO_BAR) else bar_of(e) for name, e in estimates.items()]
    columns = ["Metric", "Value", "95 % CI", "Knees", "Remark"]
    if not any(row[-1] for row in rows):
        rows, columns = [row[:-1] for row in rows], columns[:-1]
    return Table(caption, columns, rows, bars, _EXPLORATORY if new else "")


def _grade_table(per_grade: Mapping[str, Any]) -> Table:
    names = list(per_grade)
    grades = list(dict.fromkeys(grade for name in names for grade in per_grade[name]))
    rows = []
    for grade in grades:
        row = [f"KL {grade}"]
        for name in names:
            found = per_grade[name].get(grade)
            estimate = Estimate(None) if found is None else from_json(found)
            row += [show(estimate.value), show_interval(estimate)]
        rows.append(row)
    heads = [head for name in names for head in (METRIC_NAMES.get(name, name), "95 % CI")]
    return Table("KL grade: each grade against the rest.", ["Grade", *heads], rows)


def _headline(target: str, estimates: Mapping[str, Estimate]) -> list[Tile]:
    wanted = _HEADLINE_METRICS.get(target, _OUTCOME_HEADLINE)
    return [
        tile_of(f"{title_of(target)}: {METRIC_NAMES[name]}", estimates[name])
        for name in wanted
        if name in estimates
    ]


def _size(document: Mapping[str, Any], target: str) -> str:
    counts = document.get("counts", {}).get(target)
    if not counts:
        return ""
    text = f"{counted(counts['knees'], 'knee')} of {counted(counts['persons'], 'person')}"
    if unknown := counts.get("knees_of_unknown_persons"):
        text += f", each knee of an unknown person ({unknown:,}) counted as one"
    if target != KL and counts["knees"]:
        events = counts["knees_by_truth"]["1"]
        text += f"; {counted(events, 'event')} ({events / counts['knees']:.1%})"
    return text + "."


def _figure_captions(target: str) -> dict[str, str]:
    title = title_of(target)
    if target == KL:
        return {
            "confusion_matrix": f"{title}: knees by true and predicted grade, with the share of "
            "the true grade.",
            "roc": f"{title}: receiver operating characteristic, one grade against the rest.",
            "precision_recall": f"{title}: precision and recall, one grade against the rest; "
            "dashes mark the prevalence.",
            "calibration": f"{title}: how often the predicted grade is right, by its probability, "
            "in bins of about equal counts, with Wilson intervals that count persons.",
        }
    return {
        "roc": f"{title}: receiver operating characteristic.",
        "precision_recall": f"{title}: precision and recall of all knees; the dash marks the "
        "prevalence.",
        "calibration": f"{title}: observed share of events by predicted probability, in bins of "
        "about equal counts, with Wilson intervals that count persons.",
        "decision_curve": f"{title}: net benefit of treating by the model, beside treating all and "
        "none.",
        "confusion_matrix": f"{title}: decisions at the probability 0.5.",
    }


def _tell(section: Section, document: Mapping[str, Any], targets: list[str]) -> None:
    if not targets:
        return
    settings = document.get("provenance", {})
    names = list(dict.fromkeys(name for target in targets for name in document[target]))
    section.tell("measures", ", ".join(metric_name(name) for name in names), METRICS_FILE)
    draws = settings.get("n_boot", "?")
    intervals = settings.get("intervals", "95 % intervals")
    section.tell("uncertainty", f"{intervals}; {draws} draws", METRICS_FILE)
    sizes = [f"{title_of(target)}: {_size(document, target)}" for target in targets]
    section.tell("sample", " ".join(sizes), METRICS_FILE)
    section.methods += [
        f"Performance was judged on {_size(document, target)[:-1]} ({title_of(target)})."
        for target in targets
    ]
    section.methods += list(dict.fromkeys(document.get("ranking", {}).values()))
    section.methods.append(
        f"Intervals are {intervals} ({draws} draws, seed {settings.get('seed', '?')})."
    )
    _tell_complete_cases(section, document, targets)
    section.tell("performance", _performance(document, targets), METRICS_FILE)
    _tell_unseen(section, document)
    if document.get("confusion_matrix"):
        section.tell("failures", "Confusion matrices", f"{FIGURES_FOLDER}/")
    outcomes = [target for target in targets if target != KL]
    told = {name for target in outcomes for name in document[target]}
    if "calibration_slope" in told:
        section.tell("calibration", "In the large, slope and curve", METRICS_FILE)
    if risks := sorted({name.partition("_at_")[2] for name in told if "_at_" in name}):
        text = f"Decisions at the risks {', '.join(risks)}, and the decision curve"
        section.tell("net_benefit", text, METRICS_FILE)
        stated = settings.get("thresholds_stated", "nobody says how")
        section.tell("thresholds", f"Risks stated {stated}: {', '.join(risks)}", METRICS_FILE)


def _tell_complete_cases(
    section: Section, document: Mapping[str, Any], targets: Sequence[str]
) -> None:
    """That knees without the outcome are left out, and nothing stands for them."""
    lost = document.get("left_out", {}).get("no_truth", {})
    texts = [
        f"{title_of(target)}: complete cases, {counted(lost[target], 'knee')} without the outcome "
        "left out and not stood for by weights"
        for target in targets
        if target != KL and target in lost
    ]
    section.tell("missing", "; ".join(texts), METRICS_FILE)
    section.methods += [f"{text}." for text in texts]


def _tell_unseen(section: Section, document: Mapping[str, Any]) -> None:
    """Whether the model is judged on persons who had no part in making it."""
    part = str(document.get("provenance", {}).get("source_provenance", {}).get("part", ""))
    if "choose" in part:
        section.limits.append(
            f"{section.source}: the predictions are of persons on whom epochs were chosen, which "
            "flatters the model."
        )
        return
    seen = document.get("left_out", {}).get("seen_in_training")
    if seen is None or any("cannot be told" in str(note) for note in document.get("notes", [])):
        return
    text = f"Knees of persons the model learnt from were left out ({seen:,})"
    section.tell("unseen", text, METRICS_FILE)
    section.methods.append(f"{text}.")


def _performance(document: Mapping[str, Any], targets: list[str]) -> str:
    texts = []
    for target in targets:
        for name in ("qwk",) if target == KL else ("auroc", "auroc_of_kl_grade"):
            if found := document[target].get(name):
                tile = tile_of("", from_json(found))
                text = f"{METRIC_NAMES[name]} {tile.value} ({tile.detail})"
                texts.append(f"{title_of(target)}: {text}")
    return "; ".join(texts)
