"""What a prediction table can be judged on: the knees that count, for each target.

A knee counts when the model gave it a prediction, the input knows its truth, and the model has
never seen its person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError, TableError, rows_named
from kneeoa_mm.metrics import DECISION_THRESHOLD, bootstrap_weights, persons_of
from kneeoa_mm.records import KL_CLASSES, Outcome, PredictionStatus

KL = "kl"
_KL_PROBABILITIES = [f"kl_prob_{grade}" for grade in KL_CLASSES]
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Target:
    """KL grade or a progression outcome, on the knees that it can be judged on.

    Attributes:
        name: ``kl`` or the outcome.
        truth: Grade, or event coded 0 and 1, shape (n,).
        predicted: Grade by the table's ``kl_grade_pred``, or decision at 0.5, shape (n,).
        probability: Shape (n, 5) for grades, (n,) for an outcome.
        knee_ids: Shape (n,).
        persons: What intervals cluster on, shape (n,).
        left_out: Reason to number of knees.
        sets: Whether each grade belongs to ``kl_set``, shape (n, 5); None without that column.
        folds: Fold whose models alone scored each knee, -1 where models of several did, shape (n,);
            None where no knee has one. Knees are ranked within folds, for each has its own model.
    """

    name: str
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64]
    knee_ids: NDArray[np.str_]
    persons: NDArray[np.str_]
    left_out: dict[str, int]
    sets: NDArray[np.bool_] | None = None
    folds: NDArray[np.int64] | None = None

    def subset(self, rows: NDArray[np.bool_]) -> Target:
        """The same of some knees, (n,)."""
        return replace(
            self,
            truth=self.truth[rows],
            predicted=self.predicted[rows],
            probability=self.probability[rows],
            knee_ids=self.knee_ids[rows],
            persons=self.persons[rows],
            sets=None if self.sets is None else self.sets[rows],
            folds=None if self.folds is None else self.folds[rows],
        )

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in the order of the confusion matrix."""
        return [f"KL {grade}" for grade in KL_CLASSES] if self.name == KL else ["no", "yes"]

    def draws(self, *, n_boot: int, seed: int) -> NDArray[np.uint16]:
        """Weights of draws of persons, (n, draws)."""
        return bootstrap_weights(self.persons, n_boot=n_boot, seed=seed)

    def confusion(self) -> NDArray[np.int64]:
        """Counts; row is the truth, column the prediction."""
        counts = np.zeros((len(self.labels),) * 2, dtype=np.int64)
        np.add.at(counts, (self.truth, self.predicted), 1)
        return counts

    def counts(self) -> dict[str, Any]:
        """Knees, persons, knees that count as a person each, and knees of each true class."""
        classes = np.bincount(self.truth, minlength=len(self.labels))
        each = dict(zip(KL_CLASSES if self.name == KL else ("0", "1"), classes, strict=True))
        return {
            "knees": len(self.truth),
            "persons": len(np.unique(self.persons)),
            "knees_of_unknown_persons": int((self.persons == self.knee_ids).sum()),
            "knees_by_truth": {name: int(number) for name, number in each.items()},
        }


