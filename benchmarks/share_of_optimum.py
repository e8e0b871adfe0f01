"""How much of what a synthetic cohort allows do image, clinical factors and fusion reach?

    python benchmarks/share_of_optimum.py WORK OUT.json --subjects 2000
    python benchmarks/share_of_optimum.py WORK-NULL OUT-NULL.json --subjects 2000 --scenario null

Films, knees, folds, graders and models of progression are made in WORK by the demonstration's
recipes; what is there from an interrupted run is kept. With ``--missing`` a share of the clinical
cells is blanked before training, in a copy of the cohort: that share among knees of grade 2 or
more, half of it among others, so that what is missing depends on what is known. The share of the
way is (AUROC - 0.5) / (best possible AUROC - 0.5), the latter of these people.
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
from kneeoa_mm.workflows.compare import compare

RECIPE = "demo"
BASELINE = "V00"
"""Films of later visits, on which no progression is predicted, would treble the work."""
LIMIT_OF = {"image": "image", "clinical": "clinical", "fused": "both"}
"""Model to the key of its best possible AUROC."""


def once(folder: Path, finished: str, work: Callable[[], Any]) -> None:
    """Do what makes a folder, unless its last file is there."""
    if not (folder / finished).exists():
        work()


def make_knees(work: Path, arguments: argparse.Namespace) -> None:
    """Films, single knees, the cohort, and a grader for each fold."""
    spec, seed = read_cohort_spec("synthetic"), arguments.seed
    source, knees, cohort = work / "source", work / "knees", work / "cohort"
    once(
        source,
        "truth/best_possible.json",
        lambda: synthesize(
            source,
            subjects=arguments.subjects,
            seed=seed,
            scenario=arguments.scenario,
            pixel_spacing_mm=0.4,
            jobs=arguments.jobs,
            overwrite=True,
        ),
    )
    config = load_config(PreprocessConfig, recipe=find_recipe(RECIPE, "preprocess"))
    once(
        knees,
        "knees.parquet",
        lambda: preprocess(
            source / "studies" / BASELINE,
            knees,
            config=config,
            cohort=spec,
            ids="keep",
            jobs=arguments.jobs,
            resume=knees.exists(),
        ),
    )
    once(
        cohort,
        "folds.parquet",
        lambda: build_cohort(source / "tables", cohort, spec=spec, seed=seed, overwrite=True),
    )
    graders = work / "kl"
    recipe = find_recipe(RECIPE, "kl")
    once(
        graders,
        "ensemble.json",
        lambda: pretrain_kl(
            knees,
            graders,
            config=load_config(PretrainKLConfig, recipe=recipe, flags={"seed": seed}),
            cohort=cohort,
            folds=cohort / "folds.parquet",
            resume=graders.exists(),
        ),
    )


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


def judge(work: Path, cohort: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train image alone and fused on a cohort, and hold them against what is possible."""
    runs: dict[str, Path] = {}
    for name, fuse in (("image", False), ("fused", True)):
        run = runs[name] = work / "runs" / cohort.name / name
        flags = {"seed": arguments.seed, "fuse_clinical": fuse}
        config = load_config(TrainJSLConfig, recipe=find_recipe(RECIPE, "jsl"), flags=flags)
        once(
            run,
            "ensemble.json",
            lambda config=config, run=run: train_jsl(
                cohort, work / "knees", work / "kl", run, config=config, resume=run.exists()
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
        seed=arguments.seed,
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


def main() -> None:
    """Make, train, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=int, default=2000)
    parser.add_argument("--scenario", choices=("standard", "null"), default="standard")
    parser.add_argument("--missing", type=float, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    make_knees(arguments.work, arguments)
    whole = arguments.work / "cohort"
    cohorts = {"as recorded": whole} | {
        f"{share:.0%} missing": blank(
            whole, arguments.work / f"cohort-{share:g}", share, arguments.seed
        )
        for share in arguments.missing
    }
    found = {}
    for name, cohort in cohorts.items():
        found[name] = summary(judge(arguments.work, cohort, arguments))
        print(name, json.dumps(found[name]["share_of_the_way"]))
    machine = {"python": platform.python_version(), "processor": platform.machine()}
    settings = {k: v for k, v in vars(arguments).items() if k not in ("work", "out")}
    document = {"version": __version__, "machine": machine, "settings": settings, "found": found}
    write_json(arguments.out, document)


if __name__ == "__main__":
    main()
