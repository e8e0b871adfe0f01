"""Areas under curves from ranks: sorted once, then weighed for all draws together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.metrics.metric import Array


class Ranking:
    """Events and non-events in the order of their score, the highest first.

    Args:
        event: True for an event, (n,).
        score: Higher where an event is more likely, (n,).
    """

    def __init__(self, event: NDArray[np.bool_], score: Array) -> None:
        order = np.argsort(-score, kind="stable")
        happens = event[order]
        self._events, self._others = order[happens], order[~happens]
        events, others = -score[self._events], -score[self._others]
        self._others_above = np.searchsorted(others, events, "left")
        self._others_not_below = np.searchsorted(others, events, "right")
        self._events_not_below = np.searchsorted(events, events, "right")

    def concordant_and_pairs(self, weights: Array) -> tuple[Array, Array]:
        """Pairs of an event and a non-event in the right order, ties half, and all pairs.

        Args:
            weights: Of each row in each draw, (n, draws).
        """
        events, others = weights[self._events], _running(weights[self._others])
        total = events.sum(axis=0) * others[-1]
        lost = others[self._others_above]
        lost += others[self._others_not_below]
        lost *= events
        return total - lost.sum(axis=0) / 2, total

    def precision_and_events(self, weights: Array) -> tuple[Array, Array]:
        """Sum over events of the precision at the event's score, and the number of events.

        Args:
            weights: Of each row in each draw, (n, draws).
        """
        events = weights[self._events]
        found = _running(events)[self._events_not_below]
        called = _running(weights[self._others])[self._others_not_below]
        called += found
        # an event that was not drawn adds nothing, also where nobody at or above it was drawn
        np.maximum(called, np.finfo(float).tiny, out=called)
        found /= called
        found *= events
        return found.sum(axis=0), events.sum(axis=0)


def _running(weights: Array) -> Array:
    """Sum of the first k rows, for k from 0 to n."""
    sums = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights, axis=0, out=sums[1:])
    return sums
