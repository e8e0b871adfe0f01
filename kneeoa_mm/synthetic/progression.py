"""The stated model: who gets knee osteoarthritis, whose joint space narrows, and who is lost.

A person's fate follows from one row of independent standard normal numbers, so it depends on that
person's seed alone, and a million persons run through the same lines as a cohort of ten. The
equations and their limits are explained in docs/concepts/synthetic-cohort.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import expit, ndtr

from kneeoa_mm.synthetic.population import (
    DAYS_PER_MONTH,
    FOLLOW_UP_MONTHS,
    LOSS_THRESHOLD_UM,
    VISIT_MONTHS,
    Array,
    Draws,
    Integers,
    Population,
)

Scenario = Literal["standard", "null"]


@dataclass(frozen=True)
class Coefficients:
    """Loss of minimum medial joint-space width over 48 months.

    ``loss = mean_mm + sd_mm * (image * x_image + clinical * x_clinical
    + interaction * x_image * x_clinical + e)`` with e standard normal.
    """

    mean_mm: float
    sd_mm: float
    image: float
    clinical: float
    interaction: float

    def loss_mm(self, x_image: Array, x_clinical: Array, e: Array | float) -> Array:
        """Loss over 48 months; negative where the joint space widens."""
        drive = self.image * x_image + self.clinical * x_clinical
        drive = drive + self.interaction * x_image * x_clinical
        return np.asarray(self.mean_mm + self.sd_mm * (drive + e))

    def probability(self, x_image: Array, x_clinical: Array) -> Array:
        """Probability that the loss reaches the threshold."""
        beyond_mm = self.loss_mm(x_image, x_clinical, 0.0) - LOSS_THRESHOLD_UM / 1000
        return np.asarray(ndtr(beyond_mm / self.sd_mm))


STANDARD = Coefficients(mean_mm=0.33, sd_mm=0.50, image=0.52, clinical=0.36, interaction=0.42)
NULL = replace(STANDARD, clinical=0.0, interaction=0.0)
COEFFICIENTS: dict[Scenario, Coefficients] = {"standard": STANDARD, "null": NULL}

CLINICAL_FACTORS = {
    "age_years": (61.0, 9.0, 0.35),
    "bmi_kg_m2": (28.6, 4.75, 0.55),
    "female": (0.58, 0.494, 0.30),
    "knee_injury": (0.25, 0.433, 0.45),
    "fta_deg": (4.5, 2.8, -0.60),
}
"""Mean, standard deviation and weight of each factor in ``x_clinical``, as recorded in the tables.
Varus (a small or negative femorotibial angle) counts towards progression."""

_KL_CUTS = (-0.279, 0.176, 0.994, 1.838)
"""Cuts of the standard normal KL score: 39, 18, 27, 13 and 3 per cent, about the OAI's grades."""

_SIGN_LOADING = 0.8
_PERSON_SHARE = 0.6


