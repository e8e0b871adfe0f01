"""The runs that a comparison is about, and which of them it refuses.

A figure is of knees whose persons nothing in the model has seen, by inputs of the baseline, on the
folds that all models share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kneeoa_mm import schemas, tables
from kneeoa_mm.cohort.columns import FACTORS, OPTIONAL_FACTORS
from kneeoa_mm.config import read_yaml_mapping
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.learning.clinical import READINGS, ClinicalEncoding
from kneeoa_mm.model_folder import ModelCard, member_folders, read_model
from kneeoa_mm.records import KL_CLASSES, UNKNOWN, WITHOUT_READING, KneeKey, Outcome
from kneeoa_mm.run_folder import CONFIG_FILE

FOLDS_FILE = "folds.parquet"
BASELINE = frozenset(
    {
        *FACTORS,
        *OPTIONAL_FACTORS,
        "kl_grade",
        "contralateral_kl_grade",
        "oarsi_jsn_medial",
        "oarsi_jsn_lateral",
        "lateral_predominant",
        "mjsw_medial_mm",
    }
)
"""Columns of the cohort table that may be known when a prediction is made."""
RESERVED = ("clinical", "clinical_boosted", "kl_grade", "mjsw")
"""Names of the simple models that a run could have."""
UNREAD = "_without_reading"
"""Ends the name of what a run says where no grade was read."""

_NAME = re.compile(r"^\w+$")
_GRADE_INPUTS = {"read": ("KL grade as read",), "predicted": ("KL grade as predicted",)}
"""Setting ``kl_input`` to what the model was given."""
_DISTORTIONS: Mapping[str, tuple[Any, str]] = {
    "train.augment.mixup": (0.0, "labels were mixed in training"),
}
"""Setting to its value that leaves risks alone, and what any other value does."""


@dataclass(frozen=True)
class ComparedRun:
    """A run of ``train-jsl``.

    Attributes:
        risk: Out-of-fold risk by ``knee_id``.
        factors: Columns of the cohort that the model was given beside the image.
        inputs: All that it was given, in words.
        distorted_by: What in its training moved the level of its risks.
    """

    risk: pd.Series
    factors: tuple[str, ...]
    inputs: str
    distorted_by: tuple[str, ...]


def parse_runs(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=RUN`` texts.

    Raises:
        InputError: A text reads otherwise, or a name stands twice or is that of a simple model.
    """
    runs: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not _NAME.match(name) or not folder or name in {*runs, *RESERVED}:
            raise InputError(
                "A run is named by NAME=RUN, each name once.",
                expected="such as image=runs/image fused=runs/fused, of letters, digits and _, and "
                f"none of {', '.join(RESERVED)}",
                found=text,
            )
        runs[name] = Path(folder)
    return runs


def read_run(
    name: str, folder: Path, outcome: Outcome, fold_of: pd.Series
) -> dict[str, ComparedRun]:
    """Read what a run of ``train-jsl`` predicts out of fold.

    Args:
        name: What it is called.
        folder: The run.
        outcome: What it has to predict.
        fold_of: Fold of each subject of the comparison.

    Returns:
        The run by its name, and by ``<name>_without_reading`` what it says where no grade was read.

    Raises:
        InputError: It predicts another outcome, or has other folds.
        LeakError: A member has seen persons whom it is reported on, or was given what is known only
            after baseline.
    """
    column = f"{outcome}_prob"
    predictions = _read_unseen(folder, fold_of, column)
    _refuse_other_folds(folder, set(predictions["subject_id"]), fold_of)
    cards = [read_model(member, ModelCard)[0] for member in member_folders(folder)]
    factors = tuple(
        dict.fromkeys(
            factor
            for card in cards
            if card.clinical
            for factor in ClinicalEncoding(**card.clinical).factors
        )
    )
    late = [factor for factor in factors if factor not in BASELINE]
    if late:
        raise LeakError(
            "A run was given what is not known at baseline.",
            expected="clinical factors among " + ", ".join(sorted(BASELINE)),
            found=", ".join(late),
            where=folder,
            fix="train it anew without them",
        )
    path = folder / CONFIG_FILE
    settings = read_yaml_mapping(path) if path.is_file() else {}
    grade = _GRADE_INPUTS.get(str(settings.get("kl_input")), ())
    named = [factor for factor in factors if not (grade and factor == "kl_grade")]
    distorted_by = _distortions(settings)
    knees = predictions.set_index("knee_id")
    found = {
        name: ComparedRun(
            knees[column].dropna(), factors, ", ".join(["image", *grade, *named]), distorted_by
        )
    }
    unread = f"{outcome}{WITHOUT_READING}"
    if unread in knees:
        # the branch that speaks there sees no reading at all, the other knee's grade included
        unread_factors = tuple(factor for factor in factors if factor not in READINGS)
        inputs = ", ".join(["image", *unread_factors, "no reading of either knee"])
        found[f"{name}{UNREAD}"] = ComparedRun(
            knees[unread].dropna(), unread_factors, inputs, distorted_by
        )
    return found


