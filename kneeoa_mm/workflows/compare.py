"""Does fusion help? Fused against simpler models, on the same knees and the same folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from kneeoa_mm import __version__, tables
from kneeoa_mm.config import TrainJSLConfig
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import folds_of
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.metrics import (
    BINARY_METRICS,
    binary_estimates,
    bootstrap_rows,
    estimate,
    persons_of,
)
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.run_folder import open_run, write_json

COMPARE_FILE = "compare.json"
_DIFFERENCES = ("auroc", "auprc", "brier")


def compare(
    runs: Mapping[str, Path],
    cohort: Path,
    out: Path,
    *,
    outcome: Outcome,
    folds: Path | None = None,
    best_possible: Path | None = None,
    n_boot: int = 1000,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Compare progression models by their out-of-fold predictions.

    Beside the runs stand two logistic regressions fitted on the same folds: ``clinical`` on the
    default clinical factors and ``kl_grade`` on the read grade as categories.

    Args:
        runs: Name to run folder of ``train-jsl``, such as ``image`` and ``fused``.
        cohort: Output folder of ``cohort``.
        out: Folder to write ``compare.json`` into.
        outcome: The outcome.
        folds: Table of folds; the cohort's own by default.
        best_possible: The ``best_possible.json`` of a synthetic cohort.
        n_boot: Bootstrap draws of persons.
        seed: Seed of the draws.
        overwrite: Replace earlier output.

    Raises:
        InputError: The runs have no knees with the outcome in common.
    """
    table = tables.read_table(cohort / "cohort.parquet", tables.COHORT)
    table = table[table[str(outcome)].notna()].set_index("knee_id", drop=False)
    risks = {name: _out_of_fold(folder, outcome) for name, folder in runs.items()}
    common = sorted(set(table.index).intersection(*(set(risk.index) for risk in risks.values())))
    if not common:
        raise InputError(
            f"The runs have no knee with {outcome} in common.",
            where=", ".join(str(folder) for folder in runs.values()),
        )
    knees = table.loc[common]
    fold_file = folds or cohort / "folds.parquet"
    fold = folds_of(table["subject_id"], tables.read_table(fold_file, tables.FOLDS))
    factors = list(TrainJSLConfig().clinical_factors)
    columns = {name: risk.loc[common].to_numpy(dtype=float) for name, risk in risks.items()}
    columns["clinical"] = _logistic(table, factors, fold, outcome).loc[common].to_numpy()
    columns["kl_grade"] = _logistic(table, ["kl_grade"], fold, outcome).loc[common].to_numpy()

    events = knees[str(outcome)].to_numpy(dtype=np.int64)
    persons = persons_of(knees["subject_id"], knees["knee_id"])
    draws = bootstrap_rows(persons, n_boot=n_boot, seed=seed)
    models = {name: binary_estimates(events, risk, draws) for name, risk in columns.items()}
    best = _read_best_possible(best_possible)
    document: dict[str, Any] = {
        "outcome": str(outcome),
        "n": len(events),
        "events": int(events.sum()),
        "models": {name: _plain(estimates) for name, estimates in models.items()},
        "differences": _differences(columns, events, draws),
        "best_possible": best.get(str(outcome)),
        "best_possible_this_cohort": best.get(f"{outcome}_this_cohort"),
        "provenance": {
            "command": "compare",
            "package_version": __version__,
            "runs": {name: folder.name for name, folder in runs.items()},
            "n_boot": n_boot,
            "seed": seed,
            "intervals": "95 %, percentiles of a bootstrap that draws persons",
        },
    }
    with open_run(out, overwrite=overwrite):
        write_json(out / COMPARE_FILE, document)
    return StageResult(
        command="compare",
        out=out,
        outputs={"comparison": out / COMPARE_FILE},
        counts={"knees": document["n"], "events": document["events"]},
        figures=_figures(document),
    )


def _figures(document: Mapping[str, Any]) -> dict[str, Any]:
    models = {name: estimates["auroc"] for name, estimates in document["models"].items()}
    limits = {
        "best possible AUROC": document["best_possible"],
        "best possible AUROC on these people": document["best_possible_this_cohort"],
    }
    known = {title: values for title, values in limits.items() if values is not None}
    return {f"AUROC, {document['outcome']}": models} | known


def parse_runs(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=RUN`` texts.

    Raises:
        InputError: A text reads otherwise, or a name stands twice or is one of the baselines.
    """
    runs: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or not name or not folder or name in {*runs, "clinical", "kl_grade"}:
            raise InputError(
                "A run is named by NAME=RUN, each name once.",
                expected="such as image=runs/image fused=runs/fused",
                found=text,
            )
        runs[name] = Path(folder)
    return runs


def _out_of_fold(folder: Path, outcome: Outcome) -> pd.Series:
    path = folder / "predictions.parquet"
    predictions = tables.read_table(path, tables.PREDICTIONS)
    column = f"{outcome}_prob"
    if column not in predictions:
        raise InputError(
            f"This run does not predict {outcome}.", expected=f"a column {column}", where=path
        )
    usable = predictions[(predictions["status"] == "ok") & ~predictions["seen_in_training"]]
    return usable.set_index("knee_id")[column].dropna()


def _logistic(
    table: pd.DataFrame, factors: list[str], fold: NDArray[np.int64], outcome: Outcome
) -> pd.Series:
    """Out-of-fold risks of a logistic regression (ridge, C = 1) on encoded factors."""
    events = table[str(outcome)].to_numpy(dtype=np.int64)
    risk = pd.Series(np.nan, index=table.index)
    for held_out in np.unique(fold):
        train, test = fold != held_out, fold == held_out
        encoding = ClinicalEncoding.fit(table.loc[train, factors])
        model = LogisticRegression(max_iter=1000)
        model.fit(encoding.transform(table.loc[train, factors]), events[train])
        features = encoding.transform(table.loc[test, factors])
        risk.iloc[np.flatnonzero(test)] = model.predict_proba(features)[:, 1]
    return risk


def _differences(
    columns: Mapping[str, NDArray[np.float64]],
    events: NDArray[np.int64],
    draws: list[NDArray[np.int64]],
) -> dict[str, Any]:
    """Fused minus each other model, on the same draws of persons."""
    if "fused" not in columns:
        return {}
    found = {}
    for name in columns:
        if name == "fused":
            continue
        pair = np.stack([columns["fused"], columns[name]], axis=1)
        found[f"fused-{name}"] = {
            metric: asdict(estimate(_difference(BINARY_METRICS[metric]), events, pair, draws))
            for metric in _DIFFERENCES
        }
    return found


def _difference(metric: Any) -> Any:
    def difference(events: NDArray[np.int64], pair: NDArray[np.float64]) -> float:
        return float(metric(events, pair[:, 0]) - metric(events, pair[:, 1]))

    return difference


def _plain(estimates: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in estimates.items()}


def _read_best_possible(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            "The best possible AUROCs cannot be read.",
            expected="the best_possible.json of a synthetic cohort",
            where=path,
        ) from error
    return dict(document)
