"""From source tables to the rows of a cohort, in memory: who is in it, factors and outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kneeoa_mm.cohort.audit import Attrition, refuse_late_factors, refuse_projects
from kneeoa_mm.cohort.columns import FACTORS, LABEL_PARTS, OPTIONAL_FACTORS, refuse_unknown_columns
from kneeoa_mm.cohort.harmonise import (
    JSW,
    KL,
    KNEE,
    MISSING,
    PROJECT,
    UNNAMED_PROJECT,
    Harmonised,
    harmonise,
)
from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord
from kneeoa_mm.cohort.images import find_images
from kneeoa_mm.cohort.outcomes import from_label, has_grade_drop, horizon_of, outcome_records
from kneeoa_mm.cohort.readings import knee_histories, one_project, second_readings
from kneeoa_mm.cohort.search import find_sources
from kneeoa_mm.cohort_spec import EXCLUDE, CohortSpec
from kneeoa_mm.errors import InputError
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.records import KneeKey, Laterality, Outcome
from kneeoa_mm.tables import COHORT, KL_READINGS, check

_UNDECLARED = "not in cohort.yaml"
_CONTRALATERAL = "contralateral_kl_grade"
_JSN_MEDIAL, _JSN_LATERAL = "oarsi_jsn_medial", "oarsi_jsn_lateral"
_CARRIED = ("split", "sub_cohort", "matched_pair")


@dataclass(frozen=True)
class Assembled:
    """A cohort before it is written.

    Attributes:
        cohort: One row a knee, schema ``COHORT``.
        readings: KL grade of each knee and visit, schema ``KL_READINGS``.
        second_readings: KL grade of each knee and visit that another project read, too.
        images: File of each row's image; None where the sources name none.
        histories: What is known of each row's knee.
        followed_months: Until when each row's knee was followed for the value of each outcome.
        attrition: Who was left out.
        notes: What a person should know.
    """

    cohort: pd.DataFrame
    readings: pd.DataFrame
    second_readings: pd.DataFrame
    images: pd.Series | None
    histories: list[KneeHistory]
    followed_months: pd.DataFrame
    attrition: Attrition
    notes: tuple[str, ...]


def assemble(tables: Path, spec: CohortSpec, identifiers: Identifiers) -> Assembled:
    """Read, select and label the knees of a cohort.

    Args:
        tables: Folder below which the files of ``spec.tables`` lie.
        spec: The cohort.
        identifiers: What turns subjects into the identifiers of outputs.

    Raises:
        InputError: The folder, files or columns are not there, or no knee qualifies.
        TableError: Cells, rows or values are faulty; lists them all.
        ConfigError: The spec maps to columns that do not exist.
        LeakError: A clinical factor is measured after baseline, or is the reading project.
    """
    refuse_unknown_columns(spec)
    refuse_late_factors(spec)
    refuse_projects(spec)
    sources = harmonise(find_sources(tables, spec), spec)
    kl_horizon = spec.outcomes.kl_horizon_months
    kl = one_project(sources.kl, KL, spec.reading_projects, horizon_months=kl_horizon)
    jsw = one_project(sources.jsw, spec.outcomes.width, spec.jsw_projects)
    attrition = Attrition()
    knees = _select(sources.knees, kl, attrition, tables)
    histories = knee_histories(knees, kl, jsw, sources.pain, spec)
    records = _records(knees, histories, spec)
    cohort = _with_outcomes(_baseline(knees, kl, jsw, sources), records, histories)
    for outcome in Outcome:
        attrition.outcome(cohort, outcome)
    images = knees.get("image_path")
    rows = _identified(cohort.assign(image=images), spec.name, identifiers)
    readings = _identified(kl.merge(knees[KNEE], on=KNEE), spec.name, identifiers)
    twice = second_readings(sources.kl, kl, KL).merge(knees[KNEE], on=KNEE)
    order = rows.pop("row")
    files = rows.pop("image")
    return Assembled(
        check(rows, COHORT),
        check(readings.drop(columns="row"), KL_READINGS),
        _identified(twice, spec.name, identifiers).drop(columns="row"),
        None if images is None else files,
        [histories[place] for place in order],
        _followed_months(records).loc[order].reset_index(drop=True),
        attrition,
        (*sources.notes, *_notes(kl, histories, cohort)),
    )


def _select(
    knees: pd.DataFrame, kl: pd.DataFrame, attrition: Attrition, tables: Path
) -> pd.DataFrame:
    knees = knees.sort_values(KNEE, ignore_index=True)
    graded = set(zip(kl["subject_id"], kl["laterality"], strict=True))
    is_graded = pd.Series(
        [knee in graded for knee in zip(knees["subject_id"], knees["laterality"], strict=True)],
        index=knees.index,
    )
    steps = []
    if "replaced_at_baseline" in knees:
        steps.append(("replaced at baseline", _is_set(knees["replaced_at_baseline"])))
    for name in (name for name in knees if name.startswith(EXCLUDE)):
        if not name.endswith(MISSING):
            steps.append((name.removeprefix(EXCLUDE).replace("_", " "), _is_set(knees[name])))
    steps.append(("no KL grade at baseline", ~is_graded))
    if "image_path" in knees:
        knees["image_path"] = find_images(tables, knees["image_path"])
        steps.append(("no image", knees["image_path"].isna()))
    left = attrition.select(knees, steps, name="in the cohort")
    if left.empty:
        raise InputError(
            "No knee of the enrolled subjects has a KL grade at baseline.",
            expected="readings whose subject is enrolled, from one of the reading projects",
            found=f"{len(knees)} enrolled knees, {len(graded)} with a grade at baseline",
            where=tables,
            fix="check that subjects are written alike in all tables, leading zeros included",
        )
    return left.reset_index(drop=True)


def _is_set(flags: pd.Series) -> pd.Series:
    return flags.eq(1).fillna(False).astype(bool)


def _baseline(
    knees: pd.DataFrame, kl: pd.DataFrame, jsw: pd.DataFrame, sources: Harmonised
) -> pd.DataFrame:
    """Clinical factors and readings of each knee at baseline, and why some are missing."""
    cohort = knees.copy()
    for name in FACTORS:
        if name not in cohort:
            cohort[name], cohort[name + MISSING] = None, _UNDECLARED
    for readings in (kl, jsw):
        columns = [name for name in (KL, _JSN_MEDIAL, _JSN_LATERAL, JSW) if name in readings]
        reasons = [name + MISSING for name in columns]
        first = readings.loc[readings["months"].eq(0), [*KNEE, *columns, *reasons]]
        cohort = cohort.merge(first, on=KNEE, how="left")
    unread = sources.jsw[sources.jsw["months"].eq(0)].drop_duplicates(KNEE)[[*KNEE, JSW + MISSING]]
    why = cohort[KNEE].merge(unread, on=KNEE, how="left")[JSW + MISSING]
    cohort[JSW + MISSING] = why.fillna("no reading at baseline").where(cohort[JSW].isna())
    cohort[_CONTRALATERAL] = _other_side(cohort, kl)
    cohort[_CONTRALATERAL + MISSING] = pd.Series("no grade of the other knee", cohort.index).where(
        cohort[_CONTRALATERAL].isna()
    )
    if _JSN_LATERAL in cohort and _JSN_MEDIAL in cohort:
        lateral = cohort[_JSN_LATERAL].gt(cohort[_JSN_MEDIAL]).astype("Int64")
        both = cohort[_JSN_LATERAL].notna() & cohort[_JSN_MEDIAL].notna()
        cohort["lateral_predominant"] = lateral.where(both)
    factors = [*FACTORS, *(name for name in OPTIONAL_FACTORS if name in cohort)]
    readings_had = (n for n in (KL, _CONTRALATERAL, _JSN_MEDIAL, _JSN_LATERAL, JSW) if n in cohort)
    names = [*factors, *readings_had]
    reasons_of = [
        "; ".join(
            f"{name}: {row[name + MISSING]}" for name in names if pd.notna(row[name + MISSING])
        )
        for row in cohort.to_dict("records")
    ]
    cohort["missing_reasons"] = pd.Series([text or None for text in reasons_of], dtype=object)
    carried = [name for name in ("lateral_predominant", *_CARRIED) if name in cohort]
    return cohort[[*KNEE, *names, *carried, "missing_reasons"]].assign(months=0)


def _other_side(cohort: pd.DataFrame, kl: pd.DataFrame) -> pd.Series:
    first = kl[kl["months"].eq(0)]
    grades = dict(
        zip(zip(first["subject_id"], first["laterality"], strict=True), first[KL], strict=True)
    )
    return pd.Series(
        [
            grades.get((subject, Laterality(side).other))
            for subject, side in zip(cohort["subject_id"], cohort["laterality"], strict=True)
        ],
        index=cohort.index,
        dtype="Int64",
    )


def _records(
    knees: pd.DataFrame, histories: list[KneeHistory], spec: CohortSpec
) -> dict[Outcome, list[OutcomeRecord]]:
    """Every outcome of every knee, from its history, or as the source has it ready-made."""
    records = outcome_records(histories, spec.outcomes)
    for outcome in Outcome:
        labels = [f"{outcome}{part}" for part in LABEL_PARTS]
        if set(labels) & set(knees):
            horizon = horizon_of(outcome, spec.outcomes)
            parts = knees.reindex(columns=labels).astype(object).where(lambda c: c.notna(), None)
            made = [from_label(*row, horizon_months=horizon) for row in parts.to_numpy()]
            records[outcome] = made
    return records


def _followed_months(records: dict[Outcome, list[OutcomeRecord]]) -> pd.DataFrame:
    followed = {
        outcome: [record.followed_months for record in made] for outcome, made in records.items()
    }
    return pd.DataFrame(followed, dtype=float)


def _with_outcomes(
    cohort: pd.DataFrame,
    records: dict[Outcome, list[OutcomeRecord]],
    histories: list[KneeHistory],
) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {}
    for outcome, made in records.items():
        columns |= _outcome_columns(str(outcome), made)
    for name in ("death_months", "last_contact_months"):
        columns[name] = pd.Series([getattr(knee, name) for knee in histories], dtype=float)
    return pd.concat([cohort, pd.DataFrame(columns)], axis=1)


def _outcome_columns(name: str, records: list[OutcomeRecord]) -> dict[str, pd.Series]:
    def column(attribute: str, dtype: str) -> pd.Series:
        return pd.Series([getattr(record, attribute) for record in records], dtype=dtype)

    return {
        name: column("value", "Int64"),
        f"{name}_reason": pd.Series(
            [None if record.reason is None else str(record.reason) for record in records],
            dtype=object,
        ),
        f"{name}_event_observed": column("event_observed", "Int64"),
        f"{name}_lower_months": column("lower_months", "float"),
        f"{name}_upper_months": column("upper_months", "float"),
    }


def _identified(rows: pd.DataFrame, cohort: str, identifiers: Identifiers) -> pd.DataFrame:
    """Rows with the identifiers that outputs carry, sorted by them; ``row`` is where each was."""
    rows = rows.assign(row=range(len(rows)))
    rows["subject_id"] = [identifiers.subject_id(subject) for subject in rows["subject_id"]]
    rows["knee_id"] = [
        str(KneeKey(cohort, subject, int(months), Laterality(side)))
        for subject, months, side in zip(
            rows["subject_id"], rows["months"], rows["laterality"], strict=True
        )
    ]
    first = ["knee_id", *KNEE, "months"]
    columns = [*first, *(name for name in rows if name not in first)]
    kept = [name for name in columns if not name.endswith(MISSING)]
    return rows[kept].sort_values([*KNEE, "months"], ignore_index=True)


def _notes(kl: pd.DataFrame, histories: list[KneeHistory], cohort: pd.DataFrame) -> list[str]:
    per_project = kl.drop_duplicates(KNEE)[PROJECT].value_counts().sort_index()
    shares = ", ".join(f"project {project} for {n} knee(s)" for project, n in per_project.items())
    notes = [] if set(per_project.index) == {UNNAMED_PROJECT} else [f"KL readings: {shares}"]
    drops = sum(has_grade_drop(knee) for knee in histories)
    if drops:
        notes.append(f"{drops} knee(s) have a KL grade below that of baseline at some visit")
    if "lateral_predominant" in cohort:
        lateral = int(cohort["lateral_predominant"].eq(1).sum())
        notes.append(f"{lateral} knee(s) are narrowed more laterally than medially at baseline")
    return notes
