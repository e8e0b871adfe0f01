"""Cohort rows to times and events that an estimator can trust; faults name their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.errors import InputError, TableError, rows_named
from kneeoa_mm.metrics import persons_of
from kneeoa_mm.records import Outcome

DEATH = 2
"""Status of a knee whose person died without the event; 1 is the event and 0 censored."""

_MONTHS_OF_TOLERANCE = 1.0
_MONTHS_BETWEEN_HORIZONS = 12
_MAX_GROUPS = 6


@dataclass(frozen=True)
class TimeToEvent:
    """Knees with follow-up for one outcome.

    Attributes:
        outcome: The event.
        rows: The cohort's rows of these knees.
        months: Time of the event or of the last look without it, above 0, shape (n,).
        event: 1 event, 0 censored, shape (n,).
        persons: Person of each knee, shape (n,).
        left_out: Reason to number of knees.
        entry_months: When each knee came under observation, before ``months``; None where that is
            the origin of time for all. Shape (n,).
    """

    outcome: Outcome
    rows: pd.DataFrame
    months: NDArray[np.float64]
    event: NDArray[np.int64]
    persons: NDArray[np.str_]
    left_out: dict[str, int]
    entry_months: NDArray[np.float64] | None = None

    def subset(self, kept: NDArray[np.bool_]) -> TimeToEvent:
        """Some of the knees, (n,)."""
        return replace(
            self,
            rows=self.rows[kept],
            months=self.months[kept],
            event=self.event[kept],
            persons=self.persons[kept],
            entry_months=None if self.entry_months is None else self.entry_months[kept],
        )

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The event lies in (lower, upper]; upper is infinite without one. On the same time scale.

        Knees of a table without ``<outcome>_lower_months`` have exact times.
        """
        happened = self.event == 1
        if f"{self.outcome}_lower_months" not in self.rows:
            return self.months, np.where(happened, self.months, np.inf)
        lower = self.rows[f"{self.outcome}_lower_months"].to_numpy(np.float64)
        if self.entry_months is not None:
            lower = lower + self.entry_months
        return lower, np.where(happened, self.months, np.inf)

    def has_intervals(self) -> bool:
        """Some event is known only to lie between two visits."""
        lower, upper = self.bounds()
        return bool(np.any((lower < upper) & np.isfinite(upper)))

    def since_birth(self) -> TimeToEvent:
        """The same knees with age as the time scale; each is under observation since baseline.

        Knees whose age is unknown are left out and counted as ``no_age``.

        Source:
            Korn, Graubard and Midthune 1997, Am J Epidemiol 145:72.
        """
        age_months = 12 * self.rows["age_years"].to_numpy(np.float64)
        known = ~np.isnan(age_months)
        left_out = {**self.left_out, "no_age": int((~known).sum())}
        aged = replace(
            self, months=age_months + self.months, entry_months=age_months, left_out=left_out
        )
        return aged.subset(known)

    def with_death(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Months and status where death is an event of its own; None where deaths are unknown.

        Only of replacement, which is adjudicated, is it known that a person died without it; the
        last film says little of the months before a death. A death counts where the knee was
        followed up to it, within a month.
        """
        if self.outcome is not Outcome.TKR or "death_months" not in self.rows:
            return None
        death_months = self.rows["death_months"].to_numpy(np.float64)
        followed = self.months >= death_months - _MONTHS_OF_TOLERANCE
        died = (self.event == 0) & (death_months > 0) & followed
        months = np.where(died, death_months, self.months)
        return (months, np.where(died, DEATH, self.event)) if died.any() else None


def read_time_to_event(cohort: pd.DataFrame, outcome: Outcome, *, where: object) -> TimeToEvent:
    """Take times and events from a cohort table.

    An event is dated at ``<outcome>_upper_months``, when it was first seen; a knee without one is
    censored at ``<outcome>_lower_months``, when it was last known free of it.

    Args:
        cohort: Rows that obey the schema ``COHORT``.
        outcome: The event.
        where: Named in errors.

    Returns:
        Knees with follow-up. Knees whose event status is unknown (``unknown``) and those never seen
        again (``no_follow_up``) are left out and counted.

    Raises:
        TableError: Times contradict each other, with the rows (the first is row 0).
        InputError: No knee has the event.
    """
    observed = cohort[f"{outcome}_event_observed"]
    lower = cohort[f"{outcome}_lower_months"].astype(float)
    upper = cohort[f"{outcome}_upper_months"].astype(float)
    is_event, is_free = (observed == 1).fillna(False), (observed == 0).fillna(False)
    _refuse(
        [
            (is_event & ~np.isfinite(upper), f"an event without {outcome}_upper_months"),
            (is_free & ~np.isfinite(lower), f"no event and no {outcome}_lower_months"),
            (is_free & upper.notna(), f"no event, yet {outcome}_upper_months says when"),
            (is_event & (upper <= 0), "an event at baseline; such a knee is not at risk"),
            (is_event & ~np.isfinite(lower), f"an event without {outcome}_lower_months"),
            (is_event & (upper < lower), f"{outcome}_upper_months before {outcome}_lower_months"),
        ],
        outcome,
        where,
    )
    unseen = is_free & (lower == 0)
    kept = (is_event | is_free) & ~unseen
    if not is_event.any():
        raise InputError(
            "No knee has the event, so there is nothing to estimate.",
            expected=f"rows with {outcome}_event_observed = 1",
            found=f"none among {len(cohort)} rows",
            where=where,
            fix="choose another outcome or a larger cohort",
        )
    rows = cohort[kept]
    return TimeToEvent(
        outcome,
        rows,
        np.where(is_event, upper, lower)[kept].astype(np.float64),
        is_event[kept].to_numpy(np.int64),
        persons_of(rows["subject_id"], rows["knee_id"]),
        {"unknown": int(observed.isna().sum()), "no_follow_up": int(unseen.sum())},
    )


def horizons_to(last_months: float, horizon_months: float) -> NDArray[np.float64]:
    """Each year of a follow-up, and the horizon that was asked for where it is within it.

    A horizon of 30 months is no year, and an earlier year is no answer to who asked for it.

    Args:
        last_months: End of the follow-up.
        horizon_months: The horizon.

    Returns:
        Months, ascending, (k,).

    Example:
        >>> horizons_to(48, 30).tolist(), horizons_to(24, 48).tolist()
        ([12.0, 24.0, 30.0, 36.0, 48.0], [12.0, 24.0])
    """
    end = last_months + _MONTHS_OF_TOLERANCE
    years = np.arange(_MONTHS_BETWEEN_HORIZONS, end, _MONTHS_BETWEEN_HORIZONS, dtype=np.float64)
    return np.union1d(years, [horizon_months]) if horizon_months < end else years


def _refuse(faults: Sequence[tuple[pd.Series, str]], outcome: Outcome, where: object) -> None:
    found = []
    for broken, rule in faults:
        rows = np.flatnonzero(broken.to_numpy(bool))
        if len(rows):
            found.append(f"{rule}: {rows_named(rows)}")
    if found:
        raise TableError(
            f"The times of {outcome} contradict each other.",
            found,
            where=where,
            fix="correct these rows, or build the cohort table anew",
        )


@dataclass(frozen=True)
class Groups:
    """A label for each knee; None where the grouping column has no value."""

    name: str
    labels: tuple[str, ...]
    of_knee: NDArray[Any]
    ordered: bool


def groups_of(rows: pd.DataFrame, column: str, *, where: object) -> Groups:
    """Group knees by a column: its values if they are few, otherwise its thirds.

    Raises:
        InputError: There is no such column, it is empty, or it holds too many different texts.
    """
    if column not in rows:
        raise InputError(
            "There is no such column to group by.",
            expected="one of " + ", ".join(rows.columns),
            found=column,
            where=where,
        )
    values = rows[column]
    distinct = sorted(values.dropna().unique())
    is_number = pd.api.types.is_numeric_dtype(values)
    if not distinct or (len(distinct) > _MAX_GROUPS and not is_number):
        raise InputError(
            "The column cannot group the knees.",
            expected=f"numbers, or at most {_MAX_GROUPS} different texts",
            found=f"{len(distinct)} different values",
            where=f"{where}, column {column}",
        )
    if len(distinct) > _MAX_GROUPS:
        values = pd.qcut(values.astype(float), 3, duplicates="drop")
        distinct = list(values.cat.categories)
        edges = [distinct[0].left, *(third.right for third in distinct)]
        names = dict(zip(distinct, map(" to ".join, pairwise(_apart(edges))), strict=True))
    else:
        names = {value: f"{value:.12g}" if is_number else str(value) for value in distinct}
    of_knee = np.array([names.get(v) if pd.notna(v) else None for v in values], dtype=object)
    return Groups(column, tuple(names[value] for value in distinct), of_knee, ordered=is_number)


def _apart(numbers: Sequence[float]) -> list[str]:
    """Numbers as texts of three digits, or of as many as tell them apart."""
    texts: list[str] = []
    for digits in range(3, 18):
        texts = [f"{number:.{digits}g}" for number in numbers]
        if len(set(texts)) == len(texts):
            break
    return texts
