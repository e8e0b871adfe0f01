"""From source tables to our vocabulary: one row a knee at baseline, one row a reading.

Every value is checked where it is read, so that a fault names its file, column and lines; all
faults of all tables are reported at once. A missing value keeps its reason in a column of its own,
``<name>_missing``.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from kneeoa_mm.cohort.columns import FACTORS, OPTIONAL_FACTORS, convert
from kneeoa_mm.cohort.history import days_from_months
from kneeoa_mm.cohort.sources import SIDES, Cell, Source, parse_cell, read_source
from kneeoa_mm.cohort_spec import ENROLLEES, KEYS, CohortSpec
from kneeoa_mm.errors import TableError, lines_named

KNEE = ["subject_id", "laterality"]
PROJECT = "reading_project"
KL = "kl_grade"
JSW = "mjsw_medial_mm"
FIXED_JSW = "jsw_fixed_mm"
PAIN = "womac_pain"
MISSING = "_missing"
UNNAMED_PROJECT = 0
"""The reading project of a cohort that names none."""

_LINE = "line"
_ATTENDED = "attended"
_NEVER_CODED = ("subject_id", "image_path")
_READINGS = (KL, "oarsi_jsn_medial", "oarsi_jsn_lateral", JSW, FIXED_JSW, PAIN)
_BY_VISIT = {KL, JSW, FIXED_JSW, PAIN, _ATTENDED}
_MONTHS_SINCE_ENROLMENT = ("replacement_months", "death_months", "last_contact_months")
_DAYS_SINCE_ENROLMENT = ("replacement_days", "death_days")
_ABSENT_COLUMN = "not in this release"
_ABSENT_TABLE = "the table is not there"
_ABSENT_ROW = "no row in the table"
_BONE_ON_BONE_MM = 0.0


class Harmonised(NamedTuple):
    """A cohort's sources in our vocabulary.

    Attributes:
        knees: One row a knee of every enrolled subject: factors and events.
        kl: One row a KL reading.
        jsw: One row a reading of joint-space width.
        pain: One row a knee and visit at which pain was asked for.
        strangers: Table and subject of all who are in a table but not enrolled.
        notes: What a person should know of the tables.
    """

    knees: pd.DataFrame
    kl: pd.DataFrame
    jsw: pd.DataFrame
    pain: pd.DataFrame
    strangers: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def harmonise(sources: list[Source], spec: CohortSpec) -> Harmonised:
    """Bring the sources of a cohort into our vocabulary.

    Raises:
        TableError: With every faulty cell and every duplicate row, by file, column and line.
    """
    tables = _translate_all(sources, spec)
    enrolled = tables[ENROLLEES]["subject_id"]
    readings = [name for name in _READINGS if name in tables[ENROLLEES]]
    read_columns = [*readings, *(name + MISSING for name in readings)]
    knees = _both_sides(tables[ENROLLEES].drop(columns=read_columns))
    notes, strangers = [], []
    for name, frame in tables.items():
        unknown = sorted(set(frame["subject_id"]) - set(enrolled))
        if unknown:
            notes.append(f"{name}: {len(unknown)} subject(s) are not in {ENROLLEES}, left out")
            strangers += [(name, subject) for subject in unknown]
        if name != ENROLLEES and not _BY_VISIT & set(frame):
            keys = KNEE if "laterality" in frame else ["subject_id"]
            columns = [column for column in frame if column not in ("months", *KEYS)]
            knees = _join(knees, frame[[*keys, *columns]], keys)
    knees = _since_baseline(_with_every_factor(knees, spec), spec.landmark_months)
    return Harmonised(
        _with_last_contact(knees, tables),
        _readings(tables, KL),
        _measured(_readings(tables, JSW, FIXED_JSW)),
        _readings(tables, PAIN),
        tuple(strangers),
        tuple(notes),
    )


def _translate_all(sources: list[Source], spec: CohortSpec) -> dict[str, pd.DataFrame]:
    faults: list[str] = []
    frames: dict[str, list[pd.DataFrame]] = {}
    for source in sources:
        frame = _translate(source, faults)
        if source.spec.has_visits_in_rows:
            frame = _with_months(frame, spec)
        frames.setdefault(source.table, []).append(_without_copies(frame, source, faults))
    if faults:
        raise TableError(
            f"The tables hold {len(faults)} kind(s) of fault.",
            faults,
            fix="correct these cells, or map their codes in cohort.yaml",
        )
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items()}
    _refuse_lost_zeros(tables)
    return tables


def _with_months(frame: pd.DataFrame, spec: CohortSpec) -> pd.DataFrame:
    """Rows of the visits that the cohort names, each with its months."""
    months = {code.casefold(): months for code, months in spec.visits.items()}
    frame = frame.assign(months=frame["visit"].str.casefold().map(months))
    return frame[frame["months"].notna()].astype({"months": int})


def _refuse_lost_zeros(tables: dict[str, pd.DataFrame]) -> None:
    """Raise where subjects are strangers only because a spreadsheet took their leading zeros."""
    enrolled = set(tables[ENROLLEES]["subject_id"])
    bare = {subject.lstrip("0"): subject for subject in enrolled}
    faults = []
    for name, frame in tables.items():
        strangers = sorted(set(frame["subject_id"]) - enrolled)
        alike = [(each, bare[each.lstrip("0")]) for each in strangers if each.lstrip("0") in bare]
        if alike:
            theirs, ours = alike[0]
            faults.append(
                f"{name}: {len(alike)} subject(s) as {theirs}, which {ENROLLEES} has as {ours}"
            )
    if faults:
        raise TableError(
            "Tables write subjects with and without leading zeros.",
            faults,
            fix="export the tables again with subject identifiers as text",
        )


def _translate(source: Source, faults: list[str]) -> pd.DataFrame:
    raw = read_source(source)
    frame = raw[[_LINE]].copy()
    frame["months"] = source.months
    if source.is_wide:
        frame["laterality"] = raw["laterality"]
    for name, column in source.spec.columns.items():
        cells = _cells(raw[name], name)
        converted = convert(cells, name, column, decimal_commas=source.has_decimal_commas)
        for problem, positions in converted.problems.items():
            lines = lines_named(raw[_LINE].iloc[positions])
            shown = source.column(name, "?")
            faults.append(f"{source.path.name}, column {shown}: {problem} in {lines}")
        frame[name] = converted.values
        if name not in KEYS:
            frame[name + MISSING] = converted.reasons
    return frame


def _cells(texts: pd.Series, name: str) -> list[Cell]:
    if name in _NEVER_CODED:  # leading zeros, letters and colons are kept
        return [Cell(text.strip() or None, None) for text in texts]
    return [Cell(None, _ABSENT_COLUMN) if text is None else parse_cell(text) for text in texts]


def _without_copies(frame: pd.DataFrame, source: Source, faults: list[str]) -> pd.DataFrame:
    """Drop repeated readings that agree; report subjects and readings that stand twice.

    A release may hold one reading twice, but never two values of one thing.
    """
    keys = [name for name in KEYS if name in frame]
    if source.spec.is_per_knee:
        frame = frame.drop_duplicates([name for name in frame if name != _LINE])
    twice = frame[frame.duplicated(keys, keep=False) & frame[keys].notna().all(axis=1)]
    if len(twice):
        what = "rows of one knee that differ" if source.spec.is_per_knee else "a subject twice"
        faults.append(f"{source.path.name}: {what} in {lines_named(twice[_LINE])}")
    return frame.drop(columns=_LINE)


def _both_sides(enrollees: pd.DataFrame) -> pd.DataFrame:
    if "laterality" in enrollees:
        return enrollees
    return pd.concat([enrollees.assign(laterality=side) for side in SIDES], ignore_index=True)


def _join(knees: pd.DataFrame, frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    joined = knees.merge(frame, on=keys, how="left", indicator="_row")
    without_row = joined.pop("_row") == "left_only"
    for name in frame.columns:
        if name.endswith(MISSING):
            joined[name] = joined[name].mask(without_row, _ABSENT_ROW)
    return joined


def _since_baseline(knees: pd.DataFrame, landmark_months: int) -> pd.DataFrame:
    """Times that sources count from enrolment, counted from the landmark; before it they are 0."""
    if not landmark_months:
        return knees
    knees = knees.copy()
    landmark_days = days_from_months(landmark_months)
    for names, landmark in (
        (_MONTHS_SINCE_ENROLMENT, landmark_months),
        (_DAYS_SINCE_ENROLMENT, landmark_days),
    ):
        for name in (name for name in names if name in knees):
            knees[name] = (knees[name].astype(float) - landmark).clip(lower=0)
    if "baseline_date" in knees:
        knees["baseline_date"] += pd.Timedelta(days=round(landmark_days))
    return knees


def _with_last_contact(knees: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The last visit that was attended, where the cohort tells no last contact of its own."""
    attended = [frame for frame in tables.values() if _ATTENDED in frame]
    if not attended or "last_contact_months" in knees:
        return knees
    visits = pd.concat(attended, ignore_index=True)
    last = visits[visits[_ATTENDED].eq(1).fillna(False)].groupby("subject_id")["months"].max()
    return knees.assign(last_contact_months=knees["subject_id"].map(last).astype(float))


