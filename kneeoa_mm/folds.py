"""Folds and splits by subject, so that both knees and all visits of a person stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold

from kneeoa_mm.errors import InputError, LeakError

TEST = "test"
"""The part of a split that is held out."""
SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": TEST,
    "auto_test": TEST,
}
"""Name of a folder, or in a table, to the part of the split it stands for."""
_MAX_LISTED = 5
_FOLDS_OF_A_SHARE = 10
"""So many folds come within three hundredths of any share below a half."""


def make_folds(
    subject_ids: ArrayLike, strata: ArrayLike, *, n_folds: int, seed: int
) -> pd.DataFrame:
    """Assign each subject to one of ``n_folds`` folds, stratified on the rows' labels.

    The result does not depend on the order of the rows.

    Args:
        subject_ids: Subject of each row, shape (n,).
        strata: Label of each row, shape (n,); missing labels form a stratum of their own.
        n_folds: Number of folds.
        seed: Seed of the shuffle.

    Returns:
        One row a subject with ``subject_id`` and ``fold`` from 0, sorted by subject.

    Raises:
        InputError: There are too few subjects, or a fold would be empty.
    """
    rows = pd.DataFrame({"subject_id": np.asarray(subject_ids, dtype=str)})
    rows["stratum"] = pd.Series(np.asarray(strata, dtype=object)).astype("string").fillna("missing")
    rows = rows.sort_values(["subject_id", "stratum"], ignore_index=True)
    n_subjects = rows["subject_id"].nunique()
    if n_subjects < n_folds:
        raise InputError(
            "There are too few subjects for the folds.",
            expected=f"at least {n_folds} subjects for {n_folds} folds",
            found=f"{n_subjects} subjects",
            fix="ask for fewer folds",
        )
    # Strata rarer than the folds cannot stand in each; scikit-learn warns of them, so merge them
    counts = rows["stratum"].value_counts()
    rare = rows["stratum"].map(counts) < n_folds
    strata_codes = rows["stratum"].where(~rare, "rare").to_numpy()
    if rare.sum() < n_folds:
        strata_codes = rows["stratum"].where(~rare, counts.index[0]).to_numpy()
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    groups = rows["subject_id"].to_numpy()
    rows["fold"] = -1
    for fold, (_, held_out) in enumerate(splitter.split(groups, strata_codes, groups)):
        rows.loc[held_out, "fold"] = fold
    folds: pd.DataFrame = rows.groupby("subject_id", as_index=False)["fold"].first()
    empty = sorted(set(range(n_folds)) - set(folds["fold"]))
    if empty or (folds["fold"] < 0).any():
        raise InputError(
            "A fold came out empty.",
            expected=f"subjects in all of {n_folds} folds",
            found=f"none in fold(s) {empty}",
            fix="ask for fewer folds",
        )
    return folds


def hold_out(subject_ids: ArrayLike, strata: ArrayLike, *, fraction: float, seed: int) -> set[str]:
    """Choose about ``fraction`` of the subjects, stratified on the rows' labels.

    Args:
        subject_ids: Subject of each row, shape (n,).
        strata: Label of each row, shape (n,).
        fraction: Share to hold out, above 0 and below 0.5.
        seed: Seed of the choice.

    Returns:
        The subjects held out.

    Raises:
        InputError: There are too few subjects.
    """
    n_subjects = len(np.unique(np.asarray(subject_ids, dtype=str)))
    most_folds = max(round(1 / fraction), min(_FOLDS_OF_A_SHARE, n_subjects))
    share = Fraction(fraction).limit_denominator(most_folds)
    folds = make_folds(subject_ids, strata, n_folds=share.denominator, seed=seed)
    return set(folds.loc[folds["fold"] < share.numerator, "subject_id"])


def folds_of(
    subject_ids: ArrayLike, folds: pd.DataFrame, *, where: object = ""
) -> NDArray[np.int64]:
    """The fold of each row.

    Args:
        subject_ids: Subject of each row, shape (n,).
        folds: Table of folds, schema ``FOLDS``.
        where: Named in the error.

    Returns:
        Fold of each row, shape (n,).

    Raises:
        InputError: The table lacks some subjects.
    """
    wanted = pd.Series(np.asarray(subject_ids, dtype=str))
    found = wanted.map(folds.set_index("subject_id")["fold"])
    if found.isna().any():
        absent = sorted(set(wanted[found.isna()]))
        raise InputError(
            "The folds lack some subjects.",
            expected="one fold for each subject",
            found=f"{len(absent)} without, such as {', '.join(absent[:_MAX_LISTED])}",
            where=where,
            fix="make the folds anew from the whole cohort, or drop these subjects",
        )
    return np.asarray(found, dtype=np.int64)


def in_test_part(splits: pd.Series) -> pd.Series:
    """Whether a column ``split`` puts each row into the held-out part, by any of its names.

    Args:
        splits: Names as in ``SPLITS``, in any case; others are of no part.
    """
    return _part_names(splits).map(SPLITS).eq(TEST).fillna(False).astype(bool)


def _part_names(splits: pd.Series) -> pd.Series:
    return splits.astype("string").str.strip().str.lower()


def parts_of(splits: pd.Series, *, where: object) -> pd.Series:
    """The parts that a column ``split`` names: ``train``, ``val``, ``test`` or missing.

    Args:
        splits: Names as in ``SPLITS``, in any case.
        where: Named in the error.

    Raises:
        InputError: There is another name; taken for a part to learn from, it could leak.
    """
    names = _part_names(splits)
    strange = sorted(set(splits[names.notna() & ~names.isin(list(SPLITS))].astype(str)))
    if strange:
        raise InputError(
            "The split names a part that is none.",
            expected=", ".join(SPLITS),
            found=", ".join(strange[:_MAX_LISTED]),
            where=where,
            fix="correct the column split, or leave it empty for knees to learn from",
        )
    return names.map(SPLITS).astype(object)


def refuse_shared_subjects(parts: Mapping[str, Sequence[str]], *, where: object = "") -> None:
    """Raise unless the parts of a split have no subject in common.

    Args:
        parts: Name of the part to the subjects in it.
        where: Named in the error.

    Raises:
        LeakError: A subject is in two parts.
    """
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = sorted(set(parts[first]) & set(parts[second]))
            if shared:
                raise LeakError(
                    "A subject stands in two parts of the split.",
                    expected="each subject in one part",
                    found=f"{len(shared)} in both {first} and {second}: "
                    + ", ".join(shared[:_MAX_LISTED]),
                    where=where,
                    fix="move all images of a subject into one part",
                )
