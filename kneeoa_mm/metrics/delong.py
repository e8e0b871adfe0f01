"""AUROCs of several models on the same knees, with the covariance that clusters give them.

DeLong et al. 1988 (Biometrics 44:837) for independent knees; Obuchowski 1997 (Biometrics 53:567)
for knees in clusters, here persons; fast by midranks (Sun and Xu 2014, IEEE Signal Process Lett
21:1389).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr
from scipy.stats import rankdata

from kneeoa_mm.metrics.metric import Array, Labels, UndefinedMetricError


@dataclass(frozen=True)
class Aurocs:
    """AUROCs of several models.

    Attributes:
        values: Of each model, (models,).
        covariance: Of the values, (models, models).
    """

    values: Array
    covariance: Array

    def p_value(self, first: int, second: int) -> float | None:
        """Two-sided P of no difference between two models.

        None where it has no variance, or where that is not known: all events, or all non-events,
        are of one person.
        """
        contrast = np.zeros(len(self.values))
        contrast[[first, second]] = 1, -1
        variance = float(contrast @ self.covariance @ contrast)
        if not variance > np.finfo(float).tiny:
            return None
        return float(2 * ndtr(-abs(contrast @ self.values) / np.sqrt(variance)))


def clustered_aurocs(
    truth: Labels, scores: Array, persons: ArrayLike, *, blocks: ArrayLike | None = None
) -> Aurocs:
    """AUROCs with the covariance of Obuchowski, of DeLong where each row is a person of its own.

    Args:
        truth: Events coded 0 and 1, (n,).
        scores: One column a model, (n, models).
        persons: Cluster of each row, (n,).
        blocks: Only rows of one block are held against each other, as in ``auroc_within``; its
            pairs weigh the blocks, and the covariance counts them as drawn with the persons.

    Raises:
        UndefinedMetricError: No block has both events and non-events.
    """
    labels = np.zeros(len(truth)) if blocks is None else np.asarray(blocks)
    wins, pairs = np.zeros_like(scores, dtype=np.float64), np.zeros(len(truth))
    for block in np.unique(labels):
        rows = np.flatnonzero(labels == block)
        wins[rows], pairs[rows] = _wins(truth[rows] == 1, scores[rows])
    event = truth == 1
    total = pairs[event].sum()
    if total == 0:
        raise UndefinedMetricError("no block has both events and non-events")
    values = wins[event].sum(axis=0) / total
    # how far each row's pairs are from what they would be worth on average
    surplus = (wins - pairs[:, None] * values) / total
    return Aurocs(values, _covariance(surplus, event, np.unique(persons, return_inverse=True)[1]))


def _wins(event: NDArray[np.bool_], scores: Array) -> tuple[Array, Array]:
    """Of each row, the pairs that are in the right order (n, models), and all its pairs (n,)."""
    n_events = int(event.sum())
    n_others = len(event) - n_events
    wins = rankdata(scores, axis=0)
    for part in (event, ~event):
        if part.any():
            wins[part] -= rankdata(scores[part], axis=0)
    wins[~event] = n_events - wins[~event]
    return wins, np.where(event, n_others, n_events).astype(np.float64)


def _covariance(surplus: Array, event: NDArray[np.bool_], person: NDArray[np.int64]) -> Array:
    """Obuchowski's sum over persons of products, with her small-sample factors."""
    n_persons = int(person.max()) + 1
    of_events = np.zeros((n_persons, surplus.shape[1]))
    of_others = np.zeros_like(of_events)
    np.add.at(of_events, person[event], surplus[event])
    np.add.at(of_others, person[~event], surplus[~event])
    crossed = _factor(n_persons) * of_events.T @ of_others
    covariance: Array = (
        _factor(len(np.unique(person[event]))) * of_events.T @ of_events
        + _factor(len(np.unique(person[~event]))) * of_others.T @ of_others
        + crossed
        + crossed.T
    )
    return covariance


def _factor(clusters: int) -> float:
    # one cluster tells nothing about how clusters vary
    return clusters / (clusters - 1) if clusters > 1 else float("nan")