def simulate(draws: Array, scenario: Scenario = "standard") -> Population:
    """Let a population age by 48 months, and be followed for nine years.

    Args:
        draws: What `draw` returns, (n, DRAWS_PER_PERSON).
        scenario: ``null`` takes the clinical factors out of the progression model.
    """
    z = Draws(draws)
    coefficients = COEFFICIENTS[scenario]
    age = np.clip(np.floor(61.0 + 9.5 * z["person_age"]), 45.0, 79.0)
    bmi = np.clip(28.2 * np.exp(0.165 * z["person_bmi"]), 16.5, 48.7).round(1)
    female = ndtr(z["person_sex"]) < 0.58
    injury = ndtr(z["knee_injury"]) < 0.25
    fta = (4.5 + 2.8 * z.shared("alignment", 0.5)).round(2)
    x_clinical = clinical_predictor(
        {
            "age_years": age[:, None],
            "bmi_kg_m2": bmi[:, None],
            "female": female[:, None],
            "knee_injury": injury,
            "fta_deg": fta,
        }
    )
    signs = _signs(z)
    x_image = image_factor(signs)
    jsw_um = _joint_space_um(z, signs["narrowing"], x_image, x_clinical, coefficients)
    worst_loss_mm = np.maximum.accumulate((jsw_um[..., :1] - jsw_um) / 1000, axis=-1)
    kl_grade = _kl_grade(z, x_image, jsw_um, worst_loss_mm)
    pain = 0.35 * x_image + 0.8 * z["knee_pain"]
    womac = np.clip(np.floor(np.exp(2.0 + pain) - 1.0), 0.0, 96.0)
    death = _first_event_months(0.004 * np.exp(0.09 * (age - 61))[:, None], z["person_death"])
    dropout_hazard = expit(-3.3 + 0.03 * (age - 61) + 0.04 * (bmi - 28.6))
    dropout = _first_event_months(dropout_hazard[:, None], z["person_dropout"])
    attended = ndtr(z["visit_attendance"]) < 0.97
    attended[:, 0] = True
    attended &= np.minimum(death, dropout)[:, None] > np.array(VISIT_MONTHS)
    return Population(
        age_years=age,
        bmi_kg_m2=bmi,
        female=female,
        death_months=death,
        dropout_months=dropout,
        attended=attended,
        knee_injury=injury,
        fta_deg=fta,
        womac_total=womac,
        x_image=x_image,
        x_clinical=x_clinical,
        jsl_48m_prob=coefficients.probability(x_image, x_clinical),
        jsw_medial_um=jsw_um,
        jsw_lateral_mm=_lateral_mm(z, jsw_um),
        osteophyte_mm=_osteophyte_mm(signs["osteophytes"][..., None] + 0.35 * worst_loss_mm),
        sclerosis_mm=_sclerosis_mm(signs["sclerosis"][..., None] + 0.35 * worst_loss_mm),
        kl_grade=kl_grade,
        replaced_before=z["knee_replaced_before"] > 2.5,
        replacement_months=_replacement_months(z, kl_grade, womac),
        width_readable=ndtr(z["knee_visit_width_reading"]) < 0.985,
        grade_readable=ndtr(z["knee_visit_grade_reading"]) < 0.995,
        position_differs=(ndtr(z["knee_visit_position"]) < 0.015) & (np.array(VISIT_MONTHS) > 0),
    )


def clinical_predictor(factors: dict[str, Array]) -> Array:
    """``x_clinical``: the weighted sum of the standardised factors, scaled to unit variance.

    Args:
        factors: A value per knee for every name in `CLINICAL_FACTORS`.
    """
    weights = np.array([weight for _, _, weight in CLINICAL_FACTORS.values()])
    total = sum(
        weight * (factors[name] - mean) / sd
        for name, (mean, sd, weight) in CLINICAL_FACTORS.items()
    )
    return np.asarray(total / np.sqrt((weights**2).sum()))


def image_factor(signs: dict[str, Array]) -> Array:
    """``x_image``: the standardised sum of osteophytes, sclerosis and joint-space narrowing."""
    count, correlation = len(signs), _SIGN_LOADING**2
    return np.asarray(sum(signs.values()) / np.sqrt(count + count * (count - 1) * correlation))


def _signs(z: Draws) -> dict[str, Array]:
    severity = z.shared("severity", _PERSON_SHARE)
    own = np.sqrt(1 - _SIGN_LOADING**2)
    return {
        name: _SIGN_LOADING * severity + own * z[f"knee_{name}"]
        for name in ("osteophytes", "sclerosis", "narrowing")
    }


def _osteophyte_mm(sign: Array) -> Array:
    return np.clip(1.4 * np.exp(0.6 * sign), 0.2, 8.0)


def _sclerosis_mm(sign: Array) -> Array:
    return np.clip(1.8 * np.exp(0.5 * sign), 0.2, 7.0)


