"""What each member of an ensemble says of a knee, and what each voting rule makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kneeoa_mm.learning.calibration import Calibration
from kneeoa_mm.learning.inference import assemble
from kneeoa_mm.schemas import PREDICTIONS_FILE

RULES = ("hard", "soft", "mix")
VOTING_FOLDER = "voting"


def is_vote(probabilities: NDArray[np.float64]) -> bool:
    """Whether several members have a say on one knee.

    Args:
        probabilities: Shape (members, knees, outputs); NaN where a member has no say.
    """
    return bool(((~np.isnan(probabilities[:, :, 0])).sum(axis=0) > 1).any())


def write_ballots(
    knees: pd.DataFrame,
    probabilities: NDArray[np.float64],
    members: Sequence[Path],
    out: Path,
    *,
    outputs: tuple[str, ...],
    calibrations: Sequence[Calibration],
    write: Callable[[pd.DataFrame, Path], Path],
) -> Path:
    """Write each member's predictions into its folder, and the ensemble's by each voting rule.

    So that whoever doubts the rule, or a member, need not train again: all are tables that
    ``evaluate`` reads.

    Args:
        knees: The knees that the run reports.
        probabilities: Of the members, (members, knees, outputs); NaN where one has no say.
        members: Folders of the members, in the same order.
        out: The run folder.
        outputs: Names of the last axis.
        calibrations: Of each knee.
        write: Writes a table of predictions.

    Returns:
        The folder with one table a rule.
    """
    for folder, own in zip(members, probabilities, strict=True):
        rows = np.flatnonzero(~np.isnan(own[:, 0]))
        # sets of grades are of the ensemble, temperatures of its members
        alone = [Calibration(temperature=calibrations[int(row)].temperature) for row in rows]
        said = assemble(knees.iloc[rows], own[None, rows], outputs, "soft", alone)
        write(said, folder / PREDICTIONS_FILE)
    for rule in RULES:
        voted = assemble(knees, probabilities, outputs, rule, calibrations)
        write(voted, out / VOTING_FOLDER / f"{rule}.parquet")
    return out / VOTING_FOLDER
