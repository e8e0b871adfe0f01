"""Metrics of predicted risks against times of events, with those who were censored weighed in.

A knee whose follow-up ended early has no known status at a later horizon. Those that were followed
stand for it: each is weighted by the inverse probability of not being censored before, estimated by
Kaplan-Meier without covariates. Censoring at a visit comes after the events of that visit, and a
knee that was seen free of the event at a horizon counts as free there. Each metric is one of
``kneeoa_mm.metrics``: of events and risks, with months given first. Where each fold has a model of
its own, pairs are of knees of one fold (``kneeoa_mm.metrics.within`` says why); the chance of being
followed is the same for all, and is estimated from all knees.

Where risks are cumulative incidences, a knee that another event ended first stays known: it never
has the event, at any horizon after that, and is no censoring (Gerds and Schumacher 2006, Biom J
48:1029; Blanche et al. 2013, with controls free of the event whatever else came to them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.metrics import Metric
from kneeoa_mm.metrics.metric import Array, Labels, Weighed, ratio
from kneeoa_mm.metrics.ranking import Ranking

_EVENTS_AT_ONCE = 500
_NO_PAIR = "no two knees can be compared"

Blocks = NDArray[np.int64]
Flags = NDArray[np.bool_]


def auroc_at(
    months: Array,
    horizon_months: float,
    blocks: Blocks | None = None,
    rivalled: Flags | None = None,
) -> Metric:
    """Does the risk rank knees with an event by the horizon above those free of it then?

    The cumulative/dynamic AUROC: P(risk of a case > risk of a control), ties half.

    Args:
        months: Time of the event or of censoring, shape (n,).
        horizon_months: The horizon.
        blocks: Block of each knee, (n,); only pairs of one block count. None for one of all.
        rivalled: Knees whose time is of another event, which came first, (n,); None for no such.

    Source:
        Uno et al. 2007, JASA 102:527; Blanche et al. 2013, Biom J 55:687.
    """

    def prepare(event: Labels, risk: Array) -> Weighed:
        case, free, ended = _status_at(months, event, horizon_months, rivalled)
        known = case | free | ended
        label = _labels(blocks, len(event))
        parts = [np.flatnonzero(known & (label == block)) for block in np.unique(label)]
        rankings = [(rows, Ranking(case[rows], risk[rows])) for rows in parts]
        censoring = _uncensored(months, _is_seen(event, rivalled), horizon_months)

        def weighed(weights: Array) -> Array:
            before_own, before_horizon = censoring(weights)
            followed = np.where(free[:, None], before_horizon, before_own)
            inverse = _inverse(weights, followed)
            both = np.zeros((2, weights.shape[1]))
            for rows, ranking in rankings:
                both += ranking.concordant_and_pairs(inverse[rows])
            return ratio(*both)

        return weighed

    return Metric(prepare, f"no knee with the event beside one without it at {horizon_months:g}")


def brier_at(months: Array, horizon_months: float, rivalled: Flags | None = None) -> Metric:
    """Mean squared difference of the risk by a horizon and what happened by then.

    Args:
        months: Time of the event or of censoring, shape (n,).
        horizon_months: The horizon; the prediction is the risk by then, shape (n,).
        rivalled: As in ``auroc_at``.

    Source:
        Graf et al. 1999, Stat Med 18:2529.
    """

    def prepare(event: Labels, risk: Array) -> Weighed:
        return _squared_error(months, event, risk, horizon_months, rivalled)

    return Metric(prepare, f"no knee was followed to {horizon_months:g} months")


def integrated_brier(
    months: Array, horizons: Sequence[float], rivalled: Flags | None = None
) -> Metric:
    """Mean of the Brier score over time, by trapezia between the horizons.

    Args:
        months: Time of the event or of censoring, shape (n,).
        horizons: Ascending, at least two; the prediction is the risk by each, shape (n, m).
        rivalled: As in ``auroc_at``.

    Source:
        Graf et al. 1999, Stat Med 18:2529.
    """

    def prepare(event: Labels, risk: Array) -> Weighed:
        parts = [
            _squared_error(months, event, risk[:, k], h, rivalled) for k, h in enumerate(horizons)
        ]
        span = horizons[-1] - horizons[0]
        return lambda weights: np.asarray(
            np.trapezoid([part(weights) for part in parts], horizons, axis=0) / span
        )

    return Metric(prepare, f"no knee was followed to {horizons[-1]:g} months")


def uno_c(months: Array, horizon_months: float, blocks: Blocks | None = None) -> Metric:
    """Concordance that does not depend on when knees were censored.

    Pairs are those of Harrell's C whose earlier event is by the horizon, each weighted by the
    squared inverse probability of not being censored before that event.

    Args:
        months: Time of the event or of censoring, shape (n,).
        horizon_months: Events after it are not used.
        blocks: As in ``auroc_at``.

    Source:
        Uno et al. 2011, Stat Med 30:1105.
    """

    def prepare(event: Labels, risk: Array) -> Weighed:
        earlier = np.flatnonzero((event == 1) & (months <= horizon_months))
        parts = [earlier[i : i + _EVENTS_AT_ONCE] for i in range(0, len(earlier), _EVENTS_AT_ONCE)]
        label = _labels(blocks, len(event))
        pairs = [(rows, *_pairs(rows, months, event, risk, label)) for rows in parts]
        censoring = _uncensored(months, event == 1, horizon_months)

        def weighed(weights: Array) -> Array:
            before_own, _ = censoring(weights)
            inverse = _inverse(_inverse(weights, before_own), before_own)
            agreed = total = np.zeros(weights.shape[1])
            for rows, agrees, outlives in pairs:
                agreed = agreed + np.sum(inverse[rows] * (agrees @ weights), axis=0)
                total = total + np.sum(inverse[rows] * (outlives @ weights), axis=0)
            return ratio(agreed, total)

        return weighed

    return Metric(prepare, _NO_PAIR)


def _labels(blocks: Blocks | None, n: int) -> Blocks:
    return np.zeros(n, dtype=np.int64) if blocks is None else blocks


def _pairs(
    rows: NDArray[np.int64], months: Array, event: Labels, risk: Array, label: Blocks
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each event how far each knee agrees (1, 0, or 0.5 at equal risk), and if it outlived."""
    at = months[rows, None]
    outlives = (months > at) | ((months == at) & (event == 0))
    outlives &= label == label[rows, None]
    own = risk[rows, None]
    agrees = outlives * ((risk < own) + 0.5 * (risk == own))
    return agrees.astype(np.float32), outlives.astype(np.float32)


