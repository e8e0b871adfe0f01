"""A model judged on people of another cohort: who they are, and what changes.

What changes is told apart by Debray et al. 2015 (J Clin Epidemiol 68:279): the mix of cases, the
ranking, and the level of risks before and after the intercept is fitted anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.analysis.results import as_json
from kneeoa_mm.analysis.subgroups import metrics_of
from kneeoa_mm.analysis.targets import KL, Target, read_targets
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.metrics import (
    Resampled,
    auroc,
    bootstrap_weights,
    brier,
    calibration_in_the_large,
    calibration_slope,
    estimate,
    persons_of,
    recalibrated,
    resample,
    scaled_brier,
)
from kneeoa_mm.model_folder import ModelCard, member_folders, read_model
from kneeoa_mm.records import KL_CLASSES, UNKNOWN, KneeKey, PredictionStatus
from kneeoa_mm.schemas import FOLDS, PREDICTIONS, PREDICTIONS_FILE
from kneeoa_mm.tables import read_table

FOLDS_FILE = "folds.parquet"
_QUANTILES = (5, 25, 50, 75, 95)
_FOLDS = 10
_LEVEL = {
    "calibration_in_the_large": calibration_in_the_large,
    "calibration_slope": calibration_slope,
    "brier": brier,
    "scaled_brier": scaled_brier,
}
_PSEUDONYMS = (
    "Persons are told apart by subject_id. Two cohorts that call one person by two names, such as "
    "ids hashed with two keys, overlap unseen."
)


@dataclass(frozen=True)
class Development:
    """The run that made a model.

    Attributes:
        run: Its folder.
        cards: Member to its card.
        predictions: What it predicts of its own people, each by members that never saw them; None
            without.
        folds: Fold of each subject; None where the run has none.
    """

    run: Path
    cards: dict[str, ModelCard]
    predictions: pd.DataFrame | None
    folds: pd.Series | None

    def describe(self) -> dict[str, Any]:
        """Whose data the model learnt from, as far as its run tells."""
        cards = self.cards.values()
        training = [len(card.seen_subjects.training) for card in cards]
        own = self.predictions
        return {
            "run": self.run.name,
            "members": len(self.cards),
            "persons_in_training_of_a_member": [min(training), max(training)],
            "persons": None if own is None else _persons_in(own),
            "cohorts": None if own is None else cohorts_of(own["knee_id"]),
            "weights_source": sorted({card.weights_source for card in cards}),
            "licence": sorted({card.licence for card in cards}),
            "weights_sha256": {name: card.weights_sha256 for name, card in self.cards.items()},
        }


def read_development(run: Path) -> Development:
    """Read the run, or the model folder, that made the predictions.

    Raises:
        ModelFolderError: There is no usable model.
        TableError: Its predictions break their schema.
    """
    cards = {folder.name: read_model(folder, ModelCard)[0] for folder in member_folders(run)}
    path, fold_path = run / PREDICTIONS_FILE, run / FOLDS_FILE
    folds = read_table(fold_path, FOLDS).set_index("subject_id") if fold_path.is_file() else None
    return Development(
        run,
        cards,
        read_table(path, PREDICTIONS) if path.is_file() else None,
        None if folds is None else folds["fold"],
    )


def cohorts_of(knee_ids: pd.Series) -> dict[str, int]:
    """Knees by the cohort that their ``knee_id`` names.

    Example:
        >>> cohorts_of(pd.Series(["most:MB01:0:L", "most:MB01:0:R", "-:7:-:L"]))
        {'most': 2, 'unknown': 1}
    """
    names = (KneeKey.parse(str(knee_id)).cohort or "unknown" for knee_id in knee_ids)
    return dict(Counter(names).most_common())


def _persons_in(table: pd.DataFrame) -> int:
    """Persons with a knee; each knee of an unknown one counts as a person."""
    knees = table[table["status"] != PredictionStatus.REJECTED]
    return len(np.unique(persons_of(knees["subject_id"], knees["knee_id"])))


def refuse_overlap(development: Development, table: pd.DataFrame, *, where: object) -> None:
    """Raise where the model has seen a person on whom it is to be judged.

    Raises:
        LeakError: With how many, and one of them.
    """
    is_known = table["subject_id"] != UNKNOWN
    # in training an image or a knee stood for an unknown subject, as it does in the knee_id
    unnamed = table["knee_id"][~is_known].astype(str)
    images = {KneeKey.parse(knee_id).subject_id or knee_id for knee_id in unnamed}
    subjects = set(table["subject_id"][is_known].astype(str)) | images
    for name, card in development.cards.items():
        known = card.seen_subjects
        if seen := known.in_training(subjects) | known.in_selection(subjects):
            raise LeakError(
                "This is no external validation: the model has seen some of these persons.",
                expected="predictions of persons who took no part in training or selection",
                found=f"{len(seen)} of {len(subjects)} persons seen by {name}, such as {min(seen)}",
                where=where,
                fix="leave these persons out, or evaluate without --external-to",
            )


def external_validation(
    development: Development,
    table: pd.DataFrame,
    targets: Sequence[Target],
    *,
    n_boot: int,
    seed: int,
) -> dict[str, Any]:
    """Whose data the model learnt from, whose it is judged on, and what changes.

    Args:
        development: The run that made the model.
        table: Predictions that are judged; ``refuse_overlap`` has passed them.
        targets: What is judged of them.
        n_boot: Draws of persons, in each of the two cohorts.
        seed: Of the draws.

    Returns:
        The key ``external`` of ``metrics.json``, as ``docs/reference/metrics.md`` describes.
    """
    own = _own_targets(development)
    return {
        "developed_on": development.describe(),
        "judged_on": {
            "cohorts": cohorts_of(table["knee_id"]),
            "persons": _persons_in(table),
        },
        "overlap": {"persons": 0, "how": _PSEUDONYMS},
        "targets": {
            target.name: _changes(own.get(target.name), target, n_boot=n_boot, seed=seed)
            for target in targets
            if len(target.truth)
        },
    }


def _own_targets(development: Development) -> dict[str, Target]:
    if development.predictions is None:
        return {}
    try:
        own, _ = read_targets(development.predictions, None, where=development.run)
    except InputError:
        return {}  # a run without truth has nothing to compare with
    return {
        target.name: _with_folds(target, development.folds) for target in own if len(target.truth)
    }


def _with_folds(target: Target, folds: pd.Series | None) -> Target:
    """Fold of each knee where its own table does not say it, but the run does."""
    if folds is None or target.folds is not None:
        return target
    # whoever is in no fold was held out from all of them, and ranked by all models together
    fold = pd.Series(target.persons).map(folds).fillna(-1)
    return replace(target, folds=fold.to_numpy(np.int64))


def _changes(own: Target | None, target: Target, *, n_boot: int, seed: int) -> dict[str, Any]:
    # two cohorts are two samples: their draws are independent
    there = None if own is None else _performance(own, n_boot, seed + 1)
    here = _performance(target, n_boot, seed)
    return {
        "case_mix": {
            "development": None if own is None else _case_mix(own),
            "validation": _case_mix(target),
        },
        "membership_auroc": None
        if own is None
        else as_json(_membership(own, target, n_boot=n_boot, seed=seed)),
        "performance": {
            "development": there and {name: as_json(e.estimate()) for name, e in there.items()},
            "validation": {name: as_json(e.estimate()) for name, e in here.items()},
            "difference": there
            and {name: as_json((here[name] - there[name]).estimate()) for name in here},
        },
        "recalibration": None
        if target.name == KL
        else _recalibration(target, n_boot=n_boot, seed=seed),
    }


def score_of(target: Target) -> NDArray[np.float64]:
    """One number a knee: the risk of an outcome, or the expected grade."""
    if target.name == KL:
        return np.asarray(target.probability @ np.arange(len(KL_CLASSES)), dtype=np.float64)
    return target.probability


def _case_mix(target: Target) -> dict[str, Any]:
    score = score_of(target)
    spread = np.percentile(score, _QUANTILES)
    return target.counts() | {
        "score": "expected grade" if target.name == KL else "risk",
        "mean": float(score.mean()),
        "sd": float(score.std(ddof=1)) if len(score) > 1 else None,
        "quantiles": {str(q): float(value) for q, value in zip(_QUANTILES, spread, strict=True)},
    }


def _membership(own: Target, target: Target, *, n_boot: int, seed: int) -> Any:
    """How well the model's score alone tells the two cohorts apart: 0.5 where their mix is one."""
    belongs = np.repeat(np.array([0, 1]), [len(own.truth), len(target.truth)])
    persons = np.array(
        [f"{part}:{p}" for part, each in enumerate((own, target)) for p in each.persons]
    )
    weights = bootstrap_weights(persons, n_boot=n_boot, seed=seed)
    return estimate(auroc, belongs, np.concatenate([score_of(own), score_of(target)]), weights)


