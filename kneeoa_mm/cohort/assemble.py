"""From source tables to the rows of a cohort, in memory: who is in it, factors and outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kneeoa_mm.cohort.audit import (
    Attrition,
    refuse_late_factors,
    refuse_projects,
    refuse_unsaid_landmark,
)
from kneeoa_mm.cohort.columns import FACTORS, OPTIONAL_FACTORS, refuse_unknown_columns
from kneeoa_mm.cohort.harmonise import (
    JSW,
    KL,
    KNEE,
    MISSING,
    harmonise,
)
from kneeoa_mm.cohort.history import KneeHistory
from kneeoa_mm.cohort.images import find_images
from kneeoa_mm.cohort.labels import followed_months, records_of, with_outcomes
from kneeoa_mm.cohort.outcomes import has_grade_drop
from kneeoa_mm.cohort.readings import (
    knee_histories,
    one_project,
    projects_in_words,
    reading_patterns,
    refuse_unlisted_projects,
    replaced_at_start,
    second_readings,
    why_unread_at_baseline,
)
from kneeoa_mm.cohort.search import find_sources
from kneeoa_mm.cohort.sources import hashes_of
from kneeoa_mm.cohort.unread import film_reasons, unmatched_ids
from kneeoa_mm.cohort_spec import EXCLUDE, CohortSpec
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import parts_of
from kneeoa_mm.identifiers import Identifiers
from kneeoa_mm.records import KneeKey, Laterality, Outcome
from kneeoa_mm.schemas import COHORT, KL_READINGS, check

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
        read_by: Which projects read each row's knee, of those that count.
        histories: What is known of each row's knee.
        followed_months: Until when each row's knee was followed for the value of each outcome.
        attrition: Who was left out.
        source_hashes: SHA-256 of each source file by its place in the folder.
        unmatched: Subjects and images that have no match.
        notes: What a person should know.
    """

    cohort: pd.DataFrame
    readings: pd.DataFrame
    second_readings: pd.DataFrame
    images: pd.Series | None
    read_by: pd.Series
    histories: list[KneeHistory]
    followed_months: pd.DataFrame
    attrition: Attrition
    source_hashes: dict[str, str]
    unmatched: pd.DataFrame
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
        ConfigError: The spec maps to columns that do not exist, or leaves its landmark unsaid.
        LeakError: A clinical factor is measured after baseline, or is the reading project.
    """
    refuse_unknown_columns(spec)
    refuse_unsaid_landmark(spec)
    refuse_late_factors(spec)
    refuse_projects(spec)
    found = find_sources(tables, spec)
    sources = harmonise(found, spec)
    kl_horizon = spec.outcomes.kl_horizon_months
    width, jsw_horizon = spec.outcomes.width, spec.outcomes.jsl_horizon_months
    for readings, value, setting in (
        (sources.kl, KL, "reading_projects"),
        (sources.jsw, width, "jsw_projects"),
    ):
        projects = getattr(spec, setting)
        refuse_unlisted_projects(readings, value, projects, setting=setting, where=tables)
    kl = one_project(sources.kl, KL, spec.reading_projects, horizon_months=kl_horizon)
    jsw = one_project(sources.jsw, width, spec.jsw_projects, horizon_months=jsw_horizon)
    attrition = Attrition()
    enrolled = sources.knees
    if "image_path" in enrolled:
        enrolled = enrolled.assign(image_path=find_images(tables, enrolled["image_path"]))
    knees = _select(enrolled, kl, spec, attrition, tables)
    histories = knee_histories(knees, kl, jsw, sources.pain, spec)
    records = records_of(knees, histories, spec)
    of_films = film_reasons(knees, sources, records, spec)
    unread = why_unread_at_baseline(sources.jsw, JSW, spec.jsw_projects)
    cohort = with_outcomes(_baseline(knees, kl, jsw, unread, of_films), records, histories)
    for outcome in Outcome:
        attrition.outcome(cohort, outcome)
    images = knees.get("image_path")
    patterns = reading_patterns(sources.kl, KL, spec.reading_projects)
    read_by = [patterns[knee] for knee in zip(*(knees[name] for name in KNEE), strict=True)]
    rows = _identified(cohort.assign(image=images, read_by=read_by), spec.name, identifiers)
    readings = _identified(kl.merge(knees[KNEE], on=KNEE), spec.name, identifiers)
    twice = second_readings(sources.kl, kl, KL).merge(knees[KNEE], on=KNEE)
    order = rows.pop("row")
    files, read_by_row = rows.pop("image"), rows.pop("read_by")
    return Assembled(
        check(rows, COHORT),
        check(readings.drop(columns="row"), KL_READINGS),
        _identified(twice, spec.name, identifiers).drop(columns="row"),
        None if images is None else files,
        read_by_row,
        [histories[place] for place in order],
        followed_months(records).loc[order].reset_index(drop=True),
        attrition,
        hashes_of(found, tables),
        unmatched_ids(enrolled, sources.strangers, identifiers),
        (
            *sources.notes,
            *projects_in_words(sources.kl, kl, KL, what="KL readings"),
            *projects_in_words(sources.jsw, jsw, width, what="joint-space widths"),
            *_notes(histories, cohort),
        ),
    )


def _select(
    knees: pd.DataFrame, kl: pd.DataFrame, spec: CohortSpec, attrition: Attrition, tables: Path
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
    if spec.landmark_months:
        steps.append(("replaced before the landmark", replaced_at_start(knees)))
    for name in (name for name in knees if name.startswith(EXCLUDE)):
        if not name.endswith(MISSING):
            steps.append((name.removeprefix(EXCLUDE).replace("_", " "), _is_set(knees[name])))
    steps.append(("no KL grade at baseline", ~is_graded))
    if "image_path" in knees:
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
    knees: pd.DataFrame,
    kl: pd.DataFrame,
    jsw: pd.DataFrame,
    unread: Mapping[tuple[str, str], str],
    of_films: list[list[str]],
) -> pd.DataFrame:
    """Clinical factors and readings of each knee at baseline, and why they or later ones lack."""
    cohort = knees.copy()
    for name in FACTORS:
        if name not in cohort:
            cohort[name], cohort[name + MISSING] = None, _UNDECLARED
    for readings in (kl, jsw):
        columns = [name for name in (KL, _JSN_MEDIAL, _JSN_LATERAL, JSW) if name in readings]
        reasons = [name + MISSING for name in columns]
        first = readings.loc[readings["months"].eq(0), [*KNEE, *columns, *reasons]]
        cohort = cohort.merge(first, on=KNEE, how="left")
    keys = zip(*(cohort[name] for name in KNEE), strict=True)
    why = pd.Series([unread.get(knee, "no reading at baseline") for knee in keys], cohort.index)
    cohort[JSW + MISSING] = why.where(cohort[JSW].isna())
    cohort[_CONTRALATERAL] = _other_side(cohort, kl)
    cohort[_CONTRALATERAL + MISSING] = pd.Series(
        "no grade of the other knee among the readings used", cohort.index
    ).where(cohort[_CONTRALATERAL].isna())
    if _JSN_LATERAL in cohort and _JSN_MEDIAL in cohort:
        lateral = cohort[_JSN_LATERAL].gt(cohort[_JSN_MEDIAL]).astype("Int64")
        both = cohort[_JSN_LATERAL].notna() & cohort[_JSN_MEDIAL].notna()
        cohort["lateral_predominant"] = lateral.where(both)
    factors = [*FACTORS, *(name for name in OPTIONAL_FACTORS if name in cohort)]
    readings_had = (n for n in (KL, _CONTRALATERAL, _JSN_MEDIAL, _JSN_LATERAL, JSW) if n in cohort)
    names = [*factors, *readings_had]
    reasons_of = [
        [f"{name}: {row[name + MISSING]}" for name in names if pd.notna(row[name + MISSING])]
        for row in cohort.to_dict("records")
    ]
    cohort["missing_reasons"] = pd.Series(
        ["; ".join(own + later) or None for own, later in zip(reasons_of, of_films, strict=True)],
        dtype=object,
    )
    if "split" in cohort:
        cohort["split"] = parts_of(cohort["split"], where="split")
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


def _notes(histories: list[KneeHistory], cohort: pd.DataFrame) -> list[str]:
    notes = []
    drops = sum(has_grade_drop(knee) for knee in histories)
    if drops:
        notes.append(f"{drops} knee(s) have a KL grade below that of baseline at some visit")
    if "lateral_predominant" in cohort:
        lateral = int(cohort["lateral_predominant"].eq(1).sum())
        notes.append(f"{lateral} knee(s) are narrowed more laterally than medially at baseline")
    return notes
