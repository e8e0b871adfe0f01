"""``kneeoa-mm synthesize``: a phantom cohort of films and tables, and the truth about it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pydantic import Field

from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.config import validate
from kneeoa_mm.progress import track
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import open_run
from kneeoa_mm.schemas import TableSchema
from kneeoa_mm.settings import Settings
from kneeoa_mm.synthetic.best_possible import best_possible
from kneeoa_mm.synthetic.oai_tables import Rows, write_tables
from kneeoa_mm.synthetic.population import Population
from kneeoa_mm.synthetic.progression import CLINICAL_FACTORS, COEFFICIENTS, Scenario, simulate
from kneeoa_mm.synthetic.subject import Films, SubjectTask, make_subject, model_draws
from kneeoa_mm.tables import write_table


def _column(dtype: Any, *, nullable: bool = False) -> pa.Column:
    return pa.Column(dtype, nullable=nullable, coerce=True)


TRUTH = TableSchema(
    "synthetic_truth",
    1,
    pa.DataFrameSchema(
        {
            "knee_id": pa.Column(str, unique=True),
            "subject_id": _column(str),
            "laterality": _column(str),
            "months": _column("int64"),
            "source": _column(str),
            "pixel_spacing_mm": _column(float),
            "box_left_px": _column("int64"),
            "box_top_px": _column("int64"),
            "box_right_px": _column("int64"),
            "box_bottom_px": _column("int64"),
            "joint_space_px": _column(str, nullable=True),
            "plateau_width_mm": _column(float),
            "rotation_deg": _column(float),
            "photometric": _column(str),
            "is_replaced": _column(bool),
            "mjsw_medial_mm": _column(float, nullable=True),
            "mjsw_lateral_mm": _column(float, nullable=True),
            "osteophyte_mm": _column(float, nullable=True),
            "sclerosis_mm": _column(float, nullable=True),
            "kl_grade": _column("Int64", nullable=True),
            "x_image": _column(float, nullable=True),
            "x_clinical": _column(float, nullable=True),
            "is_at_risk": _column("boolean", nullable=True),
            "jsl_48m_prob": _column(float, nullable=True),
            "jsl_48m_regardless": _column("Int64", nullable=True),
            "jsl_48m": _column("Int64", nullable=True),
            "jsl_48m_reason": _column(str, nullable=True),
        },
        strict=True,
    ),
)
"""One row a knee and film. Boxes are in pixels of the film ``source``, relative to ``studies/``;
``joint_space_px`` is a JSON list of the corners (x, y) of the space between femur and tibia.
What describes a knee's progress stands in its row at 0 months: ``jsl_48m_prob`` is the true
probability; ``jsl_48m_regardless`` what happened, or would have, to a knee at risk;
``jsl_48m`` what the tables let one see of it, and ``jsl_48m_reason`` why they do not."""

_HOW_COMPUTED = (
    "AUROC of the true probability of jsl_48m given what is known: x_image alone (image), "
    "x_clinical alone (clinical), or both. 'jsl_48m' is exact for the stated model in a simulated "
    "population of knees at risk; 'jsl_48m_labelled_population' counts the outcomes of those of "
    "them that the tables tell, after replacement, death, dropout and failed readings; "
    "'jsl_48m_this_cohort' counts the outcomes of this cohort, and differs by chance."
)


class SynthesizeConfig(Settings):
    """What makes a synthetic cohort; the same values give the same files."""

    subjects: Annotated[int, Field(ge=1, le=50_000)] = 120
    seed: Annotated[int, Field(ge=0)] = 0
    scenario: Scenario = "standard"
    pixel_spacing_mm: Annotated[float, Field(ge=0.1, le=1.0)] = 0.3
    films: Films = "all"


def synthesize(
    out: Path,
    *,
    subjects: int = 120,
    seed: int = 0,
    scenario: Scenario = "standard",
    pixel_spacing_mm: float = 0.3,
    films: Films = "all",
    jobs: int = 1,
    overwrite: bool = False,
) -> StageResult:
    """Make a synthetic cohort: films, OAI-shaped tables, and what is true of every knee.

    Person number i is the same whatever the size of the cohort and the number of jobs.

    Args:
        out: Output folder; ``studies/``, ``tables/`` and ``truth/`` are made in it.
        subjects: Number of persons.
        seed: Decides everything.
        scenario: ``standard``, or ``null``, in which clinical factors carry nothing.
        pixel_spacing_mm: Resolution of the films, which measure 350 by 287 mm.
        films: Of all three visits that have films, or of the first alone, a third of the work: what
            a model of progression reads. The films drawn and the tables are the same either way.
        jobs: Processes that draw films.
        overwrite: Replace an earlier run in ``out``.

    Returns:
        What was written, with the best possible AUROC of ``jsl_48m``.

    Raises:
        ConfigError: An argument is out of range.
        OutputExistsError: ``out`` holds something already.
    """
    config = validate(
        SynthesizeConfig,
        {
            "subjects": subjects,
            "seed": seed,
            "scenario": scenario,
            "pixel_spacing_mm": pixel_spacing_mm,
            "films": films,
        },
        where="synthesize",
    )
    with open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite):
        tasks = [
            SubjectTask(index, seed, scenario, pixel_spacing_mm, films, out / "studies")
            for index in range(subjects)
        ]
        rows, truths = _make_all(tasks, jobs)
        write_tables(out / "tables", rows)
        knees = write_table(
            pd.DataFrame(truths),
            TRUTH,
            out / "truth" / "knees.parquet",
            config_digest=config.digest(),
        )
        best = describe(simulate_cohort(subjects, seed, scenario), config)
        best_file = write_json(out / "truth" / "best_possible.json", best)
    own = best["jsl_48m_this_cohort"]
    return StageResult(
        command="synthesize",
        out=out,
        outputs={
            "studies": out / "studies",
            "tables": out / "tables",
            "truth": knees,
            "best possible": best_file,
        },
        counts={
            "subjects": subjects,
            "films": len({row["source"] for row in truths}),
            "knees with jsl_48m": own["knees"],
            "events": own["events"],
        },
        figures={"best possible AUROC of jsl_48m": best["jsl_48m"]},
        notes=("Synthetic films and tables: for demonstrations, teaching and tests only.",),
        next_step=f"kneeoa-mm preprocess {out / 'studies'} --out KNEES --ids keep",
    )


def simulate_cohort(subjects: int, seed: int, scenario: Scenario) -> Population:
    """The whole cohort's fate, as the films and tables of its persons show it."""
    draws = np.concatenate([model_draws(seed, index) for index in range(subjects)])
    return simulate(draws, scenario)


