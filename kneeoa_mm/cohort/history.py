"""What is known of a knee, and the record of an outcome of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

HORIZON_MONTHS = 48

_DAYS_PER_MONTH = 365.25 / 12


class Reason(StrEnum):
    """Why a knee has no value of an outcome, in the order in which the reasons are asked for."""

    NO_BASELINE_READING = "no_baseline_reading"
    """Nothing to compare with: no reading at baseline."""
    BASELINE_KL_4 = "baseline_kl_4"
    """Not at risk: the grade is the highest already."""
    BASELINE_KL_NOT_ELIGIBLE = "baseline_kl_not_eligible"
    """Not at risk: the definition leaves out this grade."""
    BASELINE_JSW_BELOW_THRESHOLD = "baseline_jsw_below_threshold"
    """Not at risk: less joint space at baseline than the loss that counts."""
    BASELINE_PAIN_TOO_HIGH = "baseline_pain_too_high"
    """Not at risk: the pain score at baseline leaves no room for the rise that counts."""
    REPLACED = "replaced"
    """The knee was replaced before the horizon, or at a time that may be before or after it."""
    DIED = "died"
    """The person died before the horizon."""
    POSITION_DIFFERS = "position_differs"
    """The reader found the films of baseline and horizon too differently positioned to compare."""
    LOST = "lost"
    """The last contact with the person was before the horizon."""
    NO_READING = "no_reading"
    """The person was in contact at the horizon, but there is no reading of the knee."""
    UNCONFIRMED = "unconfirmed"
    """The person reported a replacement that was neither adjudicated nor seen on film."""
    NOT_TOTAL = "not_total"
    """A replacement that was partial, or of unknown kind, where only total ones count."""
    NO_OUTCOME_RECORD = "no_outcome_record"
    """The cohort's outcomes file says nothing of the person."""


NOT_AT_RISK = (
    Reason.NO_BASELINE_READING,
    Reason.BASELINE_KL_4,
    Reason.BASELINE_KL_NOT_ELIGIBLE,
    Reason.BASELINE_JSW_BELOW_THRESHOLD,
    Reason.BASELINE_PAIN_TOO_HIGH,
)


@dataclass(frozen=True)
class KneeHistory:
    """What is known of one knee.

    Attributes:
        kl_grades: Months since baseline to KL grade, all from one reading project.
        mjsw_medial_mm: Months to minimum medial joint-space width (or the width at a fixed location
            where the cohort asks for that), all from one project; bone on bone is 0.
        womac_pain: Months to WOMAC pain score, 0 to 20, of the visits at which it was answered.
        jsw_not_comparable: Months at which the reader flagged a position unlike the baseline's.
        is_replaced: A replacement was adjudicated or seen on film.
        is_total: Whether it was total; None where the kind is unknown.
        is_replacement_unconfirmed: A replacement was reported, and nothing more is known.
        replacement_months: When, of any kind; None where the day is unknown.
        replacement_after_months: Last time before, where only the visit is known; None with a day.
        is_dead: The person died during follow-up.
        death_months: When; None where the day is unknown.
        death_after_months: Last time before, where only the visit is known; None with a day.
        last_contact_months: The last contact; None where the cohort does not say.
    """

    kl_grades: Mapping[int, int] = field(default_factory=dict)
    mjsw_medial_mm: Mapping[int, float] = field(default_factory=dict)
    womac_pain: Mapping[int, float] = field(default_factory=dict)
    jsw_not_comparable: frozenset[int] = frozenset()
    is_replaced: bool = False
    is_total: bool | None = None
    is_replacement_unconfirmed: bool = False
    replacement_months: float | None = None
    replacement_after_months: float | None = None
    is_dead: bool = False
    death_months: float | None = None
    death_after_months: float | None = None
    last_contact_months: float | None = None

    def replaced_by(self, months: float) -> bool:
        """The knee was replaced before ``months``, as far as the day is known."""
        is_by = _has_come(self.replacement_months, self.replacement_after_months, months)
        return self.is_replaced and is_by

    def died_by(self, months: float) -> bool:
        """The person died before ``months``, as far as the day is known."""
        return self.is_dead and _has_come(self.death_months, self.death_after_months, months)


def _has_come(when: float | None, after: float | None, months: float) -> bool:
    if when is None:
        return False
    # known to the visit only: whatever a visit finds was there when its film was due
    return when < months if after is None else when <= months


@dataclass(frozen=True)
class OutcomeRecord:
    """An outcome of one knee.

    Attributes:
        value: 1, 0, or None with a reason.
        reason: Why there is no value.
        event_observed: 1 where the event was seen; 0 where the knee was last known free of it at
            ``lower_months``; None where the knee is not at risk or nothing is known.
        lower_months: Last time at which the knee was known to be free of the event.
        upper_months: First time at which the event was seen; equal to ``lower_months`` where the
            day is known; None without an event.
        followed_months: Until when the knee was followed for the value: when that was decided, or
            without one, when the knee was last seen. It says how the outcome came to be known and
            is no part of it, so records that differ in nothing else are equal.
    """

    value: int | None
    reason: Reason | None = None
    event_observed: int | None = None
    lower_months: float | None = None
    upper_months: float | None = None
    followed_months: float | None = field(default=None, compare=False)


def months_from_days(days: float) -> float:
    """Months of 30.4375 days.

    Example:
        >>> months_from_days(1461.0)
        48.0
    """
    return days / _DAYS_PER_MONTH


def days_from_months(months: float) -> float:
    """Days of so many months.

    Example:
        >>> days_from_months(12)
        365.25
    """
    return months * _DAYS_PER_MONTH


def follow_up(
    readings: Mapping[int, float], knee: KneeHistory, horizon_months: float = math.inf
) -> dict[int, float]:
    """Readings after baseline and up to a horizon, none of them after replacement or death."""
    return {
        months: readings[months]
        for months in sorted(readings)
        if 0 < months <= horizon_months and not (knee.replaced_by(months) or knee.died_by(months))
    }


def read_at_visits(
    knee: KneeHistory,
    *,
    value: int | None,
    last_free: int,
    first_event: int | None,
    followed: int,
    horizon_months: int,
    is_flagged: bool = False,
) -> OutcomeRecord:
    """Assemble the record of an outcome that is read at visits, censored at the last of them."""
    reason = None if value is not None else _why_not_read(knee, horizon_months, is_flagged)
    return OutcomeRecord(
        value,
        reason,
        event_observed=int(first_event is not None),
        lower_months=float(last_free),
        upper_months=None if first_event is None else float(first_event),
        followed_months=float(followed),
    )


def _why_not_read(knee: KneeHistory, horizon_months: int, is_flagged: bool) -> Reason:
    replaced_some_day = knee.is_replaced and knee.replacement_months is None
    if knee.replaced_by(horizon_months) or replaced_some_day:
        return Reason.REPLACED
    if knee.died_by(horizon_months):
        return Reason.DIED
    if is_flagged:
        return Reason.POSITION_DIFFERS
    if knee.last_contact_months is not None and knee.last_contact_months < horizon_months:
        return Reason.LOST
    return Reason.NO_READING
