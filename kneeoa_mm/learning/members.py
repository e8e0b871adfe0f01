"""Training the members of a run, and gathering what they leave behind."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from kneeoa_mm import schemas, tables
from kneeoa_mm.atomic_files import atomic_path, write_json
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.learning import familiarity
from kneeoa_mm.learning.ballots import is_vote, write_ballots
from kneeoa_mm.learning.calibration import Calibration, CrossFit, cross_fit
from kneeoa_mm.learning.conformal import SetRule
from kneeoa_mm.learning.curves import plot_history
from kneeoa_mm.learning.ensemble import EnsembleRules
from kneeoa_mm.learning.familiarity import Familiarity
from kneeoa_mm.learning.features import cached_features
from kneeoa_mm.learning.fitting import fit
from kneeoa_mm.learning.inference import assemble, choose_device, predict_member
from kneeoa_mm.learning.job import Job
from kneeoa_mm.learning.memory import enough_memory
from kneeoa_mm.learning.models import CHECKPOINTS_FOLDER, ENSEMBLE_FILE, Model, load_model
from kneeoa_mm.learning.splits import Split
from kneeoa_mm.learning.views import ITSELF, Views
from kneeoa_mm.metrics import persons_of
from kneeoa_mm.model_folder import CARD_FILE, ModelCard, SeenSubjects, write_model
from kneeoa_mm.progress import say
from kneeoa_mm.records import KL_CLASSES, Reject
from kneeoa_mm.settings import TrainConfig

KL_OUTPUTS = tuple(f"kl_prob_{grade}" for grade in KL_CLASSES)
HISTORY_FILE = "history.csv"
_LIBRARIES = ("numpy", "pytorch-lightning", "timm", "torch", "torchvision")


@dataclass(frozen=True)
class Plan:
    """A member to train.

    Attributes:
        job: What to train; its arrays have one row for each knee of the run.
        split: Rows to learn from, to choose on and to report.
        card: What the model card says beyond what the job knows.
        frozen_encoder: Where heads alone learn, what tells the encoder from others: they learn on
            features that are computed once, of the views over which predictions average, instead
            of on images that are varied at random. Empty where the encoder learns.
        seen_before: Subjects that the weights know from before the job.
    """

    job: Job
    split: Split
    card: dict[str, Any]
    frozen_encoder: str = ""
    seen_before: SeenSubjects = field(default_factory=SeenSubjects.nobody)


@dataclass(frozen=True)
class Voting:
    """How members become one prediction.

    Attributes:
        rule: ``mix``, ``hard`` or ``soft``.
        views: What each member averages over.
        sets: The sets of grades that are wanted; None leaves the run uncalibrated.
    """

    rule: Literal["mix", "hard", "soft"]
    views: Views = ITSELF
    sets: SetRule | None = None


@dataclass(frozen=True, eq=False)
class _Said:
    """What a trained member leaves in memory; its network goes when the next one comes.

    Attributes:
        name: Of the member.
        split: Whom it was trained on, and whom it reports.
        part: What the reported knees are, in words.
        outputs: Names of what it says.
        has_unknown: Whether some images that made it were of unknown subjects.
        probabilities: Of the reported knees, (m, outputs).
    """

    name: str
    split: Split
    part: str
    outputs: tuple[str, ...]
    has_unknown: bool
    probabilities: NDArray[np.float64]


def train_run(
    plans: Iterable[Plan],
    knees: pd.DataFrame,
    out: Path,
    *,
    voting: Voting,
    config_digest: str,
    device: str,
) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Train all members of a run and write what it leaves.

    Args:
        plans: The members; one at a time is held where they are made one by one.
        knees: All knees of the run.
        out: The run folder, claimed by the caller.
        voting: How members become one prediction.
        config_digest: Hash of the configuration.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The predictions that the run reports, and role to path of its outputs.
    """
    said = [
        _train_and_ask(plan, knees, config_digest, out, views=voting.views, device=device)
        for plan in plans
    ]
    reported, probabilities = _reported(said, knees)
    taught = _calibrate(reported, probabilities, voting.sets)
    calibrations = taught.of_knee if taught else [Calibration()] * len(reported)
    names, part = said[0].outputs, said[0].part
    predictions = assemble(reported, probabilities, names, voting.rule, calibrations)

    def write(frame: pd.DataFrame, path: Path) -> Path:
        notes: dict[str, Any] = {"part": part, "calibration": _how_calibrated(taught, reported)}
        if any(each.has_unknown for each in said):
            notes["seen_unknown"] = True
        schema = schemas.PREDICTIONS
        return tables.write_table(frame, schema, path, config_digest=config_digest, extra=notes)

    histories = [pd.read_csv(path) for path in sorted(out.glob(f"members/*/{HISTORY_FILE}"))]
    history = pd.concat(histories, ignore_index=True)
    outputs = {
        "history": write_history(history, out / HISTORY_FILE),
        "curves": plot_history(history, out / "history.png"),
        "predictions": write(predictions, out / schemas.PREDICTIONS_FILE),
    }
    if is_vote(probabilities):
        outputs["voting"] = write_ballots(
            reported,
            probabilities,
            [out / "members" / each.name for each in said],
            out,
            outputs=names,
            calibrations=calibrations,
            write=write,
        )
    # last, for it says that the run is whole
    rules = _rules(voting, taught, said, reported)
    outputs["model"] = write_json(out / ENSEMBLE_FILE, rules.model_dump(mode="json")).parent
    shutil.rmtree(out / CHECKPOINTS_FOLDER, ignore_errors=True)
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
    plan: Plan,
    knees: pd.DataFrame,
    config_digest: str,
    out: Path,
    *,
    views: Views,
    device: str,
) -> Model:
    """Train one member and write its folder; one that is finished already is read instead."""
    job, split = plan.job, plan.split
    subjects = knees["subject_id"].astype(str)
    folder = out / "members" / job.name
    if (folder / CARD_FILE).is_file():
        say(f"{job.name}: finished before, kept")
        kept = load_model(folder)
        _refuse_seen(kept, split, subjects)
        return kept
    checkpoints = out / CHECKPOINTS_FOLDER / job.name
    checkpoints.mkdir(parents=True, exist_ok=True)
    with enough_memory("lower train.batch_size, or the member's image_size_px"):
        if plan.frozen_encoder:
            job = replace(job, arrays=_on_features(plan, out, views, device), image_file=None)
        record = fit(job, checkpoints, device=device)
    write_history(pd.DataFrame(record.history), folder / HISTORY_FILE)
    known = _familiar(plan, job, device=choose_device(device))
    chosen_on = split.val if job.config.chooses_epoch else split.val[:0]
    card = ModelCard(
        software=_software(),
        architecture=job.network.architecture,
        preprocessing=job.contract,
        fold=split.fold,
        seen_subjects=plan.seen_before.and_also(
            subjects.iloc[split.train],
            subjects.iloc[chosen_on],
            has_unknown="subject_known" in knees and not knees["subject_known"].all(),
        ),
        metrics={k: v for k, v in record.best_metrics.items() if v is not None},
        config_digest=config_digest,
        familiarity_sha256=known.write(folder) if known else "",
        **plan.card,
    )
    state = {name: value.contiguous() for name, value in job.network.state_dict().items()}
    write_model(folder, card, save(state))
    return load_model(folder)


