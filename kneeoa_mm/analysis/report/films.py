"""The section on films: which became knees, and which did not."""

from __future__ import annotations

import pandas as pd

from kneeoa_mm.analysis.report.parts import Section, Table
from kneeoa_mm.analysis.report.runs import Run, flat_provenance, read_csv
from kneeoa_mm.analysis.report.shown import counted, plain
from kneeoa_mm.schemas import KNEES
from kneeoa_mm.tables import read_provenance, read_table

_MAX_ROWS = 60
_DESCRIBED = {
    "laterality": "Side",
    "months": "Months since baseline",
    "view": "View",
    "spacing_source": "Source of the pixel spacing",
    "detector": "Joint detector",
}


def films_section(run: Run) -> Section:
    """Which films became knees, and which did not."""
    path = run.path / "knees.parquet"
    knees = read_table(path, KNEES)
    rejects = read_csv(run.path / "rejects.csv")
    persons = knees["subject_id"].nunique()
    summary = f"{counted(len(knees), 'single-knee image')} of {counted(persons, 'person')}"
    section = Section(
        "preprocess",
        "Films to knees",
        run.name,
        summary=f"{summary}; {counted(len(rejects), 'item')} refused.",
        provenance=flat_provenance(read_provenance(path)),
    )
    section.tables.append(_knee_table(knees))
    if len(rejects) and {"stage", "code"} <= set(rejects.columns):
        counts = rejects.groupby(["stage", "code"]).size().sort_values(ascending=False)
        cells = [[code, stage, f"{n:,}"] for (stage, code), n in counts.items()]
        columns = ["Reason", "Step", "Items"]
        section.tables.append(Table("Refused items.", columns, cells[:_MAX_ROWS]))
    sheet = run.path / "qc" / "contact_sheet.png"
    if sheet.is_file():
        section.add_picture(sheet, "Contact sheet of the knee images.", wide=True)
    _tell(section, run, knees, rejects)
    return section


def _knee_table(knees: pd.DataFrame) -> Table:
    rows = []
    for name, label in _DESCRIBED.items():
        if name in knees:
            counts = knees[name].astype("string").fillna("unknown").value_counts(sort=False)
            rows += [[f"{label}: {value}", f"{n:,}"] for value, n in counts.items()][:_MAX_ROWS]
    flags = (
        knees["qc_flags"].str.split(";").explode() if "qc_flags" in knees else pd.Series(dtype=str)
    )
    marked = flags[flags.notna() & (flags != "")].value_counts()
    rows += [[f"Flag: {plain(flag)}", f"{n:,}"] for flag, n in marked.items()]
    return Table("Knee images.", ["", "Knees"], rows)


def _tell(section: Section, run: Run, knees: pd.DataFrame, rejects: pd.DataFrame) -> None:
    config = run.config()
    steps = []
    if crop := config.get("crop_mm"):
        steps.append(f"square crops of {crop:g} mm around the middle of the joint")
    if spacing := config.get("pixel_spacing_mm"):
        steps.append(f"resampled to {spacing:g} mm a pixel")
    if detector := config.get("detector"):
        steps.append(f"joints found by the detector “{detector}”")
    text = ", ".join(steps)
    section.tell("steps", text[:1].upper() + text[1:], "config.yaml")
    if text:
        section.methods.append(f"Films were made into single-knee images: {text}.")
    section.methods.append(section.summary)
    section.tell("quality", section.summary, "rejects.csv")
    acquired = []
    for name in ("view", "spacing_source"):
        if name in knees and knees[name].notna().any():
            counts = knees[name].value_counts()
            shown = ", ".join(f"{plain(level)} {n:,}" for level, n in counts.items())
            acquired.append(f"{_DESCRIBED[name].lower()}: {shown}")
    section.tell("acquisition", "; ".join(acquired), "knees.parquet")
