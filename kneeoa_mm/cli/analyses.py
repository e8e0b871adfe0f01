"""Commands that judge predictions and analyse cohorts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kneeoa_mm.cli.options import (
    Folds,
    OutDir,
    Overwrite,
    Prespecified,
    Thresholds,
    TimeScale,
)
from kneeoa_mm.cli.program import command
from kneeoa_mm.records import Outcome, StageResult


@command("evaluate runs/kl/predictions.parquet --out evaluation")
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Prediction table with the truth in it.")],
    out: OutDir,
    outcome: Annotated[
        list[Outcome] | None, typer.Option(help="Only these outcomes; may be repeated.")
    ] = None,
    threshold: Thresholds = None,
    cohort: Annotated[
        Path | None, typer.Option(help="Output of `cohort`: factors of subgroups, and the split.")
    ] = None,
    subgroup: Annotated[
        list[str] | None, typer.Option(help="Only subgroups by this column; may be repeated.")
    ] = None,
    prespecified: Prespecified = None,
    external_to: Annotated[
        Path | None, typer.Option(help="Run that predicted these people of another cohort.")
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="The knees were held out: log this look at them.")
    ] = False,
    n_boot: Annotated[int, typer.Option(min=0, help="Bootstrap draws of persons.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    overwrite: Overwrite = False,
) -> StageResult:
    """Judge predictions: metrics with person-clustered intervals, and figures."""
    from kneeoa_mm.analysis.evaluation import evaluate

    return evaluate(
        predictions,
        out,
        outcomes=outcome,
        thresholds=threshold,
        cohort=cohort,
        subgroups=subgroup,
        prespecified=prespecified,
        external_to=external_to,
        held_out=held_out,
        n_boot=n_boot,
        seed=seed,
        overwrite=overwrite,
    )


@command("compare image=runs/image fused=runs/fused --cohort cohort --out comparison")
def compare(
    cohort: Annotated[Path, typer.Option(help="Output of `cohort`.")],
    out: OutDir,
    runs: Annotated[
        list[str] | None, typer.Argument(help="NAME=RUN for each run of `train-jsl`.")
    ] = None,
    outcome: Annotated[Outcome, typer.Option(help="The outcome.")] = Outcome.JSL_48M,
    grades: Annotated[
        Path | None, typer.Option(help="Run of `pretrain-kl`, to stand beside the KL grade.")
    ] = None,
    folds: Folds = None,
    best_possible: Annotated[
        Path | None, typer.Option(help="best_possible.json of a synthetic cohort.")
    ] = None,
    threshold: Thresholds = None,
    prespecified: Prespecified = None,
    n_boot: Annotated[int, typer.Option(min=0, help="Bootstrap draws of persons.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    overwrite: Overwrite = False,
) -> StageResult:
    """Compare progression models with each other and with simple ones, on the same folds."""
    from kneeoa_mm.workflows.compare import compare
    from kneeoa_mm.workflows.compared_runs import parse_runs

    return compare(
        parse_runs(runs or ()),
        cohort,
        out,
        outcome=outcome,
        grades=grades,
        folds=folds,
        best_possible=best_possible,
        thresholds=threshold,
        prespecified=prespecified,
        n_boot=n_boot,
        seed=seed,
        overwrite=overwrite,
    )


@command("survival cohort --out survival --outcome tkr")
def survival(
    cohort: Annotated[Path, typer.Argument(help="Output of `cohort`, or a cohort table.")],
    out: OutDir,
    outcome: Annotated[Outcome, typer.Option(help="The outcome.")] = Outcome.TKR,
    group: Annotated[str, typer.Option(help="Column whose groups are compared.")] = "kl_grade",
    covariate: Annotated[
        list[str] | None, typer.Option(help="Column of the regressions; may be repeated.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Run, or table of risks, to judge and to group knees by.")
    ] = None,
    time_scale: Annotated[
        TimeScale, typer.Option(help="Time of the regressions; `age`: with late entry.")
    ] = TimeScale.STUDY,
    horizon_months: Annotated[
        float | None,
        typer.Option(help="Horizon of the predictions; that of the outcome if not given."),
    ] = None,
    n_boot: Annotated[int, typer.Option(min=0, help="Bootstrap draws of persons.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of draws and folds.")] = 0,
    overwrite: Overwrite = False,
) -> StageResult:
    """Estimate when an outcome happens, by group and by predicted risk, and what goes with it."""
    from kneeoa_mm.analysis.survival import COVARIATES, survive

    return survive(
        cohort,
        out,
        outcome=outcome,
        group=group,
        covariates=covariate or COVARIATES,
        predictions=predictions,
        time_scale=time_scale,
        horizon_months=horizon_months,
        n_boot=n_boot,
        seed=seed,
        overwrite=overwrite,
    )


@command("agreement cohort --predictions runs/kl --out agreement")
def agreement(
    readings: Annotated[Path, typer.Argument(help="Output of `cohort`, or its second readings.")],
    out: OutDir,
    predictions: Annotated[
        Path | None, typer.Option(help="Run, or table of predict, whose grades stand beside.")
    ] = None,
    n_boot: Annotated[int, typer.Option(min=0, help="Bootstrap draws of persons.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    overwrite: Overwrite = False,
) -> StageResult:
    """Tell how far two readers of the same films agree, and a model with each of them."""
    from kneeoa_mm.analysis.agreement import agreement

    return agreement(
        readings, out, predictions=predictions, n_boot=n_boot, seed=seed, overwrite=overwrite
    )


@command("report evaluation survival --out report.html")
def report(
    parts: Annotated[list[Path], typer.Argument(help="Output folders, and tables of predict.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")],
    title: Annotated[str, typer.Option(help="Heading.")] = "Knee osteoarthritis analysis",
    overwrite: Overwrite = False,
) -> StageResult:
    """Gather results into one self-contained HTML page, with its tables and figures beside it."""
    from kneeoa_mm.analysis.report import report

    return report(parts, out, title=title, overwrite=overwrite)