def _with_every_factor(knees: pd.DataFrame, spec: CohortSpec) -> pd.DataFrame:
    declared = {name for table in spec.tables.values() for name in table.columns}
    knees = knees.copy()
    for name in (*FACTORS, *OPTIONAL_FACTORS):
        if name not in knees and name in declared:
            knees[name], knees[name + MISSING] = None, _ABSENT_TABLE
    return knees


def _readings(tables: dict[str, pd.DataFrame], *values: str) -> pd.DataFrame:
    """Rows of all tables that hold any of ``values``; one that none holds is missing in all."""
    frames = [frame for frame in tables.values() if set(values) & set(frame)]
    empty = pd.DataFrame(columns=[*KNEE, "months"])
    readings = pd.concat(frames, ignore_index=True) if frames else empty
    for value in values:
        if value not in readings:
            readings = readings.assign(**{value: float("nan"), value + MISSING: _ABSENT_COLUMN})
    # a cohort with a single reading project need not name it
    return readings if PROJECT in readings else readings.assign(**{PROJECT: UNNAMED_PROJECT})


def _measured(jsw: pd.DataFrame) -> pd.DataFrame:
    """Joint-space widths as their flags have them.

    A reader who judges bone on bone gives 0 mm, whatever the width's cell says; a width that the
    reader could not measure is missing.
    """
    jsw = jsw.copy()
    width, reason = JSW, JSW + MISSING
    if "no_jsw_reading" in jsw:
        unread = jsw["no_jsw_reading"].eq(1).fillna(False).astype(bool)
        jsw[width] = jsw[width].mask(unread)
        jsw[reason] = jsw[reason].mask(unread, "the reader could not measure it")
    # a fixed location has no flag of its own, and bone on bone is at the minimum
    if "bone_on_bone" in jsw:
        touching = jsw["bone_on_bone"].eq(1).fillna(False).astype(bool)
        jsw[width] = jsw[width].mask(touching, _BONE_ON_BONE_MM)
        jsw[reason] = jsw[reason].mask(touching)
    return jsw
