"""From raw studies, or from knee images, to a prediction table."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm import schemas, tables
from kneeoa_mm.analysis import looks
from kneeoa_mm.analysis.results import sha256_of
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import InputError, OutputExistsError
from kneeoa_mm.learning.clinical_table import read_clinical, untold
from kneeoa_mm.learning.framing import framing_notes
from kneeoa_mm.learning.inference import choose_device, predict_knees
from kneeoa_mm.learning.models import Ensemble, load_ensemble
from kneeoa_mm.model_folder import shipped_grader
from kneeoa_mm.progress import say
from kneeoa_mm.records import KneeKey, PredictionStatus, StageResult
from kneeoa_mm.workflows.prediction_inputs import (
    Inputs,
    holds_knees,
    inputs_of_films,
    inputs_of_knees,
    refuse_options_of_films,
)

_SHOWN = 10
"""Knees that a person is shown at the end."""


def predict(
    source: Path,
    model: Path | None,
    out: Path,
    *,
    clinical: Path | None = None,
    cohort: CohortSpec | None = None,
    ids: str | None = None,
    device: str = "auto",
    jobs: int = 1,
    overwrite: bool = False,
) -> StageResult:
    """Predict KL grade, and progression where the model does, for every knee of ``source``.

    Args:
        source: A DICOM film or a folder of them, a picture of a knee or a folder of them (graded or
            not), or a table of knees. Pictures beside DICOM films are taken for films.
        model: Run or model folder; None takes the graders that come with the package.
        out: Prediction table to write, ``.parquet`` or ``.csv``.
        clinical: Output folder of ``cohort``, or a table by ``knee_id``: clinical factors for a
            fused model, and the truth to carry along.
        cohort: How films name subject and visit, for DICOM.
        ids: ``keep`` or a key file, for DICOM; None hashes with the key in ``<out>.key``, which is
            made if it is not there.
        device: ``auto``, ``cpu`` or ``cuda``.
        jobs: Workers for DICOM.
        overwrite: Replace ``out``.

    Raises:
        ConfigError: ``cohort`` or a key file is given, and the input is no films; or there is no
            such device.
        InputError: There is nothing to predict, ``out`` is no table or cannot be written, or
            ``clinical`` has none of the knees.
        MissingExtraError: No model is named, and none came with the package.
        ModelFolderError: There is no usable model.
        OutputExistsError: ``out`` exists.
    """
    if out.suffix not in {".parquet", ".csv"}:
        raise InputError("The output must be a table.", expected=".parquet or .csv", where=out)
    if out.exists() and not overwrite:
        raise OutputExistsError(
            "The output exists.", where=out, fix="name another with --out, or add --overwrite"
        )
    if not source.exists():
        raise InputError("The input is not there.", where=source)
    is_of_knees = holds_knees(source)
    if is_of_knees:
        refuse_options_of_films(source, cohort=cohort, ids=ids)
    device = choose_device(device)
    ensemble = load_ensemble(model or shipped_grader())
    _refuse_unwritable(out.parent)
    table = None if clinical is None else read_clinical(clinical)
    key = out.with_suffix(".key")
    if ids is None and key.exists():
        ids = str(key)
    with tempfile.TemporaryDirectory(prefix="kneeoa-mm-") as folder:
        work = Path(folder) / "knees"
        given = (
            inputs_of_knees(source)
            if is_of_knees
            else inputs_of_films(source, work, cohort=cohort, ids=ids, jobs=jobs)
        )
        result = _predict(given, ensemble, table, out, device)
        if given.fresh_key is None:
            return result
        # it would go with the temporary folder, and nobody could join the table
        shutil.move(given.fresh_key, key)
        return replace(result, outputs=result.outputs | {"key": key})


def _refuse_unwritable(folder: Path) -> None:
    """Raise where no table could be written in the end, such as among films on a read-only disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            "The table cannot be written.",
            found=error.strerror or type(error).__name__,
            where=folder,
            fix="name another place with --out",
        ) from error


def _predict(
    given: Inputs, ensemble: Ensemble, table: pd.DataFrame | None, out: Path, device: str
) -> StageResult:
    knees, clinical = given.knees, None
    notes = given.notes + untold(ensemble.factors, table, knees["knee_id"])
    if table is not None:
        clinical = table.reindex(knees["knee_id"]).reset_index(drop=True)
        for name in filter(None, ("kl_grade", ensemble.outcome_column, "split")):
            if name in clinical and name not in knees:
                knees[name] = clinical[name].to_numpy()
    predictions, unreadable = predict_knees(
        ensemble, knees, clinical=clinical, known_as=given.source_ids, device=device
    )
    for reject in unreadable:
        say(f"not used: {reject.source}: {reject.code} {reject.message}")
    strange = int((predictions["status"] == PredictionStatus.NOT_A_KNEE).sum())
    if clinical is not None:
        notes += unknown_categories(ensemble, clinical.set_index(knees["knee_id"]))
    if strange:
        notes += (
            f"{strange} images resemble no knee that the model learnt from, and were not graded. "
            "A film of both knees goes through preprocess first.",
        )
    contract = ensemble.members[0].card.preprocessing
    notes += framing_notes(predictions["framing"], contract.field_of_view_plateau_widths)
    notes += _flagged(knees)
    predictions = _beside(predictions, given)
    members = {m.name: {"weights_sha256": m.card.weights_sha256} for m in ensemble.members}
    extra: dict[str, Any] = {"members": members}
    if any(m.card.seen_subjects.has_unknown for m in ensemble.members):
        extra["seen_unknown"] = True
    tables.write_table(predictions, schemas.PREDICTIONS, out, extra=extra)
    notes += _look(predictions, out)
    seen = int(predictions["seen_in_training"].sum())
    if seen:
        notes += (f"{seen} knees are of subjects that the model was trained on.",)
    notes += (ensemble.members[0].card.intended_use,)
    has_truth = any(name in predictions for name in ("kl_grade", ensemble.outcome_column))
    evaluation = f"kneeoa-mm evaluate {out} --out {out.with_suffix('')}-evaluation"
    return StageResult(
        command="predict",
        out=out,
        outputs={"predictions": out},
        counts={
            "knees": int((predictions["status"] == PredictionStatus.OK).sum()),
            "seen_in_training": seen,
        },
        failed=len(unreadable) + strange + (0 if given.rejects is None else len(given.rejects)),
        figures={"first knees": first_knees(predictions, ensemble.outcome_column)},
        notes=notes,
        next_step=evaluation if has_truth else "",
    )


