"""What a metric is: one definition that serves the sample and all bootstrap draws at once.

A draw of persons is not a new table but a weight for each row: how often the row's person was
drawn. A metric prepares once what does not depend on the weights, such as the ranks, and then turns
many draws into numbers in a few array operations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Array = NDArray[np.float64]
Weighed = Callable[[Array], Array]
"""From weights (n, draws) to the metric of each draw (draws,), NaN where a draw does not define
it."""


class UndefinedMetricError(ValueError):
    """The sample does not define the metric; the message says why."""


class Metric:
    """A number of truth and prediction; call it with both, each with n rows.

    Args:
        prepare: From truth and prediction to what weighs them.
        undefined: Why the metric has no value, where it has none.
        of_grades: Whether its truth is grades, of which 0 and 1 are two among others, and not
            events.
        event_from: Of a metric that knows grades by two kinds of knees alone, the lowest grade of
            the second kind, which is its event; None where each grade counts.
    """

    def __init__(
        self,
        prepare: Callable[[Labels, Any], Weighed],
        undefined: str,
        *,
        of_grades: bool = False,
        event_from: int | None = None,
    ) -> None:
        update_wrapper(self, prepare)
        self.prepare = prepare
        self.undefined = undefined
        self.of_grades = of_grades
        self.event_from = event_from

    def events_in(self, truth: Labels) -> Labels | None:
        """What the metric takes for events, coded 0 and 1, (n,); None where it knows none."""
        if self.event_from is not None:
            return (truth >= self.event_from).astype(np.int64)
        return None if self.of_grades or not np.isin(truth, (0, 1)).all() else truth

    @property
    def event(self) -> str:
        """Its event in words."""
        return "the event" if self.event_from is None else f"KL {self.event_from} or more"

    def __call__(self, truth: Labels, prediction: Any, *, shares: Array | None = None) -> float:
        """The metric of the sample itself.

        Args:
            truth: Grades or events, (n,).
            prediction: What the metric wants beside it, n rows.
            shares: How much each row counts, (n,); None for all the same.

        Raises:
            UndefinedMetricError: The sample does not define it.
        """
        counts = np.ones(len(truth)) if shares is None else shares
        value = float(self.prepare(truth, prediction)(counts[:, None])[0])
        if np.isnan(value):
            raise UndefinedMetricError(self.undefined)
        return value


def metric(
    *, undefined: str = "no knee", of_grades: bool = False
) -> Callable[[Callable[[Labels, Any], Weighed]], Metric]:
    """Make a ``Metric`` of the function that prepares it."""
    return lambda prepare: Metric(prepare, undefined, of_grades=of_grades)


def ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, NaN where the denominator is 0."""
    missing = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    quotient: Array = np.divide(numerator, denominator, out=missing, where=denominator != 0)
    return quotient


def mean_of(values: Any) -> Weighed:
    """Weighs the mean of one number a row, (n,)."""
    numbers = np.asarray(values, dtype=np.float64)
    return lambda weights: ratio(numbers @ weights, weights.sum(axis=0))
