"""How far two readers of the same films agree, and a model beside them.

No model can be expected to agree with a reader better than another reader does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from kneeoa_mm.analysis import looks
from kneeoa_mm.analysis.results import as_json, provenance_of, sha256_of, table_in
from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.config import validate
from kneeoa_mm.errors import InputError, TableError, rows_named
from kneeoa_mm.metrics import Resampled, accuracy, bootstrap_weights, persons_of, qwk, resample
from kneeoa_mm.records import KL_CLASSES, StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken
from kneeoa_mm.schemas import PREDICTIONS, PREDICTIONS_FILE
from kneeoa_mm.settings import Seed, Settings
from kneeoa_mm.tables import read_table

AGREEMENT_FILE = "agreement.json"
SECOND_READINGS_FILE = "kl_second_readings.csv"
_METRICS = {"qwk": qwk, "accuracy": accuracy}
_NAMES = ["knee_id", "subject_id"]
_READINGS = ["kl_grade", "second_kl_grade"]


class AgreementSettings(Settings):
    """Settings of ``kneeoa-mm agreement``."""

    n_boot: int = Field(default=1000, ge=0)
    """Bootstrap draws of persons; 0 gives no intervals."""
    seed: Seed = 0


def agreement(
    readings: Path,
    out: Path,
    *,
    predictions: Path | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Quadratic weighted kappa of two readings, and of a model with each, on the same films.

    Args:
        readings: ``kl_second_readings.csv`` of a cohort, or its folder: ``knee_id``,
            ``subject_id``, ``kl_grade`` and ``second_kl_grade``.
        out: Gets ``agreement.json``.
        predictions: Grades by a model, schema ``PREDICTIONS``, or the folder of a run; films whose
            person it has seen are left out.
        n_boot: Draws of persons.
        seed: Of the draws.
        overwrite: Replace an earlier analysis in ``out``.

    Raises:
        InputError: There are no second readings, they cannot be read, or the model graded none.
        TableError: The readings are faulty, with the rows; or the predictions break their schema.
        OutputExistsError: ``out`` holds something else.
    """
    asked = {"n_boot": n_boot, "seed": seed}
    settings = validate(AgreementSettings, asked, where="agreement")
    refuse_taken(out, overwrite=overwrite)
    path = table_in(readings, SECOND_READINGS_FILE)
    table = _read(path)
    n_read = len(table)
    seen = None
    if predictions is not None:
        graded = table_in(predictions, PREDICTIONS_FILE)
        usable = _usable(graded)
        grades = usable["kl_grade_pred"].dropna().astype(int)
        table = table.assign(model=table["knee_id"].map(grades)).dropna(subset="model")
        if table.empty:
            raise InputError("The model graded none of the films that were read twice.", where=path)
        seen = _look(graded, set(table["knee_id"]) & set(looks.held_out_knees(usable)))
    persons = persons_of(table["subject_id"], table["knee_id"])
    weights = bootstrap_weights(persons, n_boot=n_boot, seed=seed)
    found = _resampled(table, weights)
    document: dict[str, Any] = {
        "counts": {"films": len(table), "persons": len(np.unique(persons))},
        "left_out": {"no_prediction": n_read - len(table)},
        "agreement": {
            name: {metric: as_json(value.estimate()) for metric, value in each.items()}
            for name, each in found.items()
        },
        "model_minus_second_reader": {
            metric: as_json((found["model"][metric] - found["second_reader"][metric]).estimate())
            for metric in _METRICS
            if "model" in found
        },
        "looks": seen,
        "provenance": {
            "command": "agreement",
            **provenance_of(path),
            **asked,
            "intervals": "95 %, percentiles of a bootstrap that draws persons",
        },
    }
    lacking = n_read - len(table)
    document["notes"] = [_left_out_note(lacking, n_read)] if lacking else []
    document["notes"] += looks.notes_of(seen)
    with open_run(out, config_yaml=settings.to_yaml(), overwrite=overwrite) as run:
        write_json(run / AGREEMENT_FILE, document)
    return StageResult(
        command="agreement",
        out=out,
        outputs={"agreement": out / AGREEMENT_FILE},
        counts=document["counts"],
        figures={name: each["qwk"] for name, each in document["agreement"].items()},
        notes=tuple(document["notes"]),
    )


def _resampled(table: pd.DataFrame, weights: NDArray[np.uint16]) -> dict[str, dict[str, Resampled]]:
    """The metrics of each pair of gradings: the two readers, and a model with each."""
    pairs = {"second_reader": ("kl_grade", "second_kl_grade")}
    if "model" in table:
        pairs |= {"model": ("kl_grade", "model"), "model_with_second": ("second_kl_grade", "model")}
    return {
        name: {
            metric: resample(
                score, table[first].to_numpy(np.int64), table[second].to_numpy(np.int64), weights
            )
            for metric, score in _METRICS.items()
        }
        for name, (first, second) in pairs.items()
    }


def _left_out_note(lacking: int, n_read: int) -> str:
    return (
        f"{lacking} of {n_read} films that were read twice have no grade by the model, or it has "
        "seen their person; they were left out for the readers, too."
    )


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError("There are no second readings.", expected=SECOND_READINGS_FILE, where=path)
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_NAMES, str))
    except (OSError, ValueError) as error:
        raise InputError(
            "The second readings cannot be read.",
            expected="a CSV file in UTF-8",
            found=str(error),
            where=path,
        ) from error
    absent = {*_NAMES, *_READINGS} - set(table)
    if absent or table.empty:
        raise InputError(
            "The second readings cannot be used.",
            expected="rows with knee_id, subject_id, kl_grade and second_kl_grade",
            found=f"{len(table)} rows without {', '.join(sorted(absent))}" if absent else "no row",
            where=path,
        )
    faults = {
        "a grade that is not 0 to 4": ~table[_READINGS].isin(range(len(KL_CLASSES))).all(axis=1),
        "the same film again": table["knee_id"].duplicated(),
        "no knee_id or subject_id (- where it is unknown)": table[_NAMES].isna().any(axis=1),
    }
    found = [
        f"{fault}: {rows_named(np.flatnonzero(broken))}"
        for fault, broken in faults.items()
        if broken.any()
    ]
    if found:
        raise TableError("The second readings cannot be used.", found, where=path)
    return table


def _usable(path: Path) -> pd.DataFrame:
    """Predictions by ``knee_id`` of persons whom the model has not seen."""
    table = read_table(path, PREDICTIONS)
    usable = table[(table["status"] == "ok") & ~table["seen_in_training"]]
    return usable.set_index("knee_id", drop=False)


def _look(predictions: Path, knees: set[str]) -> dict[str, Any] | None:
    return looks.log_look(
        looks.log_beside(predictions),
        command="agreement",
        run=predictions.parent.resolve().name,
        predictions_sha256=sha256_of(predictions),
        knees=knees,
        metrics=_METRICS,
    )
