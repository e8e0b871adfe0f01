"""The stage ``cohort``: source tables to one row a knee, with its outcomes and folds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from kneeoa_mm.atomic_files import atomic_path, write_json
from kneeoa_mm.cohort.assemble import Assembled, assemble
from kneeoa_mm.cohort.flow_diagram import write_flow_diagram
from kneeoa_mm.cohort.images import knee_images
from kneeoa_mm.cohort.observation import add_weights
from kneeoa_mm.cohort.partition import N_FOLDS, Partition, divide
from kneeoa_mm.cohort.sensitivity import sensitivity_table
from kneeoa_mm.cohort.summary import baseline_table
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.config import validate
from kneeoa_mm.identifiers import KEEP, read_identifiers
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken
from kneeoa_mm.schemas import COHORT, FOLDS, KL_READINGS, KNEES
from kneeoa_mm.settings import Seed, Settings
from kneeoa_mm.tables import write_table

PRIMARY = Outcome.JSL_OR_KR_48M


class CohortRun(Settings):
    """What ``config.yaml`` of a cohort folder says."""

    cohort: CohortSpec
    ids: Literal["kept", "hashed"]
    folds: int = Field(ge=2)
    seed: Seed


def build_cohort(
    tables: Path,
    out: Path,
    *,
    spec: CohortSpec,
    ids: str = KEEP,
    folds: int = N_FOLDS,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Build a cohort from its source tables.

    Writes ``cohort.parquet`` (one row a knee at baseline: clinical factors, readings, outcomes)
    with the export ``cohort.csv``, ``kl_readings.parquet`` (KL grade of each knee at each visit),
    ``kl_second_readings.csv`` where another project read the same films, too,
    ``folds.parquet`` (and ``folds_by_site.parquet`` where there are sites), ``knees.parquet`` where
    the sources name images, ``unmatched.csv`` where subjects or images have no match,
    ``attrition.csv`` and ``.svg``, ``table_1/<outcome>.csv``,
    ``sensitivity.csv``, ``observation.json`` and ``config.yaml``. Nothing is written unless all of
    the input is sound.

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
        LeakError: A clinical factor is measured after baseline or tells who read the film, or the
            sources' own split or the folds have a person or an image on two sides.
        OutputExistsError: ``out`` holds something else.
    """
    settings = {"cohort": spec, "ids": "kept" if ids == KEEP else "hashed"}
    run = validate(CohortRun, {**settings, "folds": folds, "seed": seed}, where="cohort")
    identifiers = read_identifiers(ids)
    refuse_taken(out, overwrite=overwrite)
    made = assemble(tables, spec, identifiers)
    parts = divide(made.cohort, made.images, made.read_by, n_folds=folds, seed=seed, where=tables)
    cohort, observation = add_weights(made.cohort, made.followed_months)
    with open_run(out, config_yaml=run.to_yaml(), overwrite=overwrite):
        digest = run.digest()
        outputs = {
            "cohort": write_table(
                cohort,
                COHORT,
                out / "cohort.parquet",
                config_digest=digest,
                extra={"sources": made.source_hashes},
            ),
            "export": write_table(cohort, COHORT, out / "cohort.csv"),
            "kl_readings": write_table(
                made.readings, KL_READINGS, out / "kl_readings.parquet", config_digest=digest
            ),
            "folds": write_table(parts.folds, FOLDS, out / "folds.parquet", config_digest=digest),
            **_write_optional(cohort, made, parts, out, digest),
            "attrition": _write_csv(made.attrition.table(), out / "attrition.csv"),
            "flow": write_flow_diagram(
                made.attrition.table(), _shown(cohort), out / "attrition.svg"
            ),
            "sensitivity": _write_csv(
                sensitivity_table(cohort, made.histories, spec.outcomes), out / "sensitivity.csv"
            ),
            "observation": write_json(out / "observation.json", observation),
            "table_1": _write_table_1(cohort, out / "table_1"),
        }
    return StageResult(
        command="cohort",
        out=out,
        outputs=outputs,
        counts=_counts(cohort),
        notes=(*made.notes, *parts.notes, *_primary_note(cohort)),
        next_step=f"kneeoa-mm survival {out} --out DIR --outcome {_timed(cohort)}",
    )


def _write_optional(
    cohort: pd.DataFrame, made: Assembled, parts: Partition, out: Path, digest: str
) -> dict[str, Path]:
    """What only some cohorts have: images, films read twice, ids without a match, several sites."""
    written = {}
    if made.images is not None:
        knees = knee_images(cohort, made.images, out)
        path = out / "knees.parquet"
        written["knees"] = write_table(knees, KNEES, path, config_digest=digest)
    if len(made.second_readings):
        written["kl_second_readings"] = _write_csv(
            made.second_readings, out / "kl_second_readings.csv"
        )
    if len(made.unmatched):
        written["unmatched"] = _write_csv(made.unmatched, out / "unmatched.csv")
    if parts.by_site is not None:
        path = out / "folds_by_site.parquet"
        written["folds_by_site"] = write_table(parts.by_site, FOLDS, path, config_digest=digest)
    return written


def _write_table_1(cohort: pd.DataFrame, folder: Path) -> Path:
    for outcome in (outcome for outcome in Outcome if cohort[outcome].notna().any()):
        table = baseline_table(cohort, by=outcome)
        _write_csv(table, folder / f"{outcome}.csv", index=True)
    return folder


def _write_csv(table: pd.DataFrame, path: Path, *, index: bool = False) -> Path:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=index, lineterminator="\n")
    return path


def _shown(cohort: pd.DataFrame) -> Outcome:
    """The primary outcome, or the first that has values."""
    order = (PRIMARY, *Outcome)
    return next((outcome for outcome in order if cohort[outcome].notna().any()), PRIMARY)


def _primary_note(cohort: pd.DataFrame) -> tuple[str, ...]:
    """Offer the primary outcome, with the knees that the loss alone would leave out."""
    if not cohort[PRIMARY].eq(1).any():
        return ()
    only = int((cohort[PRIMARY].notna() & cohort[Outcome.JSL_48M].isna()).sum())
    return (
        f"{PRIMARY} is the primary outcome that is offered (--outcome {PRIMARY}): it counts "
        f"{only} replaced knee(s) that {Outcome.JSL_48M} leaves out",
    )


def _timed(cohort: pd.DataFrame) -> Outcome:
    """The outcome that survival analysis is shown for: replacement where it is known."""
    order = (Outcome.TKR, *Outcome)
    return next((o for o in order if cohort[f"{o}_event_observed"].eq(1).any()), Outcome.TKR)


def _counts(cohort: pd.DataFrame) -> dict[str, int]:
    counts = {"knees": len(cohort), "subjects": cohort["subject_id"].nunique()}
    for outcome in (outcome for outcome in Outcome if cohort[outcome].notna().any()):
        counts[f"{outcome}_known"] = int(cohort[outcome].notna().sum())
        counts[f"{outcome}_events"] = int(cohort[outcome].sum())
    return counts
