"""Risks of an outcome by one horizon or several, as a table of predictions holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kneeoa_mm.analysis.looks import held_out_knees
from kneeoa_mm.analysis.prognosis import Predicted
from kneeoa_mm.analysis.results import table_in
from kneeoa_mm.errors import InputError
from kneeoa_mm.records import Outcome
from kneeoa_mm.schemas import PREDICTIONS, PREDICTIONS_FILE
from kneeoa_mm.tables import read_table


@dataclass(frozen=True)
class Given:
    """Predictions of knees whose persons the model has not seen.

    Attributes:
        path: The table.
        predicted: Risks and folds.
        held_out: ``knee_id`` of those that the table puts into the test part.
    """

    path: Path
    predicted: Predicted
    held_out: tuple[str, ...]


def read_given(
    predictions: Path, outcome: Outcome, *, horizon_months: float, defined: int | None
) -> Given:
    """Read the risks of an outcome.

    ``<outcome>_prob`` is the risk by the horizon at which the outcome was judged where the model
    learnt; a model of times has ``<outcome>_cif_<months>`` as well.

    Args:
        predictions: Table of predictions, or the folder of a run.
        outcome: The event.
        horizon_months: The horizon at which risks are wanted.
        defined: That at which the cohort judges the outcome; None where it is not known.

    Raises:
        InputError: There are no such risks, or they are of another horizon.
    """
    path = table_in(predictions, PREDICTIONS_FILE)
    table = read_table(path, PREDICTIONS)
    column, start = f"{outcome}_prob", f"{outcome}_cif_"
    if column not in table:
        raise InputError(
            f"These predictions have no risk of {outcome}.",
            expected=f"a column {column}",
            found=", ".join(name for name in table if name.endswith("_prob")) or "none",
            where=path,
        )
    usable = table[(table["status"] == "ok") & ~table["seen_in_training"]]
    by_months = {float(n.removeprefix(start)): n for n in usable if n.startswith(start)}
    # a knee with some of the risks alone, as where tables of two models were joined, has none
    has_risks = usable[[column, *by_months.values()]].notna().all(axis=1)
    usable = usable[has_risks].set_index("knee_id", drop=False)
    is_incidence = bool(by_months)
    if not by_months and defined in (None, horizon_months):
        by_months = {float(horizon_months): column}
    if float(horizon_months) not in by_months:
        known = ", ".join(f"{months:g}" for months in by_months) or f"{defined}"
        raise InputError(
            "These predictions are risks by another horizon.",
            expected=f"the risk of {outcome} by {horizon_months:g} months",
            found=f"that by {known} months",
            where=path,
            fix="--horizon-months with one of these, or predictions of the horizon that is wanted",
        )
    risks = pd.DataFrame({months: usable[name] for months, name in sorted(by_months.items())})
    fold = usable.get("fold", pd.Series(pd.NA, index=usable.index, dtype="Int64"))
    folds = fold.fillna(-1).to_numpy(np.int64) if fold.notna().any() else None
    return Given(path, Predicted(risks, folds, is_incidence), tuple(held_out_knees(usable)))
