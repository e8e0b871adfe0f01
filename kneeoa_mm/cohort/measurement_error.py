"""How often measurement error alone looks like a loss of joint space.

A width is read with an error, and a loss is the difference of two readings, so some knees cross the
threshold without having lost anything; and the more follow-up films may show the loss, the more do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

from kneeoa_mm.cohort.history import NOT_AT_RISK, KneeHistory, OutcomeRecord, follow_up

_MAD_TO_SD = 1.4826
_MIN_PAIRS = 20


def false_crossing(*, error_sd_mm: float, threshold_mm: float, looks: int) -> float:
    """Probability that a knee which lost nothing shows a loss on one of several films.

    Errors of all readings are normal and independent with the same standard deviation; the baseline
    reading is shared by all comparisons. With e the baseline's error in standard deviations and
    t = threshold / standard deviation, no film shows the loss with probability
    E[(1 - Phi(e - t))^looks] over a standard normal e.

    Args:
        error_sd_mm: Standard deviation of one reading's error, in mm.
        threshold_mm: Loss that counts, in mm.
        looks: Follow-up films of which any may show it.

    Example:
        >>> one = false_crossing(error_sd_mm=0.3, threshold_mm=0.7, looks=1)
        >>> bool(np.isclose(one, norm.sf(0.7 / (0.3 * 2**0.5))))  # closed form of a single look
        True
    """
    t = threshold_mm / error_sd_mm
    none, _ = quad(lambda e: norm.pdf(e) * norm.sf(e - t) ** looks, -10, 10, points=[0.0, t])
    return float(1 - none)


def error_sd_mm(histories: Sequence[KneeHistory], *, horizon_months: int) -> float | None:
    """Standard deviation of a reading's error, estimated from the cohort itself.

    Most knees lose little between baseline and their first follow-up film, so the spread of that
    change is mostly error of two readings: the median absolute deviation, scaled to a standard
    deviation and divided by the square root of 2. True change makes this an upper bound.

    Returns:
        In mm; None with fewer than twenty knees.
    """
    changes = []
    for knee in histories:
        later = follow_up(knee.mjsw_medial_mm, knee, horizon_months)
        if 0 in knee.mjsw_medial_mm and later:
            changes.append(knee.mjsw_medial_mm[0] - later[min(later)])
    if len(changes) < _MIN_PAIRS:
        return None
    deviations = np.abs(np.array(changes) - np.median(changes))
    return float(_MAD_TO_SD * np.median(deviations) / np.sqrt(2))


def mirrored_gains(
    histories: Sequence[KneeHistory],
    records: Sequence[OutcomeRecord],
    *,
    threshold_mm: float,
    months_read: Sequence[int],
) -> tuple[int, int]:
    """Knees at risk that gained as much as would count as a loss, of those read at all.

    Joint space does not widen in osteoarthritis, so gains of the threshold are errors, and errors
    to the other side are as frequent: the gains of a cohort say how many of its losses are noise.

    Args:
        histories: What is known of each knee.
        records: The outcome of each; knees that it has not at risk do not count.
        threshold_mm: Change that counts.
        months_read: Films of which any may show it.

    Returns:
        Number with such a gain, and number that were read at all.
    """
    gained = read = 0
    for knee, record in zip(histories, records, strict=True):
        films = follow_up(knee.mjsw_medial_mm, knee, max(months_read))
        widths = [w for m, w in films.items() if m in months_read and not _is_flagged(knee, m)]
        if record.reason in NOT_AT_RISK or not widths:
            continue
        read += 1
        gained += round(max(widths) - knee.mjsw_medial_mm[0], 6) >= threshold_mm
    return gained, read


def _is_flagged(knee: KneeHistory, months: int) -> bool:
    return bool(knee.jsw_not_comparable & {0, months})
