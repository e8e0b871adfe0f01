"""Which subjects a member learns from, is chosen on, and is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import folds_of, hold_out

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of the table of knees.

    Attributes:
        fold: The fold held out for testing; None outside cross-validation.
        train: Rows to learn from.
        val: Rows to choose the epoch on; empty where nothing is chosen.
        report: Rows whose predictions the run reports: the held-out fold, which neither training
            nor selection saw; outside cross-validation the validation rows.
    """

    fold: int | None
    train: Rows
    val: Rows
    report: Rows

    def among(self, usable: NDArray[np.bool_]) -> Split:
        """The split without the rows that cannot be used.

        Raises:
            InputError: A part is empty now.
        """
        train, val, report = (rows[usable[rows]] for rows in (self.train, self.val, self.report))
        split = Split(self.fold, train, val, report)
        parts = ("train", "val", "report") if len(self.val) else ("train", "report")
        _refuse_empty([split], "the images that could be read", parts)
        return split


def cross_validation(
    knees: pd.DataFrame, folds: pd.DataFrame, *, chooses: bool, where: Path | str
) -> list[Split]:
    """One split a fold: it is tested on, the next one is chosen on, the others are learned from.

    Args:
        knees: With ``subject_id``.
        folds: Table of folds by subject.
        chooses: Whether the epoch is chosen; if not, the next fold is learned from too.
        where: Named in errors.

    Raises:
        InputError: Subjects lack a fold, or there are fewer than three folds; where no epoch is
            chosen, two will do, such as the two sites of a cohort.
    """
    fold = folds_of(knees["subject_id"], folds, where=where)
    names = sorted({int(k) for k in folds["fold"]})
    if len(names) < 2 + chooses:
        raise InputError(
            "Cross-validation tests on one fold, chooses on the next and learns from the others."
            if chooses
            else "Cross-validation tests on one fold and learns from the others.",
            expected=f"at least {2 + chooses} folds",
            found=f"{len(names)}",
            where=where,
            fix="train with --set train.select_by=last, which chooses nothing" if chooses else "",
        )
    splits = []
    for held_out, chosen_on in zip(names, [*names[1:], names[0]], strict=True):
        test, val = fold == held_out, (fold == chosen_on) & chooses
        splits.append(Split(held_out, _rows(~test & ~val), _rows(val), _rows(test)))
    _refuse_empty(splits, where, ("train", "val", "report") if chooses else ("train", "report"))
    return splits


def train_and_val(
    knees: pd.DataFrame, strata: pd.Series, *, fraction: float, seed: int, where: Path | str
) -> list[Split]:
    """The folder's own split, or one made by subject.

    Args:
        knees: With a column ``split`` where the folder has one; its test part is left alone.
        strata: Label of each knee, to stratify a split that is made here.
        fraction: Share of subjects to hold out where there is no validation part.
        seed: Seed of a split that is made here.
        where: Named in errors.

    Raises:
        InputError: A part is empty.
    """
    part = knees.get("split", pd.Series("train", index=knees.index)).fillna("train").to_numpy()
    if not (part == "val").any():
        training = part == "train"
        if not training.any():
            raise InputError("The folder's split has no training part.", where=where)
        subjects = knees["subject_id"].to_numpy()
        held = hold_out(subjects[training], strata[training], fraction=fraction, seed=seed)
        part = np.where(training & np.isin(subjects, list(held)), "val", part)
    val = _rows(part == "val")
    splits = [Split(None, _rows(part == "train"), val, val)]
    _refuse_empty(splits, where, ("train", "val"))
    return splits


def _rows(mask: NDArray[np.bool_]) -> Rows:
    return np.flatnonzero(mask).astype(np.int64)


def _refuse_empty(splits: list[Split], where: Path | str, parts: tuple[str, ...]) -> None:
    for split in splits:
        for name in parts:
            if len(getattr(split, name)) == 0:
                place = "" if split.fold is None else f", fold {split.fold}"
                raise InputError(
                    "A part of the split has no knees.",
                    expected="knees in every part",
                    found=f"none to {name}{place}",
                    where=where,
                )
