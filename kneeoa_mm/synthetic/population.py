"""A simulated population: its random numbers, and what they came to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

VISIT_MONTHS = (0, 12, 24, 36, 48)
FOLLOW_UP_MONTHS = 108
DAYS_PER_MONTH = 365.25 / 12
LOSS_THRESHOLD_UM = 700
"""Joint-space loss that counts as progression, in micrometres."""

_PERSON_DRAWS = ("age", "bmi", "sex", "severity", "alignment", "loss", "death", "dropout")
_KNEE_DRAWS = (
    "severity", "osteophytes", "sclerosis", "narrowing", "lateral", "injury", "alignment", "loss",
    "kl", "pain", "replaced_before", "replacement",
)  # fmt: skip
_VISIT_DRAWS = ("attendance",)
_KNEE_VISIT_DRAWS = ("wiggle", "width_reading", "grade_reading", "position")
DRAWS_PER_PERSON = (
    len(_PERSON_DRAWS)
    + 2 * len(_KNEE_DRAWS)
    + len(VISIT_MONTHS) * (len(_VISIT_DRAWS) + 2 * len(_KNEE_VISIT_DRAWS))
)


@dataclass(frozen=True)
class Population:
    """Persons (n), their knees (n, 2: right, left) and the knees' visits (n, 2, 5).

    Attributes:
        age_years: At enrolment, whole years, (n,).
        bmi_kg_m2: To one decimal, (n,).
        female: (n,) of bool.
        death_months: Infinite for survivors of the study, (n,).
        dropout_months: When contact ended; infinite if it never did, (n,).
        attended: Visits attended, (n, 5).
        knee_injury: (n, 2) of bool.
        fta_deg: Femorotibial angle, negative in varus, to two decimals, (n, 2).
        womac_total: 0 to 96, (n, 2).
        x_image: Standardised factor that the baseline film shows, (n, 2).
        x_clinical: Standardised clinical predictor, (n, 2).
        jsl_48m_prob: True probability of ``jsl_48m`` given both, (n, 2).
        jsw_medial_um: Minimum medial joint-space width in micrometres, (n, 2, 5) of int.
        jsw_lateral_mm: Minimum lateral joint-space width, (n, 2, 5).
        osteophyte_mm: Size of the medial osteophytes, (n, 2, 5).
        sclerosis_mm: Dense bone below the medial plateau, (n, 2, 5).
        kl_grade: Kellgren-Lawrence grade, (n, 2, 5) of int.
        replaced_before: A prosthesis at enrolment, (n, 2) of bool.
        replacement_months: Infinite for knees never replaced, (n, 2).
        width_readable: The reading of joint-space width succeeded, (n, 2, 5) of bool.
        grade_readable: The reading of the grade succeeded, (n, 2, 5) of bool.
        position_differs: The reader flagged a position unlike the baseline's, (n, 2, 5) of bool.
    """

    age_years: Array
    bmi_kg_m2: Array
    female: Flags
    death_months: Array
    dropout_months: Array
    attended: Flags
    knee_injury: Flags
    fta_deg: Array
    womac_total: Array
    x_image: Array
    x_clinical: Array
    jsl_48m_prob: Array
    jsw_medial_um: Integers
    jsw_lateral_mm: Array
    osteophyte_mm: Array
    sclerosis_mm: Array
    kl_grade: Integers
    replaced_before: Flags
    replacement_months: Array
    width_readable: Flags
    grade_readable: Flags
    position_differs: Flags

    @property
    def at_risk(self) -> Flags:
        """Knees that can lose 0.7 mm: native, at least that wide, KL below 4; (n, 2)."""
        wide = self.jsw_medial_um[..., 0] >= LOSS_THRESHOLD_UM
        return wide & (self.kl_grade[..., 0] < 4) & ~self.replaced_before

    @property
    def loses_joint_space(self) -> Flags:
        """Whether the loss over 48 months reaches 0.7 mm, measured or not, (n, 2)."""
        loss_um = self.jsw_medial_um[..., 0] - self.jsw_medial_um[..., -1]
        return np.asarray(loss_um >= LOSS_THRESHOLD_UM)

    @property
    def native(self) -> Flags:
        """Knees without a prosthesis at each visit, (n, 2, 5)."""
        months = np.array(VISIT_MONTHS)
        later = self.replacement_months[..., None] > months
        return np.asarray(later & ~self.replaced_before[..., None])

    @property
    def filmed(self) -> Flags:
        """Knee visits with a film of a native knee, (n, 2, 5)."""
        return self.attended[:, None, :] & self.native

    @property
    def labelled(self) -> Flags:
        """Knees whose outcome ``jsl_48m`` can be read off the tables, (n, 2)."""
        measured = self.filmed & self.width_readable
        comparable = measured[..., 0] & measured[..., -1] & ~self.position_differs[..., -1]
        return np.asarray(self.at_risk & comparable & self.grade_readable[..., 0])


def draw(rng: np.random.Generator, persons: int) -> Array:
    """Independent standard normal numbers that decide everything, (persons, DRAWS_PER_PERSON)."""
    return rng.standard_normal((persons, DRAWS_PER_PERSON))


class Draws:
    """Names for the columns of `draw`."""

    def __init__(self, draws: Array) -> None:
        n, visits = len(draws), len(VISIT_MONTHS)
        shapes = [
            *((f"person_{name}", (n,)) for name in _PERSON_DRAWS),
            *((f"knee_{name}", (n, 2)) for name in _KNEE_DRAWS),
            *((f"visit_{name}", (n, visits)) for name in _VISIT_DRAWS),
            *((f"knee_visit_{name}", (n, 2, visits)) for name in _KNEE_VISIT_DRAWS),
        ]
        ends = np.cumsum([int(np.prod(shape[1:])) for _, shape in shapes])
        parts = np.split(draws, ends[:-1], axis=1)
        self._by_name = {
            name: part.reshape(shape) for (name, shape), part in zip(shapes, parts, strict=True)
        }

    def __getitem__(self, name: str) -> Array:
        return self._by_name[name]

    def shared(self, name: str, person_share: float) -> Array:
        """Standard normal per knee, correlated by ``person_share`` between a person's knees."""
        person, knee = self[f"person_{name}"], self[f"knee_{name}"]
        both = np.sqrt(person_share) * person[:, None] + np.sqrt(1 - person_share) * knee
        return np.asarray(both)
