"""The command table. Bodies stay small, and import what is heavy only when they run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kneeoa_mm import __version__
from kneeoa_mm.console import conclude
from kneeoa_mm.records import Outcome

if TYPE_CHECKING:
    from kneeoa_mm.records import StageResult

app = typer.Typer(
    name="kneeoa-mm",
    help="Knee osteoarthritis research: radiographs to single-knee images, KL grading, fused "
    "progression models, saliency and cohort analysis. For research; no medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Device(StrEnum):
    """Where networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Scenario(StrEnum):
    """What drives progression in the synthetic cohort."""

    STANDARD = "standard"
    NULL = "null"


OutDir = Annotated[Path, typer.Option("--out", help="Folder to write; must be new or empty.")]
Recipe = Annotated[
    str | None, typer.Option("--config", help="YAML file, or the name of a shipped recipe.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override one setting, such as train.lr=1e-4; may be repeated."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
DeviceOption = Annotated[Device, typer.Option(help="Where networks run.")]
Jobs = Annotated[int, typer.Option(min=1, help="Worker processes.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run there.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run there.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the resolved configuration and stop.")
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]
Folds = Annotated[
    Path | None, typer.Option(help="Table of folds by subject, from `cohort` or an earlier run.")
]
CohortName = Annotated[
    str | None, typer.Option("--cohort", help="Shipped cohort (oai, synthetic) or cohort.yaml.")
]
Ids = Annotated[
    str | None,
    typer.Option(
        help="`keep` where ids are pseudonyms already, or the file of a key to hash with."
    ),
]


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
    from kneeoa_mm.records import StageResult

    return StageResult(command, out, figures=settings.model_dump(mode="json"), notes=("dry run",))


@app.command(epilog="Example: kneeoa-mm synthesize demo/source --subjects 60 --seed 1")
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
    as_json: Json = False,
) -> None:
    """Make a phantom cohort: radiographs, OAI-shaped tables, and the truth behind them."""

    def work() -> StageResult:
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

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm preprocess studies --out knees --cohort oai --ids keep")
def preprocess(
    studies: Annotated[Path, typer.Argument(help="Folder of DICOM films.")],
    out: OutDir,
    cohort: CohortName = None,
    ids: Ids = None,
    config: Recipe = None,
    sets: Sets = None,
    jobs: Jobs = 1,
    dry_run: DryRun = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Cut single-knee images from radiographs, each with its side, scale and quality."""

    def work() -> StageResult:
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
            resume=resume,
            overwrite=overwrite,
        )

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm cohort tables --out cohort --cohort oai")
def cohort(
    tables: Annotated[Path, typer.Argument(help="Folder of the cohort's source tables.")],
    out: OutDir,
    name: Annotated[
        str, typer.Option("--cohort", help="Shipped cohort (oai, synthetic) or cohort.yaml.")
    ],
    ids: Annotated[
        str, typer.Option(help="As given to `preprocess`, so that tables join.")
    ] = "keep",
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Build one row a knee at baseline: clinical factors, grade, outcomes, attrition, folds."""

    def work() -> StageResult:
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

    conclude(work, as_json=as_json)


@app.command(
    "pretrain-kl",
    epilog="Example: kneeoa-mm pretrain-kl --data graded --out runs/kl --config mobilenet-v2",
)
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
    as_json: Json = False,
) -> None:
    """Train an ensemble of KL graders on single-knee images."""

    def work() -> StageResult:
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

    conclude(work, as_json=as_json)


@app.command(
    "train-jsl",
    epilog="Example: kneeoa-mm train-jsl --cohort cohort --knees knees --encoder runs/kl "
    "--out runs/fused --fuse-clinical",
)
def train_jsl(
    cohort: Annotated[Path, typer.Option(help="Output of `cohort`.")],
    knees: Annotated[Path, typer.Option(help="Output of `preprocess`, or a table of knees.")],
    encoder: Annotated[Path, typer.Option(help="Run of `pretrain-kl` with the same folds.")],
    out: OutDir,
    outcome: Annotated[Outcome | None, typer.Option(help="What to predict [jsl_48m].")] = None,
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
    as_json: Json = False,
) -> None:
    """Transfer a KL encoder to a model of progression beside KL."""

    def work() -> StageResult:
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

    conclude(work, as_json=as_json)


Source = Annotated[
    Path, typer.Argument(help="DICOM films, a folder of images, or a table of knees.")
]
ModelOption = Annotated[Path, typer.Option("--model", help="Run folder or model folder.")]
ClinicalTable = Annotated[
    Path | None,
    typer.Option("--clinical", help="Output of `cohort`, or a table by knee_id, for fused models."),
]


@app.command(epilog="Example: kneeoa-mm predict films --model runs/kl --out grades.csv --ids keep")
def predict(
    source: Source,
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", help="Table to write: .parquet or .csv.")],
    clinical: ClinicalTable = None,
    cohort: CohortName = None,
    ids: Ids = None,
    device: DeviceOption = Device.AUTO,
    jobs: Jobs = 1,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Grade knees, and predict their progression where the model does."""

    def work() -> StageResult:
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

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm evaluate runs/kl/predictions.parquet --out evaluation")
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Prediction table with the truth in it.")],
    out: OutDir,
    outcome: Annotated[
        list[Outcome] | None, typer.Option(help="Only these outcomes; may be repeated.")
    ] = None,
    n_boot: Annotated[int, typer.Option(min=0, help="Bootstrap draws of persons.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Judge predictions: metrics with person-clustered intervals, and figures."""

    def work() -> StageResult:
        from kneeoa_mm.analysis.evaluation import evaluate

        return evaluate(
            predictions, out, outcomes=outcome, n_boot=n_boot, seed=seed, overwrite=overwrite
        )

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm explain knees --model runs/kl --out saliency --limit 8")
def explain(
    source: Annotated[Path, typer.Argument(help="A folder of images, or a table of knees.")],
    model: ModelOption,
    out: OutDir,
    clinical: ClinicalTable = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many knees.")] = 16,
    device: DeviceOption = Device.AUTO,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw what moved a model's output: Grad-CAM and input gradients over the knee."""

    def work() -> StageResult:
        from kneeoa_mm.learning.saliency import explain

        return explain(
            source,
            model,
            out,
            clinical=clinical,
            limit=limit,
            device=device.value,
            overwrite=overwrite,
        )

    conclude(work, as_json=as_json)


@app.command(
    epilog="Example: kneeoa-mm compare image=runs/image fused=runs/fused --cohort cohort "
    "--out comparison"
)
def compare(
    runs: Annotated[list[str], typer.Argument(help="NAME=RUN for each run of `train-jsl`.")],
    cohort: Annotated[Path, typer.Option(help="Output of `cohort`.")],
    out: OutDir,
    outcome: Annotated[Outcome, typer.Option(help="The outcome.")] = Outcome.JSL_48M,
    best_possible: Annotated[
        Path | None, typer.Option(help="best_possible.json of a synthetic cohort.")
    ] = None,
    n_boot: Annotated[int, typer.Option(min=0, help="Bootstrap draws of persons.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compare progression models with each other and with clinical-only and KL-only ones."""

    def work() -> StageResult:
        from kneeoa_mm.workflows.compare import compare, parse_runs

        return compare(
            parse_runs(runs),
            cohort,
            out,
            outcome=outcome,
            best_possible=best_possible,
            n_boot=n_boot,
            seed=seed,
            overwrite=overwrite,
        )

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm survival cohort --out survival --outcome tkr")
def survival(
    cohort: Annotated[Path, typer.Argument(help="Output of `cohort`, or a cohort table.")],
    out: OutDir,
    outcome: Annotated[Outcome, typer.Option(help="The outcome.")] = Outcome.TKR,
    group: Annotated[str, typer.Option(help="Column whose groups are compared.")] = "kl_grade",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Estimate when an outcome happens: Kaplan-Meier by group, and a Cox model."""

    def work() -> StageResult:
        from kneeoa_mm.analysis.survival import survive

        return survive(cohort, out, outcome=outcome, group=group, overwrite=overwrite)

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm report evaluation survival --out report.html")
def report(
    parts: Annotated[list[Path], typer.Argument(help="Output folders of other commands.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")],
    title: Annotated[str, typer.Option(help="Heading.")] = "Knee osteoarthritis analysis",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Gather results into one self-contained HTML page."""

    def work() -> StageResult:
        from kneeoa_mm.analysis.report import report

        return report(parts, out, title=title, overwrite=overwrite)

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm demo --out demo-output")
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")] = Path("demo-output"),
    subjects: Annotated[int, typer.Option(min=30, help="Number of synthetic people.")] = 150,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    scenario: Annotated[
        Scenario, typer.Option(help="`null`: clinical factors carry nothing.")
    ] = Scenario.STANDARD,
    jobs: Jobs = 2,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Run the whole pipeline on a synthetic cohort, from films to a report."""

    def work() -> StageResult:
        from kneeoa_mm.workflows.demo import demo

        return demo(
            out,
            subjects=subjects,
            seed=seed,
            scenario=scenario.value,
            jobs=jobs,
            overwrite=overwrite,
        )

    conclude(work, as_json=as_json)


@app.command(epilog="Example: kneeoa-mm doctor --json")
def doctor(as_json: Json = False) -> None:
    """Say what is installed and what is missing."""

    def work() -> StageResult:
        from kneeoa_mm.workflows.doctor import doctor

        return doctor()

    conclude(work, as_json=as_json)


def main() -> None:
    """Entry point of ``kneeoa-mm``."""
    app()
