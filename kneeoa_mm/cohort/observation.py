"""Who was followed until the outcome was decided, and weights that let them stand for the others.

Knees that drop out are no random sample, and an event that is seen at a visit is known whatever
happens after it, while a knee without one must be followed to the horizon. Those who have a value
are therefore weighted by the inverse of the chance of having been followed until it was decided
(inverse probability of censoring weights; Robins and Finkelstein 2000, Biometrics 56:779):
w = 1 / G(T | X), with T the time at which the value was decided (when the event was seen, or the
horizon) and G(t | X) the product over the looks before t of 1 - h(look | X). The hazard h of
dropping out at a look is one logistic regression over knees and looks, of baseline factors and the
look (D'Agostino et al. 1990, Stat Med 9:1501). An outcome that is read off one film has one look,
and G is the chance of that reading.

Death and replacement are events of their own and no dropping out: such a knee counts until then,
and where it has no value it stays without, as it would have if nobody dropped out. The end of a
study before the horizon looks like dropping out, since tables do not tell it.

Weights are neither truncated nor scaled: each is the number of knees that one stands for. They mend
what the factors explain, and nothing else.
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

_MIN_UNSEEN = 10
_MISSING_BY_CHANCE = (
    Reason.LOST,
    Reason.NO_READING,
    Reason.POSITION_DIFFERS,
    Reason.UNCONFIRMED,
)
_CATEGORIES = ("sex", "race", KL)
_NUMBERS = tuple(name for name in (*FACTORS, JSW) if name not in (*_CATEGORIES, "site"))
_NOT_FOLLOWED = -1

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


def add_weights(
    cohort: pd.DataFrame, followed_months: pd.DataFrame
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give each outcome its weights.

    Args:
        cohort: Rows with factors, outcomes and their reasons.
        followed_months: Of each row, by outcome, when its value was decided or, without one, until
            when it was followed; missing for knees that are not at risk.

    Returns:
        The cohort with ``<outcome>_weight``, missing where the outcome is; and for each outcome a
        document: how many knees were eligible and seen, the weights' spread and the number of
        unweighted knees they are worth, and how far the seen are from all, before and after.
    """
    design = _design(cohort)
    columns, document = {}, {}
    for outcome in Outcome:
        seen = cohort[outcome].notna().to_numpy(bool)
        reasons = cohort[f"{outcome}_reason"]
        dropped = reasons.isin(_MISSING_BY_CHANCE).to_numpy(bool)
        counts = {"eligible": int((seen | dropped).sum()), "seen": int(seen.sum())}
        columns[f"{outcome}_weight"] = np.where(seen, 1.0, np.nan)
        if min(seen.sum(), dropped.sum()) < _MIN_UNSEEN:
            why = f"fewer than {_MIN_UNSEEN} to model"
            document[str(outcome)] = {**counts, "weighted": False, "why": why}
            continue
        on_some_day = reasons.eq(Reason.UNCONFIRMED).to_numpy(bool)
        months = followed_months[outcome].to_numpy(float)
        places = _places(months, seen, dropped, on_some_day)
        chance = chance_of_being_followed(design.to_numpy(float), places, dropped)
        weights = columns[f"{outcome}_weight"] / chance
        columns[f"{outcome}_weight"] = weights
        document[str(outcome)] = {
            **counts, "weighted": True, **_in_numbers(design, seen, dropped, weights)
        }  # fmt: skip
    return cohort.assign(**columns), document


def _places(months: Array, seen: Flags, dropped: Flags, on_some_day: Flags) -> Places:
    """How many of the times at which values were decided each knee was followed to.

    Who dropped out between the same two of them dropped out at one look. Those who did so on a day
    of their own go to the look before, or each would be a look.
    """
    decided = np.unique(months[seen])
    places = np.searchsorted(decided, months, side="right").astype(np.int64)
    looks = np.unique(places[dropped & ~on_some_day])
    if len(looks):
        before = np.maximum(np.searchsorted(looks, places, side="right") - 1, 0)
        places = np.where(on_some_day, looks[before], places)
    return np.where(np.isnan(months), _NOT_FOLLOWED, places)


def chance_of_being_followed(design: Array, places: Places, dropped: Flags) -> Array:
    """Chance of not having dropped out at any look before each knee's place.

    Args:
        design: Baseline factors, shape (n, factors).
        places: Until which look each knee was followed, shape (n,); below 0 it is not at risk.
        dropped: Whether it dropped out there, rather than had its value, died or was replaced.

    Returns:
        The chance, shape (n,); 1 for knees that are not at risk.
    """
    looks = np.unique(places[dropped])
    # where nobody stays, nobody's chance is asked for, and nothing tells who would have stayed
    looks = looks[looks < places.max()]
    if not len(looks):
        return np.ones(len(design))

    def at(look: int, knees: Flags) -> Array:
        return np.hstack([design[knees], np.tile(looks == look, (int(knees.sum()), 1))])

    leaves = [dropped & (places == look) for look in looks]
    at_risk = [(places > look) | left for look, left in zip(looks, leaves, strict=True)]
    hazard = LogisticRegression(max_iter=1000).fit(
        np.vstack([at(look, knees) for look, knees in zip(looks, at_risk, strict=True)]),
        np.concatenate([left[knees] for left, knees in zip(leaves, at_risk, strict=True)]),
    )
    chance = np.ones(len(design))
    for look in looks:
        beyond = places > look
        if beyond.any():
            chance[beyond] *= hazard.predict_proba(at(look, beyond))[:, 0]
    return chance


def _in_numbers(
    design: pd.DataFrame, seen: Flags, dropped: Flags, weights: Array
) -> dict[str, Any]:
    used = weights[seen]
    eligible = seen | dropped
    return {
        "weight": {"min": float(used.min()), "mean": float(used.mean()), "max": float(used.max())},
        "effective_n": float(used.sum() ** 2 / (used**2).sum()),
        "standardised_difference_of_seen_from_eligible": _balance(
            design[eligible], seen[eligible], np.where(seen, weights, 0.0)[eligible]
        ),
    }


def _balance(design: pd.DataFrame, seen: Flags, weights: Array) -> dict[str, dict[str, float]]:
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
