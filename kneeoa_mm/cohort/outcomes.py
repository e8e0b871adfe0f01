"""What became of a knee: the other progression outcomes, and all of them for a whole cohort.

Each outcome is a pure function of one ``KneeHistory`` and gives an ``OutcomeRecord``: the value
that a model is trained on, why it is missing, and the time of the event as an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from kneeoa_mm.cohort.history import (
    HORIZON_MONTHS,
    KneeHistory,
    OutcomeRecord,
    Reason,
    follow_up,
    read_at_visits,
)
from kneeoa_mm.cohort.joint_space_loss import jsl_48m, jsl_fnih, jsl_or_kr_48m
from kneeoa_mm.cohort.pain import pain_progression
from kneeoa_mm.cohort_spec import OutcomesSpec
from kneeoa_mm.records import Outcome

Replacement = Literal["confirmed", "total", "reported"]
"""Which replacements count: adjudicated or seen; of these the total ones; or reported ones, too."""

_MONTHS_TO_NEXT_CONTACT = 12
"""Studies that date deaths, such as the OAI, see or call their people each year."""


def kl_progression(
    knee: KneeHistory,
    *,
    horizon_months: int = HORIZON_MONTHS,
    step_to_doubtful_counts: bool = False,
) -> OutcomeRecord:
    """Rise of the KL grade to 2 or more by 48 months, within one reading project.

    A step from 0 to 1 does not count, since grade 1 is doubtful (Kellgren and Lawrence 1957; so do
    Tiulpin et al. 2019, Sci Rep 9:20038), unless asked for. At risk are knees below grade 4. A knee
    is a case once a film up to 48 months shows the rise, and a control once its film of 48 months
    shows none; what was not read for other reasons has no value.

    The event lies in (last film without it, first film with it] of all films, those after the
    horizon too: a knee that is free there and has the rise later has the value 0 and an event.

    Args:
        knee: What is known of the knee; its grades are from one reading project, so that no
            change of reader looks like a change of the knee.
        horizon_months: Until when a rise makes the value 1; the interval uses all films.
        step_to_doubtful_counts: A step from grade 0 to 1 is progression, too.
    """
    baseline = knee.kl_grades.get(0)
    if baseline is None:
        return OutcomeRecord(None, Reason.NO_BASELINE_READING)
    if baseline == 4:
        return OutcomeRecord(None, Reason.BASELINE_KL_4)
    least = 1 if step_to_doubtful_counts else 2
    films = {
        months: grade > baseline and grade >= least
        for months, grade in follow_up(knee.kl_grades, knee).items()
    }
    first_event = min((months for months, event in films.items() if event), default=None)
    before = [months for months in films if first_event is None or months < first_event]
    # a film after the horizon decides no value
    by_horizon = [months for months in films if months <= horizon_months]
    decided_by = first_event if first_event in by_horizon else None
    value = 1 if decided_by is not None else 0 if horizon_months in films else None
    return read_at_visits(
        knee,
        value=value,
        last_free=max(before, default=0),
        first_event=first_event,
        followed=max(by_horizon, default=0) if decided_by is None else decided_by,
        horizon_months=horizon_months,
    )


def has_grade_drop(knee: KneeHistory) -> bool:
    """Some follow-up grade is below the baseline's, which osteoarthritis does not do."""
    baseline = knee.kl_grades.get(0)
    return baseline is not None and min(knee.kl_grades.values()) < baseline


def tkr(
    knee: KneeHistory,
    *,
    horizon_months: int = HORIZON_MONTHS,
    counts: Replacement = "confirmed",
) -> OutcomeRecord:
    """Knee replacement, adjudicated or seen on film, by the horizon.

    OAI: V99E?KRPCF "3: Replacement adjudicated, confirmed", or V99E?KRPSN "1: Yes", at V99E?KDAYS
    days after enrolment. Knees without one are censored at the last contact, whose V99RNTCNT is the
    code of a visit and not a number of months; or at a death within the year until the next contact
    was due. A later death came to who was lost before, and one of which only the visit is known
    that found it (MOST) says nothing of the knee since the last contact, which censors both.
    The value needs the whole horizon: it is 1 for a replacement by then, 0 for a knee still
    followed without one, and missing for a knee that death or loss to follow-up hid before. Where
    no day is known but those between which it must lie, such as the last contact, it is missing if
    the horizon is among them.

    Args:
        knee: What is known of the knee.
        horizon_months: Until when; the interval uses the whole follow-up.
        counts: Which replacements; those that do not count hide the knee from their day on.
    """
    when = knee.replacement_months
    is_event, hidden_by = _replacement(knee, counts)
    if is_event:
        return _replaced(knee, horizon_months)
    if hidden_by is not None:
        known_free = when if when is not None else 0.0
        value = 0 if known_free > horizon_months else None
        return _free_until(known_free, value, hidden_by, horizon_months)
    end, missing = _followed_until(knee)
    if end is None:
        return OutcomeRecord(None, Reason.NO_OUTCOME_RECORD)
    value = 0 if end >= horizon_months else None
    return _free_until(end, value, missing, horizon_months)