def _performance(target: Target, n_boot: int, seed: int) -> dict[str, Resampled]:
    """Metrics of a target; where knees have a fold its AUROC is within them.

    Each fold has a model of its own, and models need not agree on a level: pooled, knees would be
    ranked by whose they are, which no model that judges another cohort ever suffers from.
    """
    weights = target.draws(n_boot=n_boot, seed=seed)
    judged = dict(metrics_of(target))
    if target.name != KL:
        judged |= {name: (metric, target.probability) for name, metric in _LEVEL.items()}
    return {
        name: resample(metric, target.truth, prediction, weights)
        for name, (metric, prediction) in judged.items()
    }


def _recalibration(target: Target, *, n_boot: int, seed: int) -> dict[str, Any]:
    """Levels before and after the intercept is fitted anew, for each tenth of persons by the rest.

    The slope is that of the model's own: a slope other than 1 stays, and tells of overfitting or
    of effects that differ.
    """
    persons, person = np.unique(target.persons, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(persons))
    folds = (shuffled % min(_FOLDS, max(2, len(persons))))[person].astype(np.int64)
    anew = recalibrated(target.truth, target.probability, folds, slope_is_free=False)
    weights = target.draws(n_boot=n_boot, seed=seed)
    usable = ~np.isnan(anew)

    def levels(risk: NDArray[np.float64], rows: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            name: as_json(estimate(metric, target.truth[rows], risk[rows], weights[rows]))
            for name, metric in _LEVEL.items()
        }

    everybody = np.ones(len(anew), dtype=bool)
    before = levels(target.probability, everybody)
    return {
        "intercept": before["calibration_in_the_large"],
        "before": before,
        "after": levels(anew, usable),
    }
