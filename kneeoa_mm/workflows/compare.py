"""Does an image help, and does fusion? Runs against simple models on the same knees and folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from kneeoa_mm import __version__, schemas
from kneeoa_mm.analysis.evaluation import FIGURES_FOLDER, THRESHOLDS
from kneeoa_mm.analysis.figure_style import save
from kneeoa_mm.analysis.prespecified import read_plan, thresholds_of
from kneeoa_mm.analysis.results import as_json, sha256_of, write_csv
from kneeoa_mm.atomic_files import write_json, write_text
from kneeoa_mm.cohort.partition import connected_subjects
from kneeoa_mm.config import read_yaml_mapping, validate
from kneeoa_mm.errors import InputError
from kneeoa_mm.metrics import bootstrap_weights, persons_of, recalibrated
from kneeoa_mm.progress import say
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.run_folder import CONFIG_FILE, open_run, refuse_taken
from kneeoa_mm.settings import Seed, Settings
from kneeoa_mm.workflows import comparison_output
from kneeoa_mm.workflows.compared_knees import gather
from kneeoa_mm.workflows.compared_runs import ComparedRun
from kneeoa_mm.workflows.comparison import (
    NO_GRADE,
    Contest,
    as_given,
    calibration_curves,
    complete_cases,
    differences,
    resampled,
)
from kneeoa_mm.workflows.comparison_plan import plan_and_looks
from kneeoa_mm.workflows.matched_pairs import pair_codes, within_pairs
from kneeoa_mm.workflows.simple_models import IMPUTATIONS, SimpleModel, simple_models
from kneeoa_mm.workflows.verdict import notes, sentences

COMPARE_FILE = "compare.json"
Array = NDArray[np.float64]
_INTERVALS = (
    "95 % intervals: percentiles of a bootstrap that draws persons; of differences of AUROCs, "
    "those of the clustered DeLong test"
)


class CompareSettings(Settings):
    """Settings of ``kneeoa-mm compare``."""

    outcome: Outcome
    thresholds: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = THRESHOLDS
    """Risks at which decisions are judged; state them before you look."""
    comparisons: tuple[tuple[str, str], ...] = ()
    """Pairs of models to compare beside those that always are."""
    n_boot: int = Field(default=2000, ge=0)
    """Bootstrap draws of persons; 0 gives no intervals."""
    seed: Seed = 0


def compare(
    runs: Mapping[str, Path],
    cohort: Path,
    out: Path,
    *,
    outcome: Outcome,
    grades: Path | None = None,
    folds: Path | None = None,
    best_possible: Path | None = None,
    thresholds: Sequence[float] | None = None,
    prespecified: Path | None = None,
    n_boot: int = 2000,
    seed: int = 0,
    overwrite: bool = False,
) -> StageResult:
    """Compare progression models by their out-of-fold predictions.

    Beside the runs stand simple models, fitted on the same knees and folds: clinical factors alone
    (those of the runs), the read grade alone and with these factors, minimum joint-space width
    alone, and with ``grades`` the read grade with the grader's log-probabilities, alone and with
    these factors. A run that was trained with the reading is judged without it, too.

    Knees count by the cohort's ``<outcome>_weight``, so that those who were seen stand for those
    like them who were lost; complete cases are given beside.

    Args:
        runs: Name to run folder of ``train-jsl``, such as ``image`` and ``fused``; none compares
            simple models alone.
        cohort: Output folder of ``cohort``.
        out: Gets ``compare.json``, ``compare.csv``, ``compare.md`` and ``figures/``.
        outcome: The outcome.
        grades: Run folder of ``pretrain-kl``.
        folds: Table of folds; the cohort's own by default.
        best_possible: The ``best_possible.json`` of a synthetic cohort.
        thresholds: Risks, stated beforehand, at which decisions are judged; None for those of the
            plan, or else ``THRESHOLDS``. Those of the plan are always judged.
        prespecified: What was decided beforehand, a file of ``prespecified.Plan``.
        n_boot: Bootstrap draws of persons.
        seed: Seed of the draws.
        overwrite: Replace earlier output.

    Raises:
        InputError: There is neither a run nor a grader, or the runs have no knees with the outcome
            in common, predict another outcome, or have other folds.
        LeakError: A run has seen persons whom it is reported on, or what came after baseline.
        OutputExistsError: ``out`` holds something else.
    """
    plan = read_plan(prespecified) if prespecified else None
    asked = {
        "outcome": outcome,
        "thresholds": thresholds_of(plan, thresholds, THRESHOLDS),
        "comparisons": [pair.split("-") for pair in plan.plan.comparisons] if plan else (),
        "n_boot": n_boot,
        "seed": seed,
    }
    settings = validate(CompareSettings, asked, where="compare")
    if not runs and grades is None:
        raise InputError(
            "There is nothing to compare with the grade.",
            expected="runs of train-jsl as NAME=RUN, or a run of pretrain-kl as --grades RUN",
        )
    refuse_taken(out, overwrite=overwrite)
    fold_file = folds or cohort / "folds.parquet"
    knees, read, grader, left_out = gather(runs, grades, cohort, fold_file, settings.outcome)
    best = _read_best_possible(best_possible)
    sampled = _sampled_on_outcome(cohort)
    shares = None if sampled else _shares(knees, settings.outcome)
    simple = _simple(knees, read, grader, settings.outcome, shares)
    contest = _contest(knees, read, simple, settings, shares, sampled_on_outcome=sampled)
    say(f"compare: {len(contest.risks)} models on {len(knees)} knees, {n_boot} draws of persons")
    document = _document(contest, knees, read, simple, settings) | {
        "left_out": {"no_prediction": left_out.by_model},
        "best_possible": best.get(str(outcome)),
        "best_possible_this_cohort": best.get(f"{outcome}_this_cohort"),
        "provenance": _provenance(runs, grades, cohort, fold_file, settings),
    }
    document["notes"] += left_out.notes()
    looked_at = {**runs, "kl+grader": grades} if grades else runs
    with open_run(out, config_yaml=settings.to_yaml(), overwrite=overwrite) as run:
        document |= plan_and_looks(document, plan, knees, looked_at)
        _write(run, document, contest, simple)
    return StageResult(
        command="compare",
        out=out,
        outputs={
            "comparison": out / COMPARE_FILE,
            "models": out / "compare.csv",
            "table": out / "compare.md",
            "figures": out / FIGURES_FOLDER,
        },
        counts={"knees": document["n"], "events": document["events"]},
        figures=_figures(document),
        notes=(*document["verdict"], *document["notes"]),
        next_step=f"kneeoa-mm report {out} --out report.html",
    )


def _write(
    run: Path, document: Mapping[str, Any], contest: Contest, simple: Mapping[str, SimpleModel]
) -> None:
    lines = comparison_output.rows(document)
    write_csv(lines, comparison_output.columns(lines), run / "compare.csv")
    write_text(run / "compare.md", comparison_output.markdown(document))
    for name, figure in comparison_output.draw(document, contest, simple):
        save(figure, run / FIGURES_FOLDER, name)
    # last, so that a folder that has it is whole
    write_json(run / COMPARE_FILE, document)


def _simple(
    knees: pd.DataFrame,
    runs: Mapping[str, ComparedRun],
    grader: pd.DataFrame | None,
    outcome: Outcome,
    shares: Array | None,
) -> dict[str, SimpleModel]:
    return simple_models(
        knees,
        knees[str(outcome)].to_numpy(dtype=np.int64),
        knees["fold"].to_numpy(),
        factors=tuple(dict.fromkeys(f for run in runs.values() for f in run.factors)),
        grader=None if grader is None else grader.loc[knees.index],
        shares=shares,
    )


def _shares(knees: pd.DataFrame, outcome: Outcome) -> Array | None:
    """The observation weights of the cohort; None where all knees weigh the same."""
    column = f"{outcome}_weight"
    if column not in knees or knees[column].nunique(dropna=False) == 1:
        return None
    return np.asarray(knees[column], dtype=np.float64)


def _contest(
    knees: pd.DataFrame,
    runs: Mapping[str, ComparedRun],
    simple: Mapping[str, SimpleModel],
    settings: CompareSettings,
    shares: Array | None,
    *,
    sampled_on_outcome: bool,
) -> Contest:
    events = knees[str(settings.outcome)].to_numpy(dtype=np.int64)
    folds = knees["fold"].to_numpy(dtype=np.int64)
    persons = persons_of(knees["subject_id"].map(connected_subjects(knees)), knees["knee_id"])
    risks = {name: run.risk.loc[knees.index].to_numpy(dtype=float) for name, run in runs.items()}
    levels = {
        name: recalibrated(events, risks[name], folds, shares=shares)
        for name, run in runs.items()
        if run.distorted_by and not sampled_on_outcome
    }
    return Contest(
        events=events,
        persons=persons,
        folds=folds,
        grades=knees["kl_grade"].fillna(NO_GRADE).to_numpy(dtype=np.int64),
        risks=risks | {name: model.risk for name, model in simple.items()},
        # a fold that teaches no recalibration keeps its risks, and its calibration tells
        levels={k: np.where(np.isnan(v), risks[k], v) for k, v in levels.items()},
        weights=bootstrap_weights(persons, n_boot=settings.n_boot, seed=settings.seed),
        thresholds=settings.thresholds,
        shares=shares,
        sampled_on_outcome=sampled_on_outcome,
    )


def _sampled_on_outcome(cohort: Path) -> bool:
    path = cohort / CONFIG_FILE
    spec = read_yaml_mapping(path).get("cohort") if path.is_file() else None
    return bool(isinstance(spec, dict) and spec.get("sampled_on_outcome"))


def _document(
    contest: Contest,
    knees: pd.DataFrame,
    runs: Mapping[str, ComparedRun],
    simple: Mapping[str, SimpleModel],
    settings: CompareSettings,
) -> dict[str, Any]:
    found = resampled(contest)
    apart = differences(contest, found, list(runs), further=settings.comparisons)
    has_levels = not contest.sampled_on_outcome
    distorted_by = {name: run.distorted_by for name, run in runs.items() if run.distorted_by}
    n_persons = knees["subject_id"].nunique()
    inputs = {name: run.inputs for name, run in runs.items()}
    inputs |= {name: model.inputs for name, model in simple.items()}
    matched = "matched_pair" in knees and knees["matched_pair"].notna().any()
    return {
        "outcome": str(settings.outcome),
        "n": len(contest.events),
        "persons": n_persons,
        "clusters": len(np.unique(contest.persons)),
        "events": int(contest.events.sum()),
        "folds": len(np.unique(contest.folds)),
        "sampled_on_outcome": contest.sampled_on_outcome,
        "weighted_to": _weighted_to(contest),
        "verdict": sentences(apart, inputs),
        "notes": notes(contest, runs, list(simple), settings.outcome, n_persons),
        "inputs": inputs,
        "models": {
            name: {metric: as_json(each.estimate()) for metric, each in metrics.items()}
            for name, metrics in found.items()
        },
        "differences": apart,
        "net_benefit": contest.decision_curves() if has_levels else None,
        "calibration_curves": calibration_curves(contest) if has_levels else None,
        "complete_cases": None if contest.shares is None else complete_cases(contest),
        "recalibrated": as_given(contest, distorted_by),
        "within_pairs": within_pairs(contest, pair_codes(knees, contest)) if matched else None,
    }


def _weighted_to(contest: Contest) -> dict[str, float] | None:
    """What the weights make of the knees: for how many they stand, and the share of events."""
    shares = contest.shares
    if shares is None:
        return None
    return {
        "knees": float(shares.sum()),
        "event_share": float(contest.events @ shares / shares.sum()),
        "effective_n": float(shares.sum() ** 2 / (shares**2).sum()),
    }


def _provenance(
    runs: Mapping[str, Path],
    grades: Path | None,
    cohort: Path,
    folds: Path,
    settings: CompareSettings,
) -> dict[str, Any]:
    return {
        "command": "compare",
        "package_version": __version__,
        "runs": {name: folder.name for name, folder in runs.items()},
        "runs_sha256": {name: sha256_of(f / schemas.PREDICTIONS_FILE) for name, f in runs.items()},
        "grades": grades.name if grades else None,
        "grades_sha256": sha256_of(grades / schemas.PREDICTIONS_FILE) if grades else None,
        "cohort_sha256": sha256_of(cohort / "cohort.parquet"),
        "folds_sha256": sha256_of(folds),
        **settings.model_dump(mode="json"),
        "imputations_of_simple_models": IMPUTATIONS,
        "intervals": _INTERVALS,
    }


def _figures(document: Mapping[str, Any]) -> dict[str, Any]:
    models = {name: estimates["auroc"] for name, estimates in document["models"].items()}
    limits = {
        "best possible AUROC": document["best_possible"],
        "best possible AUROC on these people": document["best_possible_this_cohort"],
    }
    known = {title: values for title, values in limits.items() if values is not None}
    return {f"AUROC, {document['outcome']}": models} | known


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
