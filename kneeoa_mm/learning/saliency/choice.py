"""Which knees are explained: an even spread, or those that were answered worst and best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError
from kneeoa_mm.learning.saliency.sample import spread
from kneeoa_mm.records import KL_CLASSES
from kneeoa_mm.schemas import PREDICTIONS, PREDICTIONS_FILE
from kneeoa_mm.tables import read_table

EVEN_SPREAD = "evenly spread"
BY_ERROR = "by error"


def choose_knees(
    knees: pd.DataFrame, limit: int, predictions: Path | None, outcome: str | None
) -> NDArray[np.int64]:
    """Rows of the knees to explain.

    Args:
        knees: Rows of ``sources.read_knees``.
        limit: At most so many.
        predictions: A table, or the run folder that has one, with the truth: then half are the
            worst answers in it, worst first, and half the best, best last. Without, an even spread.
        outcome: The outcome whose risk is explained; None where grades are.

    Raises:
        InputError: The table tells the error of none of the knees.
    """
    if predictions is None:
        return spread(np.arange(len(knees)), limit)
    path = predictions / PREDICTIONS_FILE if predictions.is_dir() else predictions
    errors = _errors(read_table(path, PREDICTIONS), outcome).reindex(knees["knee_id"])
    known = np.flatnonzero(errors.notna())
    if not len(known):
        raise InputError(
            "The predictions tell the error of none of the knees.",
            expected=f"kl_grade and kl_prob_0 to _4 of {len(knees)} knees by knee_id"
            if outcome is None
            else f"{outcome} and {outcome}_prob of {len(knees)} knees by knee_id",
            where=path,
            fix="give predictions of the same images, with their truth",
        )
    worst_first = known[np.argsort(-errors.to_numpy()[known], kind="stable")]
    n_worst = -(-min(limit, len(known)) // 2)
    n_best = min(limit, len(known)) - n_worst
    return np.concatenate([worst_first[:n_worst], worst_first[len(known) - n_best :]])


def _errors(predictions: pd.DataFrame, outcome: str | None) -> pd.Series:
    """By ``knee_id``: how far a risk is from what happened; of grades the mean distance."""
    table = predictions.set_index("knee_id")
    if outcome is not None:
        columns = [outcome, f"{outcome}_prob"]
        truth, risk = (table.get(name, pd.Series(np.nan, table.index)) for name in columns)
        return (truth.astype(float) - risk.astype(float)).abs()
    if "kl_grade" not in table:
        return pd.Series(np.nan, table.index)
    probabilities = table[[f"kl_prob_{grade}" for grade in KL_CLASSES]].to_numpy(float)
    truth = table["kl_grade"].to_numpy(float, na_value=np.nan)
    distances = np.abs(np.arange(len(KL_CLASSES)) - truth[:, None])
    return pd.Series((probabilities * distances).sum(axis=1), table.index)
