"""How many knees a prediction model needs for its number of candidate parameters.

The criteria of Riley et al. for a binary outcome (2019, Stat Med 38:1276; 2020, BMJ 368:m441).
"""

from __future__ import annotations

import math
from typing import NamedTuple

SHRINKAGE = 0.9
"""Least expected shrinkage: predictions are to be too extreme by no more than a tenth."""
MAX_OPTIMISM = 0.05
"""Most by which Nagelkerke's R2 may look better than it is."""
MAX_RISK_ERROR = 0.05
"""Half-width of the 95 % interval of the overall risk."""
NAGELKERKE_R2 = 0.15
"""Anticipated Nagelkerke R2 where none is known (Riley et al. 2020, section on R2)."""

_Z_95 = 1.96


class SampleSize(NamedTuple):
    """Least number of knees by each criterion.

    Attributes:
        shrinkage: For an expected shrinkage of at least 0.9.
        optimism: For an optimism in Nagelkerke's R2 of at most 0.05.
        overall_risk: For an overall risk within 0.05.
    """

    shrinkage: int
    optimism: int
    overall_risk: int

    @property
    def needed(self) -> int:
        """Knees that satisfy all three."""
        return max(self)


def max_cox_snell_r2(risk: float) -> float:
    """Largest Cox-Snell R2 at an overall risk, 1 - (risk^risk (1 - risk)^(1 - risk))^2.

    Example:
        >>> round(max_cox_snell_r2(0.5), 2)
        0.75
    """
    return float(1 - (risk**risk * (1 - risk) ** (1 - risk)) ** 2)


def required_knees(
    parameters: int, risk: float, *, cox_snell_r2: float | None = None
) -> SampleSize:
    """Knees that a model of ``parameters`` candidate parameters needs.

    Criterion 1: n = p / ((S - 1) ln(1 - R2 / S)) with S = 0.9. Criterion 2: the same with
    S = R2 / (R2 + 0.05 max R2). Criterion 3: n = (1.96 / 0.05)^2 risk (1 - risk). The knees of a
    person are alike, so that the true need lies between this many knees and this many people.

    Args:
        parameters: Candidate parameters: one a continuous factor, one less than its levels a
            categorical one.
        risk: Overall share of events, between 0 and 1.
        cox_snell_r2: Anticipated Cox-Snell R2; 15 % of its largest value where not given.

    Example:
        >>> required_knees(24, 0.174, cox_snell_r2=0.288)
        SampleSize(shrinkage=623, optimism=662, overall_risk=221)
    """
    largest = max_cox_snell_r2(risk)
    r2 = NAGELKERKE_R2 * largest if cox_snell_r2 is None else cox_snell_r2
    return SampleSize(
        _for_shrinkage(parameters, r2, SHRINKAGE),
        _for_shrinkage(parameters, r2, r2 / (r2 + MAX_OPTIMISM * largest)),
        math.ceil((_Z_95 / MAX_RISK_ERROR) ** 2 * risk * (1 - risk)),
    )


def _for_shrinkage(parameters: int, r2: float, shrinkage: float) -> int:
    return math.ceil(parameters / ((shrinkage - 1) * math.log(1 - r2 / shrinkage)))


def most_parameters(knees: int, risk: float) -> int:
    """Most candidate parameters that so many knees can bear; 0 where not even one.

    Example:
        >>> most_parameters(required_knees(20, 0.3).needed, 0.3)
        20
    """
    parameters = 0
    while required_knees(parameters + 1, risk).needed <= knees:
        parameters += 1
    return parameters