def _look(predictions: pd.DataFrame, out: Path) -> tuple[str, ...]:
    """Log that held-out knees were predicted, and say how often they have been looked at."""
    look = looks.log_look(
        looks.log_beside(out),
        command="predict",
        run=out.name,
        predictions_sha256=sha256_of(out),
        knees=looks.held_out_knees(predictions),
        metrics=(),
    )
    return tuple(looks.notes_of(look))


def first_knees(predictions: pd.DataFrame, outcome: str | None) -> list[dict[str, str]]:
    """What a person wants to see of the first knees, one mapping of column to text a knee.

    Args:
        predictions: A table of schema ``PREDICTIONS``; with ``source``, its films name the knees.
        outcome: Progression outcome that the model predicts; None for a KL grader.
    """
    shown = []
    for row in predictions.head(_SHOWN).to_dict("records"):
        graded = row["status"] == PredictionStatus.OK
        film = row.get("source")
        line = {
            "knee": f"{film} {row['laterality']}" if isinstance(film, str) else row["knee_id"],
            "grade": str(row["kl_grade_pred"]) if graded else row["status"],
            "probability": f"{row[_column_of(row)]:.2f}" if graded else "",
        }
        if "kl_set" in predictions:
            line["set"] = row["kl_set"] if graded else ""
        if outcome:
            line[outcome] = f"{row[f'{outcome}_prob']:.2f}" if graded else ""
        shown.append(line)
    return shown


def _column_of(row: dict[Hashable, Any]) -> str:
    """The column with the probability of the grade that a row is given."""
    return f"kl_prob_{row['kl_grade_pred']}"


def unknown_categories(ensemble: Ensemble, clinical: pd.DataFrame) -> tuple[str, ...]:
    """What the clinical table says that no training knee of some member said, one note a factor.

    Args:
        ensemble: The model.
        clinical: Clinical factors by ``knee_id``.
    """
    strange: dict[str, pd.Series] = {}
    for member in ensemble.members:
        if member.clinical is not None:
            for name, texts in member.clinical.unknown_categories(clinical).items():
                strange[name] = texts.combine_first(strange.get(name, texts))
    return tuple(
        f"{len(texts)} values of {name} were not in the training of every member and count as "
        "missing where they were not, such as "
        + ", ".join(f"{text!r} of {knee}" for knee, text in texts.head(_SHOWN).items())
        for name, texts in strange.items()
    )


def _flagged(knees: pd.DataFrame) -> tuple[str, ...]:
    """How many knees ``preprocess`` had doubts of, and which, the most frequent first."""
    flags = knees.get("qc_flags", pd.Series(dtype=str))
    counts = Counter(flag for text in flags for flag in text.split(";") if flag)
    if not counts:
        return ()
    named = ", ".join(f"{n} {flag}" for flag, n in counts.most_common())
    return (f"{flags.ne('').sum()} of {len(flags)} knees carry a QC flag (qc_flags): {named}.",)


def _beside(predictions: pd.DataFrame, given: Inputs) -> pd.DataFrame:
    """The predictions with what is known of the films, and a row a film without a knee."""
    if "qc_flags" in given.knees:
        predictions["qc_flags"] = given.knees["qc_flags"].to_numpy()
    if given.rejects is None:
        return predictions
    predictions["source"] = given.knees["source"].to_numpy()
    rejected = _rejected_rows(given.rejects, predictions)
    return pd.concat([predictions, rejected], ignore_index=True)


def _rejected_rows(rejects: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a film without a knee, so that no input vanishes.

    Knees of which nothing is known bear the same name, so copies are counted on from theirs.
    """
    unknown = KneeKey(None, None, None, None)
    keys = map(KneeKey.parse, predictions["knee_id"])
    copies = [key.copy for key in keys if replace(key, copy=1) == unknown]
    first = max(copies, default=1) + 1
    return pd.DataFrame(
        {
            "knee_id": [
                str(replace(unknown, copy=copy)) for copy in range(first, first + len(rejects))
            ],
            "subject_id": "-",
            "laterality": "-",
            "status": str(PredictionStatus.REJECTED),
            "seen_in_training": False,
            "source": rejects["source"],
        }
    )
