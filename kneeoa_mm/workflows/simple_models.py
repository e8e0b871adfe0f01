"""The simple models that stand beside every run, out of fold on the same knees and folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.clinical import CATEGORICAL, READINGS, ClinicalEncoding

Array = NDArray[np.float64]
Fold = tuple[pd.DataFrame, NDArray[np.int64], Array, pd.DataFrame]
"""Training knees, their events, how much each counts, and the knees held out."""
IMPUTATIONS = 10
"""Draws of missing factors; more move a mean risk less than another division into folds would."""


@dataclass(frozen=True)
class SimpleModel:
    """Out-of-fold risks (n,) and what they were made of, in words."""

    risk: Array
    inputs: str


def simple_models(
    knees: pd.DataFrame,
    events: NDArray[np.int64],
    folds: NDArray[np.int64],
    *,
    factors: Sequence[str],
    grader: pd.DataFrame | None,
    shares: Array | None = None,
) -> dict[str, SimpleModel]:
    """Fit every simple model that the cohort allows.

    Args:
        knees: Rows of the cohort.
        events: Outcome coded 0 and 1, (n,).
        folds: Fold of each row, (n,).
        factors: Clinical factors that the runs were given; none for no clinical model.
        grader: Log-probabilities of a grader, rows as ``knees``.
        shares: How much each knee counts, (n,); None for all the same.

    Returns:
        Name to model: ``clinical`` (logistic), ``clinical_boosted``, ``kl_grade``, ``clinical+kl``,
        ``mjsw``, ``kl+grader`` and ``clinical+kl+grader``, as far as there are columns for them.

    Raises:
        InputError: A training part has one class only, or no grade.
    """
    found = {}
    _refuse_one_class(events, folds)
    if not _is_taught(knees["kl_grade"], folds):
        raise InputError(
            "There is no KL grade to compare with.",
            expected="a read grade of some knee in the other folds of each fold",
            found=f"{int(knees['kl_grade'].notna().sum())} of {len(knees)} knees with a grade",
            fix="compare in a cohort whose films were graded, or with fewer folds",
        )

    counts = np.ones(len(knees)) if shares is None else shares

    def add(name: str, table: pd.DataFrame, fit: Callable[[Fold], Array], inputs: str) -> None:
        found[name] = SimpleModel(_out_of_fold(table, events, folds, counts, fit), inputs)

    clinical = [factor for factor in factors if factor != "kl_grade"]
    if clinical:
        words = ", ".join(clinical)
        add("clinical", knees[clinical], _logistic, f"{words}; logistic regression")
        add("clinical_boosted", knees[clinical], _boosted, f"{words}; gradient boosting")
    add("kl_grade", knees[["kl_grade"]], _logistic, "KL grade as read, as categories")
    if clinical:
        add("clinical+kl", knees[["kl_grade", *clinical]], _logistic, f"KL grade as read, {words}")
    if _is_taught(knees["mjsw_medial_mm"], folds):
        add("mjsw", knees[["mjsw_medial_mm"]], _logistic, "minimum medial joint-space width")
    if grader is not None:
        both = pd.concat([knees[["kl_grade"]], grader], axis=1)
        seen = "KL grade as read and the grader's log-probabilities"
        add("kl+grader", both, _logistic, seen)
        if clinical:
            table = pd.concat([both, knees[clinical]], axis=1)
            add("clinical+kl+grader", table, _logistic, f"{seen}, {words}")
    return found


def _refuse_one_class(events: NDArray[np.int64], folds: NDArray[np.int64]) -> None:
    for fold in np.unique(folds):
        taught = events[folds != fold]
        if len(np.unique(taught)) < 2:
            raise InputError(
                f"With fold {fold} held out, one class is left to learn from.",
                expected="events and non-events in the other folds",
                found=f"{int(taught.sum())} events among {len(taught)} knees",
                fix="use fewer folds or more subjects",
            )


def _is_taught(column: pd.Series, folds: NDArray[np.int64]) -> bool:
    """Some knee outside of each fold has a value, so that every training part can learn from it."""
    known = column.notna().to_numpy(bool)
    return all(known[folds != fold].any() for fold in np.unique(folds))


def _out_of_fold(
    table: pd.DataFrame,
    events: NDArray[np.int64],
    folds: NDArray[np.int64],
    counts: Array,
    fit: Callable[[Fold], Array],
) -> Array:
    risk = np.full(len(table), np.nan)
    for fold in np.unique(folds):
        held_out = folds == fold
        taught = ~held_out
        risk[held_out] = fit((table[taught], events[taught], counts[taught], table[held_out]))
    return risk


def _logistic(fold: Fold) -> Array:
    """Logistic regression with a light ridge (C = 1) on encoded factors.

    Where factors are missing they are drawn ten times, by what the training knees say; each draw
    has a model of its own, and the risk of a knee held out is the mean over models and draws.
    """
    train, events, counts, held_out = fold
    encoding = ClinicalEncoding.fit(train)
    draws = np.random.default_rng(0)
    risks = []
    for _ in range(IMPUTATIONS if _has_gaps(train) or _has_gaps(held_out) else 1):
        features = encoding.draw(train, draws)
        model = LogisticRegression(max_iter=1000).fit(features, events, counts)
        risks.append(_risk(model, encoding.draw(held_out, draws)))
    return np.asarray(np.mean(risks, axis=0), dtype=np.float64)


def _has_gaps(table: pd.DataFrame) -> bool:
    """Whether there is anything to impute; readings never are."""
    return bool(table.drop(columns=[*READINGS], errors="ignore").isna().any(axis=None))


def _boosted(fold: Fold) -> Array:
    """Gradient boosting that is held back, since cohorts are small; missing values are a branch."""
    train, events, counts, held_out = fold
    columns = _for_trees(pd.concat([train, held_out]))
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=100,
        max_leaf_nodes=8,
        min_samples_leaf=20,
        l2_regularization=1.0,
        categorical_features="from_dtype",
        early_stopping=False,
        random_state=0,
    )
    model.fit(columns.iloc[: len(train)], events, counts)
    return _risk(model, columns.iloc[len(train) :])


def _for_trees(table: pd.DataFrame) -> pd.DataFrame:
    columns = {
        name: table[name].astype("string").astype(object).astype("category")
        if name in CATEGORICAL
        else pd.to_numeric(table[name]).astype(float)
        for name in table
    }
    return pd.DataFrame(columns)


def _risk(model: Any, features: Any) -> Array:
    return np.asarray(model.predict_proba(features)[:, 1], dtype=np.float64)
