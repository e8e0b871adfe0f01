"""Commands for a first look: the whole pipeline on phantoms, and what this machine lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kneeoa_mm.cli.options import Jobs, Overwrite, Scenario
from kneeoa_mm.cli.program import command
from kneeoa_mm.records import StageResult


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