def read_grader(folder: Path, fold_of: pd.Series, knees: pd.DataFrame) -> pd.DataFrame:
    """Log-probabilities of the grades by ``knee_id``, out of fold, of a run of ``pretrain-kl``.

    Its folds may be others than those of the comparison: what the simple model learns about the
    outcome comes from these, and the grader never saw an outcome.

    Args:
        folder: The run.
        fold_of: Fold of each subject of the comparison.
        knees: Rows of the cohort.

    Raises:
        InputError: There is no such run.
        LeakError: A member has seen persons whom it is reported on.
    """
    columns = [f"kl_prob_{grade}" for grade in KL_CLASSES]
    own = folder / FOLDS_FILE
    if own.is_file():
        folds = tables.read_table(own, schemas.FOLDS).set_index("subject_id")["fold"]
        fold_of = folds[folds.index.isin(fold_of.index)]
    predictions = _as_in_cohort(_read_unseen(folder, fold_of, columns[0]), knees)
    probabilities = predictions.set_index("knee_id")[columns].dropna()
    return np.log(probabilities.clip(lower=1e-6)).add_prefix("log_")


def _as_in_cohort(predictions: pd.DataFrame, knees: pd.DataFrame) -> pd.DataFrame:
    """Predictions with the ids of a cohort, where images in a folder told person and side alone."""
    keys = predictions["knee_id"].map(KneeKey.parse)
    from_folder = keys.map(lambda key: key.cohort is None and key.months is None and key.copy == 1)
    side = ["subject_id", "laterality"]
    known = knees.reset_index(drop=True)[[*side, "knee_id"]].drop_duplicates(side, keep=False)
    named = predictions[from_folder].drop(columns="knee_id").merge(known, on=side)
    return pd.concat([predictions[~from_folder], named], ignore_index=True)


def _read_unseen(folder: Path, fold_of: pd.Series, column: str) -> pd.DataFrame:
    """Predictions on subjects of the comparison, after proof that each is out of fold."""
    path = folder / schemas.PREDICTIONS_FILE
    predictions = tables.read_table(path, schemas.PREDICTIONS)
    if column not in predictions:
        predicted = [str(o) for o in Outcome if f"{o}_prob" in predictions]
        raise InputError(
            "A run does not predict what is compared.",
            expected=f"a column {column}",
            found=", ".join(predicted) or "no outcome",
            where=path,
        )
    usable = predictions[predictions["status"].eq("ok") & predictions[column].notna()]
    usable = usable[usable["subject_id"].isin(fold_of.index)]
    if usable["seen_in_training"].any():
        _refuse_seen(set(usable.loc[usable["seen_in_training"], "subject_id"]), path)
    _refuse_members_that_saw(folder, set(usable["subject_id"]), fold_of)
    return usable


def _refuse_other_folds(folder: Path, subjects: set[str], fold_of: pd.Series) -> None:
    path = folder / FOLDS_FILE
    own = tables.read_table(path, schemas.FOLDS).set_index("subject_id")["fold"]
    wanted = fold_of[fold_of.index.isin(subjects)]
    differ = wanted[own.reindex(wanted.index).ne(wanted)]
    if len(differ):
        raise InputError(
            "A run was trained on other folds.",
            expected="the folds of the comparison, for each person it predicts",
            found=f"{len(differ)} persons in another fold, such as {differ.index[0]}",
            where=path,
            fix="train all runs with one --folds FILE, and compare with the same",
        )


def _refuse_members_that_saw(folder: Path, subjects: set[str], fold_of: pd.Series) -> None:
    covered: set[str] = set()
    for member in member_folders(folder):
        card, _ = read_model(member, ModelCard)
        # a member without a fold was trained once, and is reported on everybody
        held_out = {s for s in subjects if card.fold is None or fold_of[s] == card.fold}
        covered |= held_out
        known = card.seen_subjects
        if seen := known.in_training(held_out) | known.in_selection(held_out):
            _refuse_seen(seen, member)
    if uncovered := subjects - covered - {UNKNOWN}:
        raise LeakError(
            "A run predicts persons whom no member held out.",
            expected="for each person a member whose fold is theirs",
            found=f"{len(uncovered)} persons without, such as {min(uncovered)}",
            where=folder,
        )


def _refuse_seen(subjects: set[str], where: Path) -> None:
    raise LeakError(
        "A run is reported on persons seen in training, or when its epochs were chosen.",
        expected="predictions out of fold",
        found=f"{len(subjects)} persons seen, such as {min(subjects)}",
        where=where,
        fix="train it with the folds of the comparison: --folds COHORT/folds.parquet",
    )


def _distortions(settings: Mapping[str, Any]) -> tuple[str, ...]:
    found = []
    for key, (neutral, words) in _DISTORTIONS.items():
        value: Any = settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None and value != neutral:
            found.append(words)
    return tuple(found)