def _on_features(plan: Plan, out: Path, views: Views, device: str) -> dict[str, Tensor]:
    """The arrays of a job whose encoder is frozen, with features (n, V, D) instead of images."""
    folder = out / CHECKPOINTS_FOLDER
    features = cached_features(
        plan.job, plan.frozen_encoder, folder, views, device=choose_device(device)
    )
    others = {name: each for name, each in plan.job.arrays.items() if name != "images"}
    return others | {"features": features}


def _refuse_seen(kept: Model, split: Split, subjects: pd.Series) -> None:
    """Raise where a member that is kept knows those whom it would report."""
    reported = set(subjects.iloc[split.report])
    known = kept.card.seen_subjects
    seen = known.in_training(reported)
    if split.fold is not None:
        # outside cross-validation the part that chose the epoch is reported
        seen |= known.in_selection(reported)
    if seen:
        raise LeakError(
            "A member of the interrupted run has seen subjects whom it would be tested on.",
            expected="the knees and the folds with which the run was begun",
            found=f"{len(seen)} subjects, such as {min(seen)}",
            where=kept.name,
            fix="start anew with --overwrite",
        )


def _software() -> dict[str, str]:
    # timm is an extra
    here = [name for name in _LIBRARIES if next(iter(metadata.distributions(name=name)), None)]
    versions = {name: metadata.version(name) for name in here}
    return {"python": platform.python_version(), **versions}


