"""What became of a knee: the progression outcomes, each defined once, as pure functions.

All of them are read from one ``KneeHistory`` and give an ``OutcomeRecord``: the value that a model
is trained on, why it is missing, and the time of the event as an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

HORIZON_MONTHS = 48
JSL_THRESHOLD_MM = 0.7

_DAYS_PER_MONTH = 365.25 / 12
_READING_STEP_DIGITS = 6


class Reason(StrEnum):
    """Why a knee has no value of an outcome, in the order in which the reasons are asked for."""

    NO_BASELINE_READING = "no_baseline_reading"
    """Nothing to compare with: no reading at baseline."""
    BASELINE_KL_4 = "baseline_kl_4"
    """Not at risk: the grade is the highest already."""
    BASELINE_JSW_BELOW_THRESHOLD = "baseline_jsw_below_threshold"
    """Not at risk: less joint space at baseline than the loss that counts."""
    REPLACED = "replaced"
    """The knee was replaced before the horizon (or at an unknown time, and never read there)."""
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
    NO_OUTCOME_RECORD = "no_outcome_record"
    """The cohort's outcomes file says nothing of the person."""


@dataclass(frozen=True)
class KneeHistory:
    """What is known of one knee.

    Attributes:
        kl_grades: Months since baseline to KL grade, all from one reading project.
        mjsw_medial_mm: Months to minimum medial joint-space width, all from one project; bone on
            bone is 0.
        jsw_not_comparable: Months at which the reader flagged a position unlike the baseline's.
        is_replaced: A replacement was adjudicated or seen on film.
        is_replacement_unconfirmed: A replacement was reported, and nothing more is known.
        replacement_months: When, of either kind; None where the day is unknown.
        is_dead: The person died during follow-up.
        death_months: When; None where the day is unknown.
        last_contact_months: The last contact; None where the cohort does not say.
    """

    kl_grades: Mapping[int, int] = field(default_factory=dict)
    mjsw_medial_mm: Mapping[int, float] = field(default_factory=dict)
    jsw_not_comparable: frozenset[int] = frozenset()
    is_replaced: bool = False
    is_replacement_unconfirmed: bool = False
    replacement_months: float | None = None
    is_dead: bool = False
    death_months: float | None = None
    last_contact_months: float | None = None

    def replaced_by(self, months: float) -> bool:
        """The knee was replaced before ``months``, as far as the day is known."""
        when = self.replacement_months
        return self.is_replaced and when is not None and when < months

    def died_by(self, months: float) -> bool:
        """The person died before ``months``, as far as the day is known."""
        return self.is_dead and self.death_months is not None and self.death_months < months


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
    """

    value: int | None
    reason: Reason | None = None
    event_observed: int | None = None
    lower_months: float | None = None
    upper_months: float | None = None


def months_from_days(days: float) -> float:
    """Months of 30.4375 days.

    Example:
        >>> months_from_days(1461.0)
        48.0
    """
    return days / _DAYS_PER_MONTH


def jsl_48m(
    knee: KneeHistory,
    *,
    threshold_mm: float = JSL_THRESHOLD_MM,
    horizon_months: int = HORIZON_MONTHS,
) -> OutcomeRecord:
    """Joint-space loss: at least 0.7 mm of minimum medial width, baseline to 48 months.

    Definition of Guan et al. 2020 (Osteoarthritis Cartilage 28:428) on the OAI's V00MCMJSW and
    V06MCMJSW, both from one reading project. At risk are knees with a KL grade below 4 and a
    baseline width of at least 0.7 mm, since no other can lose as much. Bone on bone at follow-up is
    0 mm. A knee that was replaced, or whose person died or was lost before 48 months, has no value.

    The interval follows the loss over the films up to 48 months: the event lies between the last
    film without it and the film after that. A loss that a later film takes back is measurement
    error of a noisy threshold and no event, so the interval never contradicts the value.

    Args:
        knee: What is known of the knee.
        threshold_mm: Loss that counts.
        horizon_months: When it must be there.
    """
    baseline_mm = knee.mjsw_medial_mm.get(0)
    if baseline_mm is None or 0 not in knee.kl_grades:
        return OutcomeRecord(None, Reason.NO_BASELINE_READING)
    if knee.kl_grades[0] == 4:
        return OutcomeRecord(None, Reason.BASELINE_KL_4)
    if baseline_mm < threshold_mm:
        return OutcomeRecord(None, Reason.BASELINE_JSW_BELOW_THRESHOLD)

    def is_event(width_mm: float) -> bool:
        # 2.9 - 2.2 is a little less than 0.7 in binary floating point
        return round(baseline_mm - width_mm, _READING_STEP_DIGITS) >= threshold_mm

    flagged = knee.jsw_not_comparable
    films = {
        months: is_event(width_mm)
        for months, width_mm in _follow_up(knee.mjsw_medial_mm, knee, horizon_months).items()
        if not flagged & {0, months}
    }
    free = [0, *(months for months, event in films.items() if not event)]
    event_films = [months for months in films if months > max(free)]
    value = films.get(horizon_months)
    return _radiographic(
        knee,
        value=None if value is None else int(value),
        last_free=max(free),
        first_event=min(event_films, default=None),
        horizon_months=horizon_months,
        is_flagged=horizon_months in knee.mjsw_medial_mm and bool(flagged & {0, horizon_months}),
    )


def kl_progression(knee: KneeHistory, *, horizon_months: int = HORIZON_MONTHS) -> OutcomeRecord:
    """Rise of the KL grade to 2 or more by 48 months, within one reading project.

    A step from 0 to 1 does not count, since grade 1 is doubtful (Kellgren and Lawrence 1957; so do
    Tiulpin et al. 2019, Sci Rep 9:20038). At risk are knees below grade 4. A knee is a case once a
    film up to 48 months shows the rise, and a control once its film of 48 months shows none; what
    was not read for other reasons has no value.

    The event lies in (last film without it, first film with it].

    Args:
        knee: What is known of the knee; its grades are from one reading project, so that no
            change of reader looks like a change of the knee.
        horizon_months: Until when.
    """
    baseline = knee.kl_grades.get(0)
    if baseline is None:
        return OutcomeRecord(None, Reason.NO_BASELINE_READING)
    if baseline == 4:
        return OutcomeRecord(None, Reason.BASELINE_KL_4)
    films = {
        months: grade > baseline and grade >= 2
        for months, grade in _follow_up(knee.kl_grades, knee, horizon_months).items()
    }
    first_event = min((months for months, event in films.items() if event), default=None)
    before = [months for months in films if first_event is None or months < first_event]
    value = 1 if first_event is not None else 0 if horizon_months in films else None
    return _radiographic(
        knee,
        value=value,
        last_free=max(before, default=0),
        first_event=first_event,
        horizon_months=horizon_months,
    )


def has_grade_drop(knee: KneeHistory) -> bool:
    """Some follow-up grade is below the baseline's, which osteoarthritis does not do."""
    baseline = knee.kl_grades.get(0)
    return baseline is not None and min(knee.kl_grades.values()) < baseline


