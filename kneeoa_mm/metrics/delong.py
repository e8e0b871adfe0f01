"""AUROCs of several models on the same knees, with the covariance that clusters give them.

DeLong et al. 1988 (Biometrics 44:837) for independent knees; Obuchowski 1997 (Biometrics 53:567)
for knees in clusters, here persons; fast by sorting (Sun and Xu 2014, IEEE Signal Process Lett
21:1389).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from kneeoa_mm.metrics.metric import Array, Labels, UndefinedMetricError


@dataclass(frozen=True)
class Difference:
    """A difference of two AUROCs.

    Attributes:
        value: The first less the second.
        standard_error: None where there is no variance, or where it is not known: all events, or
            all non-events, are of one person.
    """

    value: float
    standard_error: float | None

    @property
    def p_value(self) -> float | None:
        """Two-sided P of no difference."""
        if self.standard_error is None:
            return None
        return float(2 * ndtr(-abs(self.value) / self.standard_error))

    @property
    def limits(self) -> tuple[float, float] | None:
        """The 95 % interval, which holds 0 where P is above 0.05."""
        if self.standard_error is None:
            return None
        half = float(ndtri(0.975)) * self.standard_error
        return self.value - half, self.value + half


@dataclass(frozen=True)
class Aurocs:
    """AUROCs of several models.

    Attributes:
        values: Of each model, (models,).
        covariance: Of the values, (models, models).
    """

    values: Array
    covariance: Array

    def difference(self, first: int, second: int) -> Difference:
        """How far two models are apart."""
        contrast = np.zeros(len(self.values))
        contrast[[first, second]] = 1, -1
        value, variance = float(contrast @ self.values), contrast @ self.covariance @ contrast
        # NaN too
        if not variance > np.finfo(float).tiny:
            return Difference(value, None)
        return Difference(value, float(np.sqrt(variance)))


def clustered_aurocs(
    truth: Labels,
    scores: Array,
    persons: ArrayLike,
    *,
    blocks: ArrayLike | None = None,
    shares: Array | None = None,
) -> Aurocs:
    """AUROCs with the covariance of Obuchowski, of DeLong where each row is a person of its own.

    Args:
        truth: Events coded 0 and 1, (n,).
        scores: One column a model, (n, models).
        persons: Cluster of each row, (n,).
        blocks: Only rows of one block are held against each other, as in ``auroc_within``; its
            pairs weigh the blocks, and the covariance counts them as drawn with the persons.
        shares: How much each row counts, as if it were there so often, (n,); None for all the same.

    Raises:
        UndefinedMetricError: No block has both events and non-events.
    """
    labels = np.zeros(len(truth)) if blocks is None else np.asarray(blocks)
    counts = np.ones(len(truth)) if shares is None else shares
    wins, pairs = np.zeros_like(scores, dtype=np.float64), np.zeros(len(truth))
    for block in np.unique(labels):
        rows = np.flatnonzero(labels == block)
        wins[rows], pairs[rows] = _wins(truth[rows] == 1, scores[rows], counts[rows])
    event = truth == 1
    total = counts[event] @ pairs[event]
    if total == 0:
        raise UndefinedMetricError("no block has both events and non-events")
    values = counts[event] @ wins[event] / total
    # how far each row's pairs are from what they would be worth on average
    surplus = counts[:, None] * (wins - pairs[:, None] * values) / total
    return Aurocs(values, _covariance(surplus, event, np.unique(persons, return_inverse=True)[1]))


def _wins(event: NDArray[np.bool_], scores: Array, counts: Array) -> tuple[Array, Array]:
    """Of each row, the pairs that are in the right order (n, models), and all its pairs (n,)."""
    below = np.empty_like(scores, dtype=np.float64)
    for own, other in ((event, ~event), (~event, event)):
        for model in range(scores.shape[1]):
            below[own, model] = _count_below(
                scores[own, model], scores[other, model], counts[other]
            )
    n_events, n_others = counts[event].sum(), counts[~event].sum()
    pairs = np.where(event, n_others, n_events)
    return np.where(event[:, None], below, n_events - below), pairs


def _count_below(scores: Array, others: Array, counts: Array) -> Array:
    """How many of the others lie below each score, ties half."""
    order = np.argsort(others)
    up_to = np.concatenate([[0.0], np.cumsum(counts[order])])
    left, right = (np.searchsorted(others[order], scores, side) for side in ("left", "right"))
    return np.asarray((up_to[left] + up_to[right]) / 2)


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
