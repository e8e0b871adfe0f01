"""Sections of the report on where results come from: cohort, films, training, saliency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.analysis.covariates import CATEGORIES, label_of, unit_of
from kneeoa_mm.analysis.report_parts import (
    NOTHING,
    Section,
    Table,
    flat_provenance,
    read_csv,
    read_document,
    show,
)
from kneeoa_mm.analysis.results import OUTCOME_NAMES
from kneeoa_mm.model_folder import CARD_FILE
from kneeoa_mm.records import Outcome
from kneeoa_mm.tables import COHORT, KNEES, read_provenance, read_table

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
_MAX_LEVELS = 8
_MAX_ROWS = 60
_MAX_OVERLAYS = 12


def cohort_section(folder: Path, source: str) -> Section:
    """Who is in the cohort, and which outcomes they have."""
    path = folder / "cohort.parquet"
    cohort = read_table(path, COHORT)
    persons = cohort["subject_id"].nunique()
    section = Section(
        "cohort",
        "Cohort",
        source,
        summary=f"{len(cohort):,} knees of {persons:,} persons at baseline.",
        tables=[_baseline_table(cohort), _outcome_table(cohort)],
        provenance=flat_provenance(read_provenance(path)),
    )
    attrition = read_csv(folder / "attrition.csv")
    if {"flow", "kind", "step", "knees", "subjects"} <= set(attrition.columns):
        rows = attrition[attrition["flow"] == "cohort"]
        steps = rows[["kind", "step", "knees", "subjects"]].astype(str)
        cells = steps.replace({"step": "_"}, {"step": " "}, regex=True).to_numpy().tolist()
        columns = ["", "Step", "Knees", "Persons"]
        section.tables.insert(0, Table("Flow into the cohort.", columns, cells))
    return section


def _baseline_table(cohort: pd.DataFrame) -> Table:
    rows = []
    for name in _BASELINE:
        if name not in cohort or cohort[name].isna().all():
            continue
        known = cohort[name].dropna()
        missing = f"{cohort[name].isna().sum():,}"
        is_number = pd.api.types.is_numeric_dtype(known) and name not in CATEGORIES
        if is_number and not set(known.unique()) <= {0, 1}:
            text = f"{known.mean():.1f} ({known.std():.1f})"
            rows.append([f"{label_of(name)} ({unit_of(name)}), mean (SD)", text, missing])
            continue
        counts = known.value_counts()
        # an order for grades; for the rest the commonest first
        counts = counts.sort_index() if is_number or name in CATEGORIES else counts
        for level, count in counts.head(_MAX_LEVELS).items():
            text = f"{count:,} ({count / len(known):.0%})"
            word = {0: "no", 1: "yes"}[level] if name == "knee_injury" else level
            rows.append([f"{label_of(name)}: {word}", text, missing])
            missing = ""
    return Table("Baseline characteristics, by knee.", ["", "Value", "Missing"], rows)


def _outcome_table(cohort: pd.DataFrame) -> Table:
    rows = []
    for outcome in Outcome:
        if outcome not in cohort:
            continue
        values = cohort[outcome]
        known, events = int(values.notna().sum()), int((values == 1).sum())
        reasons = cohort.loc[values.isna(), f"{outcome}_reason"].fillna("unknown").value_counts()
        share = f"{events:,} ({events / known:.1%})" if known else NOTHING
        why = ", ".join(f"{str(reason).replace('_', ' ')}: {n:,}" for reason, n in reasons.items())
        rows.append([OUTCOME_NAMES[outcome], f"{known:,}", share, f"{len(values) - known:,}", why])
    columns = ["Outcome", "With a value", "Events", "Without", "Why not"]
    return Table("Outcomes, by knee.", columns, rows)


def preprocess_section(folder: Path, source: str) -> Section:
    """Which films became knees, and which did not."""
    path = folder / "knees.parquet"
    knees = read_table(path, KNEES)
    rejects = read_csv(folder / "rejects.csv")
    persons = knees["subject_id"].nunique()
    section = Section(
        "preprocess",
        "Films to knees",
        source,
        summary=f"{len(knees):,} single-knee images of {persons:,} persons; "
        f"{len(rejects):,} items were refused.",
        provenance=flat_provenance(read_provenance(path)),
    )
    described = [
        ("laterality", "Side"),
        ("months", "Months since baseline"),
        ("spacing_source", "Source of the pixel spacing"),
        ("detector", "Joint detector"),
    ]
    rows = []
    for name, label in described:
        if name in knees:
            counts = knees[name].astype("string").fillna("unknown").value_counts(sort=False)
            rows += [[f"{label}: {value}", f"{n:,}"] for value, n in counts.items()][:_MAX_ROWS]
    flags = (
        knees["qc_flags"].str.split(";").explode() if "qc_flags" in knees else pd.Series(dtype=str)
    )
    rows += [[f"Flag: {flag}", f"{n:,}"] for flag, n in flags[flags != ""].value_counts().items()]
    section.tables.append(Table("Knee images.", ["", "Knees"], rows))
    if len(rejects) and {"stage", "code"} <= set(rejects.columns):
        counts = rejects.groupby(["stage", "code"]).size().sort_values(ascending=False)
        cells = [[code, stage, f"{n:,}"] for (stage, code), n in counts.items()]
        columns = ["Reason", "Step", "Items"]
        section.tables.append(Table("Refused items.", columns, cells[:_MAX_ROWS]))
    sheet = folder / "qc" / "contact_sheet.png"
    if sheet.is_file():
        section.add_picture(sheet, "Contact sheet of the knee images.", wide=True)
    return section


def training_section(folder: Path, source: str) -> Section:
    """Members of a training run, their curves and their validation figures."""
    history = read_csv(folder / "history.csv")
    cards = {
        path.parent.name: read_document(path)
        for path in sorted((folder / "members").glob(f"*/{CARD_FILE}"))
    }
    target = "progression" if any(c.get("kind") == "jsl" for c in cards.values()) else "KL grade"
    section = Section(
        "training",
        f"Training: {target}",
        source,
        summary=f"{len(cards)} network{'' if len(cards) == 1 else 's'}, each at the epoch that "
        "its validation part chose.",
        tables=[_member_table(cards, history)],
        provenance=_training_provenance(cards),
    )
    if (folder / "history.png").is_file():
        caption = "Loss and validation metrics by epoch, one line a member."
        section.add_picture(folder / "history.png", caption, wide=True)
    return section


def _member_table(cards: Mapping[str, Any], history: pd.DataFrame) -> Table:
    metrics = list(dict.fromkeys(name for card in cards.values() for name in card["metrics"]))
    epochs = history["member"].value_counts() if "member" in history else {}
    rows = []
    for name, card in cards.items():
        fold = card.get("fold")
        rows.append(
            [
                name,
                str(card.get("weights_source", "none")),
                NOTHING if fold is None else str(fold),
                str(epochs.get(name, NOTHING)),
                *(show(card["metrics"].get(metric)) for metric in metrics),
            ]
        )
    heads = [f"val {name.removeprefix('val_').replace('_', ' ')}" for name in metrics]
    columns = ["Member", "Started from", "Fold left out", "Epochs", *heads]
    return Table("Members, with the validation figures of the chosen epoch.", columns, rows)


def _training_provenance(cards: Mapping[str, Any]) -> dict[str, str]:
    told = ("package_version", "config_digest", "licence", "intended_use")
    values = {
        name: ", ".join(sorted({str(c[name]) for c in cards.values() if c.get(name)}))
        for name in told
    }
    hashes = {f"{name}.weights_sha256": str(c.get("weights_sha256")) for name, c in cards.items()}
    return {name: text for name, text in values.items() if text} | hashes


def saliency_section(folder: Path, source: str) -> Section:
    """Overlays of what moved a model's output."""
    maps = read_csv(folder / "saliency.csv")
    section = Section("saliency", "Saliency", source)
    section.limits.append(
        "A saliency map shows what moved the network's output, not where disease is."
    )
    if not {"knee_id", "image"} <= set(maps.columns):
        section.summary = "No maps."
        return section
    images = maps.drop_duplicates("image")
    shown = images.head(_MAX_OVERLAYS)
    section.summary = f"{len(images):,} knees, of which {len(shown)} are shown."
    for _, row in shown.iterrows():
        target = str(row.get("target", "")).replace("_", " ")
        path = folder / row["image"]
        # the table names the picture: never read one from outside the run
        if path.resolve().is_relative_to(folder.resolve()):
            section.add_picture(path, f"{row['knee_id']}: {target}", wide=True)
    if "status" in maps and (odd := maps[maps["status"] != "ok"]["status"].value_counts()).any():
        told = ", ".join(f"{n} {status}" for status, n in odd.items())
        section.notes.append(f"Maps that are not ordinary: {told}.")
    return section
