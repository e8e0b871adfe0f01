"""The section on the cohort: flow, Table 1, outcomes, what was missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from kneeoa_mm.analysis.covariates import CATEGORIES, label_of, unit_of
from kneeoa_mm.analysis.report.flow import boxes_of, flow_diagram
from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table, figure_picture
from kneeoa_mm.analysis.report.runs import Run, flat_provenance, read_csv
from kneeoa_mm.analysis.report.shown import counted, listed, plain
from kneeoa_mm.analysis.report.words import definition_of, in_a_sentence
from kneeoa_mm.analysis.results import OUTCOME_NAMES
from kneeoa_mm.records import Outcome
from kneeoa_mm.schemas import COHORT
from kneeoa_mm.tables import read_provenance, read_table

_BASELINE = (
    "age_years",
    "sex",
    "bmi_kg_m2",
    "race",
    "knee_injury",
    "fta_deg",
    "womac_total",
    "mjsw_medial_mm",
    "kl_grade",
)
_FLOW = "cohort"
_FLOW_COLUMNS = {"flow", "kind", "step", "knees", "subjects"}
_MAX_LEVELS = 8
_LEVEL = re.compile(r"^(?P<name>\w+) = (?P<level>.*), n \(%\)$")
_MEAN = re.compile(r"^(?P<name>\w+), mean \(SD\)$")
_MISSING = re.compile(r"^(?P<name>\w+) missing, n$")


def cohort_section(run: Run) -> Section:
    """Who is in the cohort, and which outcomes they have."""
    path = run.path / "cohort.parquet"
    cohort = read_table(path, COHORT)
    persons = cohort["subject_id"].nunique()
    config = run.config()
    section = Section(
        "cohort",
        "Cohort",
        run.name,
        summary=f"{counted(len(cohort), 'knee')} of {counted(persons, 'person')} at baseline.",
        provenance=_provenance(read_provenance(path)),
    )
    known = [o for o in Outcome if o in cohort and cohort[o].notna().any()]
    judged = [o for o in run.judged_outcomes() if o in known]
    outcome = next(iter([*judged, *known]), None)
    _add_flow(section, read_csv(run.path / "attrition.csv"), outcome)
    section.tables.append(_table_1(run, cohort, outcome))
    section.tables.append(_outcome_table(cohort))
    _add_sensitivity(section, run)
    _tell(section, cohort, config, known)
    _tell_outcomes(section, cohort, config, judged or known)
    if not known:
        section.notes.append(
            "No knee has a value of any outcome, so nothing about progression can be computed; the "
            "table of outcomes says why."
        )
    if persons < 2:
        section.notes.append(
            "All knees are of one person: no interval, test or spread can be computed."
        )
    return section


def _provenance(told: Mapping[str, Any]) -> dict[str, str]:
    """Provenance of the table, and the hash of each file that it was made from."""
    sources = told.get("sources") or {}
    others = {name: value for name, value in told.items() if name != "sources"}
    return flat_provenance(others) | {f"{file}.sha256": str(v) for file, v in sources.items()}


def _add_flow(section: Section, attrition: pd.DataFrame, outcome: Outcome | None) -> None:
    if not set(attrition.columns) >= _FLOW_COLUMNS:
        section.notes.append("The run has no attrition.csv, so there is no flow diagram.")
        return
    boxes = boxes_of(attrition, _FLOW, None if outcome is None else str(outcome))
    if boxes:
        what = "" if outcome is None else f", and knees whose {OUTCOME_NAMES[outcome]} is known"
        caption = f"Flow into the cohort{what}."
        section.pictures.append(
            figure_picture(flow_diagram(boxes), caption, name="flow", wide=True, first=True)
        )
    shown = attrition[attrition["flow"].isin([_FLOW, str(outcome)])].to_dict("records")
    rows = [
        [
            OUTCOME_NAMES.get(row["flow"], "Cohort"),
            *(plain(row["kind"]), plain(row["step"]), row["knees"], row["subjects"]),
        ]
        for row in shown
    ]
    columns = ["Flow", "", "Step", "Knees", "Persons"]
    section.tables.append(Table("Flow, step by step.", columns, rows))
    removed = [
        f"{plain(row['step'])} ({row['knees']})"
        for row in shown
        if row["flow"] == _FLOW and row["kind"] == "removed" and row["knees"] != "0"
    ]
    if removed:
        text = f"Knees were left out for these reasons: {listed(removed)}"
        section.tell("eligibility", text, "attrition.csv")
        section.methods.append(f"{text}.")
    section.tell("flow", f"Flow diagram; {section.summary}", "attrition.csv")


def _table_1(run: Run, cohort: pd.DataFrame, outcome: Outcome | None) -> Table:
    """As the cohort run made it, by outcome; without an outcome, of all knees."""
    made = read_csv(run.path / "table_1" / f"{outcome}.csv")
    if outcome is None or made.empty:
        return _baseline_table(cohort)
    heads = {"all": "All", "no": "Without", "yes": "With", "unknown": "Unknown"}
    heads["difference"] = "Standardised difference"
    names = [name for name in heads if name in made]
    rows = [
        [_row_name(str(row[made.columns[0]])), *(str(row[name]) or NOTHING for name in names)]
        for row in made.to_dict("records")
    ]
    return Table(
        f"Baseline characteristics of knees, by {in_a_sentence(OUTCOME_NAMES[outcome])} (a paper's "
        "Table 1). Numbers are mean (SD); the standardised difference is with less without.",
        ["", *(heads[name] for name in names)],
        rows,
    )


def _row_name(name: str) -> str:
    """A row of the cohort's Table 1 in words.

    Example:
        >>> _row_name("bmi_kg_m2, mean (SD)"), _row_name("knee_injury = 1, n (%)")
        ('BMI (kg/m²), mean (SD)', 'Knee injury: yes, n (%)')
        >>> _row_name("race missing, n"), _row_name("subjects")
        ('Race: missing, n', 'Persons')
    """
    if match := _MEAN.match(name):
        unit = unit_of(match["name"])
        return f"{label_of(match['name'])}{f' ({unit})' if unit else ''}, mean (SD)"
    if match := _LEVEL.match(name):
        return f"{label_of(match['name'])}: {_level(match['name'], match['level'])}, n (%)"
    if match := _MISSING.match(name):
        return f"{label_of(match['name'])}: missing, n"
    return {"knees": "Knees", "subjects": "Persons"}.get(name, name)


def _level(name: str, level: object) -> str:
    return (
        {"0": "no", "1": "yes"}.get(str(level), str(level)) if name == "knee_injury" else str(level)
    )


def _baseline_table(cohort: pd.DataFrame) -> Table:
    rows = []
    for name in _BASELINE:
        if name not in cohort or cohort[name].isna().all():
            continue
        known = cohort[name].dropna()
        missing = f"{cohort[name].isna().sum():,}"
        is_number = pd.api.types.is_numeric_dtype(known) and name not in CATEGORIES
        if is_number and not set(known.unique()) <= {0, 1}:
            spread = f" ({known.std():.1f})" if len(known) > 1 else ""
            rows.append([_row_name(f"{name}, mean (SD)"), f"{known.mean():.1f}{spread}", missing])
            continue
        counts = known.value_counts()
        # an order for grades; for the rest the commonest first
        counts = counts.sort_index() if is_number or name in CATEGORIES else counts
        for level, count in counts.head(_MAX_LEVELS).items():
            text = f"{count:,} ({count / len(known):.0%})"
            rows.append([_row_name(f"{name} = {level}, n (%)"), text, missing])
            missing = ""
    return Table(
        "Baseline characteristics, by knee (a paper's Table 1).", ["", "Value", "Missing"], rows
    )


def _outcome_table(cohort: pd.DataFrame) -> Table:
    rows = []
    for outcome in Outcome:
        if outcome not in cohort:
            continue
        values = cohort[outcome]
        known, events = int(values.notna().sum()), int((values == 1).sum())
        reasons = cohort.loc[values.isna(), f"{outcome}_reason"].fillna("unknown").value_counts()
        share = f"{events:,} ({events / known:.1%})" if known else NOTHING
        why = ", ".join(f"{plain(reason)}: {n:,}" for reason, n in reasons.items())
        rows.append([OUTCOME_NAMES[outcome], f"{known:,}", share, f"{len(values) - known:,}", why])
    columns = ["Outcome", "With a value", "Events", "Without", "Why not"]
    return Table("Outcomes, by knee.", columns, rows)


def _add_sensitivity(section: Section, run: Run) -> None:
    made = read_csv(run.path / "sensitivity.csv")
    if not {"outcome", "variant", "knees", "events", "risk"} <= set(made.columns):
        return
    rows = [
        [
            OUTCOME_NAMES.get(row["outcome"], row["outcome"]),
            *(row["variant"], row["knees"], row["events"], _share(row["risk"])),
        ]
        for row in made.to_dict("records")
    ]
    caption = "Outcomes as defined and otherwise: how far their risk depends on the definition."
    columns = ["Outcome", "Variant", "Knees", "Events", "Risk"]
    section.tables.append(Table(caption, columns, rows))
    section.tell("sensitivity", f"{caption} {len(rows)} variants.", "sensitivity.csv")


def _share(text: str) -> str:
    try:
        return f"{float(text):.1%}"
    except ValueError:
        return NOTHING


def _tell(
    section: Section, cohort: pd.DataFrame, config: Mapping[str, Any], known: list[Outcome]
) -> None:
    spec = _spec(config)
    name = str(spec.get("name", "not named"))
    persons = cohort["subject_id"].nunique()
    text = f"Cohort “{name}”: {section.summary}"
    section.tell("source", text, "cohort.parquet")
    section.methods.insert(0, f"The cohort {name} has {section.summary}")
    events = [
        f"{OUTCOME_NAMES[o]}: {int(cohort[o].sum()):,} of {int(cohort[o].notna().sum()):,} knees"
        for o in known
    ]
    section.tell("events", "; ".join(events), "cohort.parquet")
    section.tell("characteristics", "Table of baseline characteristics", "table_1/")
    missing = [
        f"{label_of(column)} {int(cohort[column].isna().sum()):,}"
        for column in _BASELINE
        if column in cohort and cohort[column].isna().any()
    ]
    missing_text = f"Knees without a value: {', '.join(missing)}" if missing else ""
    section.tell("missing", missing_text or "No baseline factor is missing", "cohort.parquet")
    if "site" in cohort and (sites := cohort["site"].nunique()):
        section.tell("sites", f"{counted(sites, 'site')}, {persons:,} persons", "cohort.parquet")
    if (ids := config.get("ids")) in {"kept", "hashed"}:
        how = "kept as they came" if ids == "kept" else "replaced by keyed hashes"
        section.tell("identifiers", f"Subject identifiers were {how}", "config.yaml")
    section.tell(
        "baseline",
        "Factors are of baseline: the command refuses any that is measured later",
        "cohort.parquet",
    )
    if spec.get("sampled_on_outcome"):
        section.tell("sampling", "Knees were chosen by their outcome", "config.yaml")
        section.limits.append(
            "Knees were chosen by their outcome: risks are those of the sampling."
        )
    else:
        section.tell("sampling", "Knees were not chosen by their outcome", "config.yaml")


def _tell_outcomes(
    section: Section, cohort: pd.DataFrame, config: Mapping[str, Any], outcomes: list[Outcome]
) -> None:
    for outcome in outcomes:
        definition = definition_of(outcome, _spec(config))
        known, events = int(cohort[outcome].notna().sum()), int(cohort[outcome].sum())
        text = f"{OUTCOME_NAMES[outcome]} was defined as {definition}"
        text += f"; it was known of {known:,} knees, of which {events:,} had it"
        section.methods.append(f"{text}.")
        told = section.facts.get("cohort.outcome")
        section.tell("outcome", f"{told.text}; {text}" if told else text, "config.yaml")


def _spec(config: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = config.get("cohort")
    return spec if isinstance(spec, dict) else {}
