"""The analysis of a whole cohort: flow, Table 1, incidence, models compared, readers.

``cohorts/<name>/analyse.py`` calls it and adds what only that cohort has.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from kneeoa_mm.analysis.agreement import AGREEMENT_FILE, SECOND_READINGS_FILE, agreement
from kneeoa_mm.analysis.results import write_csv
from kneeoa_mm.analysis.survival import SURVIVAL_FILE, survive
from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import CohortSpec
from kneeoa_mm.errors import KneeOAError
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.schemas import COHORT, PREDICTIONS, PREDICTIONS_FILE
from kneeoa_mm.tables import read_table
from kneeoa_mm.workflows.attempts import Attempts
from kneeoa_mm.workflows.compare import compare
from kneeoa_mm.workflows.compared_runs import parse_runs

INCIDENCE_FILE, MODELS_FILE, SUMMARY_FILE = "incidence_by_kl.csv", "models.csv", "summary.txt"
_INCIDENCE = (
    "outcome",
    "kl_grade",
    "months",
    "estimator",
    "incidence",
    "ci_low",
    "ci_high",
    "n",
    "reason",
)
_ESTIMATE = ("value", "ci_low", "ci_high", "n", "reason", "note")
_MODELS = ("outcome", "model", "metric", "months", *_ESTIMATE)
_METRICS = ("uno_c", "auroc", "brier", "integrated_brier")


def analyse_cohort(
    tables: Path,
    out: Path,
    *,
    spec: CohortSpec,
    runs: Mapping[str, Path] | None = None,
    folds: int = 5,
    n_boot: int = 1000,
    seed: int = 0,
) -> StageResult:
    """Build a cohort from its tables and make the whole analysis of it.

    Args:
        tables: Folder with the released tables.
        out: New folder; gets ``cohort/`` (with the flow and Table 1 of each outcome),
            ``survival/<outcome>/``, ``incidence_by_kl.csv``, ``models.csv``,
            ``compare/<outcome>/`` where there are runs, ``agreement/`` where films were read
            twice, ``not_computed/`` with what the data did not allow, and ``summary.txt``, the
            whole for a person to read.
        spec: The cohort.
        runs: Name to run folder of ``train-jsl``; the first that predicts an outcome is judged over
            time beside Cox models of clinical factors and KL grade, where its risks allow that.
        folds: Folds of the cohort.
        n_boot: Draws of persons.
        seed: Of folds and draws.

    Returns:
        Outputs and notes; ``counts`` are those of the cohort.

    Raises:
        InputError: The tables or the predictions of a run are not there, or no knee qualifies.
        TableError: The tables are faulty; lists all faults.
    """
    runs = runs or {}
    # a run that cannot be read is told before the work
    predicted = {name: _predicted_by(run) for name, run in runs.items()}
    built = build_cohort(tables, out / "cohort", spec=spec, folds=folds, seed=seed)
    cohort = read_table(built.outputs["cohort"], COHORT)
    notes, outputs = list(built.notes), {"cohort": out / "cohort"}
    documents: dict[Outcome, dict[str, Any]] = {}
    attempts = Attempts()
    drawn: dict[str, Any] = {"n_boot": n_boot, "seed": seed}
    for outcome in Outcome:
        predicting = {name: run for name, run in runs.items() if outcome in predicted[name]}
        survived = _survived(attempts, outcome, predicting, out, drawn)
        if survived is not None:
            text = (survived.out / SURVIVAL_FILE).read_text(encoding="utf-8")
            documents[outcome] = json.loads(text)
        # needs values at the horizon, and no times
        if predicting and cohort[outcome].notna().any():
            folder = out / "compare" / outcome
            attempts.attempt(
                f"compare {outcome}",
                partial(compare, predicting, out / "cohort", folder, outcome=outcome, **drawn),
            )
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
        outputs["agreement"] = agreement(out / "cohort", out / "agreement", **drawn).out
    attempts.write(out / "not_computed")
    notes += [f"{stage}: {reason}" for stage, reason in attempts.reasons.items()]
    if spec.sampled_on_outcome:
        notes.append("Knees were chosen by their outcome: risk and incidence mean nothing")
    outputs["summary"] = _summarise(out, documents, notes)
    return StageResult(
        command="analyse",
        out=out,
        outputs=outputs,
        counts=built.counts,
        notes=tuple(notes),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _survived(
    attempts: Attempts,
    outcome: Outcome,
    predicting: Mapping[str, Path],
    out: Path,
    drawn: Mapping[str, Any],
) -> StageResult | None:
    """Survival with the predictions of the first run; without, where these cannot be judged."""
    stage, folder = f"survival {outcome}", out / "survival" / outcome
    work = partial(survive, out / "cohort", folder, outcome=outcome, **drawn)
    found = None
    if predicting:
        name, run = next(iter(predicting.items()))
        found = attempts.attempt(f"{stage} with {name}", partial(work, predictions=run))
    return attempts.attempt(stage, work) if found is None else found


def _predicted_by(run: Path) -> set[Outcome]:
    table = read_table(run / PREDICTIONS_FILE, PREDICTIONS)
    return {outcome for outcome in Outcome if f"{outcome}_prob" in table}


def _incidence(outcome: Outcome, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Incidence by grade at each horizon, by the estimator that assumes least.

    Where deaths are known they compete: who dies has no replacement later, and that overstates a
    risk by more than the date of a visit does. A follow-up of less than a year has no horizon, and
    no rows.
    """
    estimators = {row["estimator"] for row in document["incidence"]}
    known = [e for e in ("aalen_johansen", "turnbull", "kaplan_meier") if e in estimators]
    return [
        {**row, "outcome": str(outcome), "kl_grade": row["group"]}
        for row in document["incidence"]
        if row["estimator"] == known[0]
    ]


