"""The stage ``pretrain-kl``: graded knees to an ensemble of KL graders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kneeoa_mm import schemas, tables
from kneeoa_mm.errors import InputError
from kneeoa_mm.folds import make_folds
from kneeoa_mm.learning.backbones import find_weights, load_pretrained
from kneeoa_mm.learning.ballots import RULES
from kneeoa_mm.learning.conformal import SetRule
from kneeoa_mm.learning.framing import framing_notes
from kneeoa_mm.learning.heads import head_of
from kneeoa_mm.learning.image_store import ImageStore
from kneeoa_mm.learning.job import Job, Metrics, Outputs
from kneeoa_mm.learning.losses import GradeLoss, grade_targets, grade_weights
from kneeoa_mm.learning.members import (
    KL_OUTPUTS,
    Plan,
    Voting,
    member_name,
    reported_part,
    train_run,
    write_rejects,
)
from kneeoa_mm.learning.models import CHECKPOINTS_FOLDER
from kneeoa_mm.learning.networks import KLNetwork, refuse_image_size
from kneeoa_mm.learning.precision import check_precision
from kneeoa_mm.learning.run_inputs import RunInputs
from kneeoa_mm.learning.sources import add_kl_readings, read_knees, told_apart
from kneeoa_mm.learning.splits import Split, cross_validation, train_and_val
from kneeoa_mm.learning.views import Views
from kneeoa_mm.metrics import GRADE_METRICS, estimate
from kneeoa_mm.metrics import GRADE_PROBABILITY_METRICS as PROBABILITY_METRICS
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.records import StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken
from kneeoa_mm.settings import MemberConfig, PretrainKLConfig

_SHOWN_EACH_EPOCH = ("accuracy", "precision", "recall", "qwk")
CLIP_PERCENTILES = (1.0, 99.0)
_NORMALISATION = {"imagenet": (0.449, 0.226), "symmetric": (0.5, 0.5)}
"""Mean and standard deviation of grey values; ImageNet's, averaged over its three channels."""


def pretrain_kl(
    data: Path,
    out: Path,
    *,
    config: PretrainKLConfig,
    folds: Path | None = None,
    cohort: Path | None = None,
    device: str = "auto",
    allow_ungrouped: bool = False,
    overwrite: bool = False,
    resume: bool = False,
) -> StageResult:
    """Train an ensemble of KL graders.

    Args:
        data: Folder of graded PNGs, table of knees, or output folder of ``preprocess``.
        out: Run folder to write.
        config: The recipe.
        folds: Table of folds by subject; cross-validates on it.
        cohort: Output folder of ``cohort``, whose readings grade the knees.
        device: ``auto``, ``cpu`` or ``cuda``.
        allow_ungrouped: Take knees whose subject is unknown, each as a person of its own.
        overwrite: Replace an earlier run in ``out``.
        resume: Go on with an interrupted run in ``out``.

    Raises:
        InputError: Nothing to learn from, a leaking split, or ``resume`` with other inputs.
        ConfigError: An impossible recipe.
        OutputExistsError: ``out`` is taken.
    """
    check_precision(config.train.precision, device)
    refuse_taken(out, config.to_yaml(), overwrite=overwrite, resume=resume)
    weights = find_weights([(member.weights, member.backbone) for member in config.members])
    beginnings = _beginnings(config, weights)
    knees = read_knees(data, allow_ungrouped=allow_ungrouped)
    if cohort is not None:
        knees = add_kl_readings(knees, cohort)
    knees, ungraded = _graded(knees, data)
    knees = told_apart(knees, allow_ungrouped=allow_ungrouped, where=data)
    fold_table = tables.read_table(folds, schemas.FOLDS) if folds else None
    if fold_table is None and config.cross_validate:
        subjects, grades = knees["subject_id"], knees["kl_grade"]
        fold_table = make_folds(subjects, grades, n_folds=config.folds, seed=config.seed)
    splits = _splits(knees, fold_table, config, where=folds or data)
    labels = {"kl_target": _targets(knees)}
    inputs = RunInputs.of(knees, splits, labels, folds=fold_table, weights=weights)
    if resume:
        inputs.refuse_others(out)

    with open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite, resume=resume):
        inputs.write(out)
        store = ImageStore(knees, cache=out / CHECKPOINTS_FOLDER)
        predictions, outputs = train_run(
            _plans(knees, splits, beginnings, store, config),
            knees,
            out,
            voting=Voting(
                config.voting,
                Views(config.test_time_flip, config.test_time_crops),
                SetRule(method=config.conformal_method, alpha=config.conformal_alpha),
            ),
            config_digest=config.digest(),
            device=device,
        )
        outputs |= write_rejects(store.rejects, out)
    return StageResult(
        command="pretrain-kl",
        out=out,
        outputs=outputs,
        counts={
            "knees": len(knees),
            "ungraded": ungraded,
            "members": len(splits) * len(beginnings),
        },
        failed=len(store.rejects),
        figures=_figures(f"KL, {reported_part(splits[0], config.train)}", predictions, outputs),
        notes=framing_notes(store.framing, config.field_of_view_plateau_widths),
        next_step=f"kneeoa-mm evaluate {outputs['predictions']} --out {out / 'evaluation'}",
    )


def _figures(
    title: str, predictions: pd.DataFrame, outputs: dict[str, Path]
) -> dict[str, dict[str, float]]:
    """Of the run, and of each voting rule where there is a vote."""
    figures = {title: summarise_grades(predictions)}
    if "voting" in outputs:
        for rule in RULES:
            voted = tables.read_table(outputs["voting"] / f"{rule}.parquet", schemas.PREDICTIONS)
            figures[f"{title}, {rule} vote"] = summarise_grades(voted)
    return figures


