"""The stage ``check``: what a folder holds, what it lacks, and what would be lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.cohort.assemble import assemble
from kneeoa_mm.cohort.columns import FACTORS
from kneeoa_mm.cohort.harmonise import KL
from kneeoa_mm.cohort.layouts import Survey, in_words, survey
from kneeoa_mm.cohort.leaks import audit_split
from kneeoa_mm.cohort.partition import divide
from kneeoa_mm.cohort.sample_size import most_parameters, required_knees
from kneeoa_mm.cohort.search import search_sources
from kneeoa_mm.cohort_spec import CohortSpec, read_cohort_spec
from kneeoa_mm.errors import InputError
from kneeoa_mm.identifiers import KEEP, read_identifiers
from kneeoa_mm.records import UNKNOWN, Outcome, StageResult

_CATEGORIES = ("sex", "race", KL)
_NO_CANDIDATES = {"site"}
"""A model that knows the site cannot be used at another, so none takes it unless told to."""
_MAX_TABLES_LISTED = 20


def check_folder(
    folder: Path, *, cohort: str | None = None, parameters: int | None = None
) -> StageResult:
    """Say what is in a folder and what could be made of it; writes nothing.

    Args:
        folder: A release of tables, graded images, or DICOM films.
        cohort: Shipped cohort or ``cohort.yaml`` to read tables by; without it the shipped cohort
            that most files fit.
        parameters: Candidate parameters of the model that is planned; without it one a number and
            one less than its levels a category, over the clinical factors and the KL grade.

    Returns:
        What is there in notes; missing files and columns are counted as failed. Where the tables
        are complete, the attrition, and for each outcome the events and the knees that so many
        parameters need (Riley et al. 2020).

    Raises:
        InputError: There is nothing that could be used, cells are faulty, or there are too few
            subjects for the folds of ``cohort``.
        LeakError: A person or an image stands in two parts of a split or two folds, or the reading
            projects tell an outcome.
    """
    if not folder.is_dir():
        raise InputError("There is no such folder.", expected="a folder", where=folder)
    found = survey(folder)
    notes = [*_images_in_words(found, folder), *_cohorts_in_words(found)]
    name = cohort or next(iter(found.cohorts), None)
    counts = {
        "tables": len(found.tables),
        "graded_images": len(found.graded),
        "dicom_films": len(found.dicom),
    }
    if name is None:
        if not any(counts.values()):
            raise InputError(
                "Nothing here is of use.",
                expected="a cohort's tables, images in folders 0 to 4, or DICOM films",
                where=folder,
            )
        return StageResult(
            "check", folder, counts=counts, notes=(*notes, *_unknown_tables(found)),
            next_step=_next_without_tables(found, folder),
        )  # fmt: skip
    return _check_tables(folder, name, read_cohort_spec(name), parameters, counts, notes)


def _check_tables(
    folder: Path,
    name: str,
    spec: CohortSpec,
    parameters: int | None,
    counts: dict[str, int],
    notes: list[str],
) -> StageResult:
    search = search_sources(folder, spec)
    notes.append(f"read as {name}: {len(search.sources)} file(s) of it are here")
    notes += [f"not here, and not needed: {each}" for each in search.absent_optional]
    if search.faults:
        notes += [f"missing: {fault}" for fault in search.faults]
        return StageResult(
            "check", folder, counts=counts, failed=len(search.faults), notes=tuple(notes)
        )
    made = assemble(folder, spec, read_identifiers(KEEP))
    # stops here where `cohort` would
    parts = divide(made.cohort, made.images, made.read_by, where=folder)
    flows = made.attrition.table().groupby("flow", sort=False)
    lines = [_flow_in_words(str(name), rows) for name, rows in flows]
    parameters = parameters or candidate_parameters(made.cohort)
    return StageResult(
        "check",
        folder,
        counts={**counts, "knees": len(made.cohort)},
        figures={
            str(outcome): size
            for outcome in Outcome
            if (size := _size(made.cohort[outcome], parameters)) is not None
        },
        notes=(*notes, *made.notes, *parts.notes, *lines),
        next_step=f"kneeoa-mm cohort {folder} --out DIR --cohort {name}",
    )


def _flow_in_words(name: str, rows: pd.DataFrame) -> str:
    """One flow of the attrition as a sentence: of whom, less whom, who is left."""
    signs = {"start": "", "removed": "less ", "left": "leaves ", "event": "of which "}
    steps = [f"{signs[row.kind]}{row.knees} {row.step}" for row in rows.itertuples()]
    return f"{name}, in knees: {'; '.join(steps)}"


def candidate_parameters(cohort: pd.DataFrame) -> int:
    """Parameters of a model of all clinical factors that have values, and the KL grade."""
    parameters = 0
    for name in (each for each in (*FACTORS, KL) if each not in _NO_CANDIDATES):
        levels = cohort[name].nunique()
        parameters += max(0, levels - 1) if name in _CATEGORIES else int(levels > 1)
    return parameters


def _size(values: pd.Series, parameters: int) -> dict[str, Any] | None:
    known = values.dropna()
    events = int(known.sum())
    if not 0 < events < len(known):
        return None
    risk = events / len(known)
    return {
        "knees": len(known),
        "events": events,
        "candidate_parameters": parameters,
        "knees_needed": required_knees(parameters, risk).needed,
        "parameters_it_can_bear": most_parameters(len(known), risk),
    }


def _images_in_words(found: Survey, folder: Path) -> list[str]:
    notes = []
    if len(found.graded):
        audit_split(found.graded, found.graded["image"], where=folder)
        notes.append(f"graded images by KL grade: {in_words(found.graded['kl_grade'])}")
        if found.graded["split"].notna().any():
            notes.append(f"graded images by split: {in_words(found.graded['split'])}")
        nameless = int(found.graded["laterality"].eq(UNKNOWN).sum())
        if nameless:
            notes.append(f"{nameless} graded image(s) have names that tell no subject and side")
    if found.n_other_images:
        notes.append(f"{found.n_other_images} image(s) are in no folder of a grade")
    if found.dicom:
        folders = len({path.parent for path in found.dicom})
        notes.append(f"{len(found.dicom)} DICOM film(s) in {folders} folder(s)")
    return notes


def _cohorts_in_words(found: Survey) -> list[str]:
    return [
        f"looks like {name}: {there} of its {wanted} required file(s)"
        for name, (there, wanted) in found.cohorts.items()
    ]


def _unknown_tables(found: Survey) -> list[str]:
    names = [path.name for path in found.tables[:_MAX_TABLES_LISTED]]
    if not names:
        return []
    return [
        f"tables of no cohort that is known: {', '.join(names)}; write a cohort.yaml "
        "(docs/how-to/cohort.md) and give it to --cohort"
    ]


def _next_without_tables(found: Survey, folder: Path) -> str:
    if found.dicom:
        return f"kneeoa-mm preprocess {folder} --out DIR"
    return f"kneeoa-mm pretrain-kl --data {folder} --out DIR" if len(found.graded) else ""
