"""The knees that all compared models predict, and who is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kneeoa_mm import schemas, tables
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import folds_of
from kneeoa_mm.records import Outcome
from kneeoa_mm.workflows.compared_runs import ComparedRun, read_grader, read_run


class LeftOut(NamedTuple):
    """Knees with the outcome that some model does not predict, so that no model is judged on them.

    Attributes:
        by_model: How many each model lacks.
        n: How many any model lacks.
        n_with_outcome: Of so many.
    """

    by_model: dict[str, int]
    n: int
    n_with_outcome: int

    def notes(self) -> list[str]:
        """What the reader of the comparison is told; nothing where nobody is left out."""
        if not self.n:
            return []
        whose = ", ".join(f"{name} ({number})" for name, number in self.by_model.items() if number)
        return [
            f"{self.n} of {self.n_with_outcome} knees with the outcome lack a prediction of: "
            f"{whose}; no model is judged on them."
        ]


def gather(
    runs: Mapping[str, Path],
    grades: Path | None,
    cohort: Path,
    fold_file: Path,
    outcome: Outcome,
) -> tuple[pd.DataFrame, dict[str, ComparedRun], pd.DataFrame | None, LeftOut]:
    """The knees that all predict, what each run and the grader says, and who is left out.

    Args:
        runs: Name to run folder of ``train-jsl``.
        grades: Run folder of ``pretrain-kl``.
        cohort: Output folder of ``cohort``.
        fold_file: Table of folds.
        outcome: The outcome.

    Raises:
        InputError: No knee is predicted by all, or a run predicts another outcome or has other
            folds.
        LeakError: A run has seen persons whom it is reported on, or what came after baseline.
    """
    knees = _knees_with(outcome, cohort)
    knees["fold"] = folds_of(knees["subject_id"], tables.read_table(fold_file, schemas.FOLDS))
    fold_of = knees.drop_duplicates("subject_id").set_index("subject_id")["fold"]
    read = {
        model: run
        for name, folder in runs.items()
        for model, run in read_run(name, folder, outcome, fold_of).items()
    }
    grader = read_grader(grades, fold_of, knees) if grades else None
    predicted = {name: run.risk.index for name, run in read.items()}
    if grader is not None:
        predicted["kl+grader"] = grader.index
    common = _in_common(knees, predicted, outcome)
    lacking = {name: int((~knees.index.isin(ids)).sum()) for name, ids in predicted.items()}
    return common, read, grader, LeftOut(lacking, len(knees) - len(common), len(knees))


def _knees_with(outcome: Outcome, cohort: Path) -> pd.DataFrame:
    table = tables.read_table(cohort / "cohort.parquet", schemas.COHORT)
    return table[table[str(outcome)].notna()].set_index("knee_id", drop=False)


def _in_common(
    knees: pd.DataFrame, predicted: Mapping[str, pd.Index], outcome: Outcome
) -> pd.DataFrame:
    common = set(knees.index).intersection(*predicted.values())
    if not common:
        raise InputError(
            f"The runs have no knee with {outcome} in common.",
            expected="runs on the cohort's knees",
            found=", ".join(f"{name}: {len(ids)} knees" for name, ids in predicted.items()),
            fix="train and compare with one cohort",
        )
    return knees.loc[sorted(common)]
