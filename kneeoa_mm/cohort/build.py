"""The stage ``cohort``: source tables to one row a knee, with its outcomes and folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from kneeoa_mm.cohort.audit import Attrition, refuse_late_factors
from kneeoa_mm.cohort.columns import FACTORS, refuse_unknown_columns
from kneeoa_mm.cohort.harmonise import JSW, KL, KNEE, MISSING, PROJECT, Harmonised, harmonise
from kneeoa_mm.cohort.outcomes import (
    KneeHistory,
    OutcomeRecord,
    has_grade_drop,
    jsl_48m,
    kl_progression,
    tkr,
)
from kneeoa_mm.cohort.readings import knee_histories, one_project
from kneeoa_mm.cohort.sources import find_sources
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.config import Settings, validate
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import make_folds
from kneeoa_mm.identifiers import KEEP, Identifiers, read_identifiers
from kneeoa_mm.records import KneeKey, Laterality, Outcome, StageResult
from kneeoa_mm.run_folder import atomic_path, open_run, refuse_taken
from kneeoa_mm.tables import COHORT, FOLDS, KL_READINGS, check, write_table

_UNDECLARED = "not in cohort.yaml"


class CohortRun(Settings):
    """What ``config.yaml`` of a cohort folder says."""

    cohort: CohortSpec
    ids: Literal["kept", "hashed"]
    folds: int = Field(ge=2)
    seed: int


def build_cohort(
    tables: Path,
    out: Path,
    *,
    spec: CohortSpec,
    ids: str = KEEP,
    folds: int = 5,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Build a cohort from its source tables.

    Writes ``cohort.parquet`` (one row a knee at baseline: clinical factors, readings, outcomes)
    with the export ``cohort.csv``, ``kl_readings.parquet`` (KL grade of each knee at each visit),
    ``attrition.csv``, ``folds.parquet`` and ``config.yaml``. Nothing is written unless all of the
    input is sound.

    Args:
        tables: Folder below which the files of ``spec.tables`` lie.
        out: Output directory.
        spec: The cohort.
        ids: ``keep``, or a key file that turns subject identifiers into pseudonyms.
        folds: Number of folds, grouped by subject.
        seed: Seed of the folds.
        overwrite: Replace an earlier run in ``out``.

    Raises:
        InputError: The folder, files or columns are not there, or no knee qualifies.
        TableError: Cells, rows or values are faulty; lists them all.
        ConfigError: The spec maps to columns that do not exist, or ``folds`` is below 2.
        LeakError: A clinical factor is measured after baseline.
        OutputExistsError: ``out`` holds something else.
    """
    settings = {"cohort": spec, "ids": "kept" if ids == KEEP else "hashed"}
    run = validate(CohortRun, {**settings, "folds": folds, "seed": seed}, where="cohort")
    identifiers = read_identifiers(ids)
    refuse_taken(out, overwrite=overwrite)
    refuse_unknown_columns(spec)
    refuse_late_factors(spec)
    sources = harmonise(find_sources(tables, spec), spec)
    kl = one_project(sources.kl, KL, spec.reading_projects)
    jsw = one_project(sources.jsw, JSW, spec.jsw_projects)

    attrition = Attrition()
    knees = _select(sources.knees, kl, attrition, tables)
    histories = knee_histories(knees, kl, jsw)
    cohort = _with_outcomes(_baseline(knees, kl, jsw, sources), histories, spec)
    for outcome in Outcome:
        attrition.outcome(cohort, outcome)
    cohort = check(_identified(cohort, spec.name, identifiers), COHORT)
    kl = kl.merge(knees[KNEE], on=KNEE)
    readings = check(_identified(kl, spec.name, identifiers), KL_READINGS)
    fold_table = make_folds(
        cohort["subject_id"],
        cohort[Outcome.JSL_48M].astype("string").fillna("missing")
        + " "
        + cohort[KL].astype("string"),
        n_folds=folds,
        seed=seed,
    )
    with open_run(out, config_yaml=run.to_yaml(), overwrite=overwrite):
        digest = run.digest()
        outputs = {
            "cohort": write_table(cohort, COHORT, out / "cohort.parquet", config_digest=digest),
            "export": write_table(cohort, COHORT, out / "cohort.csv"),
            "kl_readings": write_table(
                readings, KL_READINGS, out / "kl_readings.parquet", config_digest=digest
            ),
            "folds": write_table(fold_table, FOLDS, out / "folds.parquet", config_digest=digest),
            "attrition": _write_attrition(attrition, out / "attrition.csv"),
        }
    return StageResult(
        command="cohort",
        out=out,
        outputs=outputs,
        counts=_counts(cohort),
        notes=(*sources.notes, *_reading_notes(kl, histories)),
        next_step=f"kneeoa-mm survival {out} --out DIR --outcome {Outcome.TKR}",
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
    is_replaced = pd.Series(False, index=knees.index)
    if "replaced_at_baseline" in knees:
        is_replaced = knees["replaced_at_baseline"].eq(1).fillna(False).astype(bool)
    left = attrition.select(
        knees,
        [("replaced at baseline", is_replaced), ("no KL grade at baseline", ~is_graded)],
        name="in the cohort",
    )
    if left.empty:
        raise InputError(
            "No knee of the enrolled subjects has a KL grade at baseline.",
            expected="readings whose subject is enrolled, from one of the reading projects",
            found=f"{len(knees)} enrolled knees, {len(graded)} with a grade at baseline",
            where=tables,
            fix="check that subjects are written alike in all tables, leading zeros included",
        )
    return left.reset_index(drop=True)


def _baseline(
    knees: pd.DataFrame, kl: pd.DataFrame, jsw: pd.DataFrame, sources: Harmonised
) -> pd.DataFrame:
    """Clinical factors and readings of each knee at baseline, and why some are missing."""
    cohort = knees.copy()
    for name in FACTORS:
        if name not in cohort:
            cohort[name], cohort[name + MISSING] = None, _UNDECLARED
    for readings in (kl, jsw):
        columns = [name for name in (KL, "oarsi_jsn_medial", JSW) if name in readings]
        reasons = [name + MISSING for name in columns]
        first = readings.loc[readings["months"].eq(0), [*KNEE, *columns, *reasons]]
        cohort = cohort.merge(first, on=KNEE, how="left")
    unread = sources.jsw[sources.jsw["months"].eq(0)].drop_duplicates(KNEE)[[*KNEE, JSW + MISSING]]
    why = cohort[KNEE].merge(unread, on=KNEE, how="left")[JSW + MISSING]
    cohort[JSW + MISSING] = why.fillna("no reading at baseline").where(cohort[JSW].isna())
    names = [*FACTORS, *(n for n in (KL, "oarsi_jsn_medial", JSW) if n in cohort)]
    reasons = [
        "; ".join(
            f"{name}: {row[name + MISSING]}" for name in names if pd.notna(row[name + MISSING])
        )
        for row in cohort.to_dict("records")
    ]
    cohort["missing_reasons"] = pd.Series([text or None for text in reasons], dtype=object)
    return cohort[[*KNEE, *names, "missing_reasons"]].assign(months=0)


def _with_outcomes(
    cohort: pd.DataFrame, histories: list[KneeHistory], spec: CohortSpec
) -> pd.DataFrame:
    records = {
        Outcome.JSL_48M: [jsl_48m(knee) for knee in histories],
        Outcome.KL_PROGRESSION: [kl_progression(knee) for knee in histories],
        Outcome.TKR: [tkr(knee, horizon_months=spec.tkr_horizon_months) for knee in histories],
    }
    columns: dict[str, Any] = {}
    for outcome, values in records.items():
        columns |= _outcome_columns(str(outcome), values)
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
    """Rows with the identifiers that outputs carry, sorted by them."""
    rows = rows.copy()
    rows["subject_id"] = [identifiers.subject_id(subject) for subject in rows["subject_id"]]
    rows["knee_id"] = [
        str(KneeKey(cohort, subject, int(months), Laterality(side)))
        for subject, months, side in zip(
            rows["subject_id"], rows["months"], rows["laterality"], strict=True
        )
    ]
    first = ["knee_id", *KNEE, "months"]
    columns = [*first, *(name for name in rows if name not in first)]
    kept = [name for name in columns if not name.endswith(MISSING) and name != "line"]
    return rows[kept].sort_values([*KNEE, "months"], ignore_index=True)


def _write_attrition(attrition: Attrition, path: Path) -> Path:
    with atomic_path(path) as temporary:
        attrition.table().to_csv(temporary, index=False, lineterminator="\n")
    return path


def _counts(cohort: pd.DataFrame) -> dict[str, int]:
    counts = {"knees": len(cohort), "subjects": cohort["subject_id"].nunique()}
    for outcome in Outcome:
        counts[f"{outcome}_known"] = int(cohort[outcome].notna().sum())
        counts[f"{outcome}_events"] = int(cohort[outcome].sum())
    return counts


def _reading_notes(kl: pd.DataFrame, histories: list[KneeHistory]) -> list[str]:
    per_project = kl.drop_duplicates(KNEE)[PROJECT].value_counts().sort_index()
    shares = ", ".join(f"project {project} for {n} knee(s)" for project, n in per_project.items())
    notes = [f"KL readings: {shares}"]
    drops = sum(has_grade_drop(knee) for knee in histories)
    if drops:
        notes.append(f"{drops} knee(s) have a KL grade below that of baseline at some visit")
    return notes