def _squared_error(
    months: Array, event: Labels, risk: Array, horizon_months: float, rivalled: Flags | None
) -> Weighed:
    case, free, ended = _status_at(months, event, horizon_months, rivalled)
    censoring = _uncensored(months, _is_seen(event, rivalled), horizon_months)

    def weighed(weights: Array) -> Array:
        before_own, before_horizon = censoring(weights)
        inverse = _inverse(weights, before_own)
        known = (1 - risk[case]) ** 2 @ inverse[case] + risk[ended] ** 2 @ inverse[ended]
        controls = ratio(risk[free] ** 2 @ weights[free], before_horizon)
        return ratio(known + controls, weights.sum(axis=0))

    return weighed


def _is_seen(event: Labels, rivalled: Flags | None) -> Flags:
    """Knees of which the end is known, so that they were not censored."""
    happened: Flags = event == 1
    return happened if rivalled is None else happened | rivalled


def _status_at(
    months: Array, event: Labels, horizon_months: float, rivalled: Flags | None
) -> tuple[Flags, Flags, Flags]:
    """Knees with the event by the horizon, seen free of it then, and ended by another before."""
    by_then = months <= horizon_months
    case = (event == 1) & by_then
    ended = by_then & (event == 0) & (False if rivalled is None else rivalled)
    return case, (months >= horizon_months) & ~case & ~ended, ended


def _inverse(weights: Array, chance: Array) -> Array:
    """Weights over chances; 0 where a draw has nobody left to estimate the chance from."""
    return np.divide(weights, chance, out=np.zeros(weights.shape), where=chance > 0)


def _uncensored(
    months: Array, is_seen: Flags, horizon_months: float
) -> Callable[[Array], tuple[Array, Array]]:
    """Weighs the chance of not being censored before each knee's time and before the horizon."""
    times, own = np.unique(months, return_inverse=True)
    order = np.argsort(own, kind="stable")
    first = np.searchsorted(own[order], np.arange(len(times)))
    is_end = is_seen[order, None]
    horizon = int(np.searchsorted(times, horizon_months, side="left"))

    def weighed(weights: Array) -> tuple[Array, Array]:
        ordered = weights[order]
        ended = np.add.reduceat(ordered, first, axis=0)
        events = np.add.reduceat(ordered * is_end, first, axis=0)
        left = np.cumsum(ended[::-1], axis=0)[::-1] - events
        stay = 1 - np.divide(ended - events, left, out=np.zeros(left.shape), where=left > 0)
        before = np.ones((len(times) + 1, weights.shape[1]))
        np.cumprod(stay, axis=0, out=before[1:])
        # nobody is left to be censored once the last one was: rounding must not revive it
        before[before < _ALMOST_NOBODY] = 0
        return before[own], before[horizon]

    return weighed


_ALMOST_NOBODY = 1e-12