def _familiar(plan: Plan, learnt: Job, *, device: str) -> Familiarity | None:
    """What tells knees from other pictures, of a job that was learnt."""
    split = plan.split
    if plan.frozen_encoder:
        itself = learnt.arrays["features"][:, 0].numpy()
        return familiarity.fit(itself[split.train], itself[split.report])
    return familiarity.learn(
        learnt.network,
        learnt.arrays["images"],
        learnt.contract,
        training=split.train,
        unseen=split.report,
        device=device,
    )


def write_history(history: pd.DataFrame, path: Path) -> Path:
    """Write a history table as CSV."""
    with atomic_path(path) as temporary:
        history.to_csv(temporary, index=False, lineterminator="\n")
    return path


def _train_and_ask(
    plan: Plan,
    knees: pd.DataFrame,
    config_digest: str,
    out: Path,
    *,
    views: Views,
    device: str,
) -> _Said:
    """Train a member, and ask it for the rows that its split reports."""
    model = _train_member(plan, knees, config_digest, out, views=views, device=device)
    arrays = plan.job.arrays
    if plan.frozen_encoder:
        arrays = _on_features(plan, out, views, device)
    held_out = {name: values[plan.split.report] for name, values in arrays.items()}
    return _Said(
        plan.job.name,
        plan.split,
        reported_part(plan.split, plan.job.config),
        model.card.outputs,
        model.card.seen_subjects.has_unknown,
        predict_member(model, held_out, device=device, views=views),
    )


def _reported(said: list[_Said], knees: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """What the run reports: each split's members on the rows that the split holds out.

    Returns:
        The knees with their ``fold``, and the members' probabilities (members, knees, outputs), NaN
        where a member has no say.
    """
    shape = len(said), len(knees), len(said[0].outputs)
    probabilities: NDArray[np.float64] = np.full(shape, np.nan)
    folds = pd.Series(pd.NA, index=range(len(knees)), dtype="Int64")
    for number, each in enumerate(said):
        rows = each.split.report
        probabilities[number, rows] = each.probabilities
        folds.iloc[rows] = pd.NA if each.split.fold is None else each.split.fold
    rows = np.unique(np.concatenate([each.split.report for each in said]))
    return knees.iloc[rows].assign(fold=folds.iloc[rows].array), probabilities[:, rows]


def _calibrate(
    reported: pd.DataFrame, probabilities: NDArray[np.float64], sets: SetRule | None
) -> CrossFit | None:
    """What the reported knees teach each other; None, and why is said, where they are too few."""
    if sets is None:
        return None
    crossed = bool(reported["fold"].notna().all())
    try:
        return cross_fit(
            probabilities,
            reported["kl_grade"].to_numpy(np.int64),
            persons_of(reported["subject_id"], reported["knee_id"]),
            reported["fold"].to_numpy(np.int64) if crossed else None,
            sets,
        )
    except InputError as error:
        say(f"not calibrated, so there are no sets of grades: {error}")
        return None


def _rules(
    voting: Voting, taught: CrossFit | None, said: list[_Said], reported: pd.DataFrame
) -> EnsembleRules:
    rules = EnsembleRules(
        members=tuple(each.name for each in said),
        voting=voting.rule,
        test_time_flip=voting.views.flip,
        test_time_crops=voting.views.crops,
    )
    if taught is None:
        return rules
    learned = {
        "temperature": taught.whole.temperature,
        "conformal": taught.whole.conformal,
        "calibrated_on": said[0].part,
        "by_fold": taught.by_part if reported["fold"].notna().all() else {},
    }
    return rules.model_copy(update=learned)


def _how_calibrated(taught: CrossFit | None, reported: pd.DataFrame) -> str:
    """What taught the temperature and sets of the reported predictions, in words."""
    if taught is None:
        return "none"
    parts = "folds" if reported["fold"].notna().all() else "half of the subjects"
    return f"each knee by the other {parts}"


def write_rejects(rejects: list[Reject], out: Path) -> dict[str, Path]:
    """List the images that could not be read, if any."""
    if not rejects:
        return {}
    for reject in rejects:
        say(f"not used: {reject.source}: {reject.code} {reject.message}")
    frame = pd.DataFrame([asdict(reject) for reject in rejects])
    return {"rejects": tables.write_table(frame, schemas.REJECTS, out / "rejects.csv")}