def _joint_space_um(
    z: Draws, narrowing: Array, x_image: Array, x_clinical: Array, c: Coefficients
) -> Integers:
    """Minimum medial width at each visit in whole micrometres, as the tables print it."""
    # Cartilage thins slowly at first; from about one standard deviation on the space closes
    baseline_mm = 4.7 - 0.6 * narrowing - 0.96 * np.logaddexp(0.0, 2.5 * (narrowing - 0.9))
    # The knees of a person share a third of what remains unexplained
    loss_mm = c.loss_mm(x_image, x_clinical, z.shared("loss", 1 / 3))
    share = np.array(VISIT_MONTHS) / VISIT_MONTHS[-1]
    wiggle_mm = 0.2 * np.sqrt(share * (1 - share)) * z["knee_visit_wiggle"]
    baseline_mm = np.clip(baseline_mm, 0.0, None)
    width_mm = baseline_mm[..., None] - loss_mm[..., None] * share + wiggle_mm
    width_um = np.rint(1000 * np.clip(width_mm, 0.0, None)).astype(np.int64)
    # A printed loss of exactly 0.700 mm would fall either way in binary fractions
    tie = width_um[..., 0] - width_um[..., -1] == LOSS_THRESHOLD_UM
    width_um[..., -1] -= tie & (width_um[..., -1] > 0)
    return width_um


def _lateral_mm(z: Draws, jsw_um: Integers) -> Array:
    """The lateral space opens a little as the medial one closes."""
    lost_mm = 4.7 - jsw_um / 1000
    return np.asarray(np.clip(5.6 + 0.6 * z["knee_lateral"][..., None] + 0.15 * lost_mm, 3.0, 9.0))


def _kl_grade(z: Draws, x_image: Array, jsw_um: Integers, worst_loss_mm: Array) -> Integers:
    """The grade a reader gives: x_image, the reader's own error, and what was lost since."""
    score = np.sqrt(0.9) * x_image + np.sqrt(0.1) * z["knee_kl"]
    # Small losses are not seen as such
    seen_mm = np.clip(worst_loss_mm - 0.6, 0.0, None)
    grade = np.digitize(score[..., None] + 0.7 * seen_mm, _KL_CUTS)
    # Definite narrowing is grade 3 at least; grade 4 is severe, and a closed space is always that
    grade = np.where(jsw_um <= 2000, np.maximum(grade, 3), grade)
    grade = np.where(jsw_um > 2500, np.minimum(grade, 3), grade)
    grade = np.where(jsw_um <= 500, 4, grade)
    # One project reads all films of a knee in known order: grades never fall
    return np.asarray(np.maximum.accumulate(grade, axis=-1), dtype=np.int64)


def _replacement_months(z: Draws, kl_grade: Integers, womac: Array) -> Array:
    """Hazard of replacement by the grade at the start of each year and baseline pain."""
    years = FOLLOW_UP_MONTHS // 12
    at_start = np.minimum(np.arange(years), len(VISIT_MONTHS) - 1)
    hazard = expit(-7.2 + 1.15 * kl_grade[..., at_start] + 0.02 * (womac[..., None] - 12.0))
    return _first_event_months(hazard, z["knee_replacement"])


def _first_event_months(yearly_hazard: Array, z: Array) -> Array:
    """Time of the first event by inversion of its survival function.

    Args:
        yearly_hazard: Probability of the event within each year, (..., years) or (..., 1).
        z: One standard normal number each, (...).

    Returns:
        Months since enrolment, a whole number of days; infinite when nothing happened within
        `FOLLOW_UP_MONTHS`.
    """
    years = FOLLOW_UP_MONTHS // 12
    hazard = np.broadcast_to(yearly_hazard, (*z.shape, years))
    alive = np.cumprod(1 - hazard, axis=-1)
    uniform = ndtr(z)
    year = (alive > uniform[..., None]).sum(axis=-1)
    before = np.concatenate([np.ones((*z.shape, 1)), alive], axis=-1)
    padded = np.concatenate([before, before[..., -1:] / 2], axis=-1)
    start = np.take_along_axis(padded, year[..., None], axis=-1)[..., 0]
    end = np.take_along_axis(padded, year[..., None] + 1, axis=-1)[..., 0]
    days = np.ceil(365.25 * (year + (start - uniform) / (start - end)))
    return np.where(year < years, days / DAYS_PER_MONTH, np.inf)
