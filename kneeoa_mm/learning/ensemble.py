"""An ensemble: members plus a voting rule over their prediction table; it is not a network."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kneeoa_mm.learning.calibration import Calibration
from kneeoa_mm.settings import Crops


class EnsembleRules(Calibration):
    """``ensemble.json``: how the members of a run become one prediction.

    The defaults are what a model without the file does.
    """

    members: tuple[str, ...] = ()
    """Folders of the members, so that a lost one is missed; empty in runs of before."""
    voting: Literal["mix", "hard", "soft"] = "mix"
    test_time_flip: bool = False
    test_time_crops: Crops = 0
    calibrated_on: str = ""
    """The knees that taught temperature and sets, in words; empty: nothing is calibrated."""
    by_fold: dict[int, Calibration] = Field(default_factory=dict)
    """What the knees outside each fold taught, for knees of that fold."""

    def for_fold(self, fold: int | None) -> Calibration:
        """The calibration of a knee that a fold held out; None for a knee of no fold."""
        return self if fold is None else self.by_fold.get(fold, self)


def vote(probabilities: NDArray[np.float64], rule: str) -> NDArray[np.int64]:
    """Grade each knee from the members' probabilities.

    ``mix`` is the voting of Pi et al. 2023 (Sci Rep 13:22887): the majority decides; where several
    grades share the most votes, the highest mean probability over *all* grades does. ``hard`` is
    the majority with ties to the lowest grade, ``soft`` the highest mean probability.

    Args:
        probabilities: Shape (members, knees, grades); NaN where a member has no say.
        rule: ``mix``, ``hard`` or ``soft``.

    Returns:
        Grades, shape (knees,).

    Example:
        >>> one, other = [0.6, 0.4, 0.0], [0.0, 0.4, 0.6]
        >>> vote(np.array([[one], [other]]), "mix")  # a tie of 0 and 2: the mean prefers 1
        array([1])
    """
    mean = np.nanmean(probabilities, axis=0)
    soft = mean.argmax(axis=1)
    if rule == "soft":
        return soft
    n_grades = probabilities.shape[2]
    has_say = ~np.isnan(probabilities).any(axis=2)
    choices = np.where(has_say, np.nan_to_num(probabilities, nan=-1.0).argmax(axis=2), -1)
    counts = np.stack([(choices == grade).sum(axis=0) for grade in range(n_grades)], axis=1)
    hard = counts.argmax(axis=1)
    if rule == "hard":
        return hard
    tied = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return np.where(tied, soft, hard)
