"""Loss of joint space: by 48 months, on any of several films, or with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kneeoa_mm.cohort.history import (
    HORIZON_MONTHS,
    NOT_AT_RISK,
    KneeHistory,
    OutcomeRecord,
    Reason,
    follow_up,
    read_at_visits,
)

JSL_THRESHOLD_MM = 0.7
FNIH_MONTHS = (24, 36, 48)
FNIH_KL_GRADES = (1, 2, 3)

_BELOW_KL_4 = (0, 1, 2, 3)
_READING_STEP_DIGITS = 6


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
    error of a noisy threshold and no event, so the interval never contradicts the value. Films
    after 48 months could take back the loss that the value counts, so they are left out.

    Args:
        knee: What is known of the knee.
        threshold_mm: Loss that counts.
        horizon_months: When it must be there.
    """
    not_at_risk = _why_not_at_risk(knee, threshold_mm, _BELOW_KL_4)
    if not_at_risk is not None:
        return OutcomeRecord(None, not_at_risk)
    films = _loss_by_film(knee, threshold_mm, horizon_months)
    last_free = max([0, *(months for months, is_lost in films.items() if not is_lost)])
    value = films.get(horizon_months)
    return read_at_visits(
        knee,
        value=None if value is None else int(value),
        last_free=last_free,
        first_event=min((months for months in films if months > last_free), default=None),
        followed=max(films, default=0),
        horizon_months=horizon_months,
        is_flagged=_is_flagged(knee, horizon_months),
    )


def jsl_fnih(
    knee: KneeHistory,
    *,
    threshold_mm: float = JSL_THRESHOLD_MM,
    months_read: Sequence[int] = FNIH_MONTHS,
    kl_grades: Sequence[int] = FNIH_KL_GRADES,
) -> OutcomeRecord:
    """Joint-space loss on any film of 24, 36 and 48 months, of knees with KL grade 1 to 3.

    The radiographic half of the case definition of the FNIH Osteoarthritis Biomarkers Consortium
    (Eckstein et al. 2015, Arthritis Rheumatol 67:3184), on the same widths as :func:`jsl_48m`. One
    film suffices, also where a later one takes the loss back, so that three looks at a noisy
    threshold find more events than one: see ``kneeoa_mm.cohort.measurement_error``.

    The value is 0 once the last of the films shows no loss and none before did. The event lies in
    (last film without loss before it, first film that shows it].

    Args:
        knee: What is known of the knee.
        threshold_mm: Loss that counts.
        months_read: Films that count.
        kl_grades: Baseline grades that are eligible.
    """
    not_at_risk = _why_not_at_risk(knee, threshold_mm, kl_grades)
    if not_at_risk is not None:
        return OutcomeRecord(None, not_at_risk)
    horizon_months = max(months_read)
    films = _loss_by_film(knee, threshold_mm, horizon_months)
    first_event = min((m for m in months_read if films.get(m)), default=None)
    before = horizon_months + 1 if first_event is None else first_event
    value = 1 if first_event is not None else 0 if horizon_months in films else None
    return read_at_visits(
        knee,
        value=value,
        last_free=max([0, *(m for m, is_lost in films.items() if not is_lost and m < before)]),
        first_event=first_event,
        followed=max(films, default=0) if first_event is None else first_event,
        horizon_months=horizon_months,
        is_flagged=_is_flagged(knee, horizon_months),
    )


def jsl_or_kr_48m(
    knee: KneeHistory,
    *,
    threshold_mm: float = JSL_THRESHOLD_MM,
    horizon_months: int = HORIZON_MONTHS,
) -> OutcomeRecord:
    """Joint-space loss or replacement of the knee by 48 months.

    :func:`jsl_48m` has no value for knees that were replaced, which are those that got worst. Here
    an adjudicated or seen replacement by 48 months is an event, too, at risk are the same knees,
    and the other reasons for a missing value stay. A replacement that was only reported leaves the
    value missing, unless the film of 48 months was read.

    The event lies between the last film without loss and whichever came first: the film with a loss
    that no later film took back, or the replacement.

    Args:
        knee: What is known of the knee.
        threshold_mm: Loss that counts.
        horizon_months: Until when.
    """
    loss = jsl_48m(knee, threshold_mm=threshold_mm, horizon_months=horizon_months)
    if loss.reason in NOT_AT_RISK:
        return loss
    when = knee.replacement_months
    # on an unknown day, but surely before the last contact
    latest = when if when is not None else knee.last_contact_months
    is_by_horizon = latest is not None and latest <= horizon_months
    if knee.is_replaced and is_by_horizon and (when is not None or loss.value is None):
        if loss.event_observed:
            return replace(loss, value=1, reason=None, followed_months=latest)
        return OutcomeRecord(1, None, 1, loss.lower_months, latest, followed_months=latest)
    if loss.value is not None:
        return loss
    is_hidden = knee.is_replacement_unconfirmed and (when is None or when <= horizon_months)
    return replace(
        loss,
        reason=Reason.UNCONFIRMED if is_hidden else loss.reason,
        followed_months=_watched_until(knee, loss, horizon_months),
    )


def _watched_until(knee: KneeHistory, loss: OutcomeRecord, horizon_months: int) -> float:
    """Until when a replacement would have been known of a knee whose last film is missing."""
    hidden = knee.replacement_months if knee.is_replacement_unconfirmed else None
    ends = (knee.last_contact_months, hidden, horizon_months - 1)  # the film itself was not seen
    return max(loss.followed_months or 0.0, min(end for end in ends if end is not None))


def _why_not_at_risk(
    knee: KneeHistory, threshold_mm: float, kl_grades: Sequence[int]
) -> Reason | None:
    baseline_mm, grade = knee.mjsw_medial_mm.get(0), knee.kl_grades.get(0)
    if baseline_mm is None or grade is None:
        return Reason.NO_BASELINE_READING
    if grade not in kl_grades:
        return Reason.BASELINE_KL_4 if grade == 4 else Reason.BASELINE_KL_NOT_ELIGIBLE
    return Reason.BASELINE_JSW_BELOW_THRESHOLD if baseline_mm < threshold_mm else None


def _loss_by_film(knee: KneeHistory, threshold_mm: float, horizon_months: int) -> dict[int, bool]:
    """Whether each follow-up film that can be compared shows the loss."""
    baseline_mm = knee.mjsw_medial_mm[0]
    flagged = knee.jsw_not_comparable
    return {
        # 2.9 - 2.2 is a little less than 0.7 in binary floating point
        months: round(baseline_mm - width_mm, _READING_STEP_DIGITS) >= threshold_mm
        for months, width_mm in follow_up(knee.mjsw_medial_mm, knee, horizon_months).items()
        if not flagged & {0, months}
    }


def _is_flagged(knee: KneeHistory, months: int) -> bool:
    return months in knee.mjsw_medial_mm and bool(knee.jsw_not_comparable & {0, months})
