"""The whole pipeline on a synthetic cohort, from films to a report."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from kneeoa_mm.analysis.agreement import agreement
from kneeoa_mm.analysis.evaluation import evaluate
from kneeoa_mm.analysis.report import report
from kneeoa_mm.analysis.survival import survive
from kneeoa_mm.atomic_files import write_text
from kneeoa_mm.cohort.build import build_cohort
from kneeoa_mm.cohort_spec import read_cohort_spec
from kneeoa_mm.config import find_recipe, load_config
from kneeoa_mm.imaging.preprocess import preprocess
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.learning.train_jsl import train_jsl
from kneeoa_mm.progress import say
from kneeoa_mm.records import Outcome, StageResult
from kneeoa_mm.run_folder import open_run
from kneeoa_mm.settings import ExplainConfig, PreprocessConfig, PretrainKLConfig, TrainJSLConfig
from kneeoa_mm.synthetic.cohort import synthesize
from kneeoa_mm.workflows.attempts import Attempts
from kneeoa_mm.workflows.compare import compare
from kneeoa_mm.workflows.explain import explain
from kneeoa_mm.workflows.predict import predict

RECIPE = "demo"
FILM_SPACING_MM = 0.4
PLAN = """\
outcome: jsl_48m
model: fused
primary_metric: auroc
secondary_metrics: [brier, calibration_slope]
thresholds: [0.2]
subgroups: [sex, kl_grade]
comparisons: [fused-kl_grade]
"""
"""What the demonstration decides beforehand."""


def demo(
    out: Path,
    *,
    subjects: int,
    seed: int,
    scenario: Literal["standard", "null"],
    jobs: int,
    overwrite: bool = False,
) -> StageResult:
    """Run every stage on a synthetic cohort.

    Args:
        out: Folder to write.
        subjects: Number of synthetic people.
        seed: Seed of everything random.
        scenario: ``standard``, or ``null`` in which clinical factors carry nothing.
        jobs: Worker processes.
        overwrite: Replace an earlier demo in ``out``.
    """
    settings = f"subjects: {subjects}\nseed: {seed}\nscenario: {scenario}\n"
    with open_run(out, config_yaml=settings, overwrite=overwrite):
        _make_data(out, subjects=subjects, seed=seed, scenario=scenario, jobs=jobs)
        # before anybody looks: its hash goes into the results
        plan = write_text(out / "plan.yaml", PLAN)
        _learn(out, seed)
        comparison = _analyse(out, seed, plan)
    return StageResult(
        command="demo",
        out=out,
        outputs={"report": out / "report.html"},
        counts={"subjects": subjects} | (comparison.counts if comparison else {}),
        figures=comparison.figures if comparison else {},
        notes=("A synthetic cohort: these figures say nothing about real knees.",),
        next_step=f"open {out / 'report.html'} in a browser",
    )


def _step(title: str, work: Callable[[], StageResult]) -> StageResult:
    say(f"--- {title}")
    result = work()
    say("    " + ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in result.counts.items()))
    return result


def _make_data(
    out: Path, *, subjects: int, seed: int, scenario: Literal["standard", "null"], jobs: int
) -> None:
    spec = read_cohort_spec("synthetic")
    _step(
        "synthesize: films and tables of people who never were",
        lambda: synthesize(
            out / "source",
            subjects=subjects,
            seed=seed,
            scenario=scenario,
            pixel_spacing_mm=FILM_SPACING_MM,
            jobs=jobs,
        ),
    )
    _step(
        "preprocess: films to single knees",
        lambda: preprocess(
            out / "source" / "studies",
            out / "knees",
            config=load_config(PreprocessConfig, recipe=find_recipe(RECIPE, "preprocess")),
            cohort=spec,
            ids="keep",
            jobs=jobs,
        ),
    )
    _step(
        "cohort: tables to one row a knee, with outcomes and folds",
        lambda: build_cohort(out / "source" / "tables", out / "cohort", spec=spec, seed=seed),
    )


def _learn(out: Path, seed: int) -> None:
    _step(
        "pretrain-kl: graders, one a fold",
        lambda: pretrain_kl(
            out / "knees",
            out / "runs" / "kl",
            config=load_config(
                PretrainKLConfig, recipe=find_recipe(RECIPE, "kl"), flags={"seed": seed}
            ),
            cohort=out / "cohort",
            folds=out / "cohort" / "folds.parquet",
        ),
    )
    for name, fuse in (("image", False), ("fused", True)):
        flags = {"seed": seed, "fuse_clinical": fuse}
        config = load_config(TrainJSLConfig, recipe=find_recipe(RECIPE, "jsl"), flags=flags)
        _step(
            f"train-jsl: {name} model of progression",
            partial(
                train_jsl,
                out / "cohort",
                out / "knees",
                out / "runs" / "kl",
                out / "runs" / name,
                config=config,
            ),
        )


def _analyse(out: Path, seed: int, plan: Path) -> StageResult | None:
    """All that comes after training; what the data do not allow is said in the report."""
    cohort, fused = out / "cohort", out / "runs" / "fused"
    predictions = out / "predictions.csv"
    attempts = Attempts()

    def attempt(title: str, work: Callable[[], StageResult]) -> StageResult | None:
        return attempts.attempt(title.partition(":")[0], lambda: _step(title, work))

    _step(
        "predict: every knee by a model that never saw its person",
        lambda: predict(out / "knees", fused, predictions, clinical=cohort),
    )
    attempt(
        "evaluate: metrics with person-clustered intervals",
        lambda: evaluate(
            predictions, out / "evaluation", cohort=cohort, prespecified=plan, seed=seed
        ),
    )
    attempt(
        "agreement: two readers, and the grader beside them",
        lambda: agreement(cohort, out / "agreement", predictions=out / "runs" / "kl", seed=seed),
    )
    attempt(
        "explain: what moved the output, and whether to believe it",
        lambda: explain(
            out / "knees",
            fused,
            out / "saliency",
            config=ExplainConfig(check=True, seed=seed),
            clinical=cohort,
            joint_spaces=out / "source" / "truth" / "knees.parquet",
            limit=24,
        ),
    )
    attempt(
        "survival: time to joint-space loss",
        lambda: survive(
            cohort, out / "survival", outcome=Outcome.JSL_48M, predictions=fused, seed=seed
        ),
    )
    comparison = attempt(
        "compare: fused against simpler models, and the best possible",
        lambda: compare(
            {name: out / "runs" / name for name in ("image", "fused")},
            cohort,
            out / "comparison",
            outcome=Outcome.JSL_48M,
            grades=out / "runs" / "kl",
            best_possible=out / "source" / "truth" / "best_possible.json",
            prespecified=plan,
            seed=seed,
        ),
    )
    skipped = attempts.write(out / "not_computed")
    parts = [out / part for part in ("knees", "cohort", "runs", predictions.name)]
    stages = ("evaluation", "agreement", "comparison", "saliency", "survival")
    parts += [out / stage for stage in stages if (out / stage).is_dir()]
    _step(
        "report: one page, its tables and its figures",
        lambda: report(
            [*parts, *skipped],
            out / "report.html",
            title="Synthetic cohort: a demonstration",
        ),
    )
    return comparison
