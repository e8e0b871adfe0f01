"""What is true of each synthetic knee, beside what the films and tables let one see."""

from __future__ import annotations

from typing import Any

from kneeoa_mm.synthetic.oai_tables import is_death_recorded, is_replacement_known
from kneeoa_mm.synthetic.population import (
    LOSS_THRESHOLD_UM,
    VISIT_MONTHS,
    Population,
)

_HORIZON_MONTHS = VISIT_MONTHS[-1]


def state_columns(person: Population, side: int, visit: int) -> dict[str, Any]:
    """The stage of the disease that a film shows; nothing for a prosthesis.

    Args:
        person: A population of one.
        side: 0 for the right knee, 1 for the left.
        visit: Index into ``VISIT_MONTHS``.
    """
    is_replaced = not person.native[0, side, visit]
    state = {
        "mjsw_medial_mm": person.jsw_medial_um[0, side, visit] / 1000,
        "mjsw_lateral_mm": person.jsw_lateral_mm[0, side, visit],
        "osteophyte_mm": person.osteophyte_mm[0, side, visit],
        "sclerosis_mm": person.sclerosis_mm[0, side, visit],
        "kl_grade": int(person.kl_grade[0, side, visit]),
    }
    return {"is_replaced": is_replaced} | (dict.fromkeys(state) if is_replaced else state)


def progress_columns(person: Population, side: int) -> dict[str, Any]:
    """What describes a knee's progress from baseline; nothing for a prosthesis."""
    names = (
        "x_image", "x_clinical", "is_at_risk", "jsl_48m_prob", "jsl_48m_regardless", "jsl_48m",
    )  # fmt: skip
    nothing: dict[str, Any] = dict.fromkeys(names)
    reason = missing_reason(person, side)
    if person.replaced_before[0, side]:
        return nothing | {"jsl_48m_reason": reason}
    is_at_risk = bool(person.at_risk[0, side])
    happened = int(person.loses_joint_space[0, side])
    return {
        "x_image": person.x_image[0, side],
        "x_clinical": person.x_clinical[0, side],
        "is_at_risk": is_at_risk,
        "jsl_48m_prob": person.jsl_48m_prob[0, side] if is_at_risk else None,
        "jsl_48m_regardless": happened if is_at_risk else None,
        "jsl_48m": happened if reason is None else None,
        "jsl_48m_reason": reason,
    }


def missing_reason(person: Population, side: int) -> str | None:
    """Why the tables do not tell ``jsl_48m`` of a knee, or None where they do.

    The words are those of the cohort table; where several apply, the first one counts.
    """
    horizon = _HORIZON_MONTHS
    readable = person.width_readable[0, side]
    unread = not (readable[0] and person.grade_readable[0, side, 0])
    replaced = (
        is_replacement_known(person)[0, side] and person.replacement_months[0, side] < horizon
    )
    died = is_death_recorded(person)[0] and person.death_months[0] < horizon
    filmed = bool(person.filmed[0, side, -1])
    candidates = {
        "no_baseline_reading": unread or person.replaced_before[0, side],
        "baseline_kl_4": person.kl_grade[0, side, 0] == 4,
        "baseline_jsw_below_threshold": person.jsw_medial_um[0, side, 0] < LOSS_THRESHOLD_UM,
        "replaced": replaced,
        "died": died,
        "position_differs": filmed and readable[-1] and person.position_differs[0, side, -1],
        "lost": min(person.dropout_months[0], person.death_months[0]) < horizon,
        "no_reading": not (filmed and readable[-1]),
    }
    return next((reason for reason, applies in candidates.items() if applies), None)