def describe(cohort: Population, config: SynthesizeConfig) -> dict[str, Any]:
    """The content of ``best_possible.json``."""
    names = ("mean", "sd", "weight")
    return {
        **best_possible(config.scenario, cohort),
        "how_computed": _HOW_COMPUTED,
        "scenario": config.scenario,
        "seed": config.seed,
        "subjects": config.subjects,
        "coefficients": asdict(COEFFICIENTS[config.scenario]),
        "clinical_factors": {
            name: dict(zip(names, values, strict=True)) for name, values in CLINICAL_FACTORS.items()
        },
    }


def _make_all(tasks: list[SubjectTask], jobs: int) -> tuple[list[Rows], list[dict[str, Any]]]:
    rows: list[Rows] = []
    truths: list[dict[str, Any]] = []
    done = track(_each(tasks, jobs), total=len(tasks), label="synthesize")
    for subject_rows, subject_truths in done:
        rows.append(subject_rows)
        truths += subject_truths
    return rows, truths


def _each(tasks: list[SubjectTask], jobs: int) -> Iterator[tuple[Rows, list[dict[str, Any]]]]:
    if jobs <= 1:
        yield from map(make_subject, tasks)
        return
    # spawn: forking a process that has threads (torch starts some) can deadlock
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool:
        yield from pool.map(make_subject, tasks, chunksize=1)
