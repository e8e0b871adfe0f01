"""The analysis of a whole cohort: flow, Table 1, incidence, models compared, readers.

``cohorts/<name>/analyse.py`` calls it and adds what only that cohort has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.analysis.agreement import SECOND_READINGS_FILE, agreement
from kneeoa_mm.analysis.results import write_csv
from kneeoa_mm.analysis.survival import SURVIVAL_FILE, survive
from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import InputError
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.tables import COHORT, PREDICTIONS, read_table
from kneeoa_mm.workflows.compare import compare

INCIDENCE_FILE, MODELS_FILE = "incidence_by_kl.csv", "models.csv"
_INCIDENCE = ("outcome", "kl_grade", "months", "estimator", "incidence", "ci_low", "ci_high", "n")
_MODELS = ("outcome", "model", "metric", "months", "value", "ci_low", "ci_high", "n", "reason")


def analyse_cohort(
    tables: Path,
    out: Path,
    *,
    spec: CohortSpec,
    runs: Mapping[str, Path] | None = None,
    folds: int = 5,
    n_boot: int = 200,
) -> StageResult:
    """Build a cohort from its tables and make the whole analysis of it.

    Args:
        tables: Folder with the released tables.
        out: New folder; gets ``cohort/`` (with the flow and Table 1 of each outcome),
            ``survival/<outcome>/``, ``incidence_by_kl.csv``, ``models.csv``,
            ``compare/<outcome>/`` where there are runs, and ``agreement/`` where films were read
            twice.
        spec: The cohort.
        runs: Name to run folder of ``train-jsl``; the first that predicts an outcome is judged over
            time beside Cox models of clinical factors and KL grade.
        folds: Folds of the cohort.
        n_boot: Draws of persons.

    Returns:
        Outputs and notes; ``counts`` are those of the cohort.

    Raises:
        InputError: The tables are not there, or no knee qualifies.
        TableError: The tables are faulty; lists all faults.
    """
    runs = runs or {}
    built = build_cohort(tables, out / "cohort", spec=spec, folds=folds)
    cohort = read_table(built.outputs["cohort"], COHORT)
    notes, outputs = list(built.notes), {"cohort": out / "cohort"}
    documents: dict[Outcome, dict[str, Any]] = {}
    for outcome in Outcome:
        predicting = {name: run for name, run in runs.items() if _predicts(run, outcome)}
        try:
            survived = survive(
                out / "cohort",
                out / "survival" / outcome,
                outcome=outcome,
                predictions=next(iter(predicting.values()), None),
                n_boot=n_boot,
            )
        except InputError as error:
            notes.append(f"{outcome}: {error.problem}")
            continue
        documents[outcome] = json.loads((survived.out / SURVIVAL_FILE).read_text(encoding="utf-8"))
        if predicting and cohort[outcome].notna().any():
            compare(predicting, out / "cohort", out / "compare" / outcome, outcome=outcome)
    outputs["incidence"] = write_csv(
        [row for o, document in documents.items() for row in _incidence(o, document)],
        _INCIDENCE,
        out / INCIDENCE_FILE,
    )
    outputs["models"] = write_csv(
        [row for o, document in documents.items() for row in _models(o, document)],
        _MODELS,
        out / MODELS_FILE,
    )
    if (out / "cohort" / SECOND_READINGS_FILE).exists():
        outputs["agreement"] = agreement(out / "cohort", out / "agreement").out
    if spec.sampled_on_outcome:
        notes.append("Knees were chosen by their outcome: risk and incidence mean nothing")
    return StageResult(
        command="analyse",
        out=out,
        outputs=outputs,
        counts=built.counts,
        notes=tuple(notes),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _predicts(run: Path, outcome: Outcome) -> bool:
    return f"{outcome}_prob" in read_table(run / "predictions.parquet", PREDICTIONS)


def _incidence(outcome: Outcome, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Incidence by grade each year, by the estimator that assumes least."""
    estimators = {row["estimator"] for row in document["incidence"]}
    best = next(e for e in ("turnbull", "aalen_johansen", "kaplan_meier") if e in estimators)
    return [
        {**row, "outcome": str(outcome), "kl_grade": row["group"]}
        for row in document["incidence"]
        if row["estimator"] == best
    ]


def _models(outcome: Outcome, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    prognosis = document["prognosis"]
    rows = []
    for model, found in prognosis["models"].items():
        for metric in ("uno_c", "auroc", "brier", "integrated_brier"):
            if metric in found:
                months = prognosis["horizon_months"]
                rows.append({**found[metric], "model": model, "metric": metric, "months": months})
        if found["reason"]:
            rows.append({"model": model, "reason": found["reason"]})
    return [{"outcome": str(outcome), **row} for row in rows]


def told(result: StageResult) -> None:
    """Print flow, Table 1, incidence by grade and models, as a person reads them."""
    for note in result.notes:
        print(note)
    parts = {"Flow": result.outputs["cohort"] / "attrition.csv"}
    for table_1 in sorted((result.outputs["cohort"] / "table_1").glob("*.csv")):
        parts[f"Table 1 by {table_1.stem}"] = table_1
    parts |= {"Incidence by KL grade": result.outputs["incidence"]}
    parts |= {"Models, each knee judged by others": result.outputs["models"]}
    for title, path in parts.items():
        table = pd.read_csv(path).convert_dtypes(convert_floating=False)
        text = table.to_string(index=False, na_rep="", float_format="%.3f")
        print(f"\n{title}\n{text}")


def arguments(description: str) -> argparse.Namespace:
    """What every cohort's script is asked on its command line: tables, out, runs.

    Args:
        description: Docstring of the script.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("tables", type=Path, help="folder with the tables")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the results")
    parser.add_argument(
        "--run", nargs="*", default=[], metavar="NAME=RUN", help="runs of kneeoa-mm train-jsl"
    )
    return parser.parse_args()
