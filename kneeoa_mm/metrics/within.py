"""Ranking within folds and within strata: only knees of one block are held against each other.

Scores of two folds come from two models, and their levels need not agree; pooled, they would be
ranked by the model instead of the knee (Forman and Scholz 2010, SIGKDD Explor 12:49). Within the
strata of a strong predictor, such as the KL grade, what remains is what a model adds to it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from kneeoa_mm.metrics.metric import Array, Labels, Metric, Weighed, mean_of, ratio
from kneeoa_mm.metrics.ranking import Ranking

Blocks = NDArray[np.int64]
_GRID = 1001


def auroc_within(blocks: Blocks) -> Metric:
    """Share of pairs of an event and a non-event of the same block in the right order.

    It is the mean over blocks of their AUROCs, each weighted by its number of pairs.

    Args:
        blocks: Block of each row, (n,), such as its fold.
    """
    return _summed(
        blocks,
        Ranking.concordant_and_pairs,
        "AUROC within blocks.",
        "no events beside non-events in any fold or stratum",
    )


def auprc_within(blocks: Blocks) -> Metric:
    """Mean over events of the precision at their score among the knees of their block.

    It is the mean over blocks of their average precisions, each weighted by its events.

    Args:
        blocks: Block of each row, (n,), such as its fold.
    """
    summed = _summed(blocks, Ranking.precision_and_events, "", "")

    def prepare(truth: Labels, prediction: Array) -> Weighed:
        """Average precision within blocks."""
        found = summed.prepare(truth, prediction)
        # without non-events there is nothing to tell events from
        return lambda weights: np.where((1 - truth) @ weights > 0, found(weights), np.nan)

    return Metric(prepare, "no events beside non-events")


def prevalence_within(blocks: Blocks) -> Metric:
    """What ``auprc_within`` is without any skill: the mean over events of their block's share."""

    def prepare(truth: Labels, prediction: Array) -> Weighed:
        parts = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
        shares = [(rows, mean_of(truth[rows]), truth[rows]) for rows in parts]

        def weighed(weights: Array) -> Array:
            total = np.zeros(weights.shape[1])
            for rows, share, events in shares:
                total += np.nan_to_num(share(weights[rows])) * (events @ weights[rows])
            return ratio(total, truth @ weights)

        return weighed

    return Metric(prepare, "no events in the truth")


def _summed(
    blocks: Blocks,
    parts_of: Callable[[Ranking, Array], tuple[Array, Array]],
    text: str,
    undefined: str,
) -> Metric:
    """Quotient of the sums over blocks of two numbers that each block's ranking gives."""

    def prepare(truth: Labels, prediction: Array) -> Weighed:
        parts = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
        rankings = [(rows, Ranking(truth[rows] == 1, prediction[rows])) for rows in parts]

        def weighed(weights: Array) -> Array:
            both = np.zeros((2, weights.shape[1]))
            for rows, ranking in rankings:
                both += parts_of(ranking, weights[rows])
            return ratio(*both)

        return weighed

    prepare.__doc__ = text
    return Metric(prepare, undefined)


def mean_roc(
    truth: Labels, score: Array, blocks: Blocks, *, shares: Array | None = None
) -> tuple[Array, Array]:
    """The ROC curve whose area is ``auroc_within``: the mean over blocks, weighted by pairs.

    Sensitivity is averaged at each share of false positives (Fawcett 2006, Pattern Recognit Lett
    27:861).

    Args:
        truth: Events coded 0 and 1, (n,).
        score: Higher for what is likelier, (n,).
        blocks: Block of each row, (n,), such as its fold.
        shares: How much each row counts, (n,); None for all the same.

    Returns:
        False-positive rate on a grid, and sensitivity, both (grid,).
    """
    grid = np.linspace(0, 1, _GRID)
    counts = np.ones(len(truth)) if shares is None else shares
    height, pairs = np.zeros(_GRID), 0.0
    for block in np.unique(blocks):
        rows = blocks == block
        events = truth[rows] @ counts[rows]
        weight = events * (counts[rows].sum() - events)
        if weight:
            false_positive, sensitivity, _ = roc_curve(
                truth[rows], score[rows], sample_weight=counts[rows]
            )
            height += weight * np.interp(grid, false_positive, sensitivity)
            pairs += weight
    return grid, ratio(height, np.array(pairs))
