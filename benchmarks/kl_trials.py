"""What one change does to a grader, everything else being equal.

    python benchmarks/kl_trials.py knee_kl224 mobilenet_v2_imagenet.safetensors WORK OUT.json

Each trial trains the recipe ``baseline`` on the folder's own ``train`` part, smaller and shorter
and with one setting changed, and is judged on ``val``, by the last epoch. Differences from the
unchanged recipe are of the same knees, with intervals over persons; what chance alone does in
training, which these intervals leave out, "another seed" tells. A trial that is there from an
interrupted run is kept, as are those that were not asked for by ``--only``.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import numpy as np

from kneeoa_mm import __version__, schemas, tables
from kneeoa_mm.atomic_files import write_json
from kneeoa_mm.config import find_recipe, load_config
from kneeoa_mm.learning.pretrain_kl import pretrain_kl
from kneeoa_mm.metrics import GRADE_METRICS, Resampled, bootstrap_weights, resample
from kneeoa_mm.records import KL_CLASSES
from kneeoa_mm.settings import PretrainKLConfig

OF_ALL = (
    "cross_validate=false",
    "test_time_crops=0",
    "members.0.image_size_px=112",
    "train.epochs=5",
    "train.ema_decay=0.995",
)
UNCHANGED = "unchanged"
_NO_MOVES = [f"train.augment.{name}=0" for name in ("rotation_deg", "scale", "translation")]
_NO_EXPOSURE = [f"train.augment.{name}=0" for name in ("contrast", "brightness")]
TRIALS: dict[str, list[str]] = {
    UNCHANGED: [],
    "another seed": ["seed=1"],
    "focal loss": ["train.kl_loss=focal"],
    "expected grade": ["train.kl_loss=expected_grade"],
    "CORN": ["train.kl_loss=corn"],
    "CORAL": ["train.kl_loss=coral"],
    "no label smoothing": ["train.label_smoothing=0"],
    "rare grades drawn more often": ["balance=sampling"],
    "rare grades weigh more": ["balance=weights"],
    "no mixup": ["train.augment.mixup=0"],
    "no rotation, scale, translation": _NO_MOVES,
    "exposure left alone": _NO_EXPOSURE,
    "exposure varied twice as much": ["train.augment.contrast=0.6", "train.augment.brightness=0.3"],
    "negatives left as they are": ["reinvert_negatives=false"],
    "all layers learn": ["train.stages.0.trainable=all"],
    "no moving average": ["train.ema_decay=0"],
    "random starting weights": ["members.0.weights=none", "train.stages.0.trainable=all"],
    "160 px": ["members.0.image_size_px=160"],
    "224 px": ["members.0.image_size_px=224"],
}
_METRICS = ("accuracy", "balanced_accuracy", "qwk", "mae")
_DRAWS = 2000


def train(name: str, run: Path, arguments: argparse.Namespace) -> None:
    """Train one trial, or go on with it."""
    weights = f"members.0.weights={arguments.weights.resolve()}"
    sets = [f"seed={arguments.seed}", *OF_ALL, weights, *TRIALS[name]]
    recipe = find_recipe("baseline", "kl")
    config = load_config(PretrainKLConfig, recipe=recipe, sets=sets)
    pretrain_kl(arguments.data, run, config=config, device="cpu", resume=run.exists())


def judge(run: Path) -> dict[str, Resampled]:
    """Metrics of the validation part, each with its draws of persons."""
    table = tables.read_table(run / schemas.PREDICTIONS_FILE, schemas.PREDICTIONS)
    table = table.sort_values("knee_id")
    truth, predicted = (table[name].to_numpy(np.int64) for name in ("kl_grade", "kl_grade_pred"))
    weights = bootstrap_weights(table["subject_id"], n_boot=_DRAWS, seed=0)
    return {m: resample(GRADE_METRICS[m], truth, predicted, weights) for m in _METRICS}


def counted(run: Path, column: str) -> list[int]:
    """How many knees of the validation part have each grade, as read or as predicted."""
    table = tables.read_table(run / schemas.PREDICTIONS_FILE, schemas.PREDICTIONS)
    return np.bincount(table[column].to_numpy(np.int64), minlength=len(KL_CLASSES)).tolist()


def told(figure: Resampled) -> list[float | None]:
    """Value and limits."""
    found = figure.estimate()
    values = (found.value, found.ci_low, found.ci_high)
    return [None if value is None else round(value, 4) for value in values]


def table(document: dict[str, Any]) -> str:
    """Markdown: a row a trial, as docs/results.md has it."""
    lines = [
        "| trial | accuracy | less unchanged | weighted kappa | less unchanged |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, figures in document["trials"].items():
        apart = [""] * 2
        if name != UNCHANGED:
            apart = [_cell(figures[f"{metric}_gained"], "+.3f") for metric in ("accuracy", "qwk")]
        accuracy, kappa = (_cell(figures[metric], ".3f") for metric in ("accuracy", "qwk"))
        lines.append(f"| {name} | {accuracy} | {apart[0]} | {kappa} | {apart[1]} |")
    return "\n".join(lines)


def _cell(figure: list[float], form: str) -> str:
    value, low, high = (format(each, form) for each in figure)
    return f"{value} ({low} to {high})"


def main() -> None:
    """Train what is not there, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "weights", "work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(TRIALS), default=list(TRIALS))
    arguments = parser.parse_args()
    runs = {name: arguments.work / name.replace(" ", "-").replace(",", "") for name in TRIALS}
    for name in (UNCHANGED, *arguments.only):
        if not (runs[name] / "ensemble.json").is_file():
            train(name, runs[name], arguments)
    done = {name: run for name, run in runs.items() if (run / "ensemble.json").is_file()}
    judged = {name: judge(run) for name, run in done.items()}
    trials: dict[str, Any] = {}
    for name, figures in judged.items():
        trials[name] = {metric: told(figure) for metric, figure in figures.items()}
        apart = figures["accuracy"] - judged[UNCHANGED]["accuracy"]
        trials[name]["accuracy_gained"] = told(apart)
        trials[name]["qwk_gained"] = told(figures["qwk"] - judged[UNCHANGED]["qwk"])
        trials[name]["predicted"] = counted(done[name], "kl_grade_pred")
    knees = judged[UNCHANGED]["accuracy"].n
    document = {
        "version": __version__,
        "machine": {"python": platform.python_version(), "processor": platform.machine()},
        "seed": arguments.seed,
        "knees": knees,
        "read": counted(done[UNCHANGED], "kl_grade"),
        "of_all": list(OF_ALL),
        "changes": {name: TRIALS[name] for name in done},
        "trials": trials,
    }
    write_json(arguments.out, document)
    print(table(document))


if __name__ == "__main__":
    main()
