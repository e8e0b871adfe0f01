"""How much of what a synthetic cohort allows do image, clinical factors and fusion reach?

    python benchmarks/share_of_optimum.py WORK OUT.json --subjects 2000 --missing 0.3

Films of baseline, knees, folds, graders and models of progression are made in WORK by the
demonstration's recipes; what is there from an interrupted run is kept. Three cohorts are judged:
as recorded; with ``--missing``, the same with a share of the clinical cells blanked before
training, that share among knees of grade 2 or more and half of it among others, so that what is
missing depends on what is known; and the null scenario, in which clinical factors carry nothing.
Its persons have the same films, so they are cut once; its outcomes are others, and with them the
folds, so graders are trained anew. The share of the way is (AUROC - 0.5) / (best possible AUROC -
0.5), the latter of these people.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kneeoa_mm import __version__, schemas, tables
from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort.columns import FACTORS
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.config import find_recipe, load_config
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.learning.train_jsl import train_jsl
from kneeoa_mm.records import OSTEOARTHRITIS, Outcome
from kneeoa_mm.settings import PreprocessConfig, PretrainKLConfig, TrainJSLConfig
from kneeoa_mm.synthetic.cohort import synthesize
from kneeoa_mm.synthetic.progression import Scenario
from kneeoa_mm.workflows.compare import compare

RECIPE = "demo"
LIMIT_OF = {"image": "image", "clinical": "clinical", "fused": "both"}
"""Model to the key of its best possible AUROC."""
SPACING_MM = {"standard": 0.4, "null": 1.0}
"""Of the films; those of the null scenario are the same persons' and are not read."""


def once(folder: Path, finished: str, work: Callable[[], Any]) -> None:
    """Do what makes a folder, unless its last file is there."""
    if not (folder / finished).exists():
        work()


def draw_persons(work: Path, scenario: Scenario, arguments: argparse.Namespace) -> Path:
    """Films, tables and truth of a scenario."""
    source = work / "source"
    once(
        source,
        "truth/best_possible.json",
        lambda: synthesize(
            source,
            subjects=arguments.subjects,
            seed=arguments.seed,
            scenario=scenario,
            pixel_spacing_mm=SPACING_MM[scenario],
            films="baseline",
            jobs=arguments.jobs,
            overwrite=True,
        ),
    )
    return source


def cut_knees(studies: Path, knees: Path, jobs: int) -> None:
    """Single knees from the films."""
    config = load_config(PreprocessConfig, recipe=find_recipe(RECIPE, "preprocess"))
    once(
        knees,
        "knees.parquet",
        lambda: preprocess(
            studies,
            knees,
            config=config,
            cohort=read_cohort_spec("synthetic"),
            ids="keep",
            jobs=jobs,
            resume=knees.exists(),
        ),
    )


def make_cohort(work: Path, source: Path, knees: Path, seed: int) -> Path:
    """The cohort with its folds, and in ``kl`` a grader for each fold."""
    cohort, graders = work / "cohort", work / "kl"
    spec = read_cohort_spec("synthetic")
    once(
        cohort,
        "folds.parquet",
        lambda: build_cohort(source / "tables", cohort, spec=spec, seed=seed, overwrite=True),
    )
    config = load_config(PretrainKLConfig, recipe=find_recipe(RECIPE, "kl"), flags={"seed": seed})
    once(
        graders,
        "ensemble.json",
        lambda: pretrain_kl(
            knees,
            graders,
            config=config,
            cohort=cohort,
            folds=cohort / "folds.parquet",
            resume=graders.exists(),
        ),
    )
    return cohort


def blank(cohort: Path, out: Path, share: float, seed: int) -> Path:
    """A copy of a cohort in which clinical cells are missing, more among worn knees."""
    shutil.copytree(cohort, out, dirs_exist_ok=True)
    knees = tables.read_table(cohort / "cohort.parquet", schemas.COHORT)
    worn = knees["kl_grade"].ge(int(OSTEOARTHRITIS)).fillna(value=False).to_numpy(bool)
    chance = np.where(worn, share, share / 2)
    generator = np.random.default_rng(seed)
    for factor in FACTORS:
        knees[factor] = knees[factor].mask(pd.Series(generator.random(len(knees)) < chance))
    tables.write_table(knees, schemas.COHORT, out / "cohort.parquet")
    return out


