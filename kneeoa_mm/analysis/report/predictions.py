"""The section on a table of predictions (``kneeoa-mm predict``)."""

from __future__ import annotations

import pandas as pd

from kneeoa_mm.analysis.report.parts import NOTHING, Section, Table
from kneeoa_mm.analysis.report.runs import Run, flat_provenance
from kneeoa_mm.analysis.report.shown import counted, plain, show
from kneeoa_mm.analysis.results import OUTCOME_NAMES, sha256_of
from kneeoa_mm.records import UNKNOWN, Outcome
from kneeoa_mm.schemas import PREDICTIONS
from kneeoa_mm.tables import read_provenance, read_table

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def predictions_section(run: Run) -> Section:
    """What was predicted, of how many, and how many could not be."""
    table = read_table(run.path, PREDICTIONS)
    own = {} if run.path.suffix == ".csv" else read_provenance(run.path)
    is_known = table["subject_id"] != UNKNOWN
    persons = counted(table["subject_id"][is_known].nunique(), "person")
    if not is_known.all():
        persons = f"{persons} and of unknown ones" if is_known.any() else "unknown persons"
    usable = table[table["status"] == "ok"]
    section = Section(
        "predict",
        "Predictions",
        run.name,
        summary=f"{counted(len(table), 'knee')} of {persons}, of which "
        f"{len(usable):,} were graded.",
        provenance={**flat_provenance(own), f"{run.path.name}.sha256": sha256_of(run.path)},
    )
    section.tables.append(_status_table(table))
    section.tables.append(_grade_table(usable))
    risks = [o for o in Outcome if f"{o}_prob" in usable and usable[f"{o}_prob"].notna().any()]
    if risks:
        section.tables.append(_risk_table(usable, risks))
    if not _has_truth(table):
        section.notes.append(
            "The table has no grade and no outcome to judge by, so nothing here says how good the "
            "predictions are."
        )
    if len(table) and table["seen_in_training"].any():
        seen = int(table["seen_in_training"].sum())
        section.notes.append(f"The model has seen the persons of {counted(seen, 'knee')}.")
    section.tell("flow", section.summary, run.path.name)
    return section


def _has_truth(table: pd.DataFrame) -> bool:
    return any(
        name in table and table[name].notna().any() for name in ("kl_grade", *map(str, Outcome))
    )


def _status_table(table: pd.DataFrame) -> Table:
    rows = []
    labels = {"status": "Status", "framing": "Field of view", "kl_input": "Grade given"}
    for name, label in labels.items():
        if name in table and table[name].notna().any():
            counts = table[name].value_counts()
            rows += [[f"{label}: {plain(level)}", f"{n:,}"] for level, n in counts.items()]
    rows.append(["Person seen in training", f"{int(table['seen_in_training'].sum()):,}"])
    return Table("Knees and what became of them.", ["", "Knees"], rows)


def _grade_table(usable: pd.DataFrame) -> Table:
    grades = usable["kl_grade_pred"].value_counts().sort_index()
    total = int(grades.sum())
    rows = [[f"KL {grade}", f"{n:,}", f"{n / total:.1%}"] for grade, n in grades.items()]
    rows = rows or [["No knee was graded", "0", NOTHING]]
    return Table("Predicted KL grades.", ["Grade", "Knees", "Share"], rows)


def _risk_table(usable: pd.DataFrame, outcomes: list[Outcome]) -> Table:
    rows = []
    for outcome in outcomes:
        risk = usable[f"{outcome}_prob"].dropna()
        cells = [show(float(risk.quantile(q)), 3) for q in _QUANTILES]
        rows.append([OUTCOME_NAMES[outcome], f"{len(risk):,}", show(float(risk.mean())), *cells])
    heads = [f"{q:.0%}" for q in _QUANTILES]
    return Table("Predicted risks: mean and quantiles.", ["", "Knees", "Mean", *heads], rows)