def _plans(
    knees: pd.DataFrame,
    splits: list[Split],
    beginnings: list[_Beginning],
    store: ImageStore,
    config: PretrainKLConfig,
) -> Iterator[Plan]:
    """The members one by one, so that no more networks than one need be held."""
    contracts = [_contract(member, config) for member in config.trained]
    images = [store.get(contract) for contract in contracts]
    targets = _targets(knees)
    # all of them first: an empty part must not come to light after days
    for split in [split.among(store.readable) for split in splits]:
        training = targets[split.train]
        weights = None if config.balance == "none" else grade_weights(training)
        draw = training @ weights if weights is not None and config.balance == "sampling" else None
        loss = GradeLoss.of(config.train, weights if config.balance == "weights" else None)
        for number, begins in enumerate(beginnings):
            member = begins.member
            job = Job(
                name=member_name(number, member.backbone, split),
                network=begins.network(),
                arrays={"images": images[number], "kl_target": targets},
                train_rows=split.train,
                val_rows=split.val,
                contract=contracts[number],
                config=config.train,
                loss=loss,
                score=score_grades,
                seed=(config.seed, number, split.fold or 0),
                draw_weights=draw,
                image_file=store.files[contracts[number]],
            )
            source = Path(member.weights).name
            yield Plan(job, split, {"kind": "kl", "outputs": KL_OUTPUTS, "weights_source": source})


def _targets(knees: pd.DataFrame) -> torch.Tensor:
    return grade_targets(knees["kl_grade"].to_numpy(dtype=np.float64))


def _graded(knees: pd.DataFrame, data: Path) -> tuple[pd.DataFrame, int]:
    if "kl_grade" not in knees or knees["kl_grade"].isna().all():
        raise InputError(
            "None of the knees has a KL grade.",
            expected="folders 0 to 4, or a table with a column kl_grade",
            where=data,
            fix="for the output of preprocess, name the cohort with --cohort DIR",
        )
    known = knees["kl_grade"].notna() & (knees.get("split", "train") != "test")
    return knees[known].reset_index(drop=True), int((~knees["kl_grade"].notna()).sum())


def _splits(
    knees: pd.DataFrame, folds: pd.DataFrame | None, config: PretrainKLConfig, *, where: Path
) -> list[Split]:
    if folds is not None:
        return cross_validation(knees, folds, chooses=config.train.chooses_epoch, where=where)
    return train_and_val(
        knees,
        knees["kl_grade"],
        fraction=config.validation_fraction,
        seed=config.seed,
        where=where,
    )


@dataclass(frozen=True, eq=False)
class _Beginning:
    """How the network of a member begins, in every split alike.

    Attributes:
        member: The member.
        head: Kind of its head.
        weights: File that its encoder starts from; None for random weights.
        random_state: Of torch, for whatever is random.
    """

    member: MemberConfig
    head: str
    weights: Path | None
    random_state: torch.Tensor

    def network(self) -> KLNetwork:
        """A new network."""
        torch.set_rng_state(self.random_state)
        network = KLNetwork(self.member.backbone, self.head, self.member.dropout)
        if self.weights is not None:
            load_pretrained(network.encoder, self.weights)
        return network


def _beginnings(config: PretrainKLConfig, weights: list[Path | None]) -> list[_Beginning]:
    """How each member of a split begins; what cannot be built, or run, comes to light here."""
    torch.manual_seed(config.seed)
    head = head_of(config.train.kl_loss)
    beginnings = []
    for member, file in zip(config.trained, weights * config.repeats, strict=True):
        begins = _Beginning(member, head, file, torch.get_rng_state())
        # also moves the random numbers on to those of the next
        refuse_image_size(begins.network(), member.image_size_px)
        beginnings.append(begins)
    return beginnings


def _contract(member: MemberConfig, config: PretrainKLConfig) -> Preprocessing:
    mean, std = _NORMALISATION[member.normalisation]
    return Preprocessing(
        image_size_px=member.image_size_px,
        mean=mean,
        std=std,
        clip_percentiles=CLIP_PERCENTILES,
        reinvert_negatives=config.reinvert_negatives,
        field_of_view_plateau_widths=config.field_of_view_plateau_widths,
        joint_row=config.joint_row,
    )


def score_grades(outputs: Outputs, labels: Outputs) -> Metrics:
    """Metrics of the graded knees of a validation part, None where the part does not define one."""
    known = labels["kl_target"].sum(dim=1) > 0
    truth = labels["kl_target"][known].argmax(dim=1).numpy()
    probabilities = outputs["kl_logits"][known].softmax(dim=1).double().numpy()
    if len(truth) == 0:
        return dict.fromkeys([*_SHOWN_EACH_EPOCH, "auroc"])
    predicted = probabilities.argmax(axis=1)
    scores: Metrics = {}
    for name in _SHOWN_EACH_EPOCH:
        scores[name] = estimate(GRADE_METRICS[name], truth, predicted, []).value
    scores["auroc"] = estimate(PROBABILITY_METRICS["auroc"], truth, probabilities, []).value
    return scores


def summarise_grades(predictions: pd.DataFrame) -> dict[str, float]:
    """Accuracy, macro F1 and quadratic weighted kappa of the graded rows, without intervals."""
    predictions = predictions.dropna(subset=["kl_grade"])
    truth = predictions["kl_grade"].to_numpy(dtype=np.int64)
    predicted = predictions["kl_grade_pred"].to_numpy(dtype=np.int64)
    summary = {"n": float(len(truth))}
    for name in ("accuracy", "macro_f1", "qwk"):
        value = estimate(GRADE_METRICS[name], truth, predicted, []).value
        if value is not None:
            summary[name] = round(value, 4)
    return summary
