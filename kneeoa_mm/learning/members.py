"""Training the members of a run, and gathering what they leave behind."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.torch import save

from kneeoa_mm import tables
from kneeoa_mm.config import TrainConfig
from kneeoa_mm.learning.curves import plot_history
from kneeoa_mm.learning.inference import (
    ENSEMBLE_FILE,
    Model,
    assemble,
    load_model,
    predict_member,
)
from kneeoa_mm.learning.splits import Split
from kneeoa_mm.learning.training import Job, fit
from kneeoa_mm.learning.views import ITSELF, Views
from kneeoa_mm.model_folder import CARD_FILE, ModelCard, SeenSubjects, write_model
from kneeoa_mm.progress import say
from kneeoa_mm.records import KL_CLASSES, Reject
from kneeoa_mm.run_folder import atomic_path, write_json

KL_OUTPUTS = tuple(f"kl_prob_{grade}" for grade in KL_CLASSES)
HISTORY_FILE = "history.csv"
PREDICTIONS_FILE = "predictions.parquet"


@dataclass(frozen=True)
class Plan:
    """A member to train.

    Attributes:
        job: What to train; its arrays have one row for each knee of the run.
        split: Rows to learn from, to choose on and to report.
        card: What the model card says beyond what the job knows.
    """

    job: Job
    split: Split
    card: dict[str, Any]


@dataclass(frozen=True)
class Voting:
    """How members become one prediction."""

    rule: str
    views: Views = ITSELF


def train_run(
    plans: list[Plan],
    knees: pd.DataFrame,
    out: Path,
    *,
    voting: Voting,
    config_digest: str,
    device: str,
) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Train all members of a run and write what it leaves.

    Args:
        plans: The members.
        knees: All knees of the run.
        out: The run folder, claimed by the caller.
        voting: How members become one prediction.
        config_digest: Hash of the configuration.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The predictions that the run reports, and role to path of its outputs.
    """
    subjects = knees["subject_id"].astype(str)
    models = [_train_member(plan, subjects, config_digest, out, device=device) for plan in plans]
    predictions = _report(plans, models, knees, voting, device=device)
    part = reported_part(plans[0].split, plans[0].job.config)
    histories = [pd.read_csv(path) for path in sorted(out.glob(f"members/*/{HISTORY_FILE}"))]
    history = pd.concat(histories, ignore_index=True)
    outputs = {
        "history": write_history(history, out / HISTORY_FILE),
        "curves": plot_history(history, out / "history.png"),
        "predictions": tables.write_table(
            predictions,
            tables.PREDICTIONS,
            out / PREDICTIONS_FILE,
            config_digest=config_digest,
            extra={"part": part},
        ),
    }
    # last, for it says that the run is whole
    rules = {
        "voting": voting.rule,
        "test_time_flip": voting.views.flip,
        "test_time_crops": voting.views.crops,
    }
    outputs["model"] = write_json(out / ENSEMBLE_FILE, rules).parent
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return predictions, outputs


def reported_part(split: Split, config: TrainConfig) -> str:
    """Which knees a run's predictions are of, in words."""
    if split.fold is not None:
        return "out of fold"
    return "validation, used to choose epochs" if config.chooses_epoch else "validation"


def member_name(number: int, backbone: str, split: Split) -> str:
    """Folder name of a member.

    Example:
        >>> none = np.array([], dtype=np.int64)
        >>> member_name(0, "timm:xception", Split(2, none, none, none))
        '00-timm-xception-fold2'
    """
    fold = "" if split.fold is None else f"-fold{split.fold}"
    return f"{number:02d}-{backbone.replace(':', '-')}{fold}"


def _train_member(
    plan: Plan, subjects: pd.Series, config_digest: str, out: Path, *, device: str
) -> Model:
    """Train one member and write its folder; one that is finished already is read instead."""
    job, split = plan.job, plan.split
    folder = out / "members" / job.name
    if (folder / CARD_FILE).is_file():
        say(f"{job.name}: finished before, kept")
        return load_model(folder)
    checkpoints = out / "checkpoints" / job.name
    checkpoints.mkdir(parents=True, exist_ok=True)
    record = fit(job, checkpoints, device=device)
    write_history(pd.DataFrame(record.history), folder / HISTORY_FILE)
    card = ModelCard(
        architecture=job.network.architecture,
        preprocessing=job.contract,
        fold=split.fold,
        seen_subjects=SeenSubjects.of(
            subjects.iloc[split.train], subjects.iloc[split.val], salt=secrets.token_bytes(16)
        ),
        metrics={k: v for k, v in record.best_metrics.items() if v is not None},
        config_digest=config_digest,
        **plan.card,
    )
    state = {name: value.contiguous() for name, value in job.network.state_dict().items()}
    write_model(folder, card, save(state))
    return load_model(folder)


def write_history(history: pd.DataFrame, path: Path) -> Path:
    """Write a history table as CSV."""
    with atomic_path(path) as temporary:
        history.to_csv(temporary, index=False, lineterminator="\n")
    return path


def _report(
    plans: list[Plan], models: list[Model], knees: pd.DataFrame, voting: Voting, *, device: str
) -> pd.DataFrame:
    """Predictions of each split's members for the rows that the split reports."""
    outputs = models[0].card.outputs
    probabilities: NDArray[np.float64] = np.full((len(models), len(knees), len(outputs)), np.nan)
    for number, (plan, model) in enumerate(zip(plans, models, strict=True)):
        rows = plan.split.report
        part = {name: values[rows] for name, values in plan.job.arrays.items()}
        probabilities[number, rows] = predict_member(model, part, device=device, views=voting.views)
    reported = np.unique(np.concatenate([plan.split.report for plan in plans]))
    return assemble(knees.iloc[reported], probabilities[:, reported], outputs, voting.rule)


def write_rejects(rejects: list[Reject], out: Path) -> dict[str, Path]:
    """List the images that could not be read, if any."""
    if not rejects:
        return {}
    for reject in rejects:
        say(f"not used: {reject.source}: {reject.code} {reject.message}")
    frame = pd.DataFrame([asdict(reject) for reject in rejects])
    return {"rejects": tables.write_table(frame, tables.REJECTS, out / "rejects.csv")}