def _models(outcome: Outcome, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    prognosis = document["prognosis"]
    rows = []
    for model, found in _judged(document).items():
        for metric in _METRICS:
            if metric in found:
                # the others are of all the time up to the last year with enough knees
                at_horizon = metric in ("auroc", "brier")
                months = prognosis["horizon_months"] if at_horizon else prognosis["horizons"][-1]
                rows.append({**found[metric], "model": model, "metric": metric, "months": months})
        if found["reason"]:
            rows.append({"model": model, "reason": found["reason"]})
    return [{"outcome": str(outcome), **row} for row in rows]


def _judged(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Models by name; where none could be judged, one without a name that says why."""
    prognosis = document["prognosis"]
    found: Mapping[str, Any] = prognosis["models"]
    return found or {"": {"reason": prognosis["reason"]}}


def _summarise(
    out: Path, documents: Mapping[Outcome, Mapping[str, Any]], notes: Sequence[str]
) -> Path:
    """Write flow, Table 1, incidence at the horizon, models and readers, as a person reads them."""
    flow = pd.read_csv(out / "cohort" / "attrition.csv")
    has_any = flow["kind"].eq("left") & flow["knees"].gt(0)
    parts = {"Flow": flow[flow["flow"].isin(flow.loc[has_any, "flow"]) & flow["knees"].gt(0)]}
    tables_1 = [out / "cohort" / "table_1" / f"{outcome}.csv" for outcome in Outcome]
    if table_1 := next((path for path in tables_1 if path.exists()), None):
        title = f"Table 1 by {table_1.stem} (by the other outcomes: cohort/table_1)"
        parts[title] = pd.read_csv(table_1).rename(columns={"Unnamed: 0": ""})
    parts["Incidence by KL grade"] = pd.DataFrame(
        [
            {
                "outcome": str(outcome),
                "KL": row["group"],
                "knees": row["n"],
                "months": f"{row['months']:g}",
                "incidence (95 % CI)": _shown({**row, "value": row["incidence"]}),
            }
            for outcome, document in documents.items()
            for row in _incidence(outcome, document)
            if row["months"] == document["provenance"]["horizon_months"]
        ]
    )
    parts["Models, each knee judged by others' (95 % CI; Brier scores: lower is better)"] = (
        pd.DataFrame(
            [
                {
                    "outcome": str(outcome),
                    "model": model,
                    **{metric: _shown(found.get(metric, {})) for metric in _METRICS},
                    "": found["reason"] or "",
                }
                for outcome, document in documents.items()
                for model, found in _judged(document).items()
            ]
        )
    )
    if (readers := out / "agreement" / AGREEMENT_FILE).exists():
        document = json.loads(readers.read_text(encoding="utf-8"))
        rows = document["agreement"]["second_reader"].items()
        parts["Two readings of the same films (95 % CI)"] = pd.DataFrame(
            [{"": metric, "films": row["n"], "agreement": _shown(row)} for metric, row in rows]
        )
    texts = [
        f"{title}\n{table.to_string(index=False, na_rep='') if len(table) else 'none'}\n"
        for title, table in parts.items()
    ]
    compared = sorted((out / "compare").glob("*/compare.md"))
    texts += [path.read_text(encoding="utf-8") for path in compared]
    with atomic_path(out / SUMMARY_FILE) as temporary:
        temporary.write_text("\n".join([*notes, "", *texts]), encoding="utf-8")
    return out / SUMMARY_FILE


def _shown(estimate: Mapping[str, Any]) -> str:
    """An estimate with its interval, or why there is none."""
    if estimate.get("value") is None:
        return str(estimate.get("reason") or "")
    value = f"{estimate['value']:.3f}"
    if estimate["ci_low"] is None:
        return value
    return f"{value} ({estimate['ci_low']:.3f} to {estimate['ci_high']:.3f})"


def told(result: StageResult) -> None:
    """Print the summary of an analysis, and where the whole is."""
    print(result.outputs["summary"].read_text(encoding="utf-8"))
    print(f"All of it, with figures: {result.out}")


def run_script(analyse: Callable[..., None], description: str) -> None:
    """Ask on the command line what every cohort's script is asked, and make its analysis.

    Args:
        analyse: The script's, of tables, out, runs, ``folds`` and ``seed``.
        description: Docstring of the script.

    Raises:
        SystemExit: The input is faulty; says how, with the exit code of the fault.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("tables", type=Path, help="folder with the tables")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the results")
    parser.add_argument(
        "--run", nargs="*", default=[], metavar="NAME=RUN", help="runs of kneeoa-mm train-jsl"
    )
    parser.add_argument("--folds", type=int, default=5, help="folds of the cohort (5)")
    parser.add_argument("--seed", type=int, default=0, help="of folds and draws (0)")
    asked = parser.parse_args()
    try:
        runs = parse_runs(asked.run)
        analyse(asked.tables, asked.out, runs, folds=asked.folds, seed=asked.seed)
    except KneeOAError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
