"""External validation: whose data taught the model, whose judged it, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kneeoa_mm.analysis.evaluation import METRICS_FILE
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.shown import counted, show, with_interval
from kneeoa_mm.analysis.report.words import metric_name, title_of
from kneeoa_mm.analysis.results import from_json
from kneeoa_mm.analysis.targets import KL
from kneeoa_mm.records import Estimate

_SIDES = ("development", "validation")


def add_external(section: Section, document: Mapping[str, Any]) -> None:
    """Add what an evaluation on another cohort found; nothing where it was none."""
    found = document.get("external")
    if not found:
        return
    taught, judged = found["developed_on"], found["judged_on"]
    text = (
        f"Model {taught['run']} of {_side(taught)}, judged on {_side(judged)}; persons in both: "
        f"{found['overlap']['persons']}"
    )
    section.summary = f"{section.summary} External validation. {text}.".strip()
    section.tell("external", text, METRICS_FILE)
    section.methods.append(f"External validation: {text[0].lower()}{text[1:]}.")
    section.provenance["external.weights_sha256"] = ", ".join(
        map(str, (taught.get("weights_sha256") or {}).values())
    )
    for target, parts in found["targets"].items():
        section.tables.append(_case_mix(target, parts))
        section.tables.append(_performance(target, parts["performance"]))
        if recalibration := parts.get("recalibration"):
            section.tables.append(_recalibration(target, recalibration))
            section.tell("updating", "Recalibration of the intercept, in a table", METRICS_FILE)
    section.tell("case_mix", "Risks and grades of both cohorts side by side", METRICS_FILE)


def _side(side: Mapping[str, Any]) -> str:
    """Cohorts and persons; of a model, the persons of a member where no more is known."""
    cohorts = ", ".join(f"{name} ({n:,} knees)" for name, n in (side.get("cohorts") or {}).items())
    persons = side.get("persons")
    if persons is not None:
        people = counted(persons, "person")
    else:
        each = side.get("persons_in_training_of_a_member") or ["?"]
        people = f"{' to '.join(map(str, dict.fromkeys(each)))} persons a member"
    return f"{cohorts or 'a cohort that it does not name'}, {people}"


def _case_mix(target: str, parts: Mapping[str, Any]) -> Table:
    mixes = [parts["case_mix"].get(side) or {} for side in _SIDES]
    score = next((str(mix["score"]) for mix in mixes if "score" in mix), "risk")
    rows = [
        [label, *(_count(mix.get(name)) for mix in mixes)]
        for name, label in (("knees", "Knees"), ("persons", "Persons"))
    ]
    truths = [mix.get("knees_by_truth") or {} for mix in mixes]
    for level in dict.fromkeys(level for truth in truths for level in truth):
        label = f"KL {level}" if target == KL else {"0": "Without", "1": "With"}.get(level, level)
        rows.append([f"{label}, knees", *(_count(truth.get(level)) for truth in truths)])
    for name, label in (("mean", "mean"), ("sd", "SD")):
        rows.append([f"Predicted {score}, {label}", *(show(mix.get(name)) for mix in mixes)])
    quantiles = [mix.get("quantiles") or {} for mix in mixes]
    for q in dict.fromkeys(q for each in quantiles for q in each):
        rows.append([f"Predicted {score}, {q} %", *(show(each.get(q)) for each in quantiles)])
    caption = f"{title_of(target)}: case mix where the model learnt, and here."
    if membership := parts.get("membership_auroc"):
        shown = with_interval(from_json(membership), 2)
        caption += f" AUROC of telling the two apart by what is predicted: {shown}; 0.5 is alike."
    return Table(caption, ["", "Development", "Validation"], rows)


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _performance(target: str, parts: Mapping[str, Any]) -> Table:
    sides = [parts.get(side) or {} for side in (*_SIDES, "difference")]
    metrics = list(dict.fromkeys(name for side in sides for name in side))
    rows = [
        [metric_name(name), *(with_interval(_estimate(side, name), 2) for side in sides)]
        for name in metrics
    ]
    columns = ["Metric", "Development", "Validation", "Difference"]
    return Table(f"{title_of(target)}: performance there and here.", columns, rows)


def _recalibration(target: str, parts: Mapping[str, Any]) -> Table:
    before, after = parts.get("before") or {}, parts.get("after") or {}
    rows = [
        [metric_name(name), *(with_interval(_estimate(s, name), 2) for s in (before, after))]
        for name in dict.fromkeys([*before, *after])
    ]
    caption = f"{title_of(target)}: calibration before and after the intercept was learnt anew"
    if "intercept" in parts:
        caption += f" (moved by {with_interval(from_json(parts['intercept']), 2)})"
    return Table(f"{caption}.", ["Metric", "Before", "After"], rows)


def _estimate(side: Mapping[str, Any], name: str) -> Estimate:
    return from_json(side[name]) if side.get(name) else Estimate(None)
