"""The command table. Bodies stay small, and import what is heavy only when they run."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kneeoa_mm import __version__
from kneeoa_mm.console import conclude
from kneeoa_mm.options import (
    ClinicalTable,
    CohortName,
    Device,
    DeviceOption,
    DryRun,
    Engine,
    EngineOption,
    Folds,
    Form,
    Ids,
    Jobs,
    Json,
    ModelOption,
    OptionalModel,
    OutDir,
    Overwrite,
    Prespecified,
    Recipe,
    Resume,
    Scenario,
    Seed,
    Sets,
    Source,
    Thresholds,
    TimeScale,
)
from kneeoa_mm.records import Outcome, StageResult

app = typer.Typer(
    name="kneeoa-mm",
    help="Knee osteoarthritis research: radiographs to single-knee images, KL grading, fused "
    "progression models, saliency and cohort analysis. For research; no medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(example: str) -> Callable[[Callable[..., StageResult]], Callable[..., None]]:
    """Register a stage as the command that ``example`` starts with.

    The command gets ``--json``, and ends by showing the stage's result and its exit code.
    """

    def register(stage: Callable[..., StageResult]) -> Callable[..., None]:
        @functools.wraps(stage)
        def run(*, as_json: bool, **arguments: Any) -> None:
            conclude(lambda: stage(**arguments), as_json=as_json)

        signature = inspect.signature(stage, eval_str=True)
        last = inspect.Parameter(
            "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json
        )
        parameters = [*signature.parameters.values(), last]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=parameters, return_annotation=None
        )
        name, *_ = example.split()
        app.command(name, epilog=f"Example: kneeoa-mm {example}")(run)
        return run

    return register


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"kneeoa-mm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the whole program."""


def _resolved(
    model_name: str, group: str, recipe: str | None, sets: list[str] | None, flags: dict[str, Any]
) -> Any:
    from kneeoa_mm import config

    return config.load_config(
        getattr(config, model_name),
        recipe=config.find_recipe(recipe, group) if recipe else None,
        sets=sets or (),
        flags=flags,
    )


def _show_only(command: str, settings: Any, out: Path) -> StageResult:
    return StageResult(command, out, figures=settings.model_dump(mode="json"), notes=("dry run",))


@command("synthesize demo/source --subjects 60 --seed 1")
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    subjects: Annotated[int, typer.Option(min=1, help="Number of people.")] = 120,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    scenario: Annotated[
        Scenario, typer.Option(help="`null`: clinical factors carry nothing.")
    ] = Scenario.STANDARD,
    pixel_spacing_mm: Annotated[float, typer.Option(help="Resolution of the films.")] = 0.3,
    jobs: Jobs = 1,
    overwrite: Overwrite = False,
) -> StageResult:
    """Make a phantom cohort: radiographs, OAI-shaped tables, and the truth behind them."""
    from kneeoa_mm.synthetic.cohort import synthesize

    return synthesize(
        out,
        subjects=subjects,
        seed=seed,
        scenario=scenario.value,
        pixel_spacing_mm=pixel_spacing_mm,
        jobs=jobs,
        overwrite=overwrite,
    )


@command("preprocess studies --out knees --cohort oai --ids keep")
def preprocess(
    studies: Annotated[Path, typer.Argument(help="Folder of DICOM films.")],
    out: OutDir,
    cohort: CohortName = None,
    ids: Ids = None,
    config: Recipe = None,
    sets: Sets = None,
    jobs: Jobs = 1,
    engine: EngineOption = Engine.LOCAL,
    shard: Annotated[
        str | None,
        typer.Option(help="i/n: only every n-th film, as in a job array; join with --resume."),
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="CSV with the knee_id of knees to leave out.")
    ] = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> StageResult:
    """Cut single-knee images from radiographs, each with its side, scale and quality."""
    settings = _resolved("PreprocessConfig", "preprocess", config, sets, {})
    if dry_run:
        return _show_only("preprocess", settings, out)
    from kneeoa_mm.cohort_spec import read_cohort_spec
    from kneeoa_mm.imaging.preprocess import preprocess

    return preprocess(
        studies,
        out,
        config=settings,
        cohort=read_cohort_spec(cohort) if cohort else None,
        ids=ids,
        jobs=jobs,
        engine=engine.value,
        shard=shard,
        exclude=exclude,
        resume=resume,
        overwrite=overwrite,
    )


