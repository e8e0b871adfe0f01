"""Progression of pain, which structure foretells only in part."""

from __future__ import annotations

from collections.abc import Sequence

from kneeoa_mm.cohort.history import KneeHistory, OutcomeRecord, Reason, follow_up, read_at_visits

PAIN_MONTHS = (24, 36, 48)
PAIN_THRESHOLD = 2.0
WOMAC_PAIN_MAX = 20.0

_SUSTAINED_VISITS = 2


def pain_progression(
    knee: KneeHistory,
    *,
    threshold: float = PAIN_THRESHOLD,
    months_asked: Sequence[int] = PAIN_MONTHS,
) -> OutcomeRecord:
    """Sustained rise of WOMAC pain: by at least 2 of 20 points at two visits of 24 to 48 months.

    The pain half of the case definition of the FNIH Osteoarthritis Biomarkers Consortium (Eckstein
    et al. 2015, Arthritis Rheumatol 67:3184): a persistent rise by at least 9 of 100 points, which
    are 1.8 of 20 and so 2 points of a sum of whole answers, from 24 to 48 months. Persistent is
    here: at two visits or more. OAI: V##WOMKPR and V##WOMKPL.

    At risk are knees whose baseline score leaves room for the rise. The value is 1 once two visits
    show it, and 0 once the visits that were not answered could not make it two. A knee that was
    replaced, or whose person died, counts as unanswered from then on. The event lies in (last
    visit before it without the rise, first visit with it]; a rise that was never confirmed is no
    event, and the knee is censored at its last visit without one.

    Args:
        knee: What is known of the knee.
        threshold: Points that count as a rise.
        months_asked: Visits that count.
    """
    baseline = knee.womac_pain.get(0)
    if baseline is None:
        return OutcomeRecord(None, Reason.NO_BASELINE_READING)
    if baseline + threshold > WOMAC_PAIN_MAX:
        return OutcomeRecord(None, Reason.BASELINE_PAIN_TOO_HIGH)
    horizon_months = max(months_asked)
    answered = {
        months: score - baseline >= threshold
        for months, score in follow_up(knee.womac_pain, knee, horizon_months).items()
        if months in months_asked
    }
    rises = [months for months, has_risen in answered.items() if has_risen]
    others = [months for months, has_risen in answered.items() if not has_risen]
    enough_others = len(set(months_asked)) - _SUSTAINED_VISITS + 1
    is_event, is_refuted = len(rises) >= _SUSTAINED_VISITS, len(others) >= enough_others
    first_event = rises[0] if is_event else None
    if is_event:
        followed = rises[_SUSTAINED_VISITS - 1]
    elif is_refuted:
        followed = others[enough_others - 1]
    else:
        missed = max(set(months_asked) - set(answered))
        followed = max((months for months in answered if months < missed), default=0)
    free = [months for months in others if first_event is None or months < first_event]
    return read_at_visits(
        knee,
        value=int(is_event) if is_event or is_refuted else None,
        last_free=max(free, default=0),
        first_event=first_event,
        followed=followed,
        horizon_months=horizon_months,
    )