def _replaced(knee: KneeHistory, horizon_months: int) -> OutcomeRecord:
    when, after = knee.replacement_months, knee.replacement_after_months
    latest = _last_known(knee) if when is None else when
    if latest is None:
        return OutcomeRecord(None, Reason.REPLACED)
    earliest = 0.0 if when is None else when if after is None else after
    record = from_label(None, 1, earliest, latest, horizon_months=horizon_months)
    return record if record.reason is None else replace(record, reason=Reason.REPLACED)


def _free_until(
    months: float, value: int | None, missing: Reason, horizon_months: int
) -> OutcomeRecord:
    reason = missing if value is None else None
    return OutcomeRecord(value, reason, 0, months, followed_months=min(months, horizon_months))


def _day_of_death(knee: KneeHistory) -> float | None:
    return knee.death_months if knee.is_dead and knee.death_after_months is None else None


def _last_known(knee: KneeHistory) -> float | None:
    """Until when the person lived, as far as is known, and a replacement may have come."""
    died, contact = _day_of_death(knee), knee.last_contact_months
    if died is not None:
        return died
    return knee.death_after_months if contact is None else contact


def _followed_until(knee: KneeHistory) -> tuple[float | None, Reason]:
    """Until when a replacement would have been heard of, and what hides it from then on."""
    died, contact = _day_of_death(knee), knee.last_contact_months
    # who died after the next contact was due had been lost, and nobody knows of the knee since
    if died is not None and contact is not None and died > contact + _MONTHS_TO_NEXT_CONTACT:
        return contact, Reason.LOST
    return _last_known(knee), Reason.DIED if knee.is_dead else Reason.LOST


def _replacement(knee: KneeHistory, counts: Replacement) -> tuple[bool, Reason | None]:
    """Whether the knee has a replacement that counts, and what one that does not hides it by."""
    if counts == "reported":
        return knee.is_replaced or knee.is_replacement_unconfirmed, None
    if knee.is_replaced:
        is_event = counts == "confirmed" or knee.is_total is True
        return is_event, None if is_event else Reason.NOT_TOTAL
    return False, Reason.UNCONFIRMED if knee.is_replacement_unconfirmed else None


def from_label(
    value: int | None,
    event_observed: int | None,
    lower_months: float | None,
    upper_months: float | None,
    *,
    horizon_months: int,
) -> OutcomeRecord:
    """The record of an outcome that a source holds ready-made, as a value or as an interval.

    An interval that ends by the horizon is an event there; a knee known to be free up to it, or an
    event that starts after it, is none; an interval around it leaves the value open.

    Args:
        value: As the source has it; None where it has an interval instead.
        event_observed: 1 event, 0 none; None without an interval.
        lower_months: Last time known free.
        upper_months: First time seen.
        horizon_months: Of the value.

    Example:
        >>> from_label(None, 0, 36.0, None, horizon_months=48)
        OutcomeRecord(value=None, reason=<Reason.LOST: 'lost'>, event_observed=0,
                      lower_months=36.0, upper_months=None, followed_months=36.0)
    """
    if event_observed is None or lower_months is None:
        return OutcomeRecord(value, None if value is not None else Reason.NO_OUTCOME_RECORD)
    if value is None and event_observed and upper_months is not None:
        value = (
            1 if upper_months <= horizon_months else 0 if lower_months >= horizon_months else None
        )
    elif value is None:
        value = 0 if lower_months >= horizon_months else None
    missing = Reason.NO_READING if event_observed else Reason.LOST
    reason = missing if value is None else None
    decided = upper_months if value == 1 and event_observed else float(horizon_months)
    followed = lower_months if value is None else decided
    return OutcomeRecord(value, reason, event_observed, lower_months, upper_months, followed)


def outcome_records(
    histories: Sequence[KneeHistory], spec: OutcomesSpec
) -> dict[Outcome, list[OutcomeRecord]]:
    """Every outcome of every knee, by the cohort's settings."""
    threshold_mm, jsl_horizon = spec.jsl_threshold_mm, spec.jsl_horizon_months
    return {
        Outcome.JSL_48M: [
            jsl_48m(knee, threshold_mm=threshold_mm, horizon_months=jsl_horizon)
            for knee in histories
        ],
        Outcome.JSL_FNIH: [
            jsl_fnih(
                knee,
                threshold_mm=threshold_mm,
                months_read=spec.fnih_months,
                kl_grades=spec.fnih_kl_grades,
            )
            for knee in histories
        ],
        Outcome.JSL_OR_KR_48M: [
            jsl_or_kr_48m(knee, threshold_mm=threshold_mm, horizon_months=jsl_horizon)
            for knee in histories
        ],
        Outcome.KL_PROGRESSION: [
            kl_progression(
                knee,
                horizon_months=spec.kl_horizon_months,
                step_to_doubtful_counts=spec.kl_step_to_doubtful_counts,
            )
            for knee in histories
        ],
        Outcome.TKR: [tkr(knee, horizon_months=spec.tkr_horizon_months) for knee in histories],
        Outcome.PAIN_PROGRESSION: [
            pain_progression(knee, threshold=spec.pain_threshold, months_asked=spec.pain_months)
            for knee in histories
        ],
    }


def horizon_of(outcome: Outcome, spec: OutcomesSpec) -> int:
    """Months by which the value of an outcome is decided."""
    return spec.horizon_of(outcome)
