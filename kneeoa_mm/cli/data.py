"""Commands that make and prepare what the others learn from and judge: films and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kneeoa_mm.cli.options import (
    CohortName,
    DryRun,
    Engine,
    EngineOption,
    Films,
    Ids,
    Jobs,
    OutDir,
    Overwrite,
    Recipe,
    Resume,
    Scenario,
    Seed,
    Sets,
)
from kneeoa_mm.cli.program import command, resolved, show_only
from kneeoa_mm.records import StageResult


@command("synthesize demo/source --subjects 60 --seed 1")
def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to write; must be new or empty.")],
    subjects: Annotated[int, typer.Option(min=1, help="Number of people.")] = 120,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    scenario: Annotated[
        Scenario, typer.Option(help="`null`: clinical factors carry nothing.")
    ] = Scenario.STANDARD,
    pixel_spacing_mm: Annotated[float, typer.Option(help="Resolution of the films.")] = 0.3,
    films: Annotated[
        Films, typer.Option(help="`baseline`: no films of follow-up, a third of the work.")
    ] = Films.ALL,
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
        films=films.value,
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
    settings = resolved("PreprocessConfig", "preprocess", config, sets, {})
    if dry_run:
        return show_only("preprocess", settings, out)
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
    settings = resolved("TrainDetectorConfig", "detector", config, sets, {"seed": seed})
    if dry_run:
        return show_only("train-detector", settings, out)
    from kneeoa_mm.imaging.train_detector import train_detector

    return train_detector(
        films, out, config=settings, val=val or (), trained_on=trained_on, overwrite=overwrite
    )
