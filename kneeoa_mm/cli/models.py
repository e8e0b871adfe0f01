"""Commands that train models, apply them, explain them and give them away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kneeoa_mm.cli.options import (
    ClinicalTable,
    CohortName,
    Device,
    DeviceOption,
    DryRun,
    Folds,
    Form,
    Ids,
    Jobs,
    ModelOption,
    OptionalModel,
    OutDir,
    Overwrite,
    Recipe,
    Resume,
    Seed,
    Sets,
    Source,
)
from kneeoa_mm.cli.program import command, resolved, show_only
from kneeoa_mm.records import Outcome, StageResult


@command("pretrain-kl --data graded --out runs/kl --config mobilenet-v2")
def pretrain_kl(
    data: Annotated[Path, typer.Option(help="Folder [split/]grade/NAME.png, or table of knees.")],
    out: OutDir,
    cohort: Annotated[
        Path | None, typer.Option(help="Output of `cohort`, whose readings grade the knees.")
    ] = None,
    config: Recipe = None,
    folds: Folds = None,
    sets: Sets = None,
    seed: Seed = None,
    device: DeviceOption = Device.AUTO,
    allow_ungrouped: Annotated[
        bool, typer.Option("--allow-ungrouped", help="Take knees whose subject is unknown.")
    ] = False,
    dry_run: DryRun = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> StageResult:
    """Train an ensemble of KL graders on single-knee images."""
    settings = resolved("PretrainKLConfig", "kl", config, sets, {"seed": seed})
    if dry_run:
        return show_only("pretrain-kl", settings, out)
    from kneeoa_mm.learning.pretrain_kl import pretrain_kl

    return pretrain_kl(
        data,
        out,
        config=settings,
        folds=folds,
        cohort=cohort,
        device=device.value,
        allow_ungrouped=allow_ungrouped,
        resume=resume,
        overwrite=overwrite,
    )


@command(
    "train-jsl --cohort cohort --knees knees --encoder runs/kl --out runs/fused --fuse-clinical"
)
def train_jsl(
    cohort: Annotated[Path, typer.Option(help="Output of `cohort`.")],
    knees: Annotated[Path, typer.Option(help="Output of `preprocess`, or a table of knees.")],
    encoder: Annotated[Path, typer.Option(help="Run of `pretrain-kl` with the same folds.")],
    out: OutDir,
    outcome: Annotated[
        Outcome | None, typer.Option(help="What to predict; jsl_48m if not said.")
    ] = None,
    fuse_clinical: Annotated[
        bool | None,
        typer.Option("--fuse-clinical/--image-only", help="Fuse clinical factors with the image."),
    ] = None,
    config: Recipe = None,
    folds: Folds = None,
    sets: Sets = None,
    seed: Seed = None,
    device: DeviceOption = Device.AUTO,
    dry_run: DryRun = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> StageResult:
    """Transfer a KL encoder to a model of progression beside KL."""
    flags = {"seed": seed, "outcome": outcome, "fuse_clinical": fuse_clinical}
    settings = resolved("TrainJSLConfig", "jsl", config, sets, flags)
    if dry_run:
        return show_only("train-jsl", settings, out)
    from kneeoa_mm.learning.train_jsl import train_jsl

    return train_jsl(
        cohort,
        knees,
        encoder,
        out,
        config=settings,
        folds=folds,
        device=device.value,
        resume=resume,
        overwrite=overwrite,
    )


@command("predict film.dcm --out grades.csv")
def predict(
    source: Source,
    model: OptionalModel = None,
    out: Annotated[Path, typer.Option("--out", help="Table to write: .csv or .parquet.")] = Path(
        "predictions.csv"
    ),
    clinical: ClinicalTable = None,
    cohort: CohortName = None,
    ids: Ids = None,
    device: DeviceOption = Device.AUTO,
    jobs: Jobs = 1,
    overwrite: Overwrite = False,
) -> StageResult:
    """Grade knees, and predict their progression where the model does."""
    from kneeoa_mm.cohort_spec import read_cohort_spec
    from kneeoa_mm.workflows.predict import predict

    return predict(
        source,
        model,
        out,
        clinical=clinical,
        cohort=read_cohort_spec(cohort) if cohort else None,
        ids=ids,
        device=device.value,
        jobs=jobs,
        overwrite=overwrite,
    )


@command("explain knees --model runs/kl --out saliency --limit 8")
def explain(
    source: Annotated[Path, typer.Argument(help="A folder of images, or a table of knees.")],
    model: ModelOption,
    out: OutDir,
    clinical: ClinicalTable = None,
    films: Annotated[
        Path | None, typer.Option(help="What `preprocess` was given: draw on the films too.")
    ] = None,
    joint_spaces: Annotated[
        Path | None, typer.Option(help="Outlines of joint spaces, for --check.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="grade, kl_2_or_more, 0 to 4, or progression.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this kind of map; may be repeated.")
    ] = None,
    check: Annotated[
        bool | None, typer.Option("--check", help="Also check whether maps can be believed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many knees.")] = 16,
    by_error: Annotated[
        Path | None,
        typer.Option(help="Predictions with the truth: explain the worst answers and the best."),
    ] = None,
    sets: Sets = None,
    seed: Seed = None,
    device: DeviceOption = Device.AUTO,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> StageResult:
    """Draw what moved a model's output, over the knee and its film, and check the maps."""
    flags = {"target": target, "methods": method, "check": check, "seed": seed}
    settings = resolved("ExplainConfig", "explain", None, sets, flags)
    if dry_run:
        return show_only("explain", settings, out)
    from kneeoa_mm.workflows.explain import explain

    return explain(
        source,
        model,
        out,
        films=films,
        config=settings,
        clinical=clinical,
        joint_spaces=joint_spaces,
        limit=limit,
        by_error=by_error,
        device=device.value,
        overwrite=overwrite,
    )


@command("export runs/kl --out onnx")
def export(
    model: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write; for one network also a file .onnx.")
    ],
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.ONNX,
    half: Annotated[
        bool, typer.Option("--half", help="Weights in half precision (safetensors).")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="What the cards shall say of it, such as CC-BY-4.0.")
    ] = None,
    trained_on: Annotated[
        str | None, typer.Option(help="What they shall say of its images, and whom to name.")
    ] = None,
    overwrite: Overwrite = False,
) -> StageResult:
    """Write a model for others, as ONNX or in half the bytes, and prove that it says the same."""
    from kneeoa_mm.learning.export import export

    return export(
        model,
        out,
        form=form.value,
        half=half,
        licence=licence,
        trained_on=trained_on,
        overwrite=overwrite,
    )