def read_targets(
    table: pd.DataFrame, outcomes: Sequence[Outcome] | None, *, where: object
) -> tuple[list[Target], dict[str, Any]]:
    """Find what can be judged, and on which knees.

    Args:
        table: Rows that obey ``PREDICTIONS``.
        outcomes: As in ``evaluate``.
        where: Named in errors.

    Returns:
        The targets, and how many knees were left out and why: ``not_ok`` by status,
        ``seen_in_training``, and ``no_truth`` and ``no_prediction`` by target.

    Raises:
        InputError: A named outcome is absent, or no knee is left.
        TableError: Grade probabilities do not sum to 1.
    """
    found = [o for o in Outcome if o in table.columns and f"{o}_prob" in table.columns]
    absent = [str(outcome) for outcome in outcomes or () if outcome not in found]
    if absent:
        raise InputError(
            "The predictions lack an outcome that was asked for.",
            expected="columns " + ", ".join(f"{name} and {name}_prob" for name in absent),
            found=", ".join(map(str, found)) or "no outcome with truth and probability",
            where=where,
        )
    ok = table["status"] == PredictionStatus.OK
    seen = ok & table["seen_in_training"]
    usable = table[ok & ~seen]
    targets = [_kl_target(usable, where)] if "kl_grade" in table.columns else []
    targets += [_outcome_target(usable, o) for o in found if outcomes is None or o in outcomes]
    left_out = {
        "not_ok": {str(k): int(n) for k, n in table.loc[~ok, "status"].value_counts().items()},
        "seen_in_training": int(seen.sum()),
        "no_truth": {target.name: target.left_out["no_truth"] for target in targets},
        "no_prediction": {target.name: target.left_out["no_prediction"] for target in targets},
    }
    if not any(len(target.truth) for target in targets):
        raise InputError(
            "No knee can be judged.",
            expected="rows with status ok, seen_in_training false, and a truth: the column "
            "kl_grade, or an outcome beside its probability",
            found=f"{len(table)} rows: {int((~ok).sum())} not ok, {int(seen.sum())} of persons seen"
            f" in training, {len(usable) if targets else 'all others'} without truth or prediction",
            where=where,
            fix="predict knees whose truth the input has and whose persons the model never saw",
        )
    return targets, left_out


def _kl_target(usable: pd.DataFrame, where: object) -> Target:
    has_prediction = usable[[*_KL_PROBABILITIES, "kl_grade_pred"]].notna().all(axis=1)
    sums = usable.loc[has_prediction, _KL_PROBABILITIES].sum(axis=1)
    wrong = sums[(sums - 1).abs() > _SUM_TOLERANCE]
    if len(wrong):
        raise TableError(
            "Grade probabilities must sum to 1.",
            [f"{rows_named(wrong.index)}: the first sum is {wrong.iloc[0]:.4f}"],
            where=where,
        )
    judged, left_out = _judged(usable, has_prediction, usable["kl_grade"].notna())
    return Target(
        KL,
        judged["kl_grade"].to_numpy(np.int64),
        judged["kl_grade_pred"].to_numpy(np.int64),
        judged[_KL_PROBABILITIES].to_numpy(np.float64),
        judged["knee_id"].to_numpy(str),
        persons_of(judged["subject_id"], judged["knee_id"]),
        left_out,
        _sets(judged["kl_set"]) if "kl_set" in judged else None,
        _folds(judged),
    )


def _sets(texts: pd.Series) -> NDArray[np.bool_]:
    """The column ``kl_set``; a knee without a set gets an empty one."""
    named = [text.split(";") for text in texts.fillna("")]
    return np.array([[grade in grades for grade in KL_CLASSES] for grades in named])


def _outcome_target(usable: pd.DataFrame, outcome: Outcome) -> Target:
    probability = usable[f"{outcome}_prob"]
    judged, left_out = _judged(usable, probability.notna(), usable[outcome].notna())
    scores = judged[f"{outcome}_prob"].to_numpy(np.float64)
    return Target(
        str(outcome),
        judged[outcome].to_numpy(np.int64),
        (scores >= DECISION_THRESHOLD).astype(np.int64),
        scores,
        judged["knee_id"].to_numpy(str),
        persons_of(judged["subject_id"], judged["knee_id"]),
        left_out,
        folds=_folds(judged),
    )


def _folds(judged: pd.DataFrame) -> NDArray[np.int64] | None:
    if "fold" not in judged or judged["fold"].isna().all():
        return None
    return np.asarray(judged["fold"].fillna(-1), dtype=np.int64)


def _judged(
    usable: pd.DataFrame, has_prediction: pd.Series, has_truth: pd.Series
) -> tuple[pd.DataFrame, dict[str, int]]:
    left_out = {
        "no_truth": int((~has_truth).sum()),
        "no_prediction": int((has_truth & ~has_prediction).sum()),
    }
    return usable[has_truth & has_prediction], left_out