def tkr(knee: KneeHistory, *, horizon_months: int = HORIZON_MONTHS) -> OutcomeRecord:
    """Knee replacement, adjudicated or seen on film, by the horizon.

    OAI: V99E?KRPCF "3: Replacement adjudicated, confirmed", or V99E?KRPSN "1: Yes", at V99E?KDAYS
    days after enrolment. Knees without one are censored at death, or at the last contact, whose
    V99RNTCNT is the code of a visit and not a number of months. The value needs the whole horizon:
    it is 1 for a replacement by then, 0 for a knee still followed without one, and missing for a
    knee that death or loss to follow-up hid before.

    Args:
        knee: What is known of the knee.
        horizon_months: Until when; the interval uses the whole follow-up.
    """
    end = knee.last_contact_months
    if knee.is_dead and knee.death_months is not None:
        end = knee.death_months
    when = knee.replacement_months
    if knee.is_replaced:
        if when is None and end is None:
            return OutcomeRecord(1)
        if when is None:
            return OutcomeRecord(1, None, 1, 0.0, end)
        return OutcomeRecord(int(when <= horizon_months), None, 1, when, when)
    if knee.is_replacement_unconfirmed:
        known_free = when if when is not None else 0.0
        value = 0 if known_free > horizon_months else None
        return OutcomeRecord(value, None if value == 0 else Reason.UNCONFIRMED, 0, known_free, None)
    if end is None:
        return OutcomeRecord(None, Reason.NO_OUTCOME_RECORD)
    if end >= horizon_months:
        return OutcomeRecord(0, None, 0, end, None)
    return OutcomeRecord(None, Reason.DIED if knee.is_dead else Reason.LOST, 0, end, None)


def _follow_up(
    readings: Mapping[int, float], knee: KneeHistory, horizon_months: int
) -> dict[int, float]:
    """Readings after baseline and up to the horizon, none of them after replacement or death."""
    return {
        months: readings[months]
        for months in sorted(readings)
        if 0 < months <= horizon_months and not (knee.replaced_by(months) or knee.died_by(months))
    }


def _radiographic(
    knee: KneeHistory,
    *,
    value: int | None,
    last_free: int,
    first_event: int | None,
    horizon_months: int,
    is_flagged: bool = False,
) -> OutcomeRecord:
    """Assemble the record of an outcome that is read from films."""
    reason = None if value is not None else _why_not_read(knee, horizon_months, is_flagged)
    return OutcomeRecord(
        value,
        reason,
        event_observed=int(first_event is not None),
        lower_months=float(last_free),
        upper_months=None if first_event is None else float(first_event),
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