def judge(work: Path, cohort: Path, knees: Path, seed: int) -> dict[str, Any]:
    """Train image alone and fused on a cohort, and hold them against what is possible."""
    runs: dict[str, Path] = {}
    for name, fuse in (("image", False), ("fused", True)):
        run = runs[name] = work / "runs" / cohort.name / name
        flags = {"seed": seed, "fuse_clinical": fuse}
        config = load_config(TrainJSLConfig, recipe=find_recipe(RECIPE, "jsl"), flags=flags)
        once(
            run,
            "ensemble.json",
            lambda config=config, run=run: train_jsl(
                cohort, knees, work / "kl", run, config=config, resume=run.exists()
            ),
        )
    out = work / "runs" / cohort.name / "comparison"
    compare(
        runs,
        cohort,
        out,
        outcome=Outcome.JSL_48M,
        grades=work / "kl",
        best_possible=work / "source" / "truth" / "best_possible.json",
        seed=seed,
        overwrite=True,
    )
    return json.loads((out / "compare.json").read_text("utf-8"))


def summary(document: dict[str, Any]) -> dict[str, Any]:
    """AUROCs, what is possible, the share of the way, and what fusion adds."""
    best = document["best_possible_this_cohort"]
    models = {name: figures["auroc"] for name, figures in document["models"].items()}
    shares = {
        name: (models[name]["value"] - 0.5) / (best[key] - 0.5)
        for name, key in LIMIT_OF.items()
        # where nothing can be known there is no way to go
        if best[key] > 0.51
    }
    return {
        "knees": document["n"],
        "persons": document["persons"],
        "events": document["events"],
        "auroc": models,
        "best_possible": best,
        "share_of_the_way": shares,
        "differences": {k: v["auroc"] for k, v in document["differences"].items()},
        "verdict": document["verdict"],
    }


def table(document: dict[str, Any]) -> str:
    """Markdown: a row a cohort and model, as docs/results.md has it."""
    others = ("kl_grade", "image", "clinical")
    titles = ["cohort", "model", "AUROC", "best possible", "share of the way"]
    titles += [f"less `{other}`" for other in others]
    lines = [titles, ["---"] * len(titles)]
    for cohort, figures in document["found"].items():
        best, apart = figures["best_possible"], figures["differences"]
        for model in ("kl_grade", *LIMIT_OF):
            share = figures["share_of_the_way"].get(model)
            cells = [
                f"{cohort}, {figures['knees']:,} knees, {figures['events']:,} events",
                f"`{model}`",
                _told(figures["auroc"][model], ".3f"),
                f"{best[LIMIT_OF[model]]:.3f}" if model in LIMIT_OF else "",
                "" if share is None else f"{share:.2f}",
                *(_told(apart.get(f"{model}-{other}"), "+.3f") for other in others),
            ]
            lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _told(figure: dict[str, Any] | None, form: str) -> str:
    """Value and interval."""
    if figure is None:
        return ""
    value, low, high = (format(figure[key], form) for key in ("value", "ci_low", "ci_high"))
    return f"{value} ({low} to {high})"


def main() -> None:
    """Make, train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=int, default=2000)
    parser.add_argument("--missing", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    work, seed, share = arguments.work, arguments.seed, arguments.missing
    found: dict[str, Any] = {}

    def note(name: str, figures: dict[str, Any]) -> None:
        found[name] = summary(figures)
        print(name, json.dumps(found[name]["share_of_the_way"]), flush=True)

    knees = work / "knees"
    source = draw_persons(work, "standard", arguments)
    cut_knees(source / "studies", knees, arguments.jobs)
    cohort = make_cohort(work, source, knees, seed)
    note("as recorded", judge(work, cohort, knees, seed))
    blanked = blank(cohort, work / f"cohort-{share:g}-missing", share, seed)
    note(f"{share:.0%} missing", judge(work, blanked, knees, seed))
    null = work / "null"
    cohort = make_cohort(null, draw_persons(null, "null", arguments), knees, seed)
    note("null", judge(null, cohort, knees, seed))
    machine = {"python": platform.python_version(), "processor": platform.machine()}
    settings = {k: v for k, v in vars(arguments).items() if k not in ("work", "out")}
    document = {"version": __version__, "machine": machine, "settings": settings, "found": found}
    write_json(arguments.out, document)
    print(table(document))


if __name__ == "__main__":
    main()
