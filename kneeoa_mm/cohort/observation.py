"""Who was seen at the horizon, and weights that let them stand for those who were not.

Knees that dropped out are not a random sample. Among the knees at risk whose person was alive and
which were not replaced (death and replacement are events of their own, not missing data), each knee
with a value is weighted by P(value) / P(value | baseline factors): inverse-probability weights,
stabilised (Robins, Hernan and Brumback 2000, Epidemiology 11:550) and truncated (Cole and Hernan
2008, Am J Epidemiol 168:656). They mend what the factors explain, and nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from kneeoa_mm.cohort.columns import FACTORS
from kneeoa_mm.cohort.harmonise import JSW, KL
from kneeoa_mm.cohort.history import Reason
from kneeoa_mm.records import Outcome

TRUNCATED_AT = (0.01, 0.99)
"""Quantiles beyond which a weight takes the quantile's value."""

_MIN_UNSEEN = 10
_MISSING_BY_CHANCE = (
    Reason.LOST,
    Reason.NO_READING,
    Reason.POSITION_DIFFERS,
    Reason.UNCONFIRMED,
)
_CATEGORIES = ("sex", "race", KL)
_NUMBERS = tuple(name for name in (*FACTORS, JSW) if name not in (*_CATEGORIES, "site"))

Array = NDArray[np.float64]


def add_weights(cohort: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give each outcome its weights.

    Returns:
        The cohort with ``<outcome>_weight``, missing where the outcome is; and for each outcome a
        document: how many knees were eligible and seen, the weights' spread and the number of
        unweighted knees they are worth, and how far the seen are from all, before and after.
    """
    design = _design(cohort)
    columns, document = {}, {}
    for outcome in Outcome:
        seen = cohort[outcome].notna().to_numpy(bool)
        unseen = cohort[f"{outcome}_reason"].isin(_MISSING_BY_CHANCE).to_numpy(bool)
        weights, document[str(outcome)] = _weights(design, seen, unseen)
        columns[f"{outcome}_weight"] = weights
    return cohort.assign(**columns), document


def _weights(design: pd.DataFrame, seen: Any, unseen: Any) -> tuple[Array, dict[str, Any]]:
    weights = np.where(seen, 1.0, np.nan)
    n_seen, n_unseen = int(seen.sum()), int(unseen.sum())
    counts: dict[str, Any] = {"eligible": n_seen + n_unseen, "seen": n_seen}
    if min(n_seen, n_unseen) < _MIN_UNSEEN:
        return weights, {**counts, "weighted": False, "why": f"fewer than {_MIN_UNSEEN} to model"}
    eligible = seen | unseen
    x, y = design.to_numpy(float)[eligible], seen[eligible]
    chance = LogisticRegression(max_iter=1000).fit(x, y).predict_proba(x)[:, 1]
    raw = y.mean() / chance[y]
    low, high = np.quantile(raw, TRUNCATED_AT)
    weights[seen] = np.clip(raw, low, high)
    used = weights[seen]
    return weights, {
        **counts,
        "weighted": True,
        "weight": {
            "min": float(used.min()),
            "mean": float(used.mean()),
            "max": float(used.max()),
            "max_before_truncation": float(raw.max()),
        },
        "effective_n": float(used.sum() ** 2 / (used**2).sum()),
        "standardised_difference_of_seen_from_eligible": _balance(
            design[eligible], y, np.where(y, weights[eligible], 0.0)
        ),
    }


def _balance(design: pd.DataFrame, seen: Any, weights: Array) -> dict[str, dict[str, float]]:
    """Difference of the seen from all, in standard deviations, before and after weighting."""
    balance = {}
    for name in design:
        values = design[name].to_numpy(float)
        spread = values.std() or 1.0
        before = (values[seen].mean() - values.mean()) / spread
        after = (np.average(values, weights=weights) - values.mean()) / spread
        balance[str(name)] = {"before": float(before), "after": float(after)}
    return balance


def _design(cohort: pd.DataFrame) -> pd.DataFrame:
    """Baseline factors as standardised numbers; a missing one is the median, with an indicator."""
    columns: dict[str, Array] = {}
    for name in _NUMBERS:
        values = cohort[name].astype(float).to_numpy()
        missing = np.isnan(values)
        if missing.all():
            continue
        filled = np.where(missing, np.nanmedian(values), values)
        columns[name] = (filled - filled.mean()) / (filled.std() or 1.0)
        if missing.any():
            columns[f"{name} missing"] = missing.astype(float)
    for name in _CATEGORIES:
        texts = cohort[name].astype("string").fillna("missing")
        for level in sorted(texts.unique()):
            columns[f"{name} {level}"] = texts.eq(level).to_numpy(float)
    return pd.DataFrame(columns, index=cohort.index)