@command("cohort tables --out cohort --cohort oai")
def cohort(
    tables: Annotated[Path, typer.Argument(help="Folder of the cohort's source tables.")],
    out: OutDir,
    name: Annotated[
        str, typer.Option("--cohort", help="Shipped cohort (oai, most, ...) or cohort.yaml.")
    ],
    ids: Annotated[
        str, typer.Option(help="As given to `preprocess`, so that tables join.")
    ] = "keep",
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    overwrite: Overwrite = False,
) -> StageResult:
    """Build one row a knee at baseline: clinical factors, grade, outcomes, attrition, folds."""
    from kneeoa_mm.cohort.build import build_cohort
    from kneeoa_mm.cohort_spec import read_cohort_spec

    return build_cohort(
        tables,
        out,
        spec=read_cohort_spec(name),
        ids=ids,
        folds=folds,
        seed=seed,
        overwrite=overwrite,
    )


@command("check tables")
def check(
    folder: Annotated[Path, typer.Argument(help="Tables, graded images, or DICOM films.")],
    name: CohortName = None,
    parameters: Annotated[
        int | None,
        typer.Option(min=1, help="Candidate parameters of the model; counted if not said."),
    ] = None,
) -> StageResult:
    """Say what a folder holds, what it lacks, what would be lost, and if it is large enough."""
    from kneeoa_mm.cohort.check import check_folder

    return check_folder(folder, cohort=name, parameters=parameters)


@command("train-detector films --val more-films --out detector")
def train_detector(
    films: Annotated[
        list[Path],
        typer.Argument(help="Tables of boxes (CSV), or folders of films with YOLO text files."),
    ],
    out: OutDir,
    val: Annotated[
        list[Path] | None,
        typer.Option(help="Films to choose the epoch on; without, every tenth film."),
    ] = None,
    trained_on: Annotated[str, typer.Option(help="What the films are, for the model card.")] = "",
    config: Recipe = None,
    sets: Sets = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> StageResult:
    """Train a YOLO network to find knee joints on films (needs the extra `yolo`)."""
    settings = _resolved("TrainDetectorConfig", "detector", config, sets, {"seed": seed})
    if dry_run:
        return _show_only("train-detector", settings, out)
    from kneeoa_mm.imaging.train_detector import train_detector

    return train_detector(
        films, out, config=settings, val=val or (), trained_on=trained_on, overwrite=overwrite
    )


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
        bool, typer.Option("--allow-ungrouped", help="Take images whose name tells no subject.")
    ] = False,
    dry_run: DryRun = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> StageResult:
    """Train an ensemble of KL graders on single-knee images."""
    settings = _resolved("PretrainKLConfig", "kl", config, sets, {"seed": seed})
    if dry_run:
        return _show_only("pretrain-kl", settings, out)
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
    settings = _resolved("TrainJSLConfig", "jsl", config, sets, flags)
    if dry_run:
        return _show_only("train-jsl", settings, out)
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
    sets: Sets = None,
    seed: Seed = None,
    device: DeviceOption = Device.AUTO,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> StageResult:
    """Draw what moved a model's output, over the knee and its film, and check the maps."""
    flags = {"target": target, "methods": method, "check": check, "seed": seed}
    settings = _resolved("ExplainConfig", "explain", None, sets, flags)
    if dry_run:
        return _show_only("explain", settings, out)
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
        device=device.value,
        overwrite=overwrite,
    )


@command("compare image=runs/image fused=runs/fused --cohort cohort --out comparison")
def compare(
    runs: Annotated[list[str], typer.Argument(help="NAME=RUN for each run of `train-jsl`.")],
    cohort: Annotated[Path, typer.Option(help="Output of `cohort`.")],
    out: OutDir,
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
        parse_runs(runs),
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
    horizon_months: Annotated[float, typer.Option(help="Horizon of the predictions.")] = 48,
    n_boot: Annotated[int, typer.Option(min=0, help="Bootstrap draws of persons.")] = 200,
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


@command("demo --out demo-output")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("demo-output"),
    subjects: Annotated[int, typer.Option(min=30, help="Number of synthetic people.")] = 150,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    scenario: Annotated[
        Scenario, typer.Option(help="`null`: clinical factors carry nothing.")
    ] = Scenario.STANDARD,
    jobs: Jobs = 2,
    overwrite: Overwrite = False,
) -> StageResult:
    """Run the whole pipeline on a synthetic cohort, from films to a report."""
    from kneeoa_mm.workflows.demo import demo

    return demo(
        out,
        subjects=subjects,
        seed=seed,
        scenario=scenario.value,
        jobs=jobs,
        overwrite=overwrite,
    )


@command("doctor --json")
def doctor() -> StageResult:
    """Say what is installed and what is missing."""
    from kneeoa_mm.workflows.doctor import doctor

    return doctor()


def main() -> None:
    """Entry point of ``kneeoa-mm``; under torchrun, of all processes that train together."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        app()
        return
    from kneeoa_mm.learning import processes

    processes.run(app)
