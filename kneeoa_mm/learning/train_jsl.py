"""The stage ``train-jsl``: a KL encoder becomes a model of progression beside KL."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kneeoa_mm import tables
from kneeoa_mm.config import TrainJSLConfig
from kneeoa_mm.errors import InputError, LeakError
from kneeoa_mm.learning.clinical import ClinicalEncoding
from kneeoa_mm.learning.framing import framing_notes
from kneeoa_mm.learning.heads import check_head
from kneeoa_mm.learning.inference import Ensemble, ImageStore, Model, load_ensemble
from kneeoa_mm.learning.losses import GradeLoss, grade_targets, progression_loss
from kneeoa_mm.learning.members import (
    KL_OUTPUTS,
    Plan,
    Voting,
    member_name,
    reported_part,
    train_run,
    write_rejects,
)
from kneeoa_mm.learning.networks import ProgressionNetwork
from kneeoa_mm.learning.pretrain_kl import score_grades, summarise_grades
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.learning.splits import Split, cross_validation
from kneeoa_mm.learning.training import Job, Metrics, Outputs, check_precision
from kneeoa_mm.learning.views import Views
from kneeoa_mm.metrics import BINARY_METRICS, estimate
from kneeoa_mm.records import KneeKey, StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken


def train_jsl(
    cohort: Path,
    knees: Path,
    encoder: Path,
    out: Path,
    *,
    config: TrainJSLConfig,
    folds: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
) -> StageResult:
    """Train a progression model for each fold, on the encoder that never saw the fold.

    Args:
        cohort: Output folder of ``cohort``.
        knees: Output folder of ``preprocess``, or a table of knees.
        encoder: Run folder of ``pretrain-kl``.
        out: Run folder to write.
        config: The recipe.
        folds: Table of folds by subject; the cohort's own by default.
        device: ``auto``, ``cpu`` or ``cuda``.
        overwrite: Replace an earlier run in ``out``.
        resume: Go on with an interrupted run in ``out``.

    Raises:
        InputError: No knee has both an image and the outcome, or a part lacks events.
        LeakError: Every encoder has seen subjects of a fold that it would be tested on.
        OutputExistsError: ``out`` is taken.
    """
    check_precision(config.train, device)
    refuse_taken(out, config.to_yaml(), overwrite=overwrite, resume=resume)
    joined, counts = join_cohort(read_knees(knees), cohort, str(config.outcome))
    fold_file = folds or cohort / "folds.parquet"
    fold_table = tables.read_table(fold_file, tables.FOLDS)
    chooses = config.train.chooses_epoch
    splits = cross_validation(joined, fold_table, chooses=chooses, where=fold_file)
    events = joined[str(config.outcome)].astype("Float64").to_numpy(float, na_value=np.nan)
    _refuse_eventless(splits, events, config)
    kl_run = load_ensemble(encoder)
    check_head(config.train.kl_loss, kl_run.members[0].network.kl_head.kind)
    encoders = [_unseen_encoder(kl_run, split, joined, encoder) for split in splits]
    factors = _factor_names(config, joined)

    with open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite, resume=resume):
        tables.write_table(fold_table, tables.FOLDS, out / "folds.parquet")
        store = ImageStore(joined, cache=out / "checkpoints")
        plans = [
            _plan(joined, split, source, store, factors, events, config)
            for split, source in zip(splits, encoders, strict=True)
        ]
        predictions, outputs = train_run(
            plans,
            joined,
            out,
            voting=Voting("mix", Views(crops=config.test_time_crops)),
            config_digest=config.digest(),
            device=device,
        )
        outputs |= write_rejects(store.rejects, out)
    contract = encoders[0].card.preprocessing
    return StageResult(
        command="train-jsl",
        out=out,
        outputs=outputs,
        counts=counts | {"members": len(plans), "clinical_factors": len(factors)},
        failed=len(store.rejects),
        notes=framing_notes(store.framing, contract.field_of_view_plateau_widths),
        figures={
            f"{config.outcome}, {reported_part(splits[0], config.train)}": _summary(
                predictions, config
            ),
            f"KL, {reported_part(splits[0], config.train)}": summarise_grades(predictions),
        },
        next_step=f"kneeoa-mm evaluate {outputs['predictions']} --out {out / 'evaluation'}",
    )


def join_cohort(
    knees: pd.DataFrame, cohort: Path, outcome: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Join baseline images with the cohort's factors, grades and outcome.

    Args:
        knees: Rows of ``read_knees``.
        cohort: Output folder of ``cohort``.
        outcome: Column of the outcome.

    Returns:
        One row a knee that has an image and a grade or the outcome, and what was counted.

    Raises:
        InputError: There is no such knee with the outcome.
    """
    table = tables.read_table(cohort / "cohort.parquet", tables.COHORT)
    images = knees[[KneeKey.parse(knee).copy == 1 for knee in knees["knee_id"]]]
    columns = ["knee_id", "image_path", "mirror", "field_of_view_plateau_widths"]
    joined = table.merge(images[columns], on="knee_id", validate="one_to_one")
    useful = joined[outcome].notna() | joined["kl_grade"].notna()
    joined = joined[useful].sort_values("knee_id", ignore_index=True)
    known = int(joined[outcome].notna().sum())
    if known == 0:
        raise InputError(
            f"No knee has both an image and the outcome {outcome}.",
            expected=f"knee_id such as {table['knee_id'].iloc[0] if len(table) else '(no rows)'}",
            found=f"images such as {knees['knee_id'].iloc[0]}",
            where=cohort,
            fix="preprocess and cohort must use the same --cohort name and the same --ids",
        )
    counts = {
        "cohort_knees": len(table),
        "with_image": len(joined),
        "with_outcome": known,
        "events": int((joined[outcome] == 1).sum()),
    }
    return joined, counts


def _refuse_eventless(splits: list[Split], events: np.ndarray, config: TrainJSLConfig) -> None:
    for split in splits:
        for name in ("train", "val") if config.train.chooses_epoch else ("train",):
            found = {value for value in events[getattr(split, name)] if not np.isnan(value)}
            if len(found) < 2:
                raise InputError(
                    f"A part to {name} lacks events or non-events of {config.outcome}.",
                    expected="both in every part",
                    found=f"{sorted(found)} with fold {split.fold} held out",
                    fix="use fewer folds or more subjects",
                )


def _unseen_encoder(kl_run: Ensemble, split: Split, knees: pd.DataFrame, where: Path) -> Model:
    """The first member that was neither trained nor chosen on a subject of the held-out fold."""
    subjects = set(knees["subject_id"].iloc[split.report].astype(str))
    for member in kl_run.members:
        known = member.card.seen_subjects
        if not known.in_training(subjects) and not known.in_selection(subjects):
            return member
    raise LeakError(
        f"Every encoder has seen subjects of fold {split.fold}, on which it would be tested.",
        expected="for each fold a member that was trained with that fold held out",
        where=where,
        fix="run pretrain-kl with the same folds: --folds COHORT/folds.parquet",
    )


def _factor_names(config: TrainJSLConfig, knees: pd.DataFrame) -> list[str]:
    names = [*config.clinical_factors] if config.fuse_clinical else []
    unknown = [name for name in names if name not in knees]
    if unknown:
        raise InputError(
            "The cohort has no such clinical factor.",
            expected="columns of cohort.parquet",
            found=", ".join(unknown),
            fix="correct clinical_factors",
        )
    if "kl_grade" in names:
        raise InputError(
            "The grade is no clinical factor.",
            found="kl_grade in clinical_factors",
            fix="use --set kl_as_input=true, which keeps it away from the KL head",
        )
    return [*names, "kl_grade"] if config.kl_as_input else names


def _plan(
    knees: pd.DataFrame,
    split: Split,
    source: Model,
    store: ImageStore,
    factors: list[str],
    events: np.ndarray,
    config: TrainJSLConfig,
) -> Plan:
    contract = source.card.preprocessing
    arrays = {
        "images": store.get(contract),
        "kl_target": grade_targets(knees["kl_grade"].to_numpy(np.float64, na_value=np.nan)),
        "event": torch.tensor(events, dtype=torch.float32),
    }
    encoding = None
    if factors:
        encoding = ClinicalEncoding.fit(knees[factors].iloc[split.train])
        arrays["clinical"] = torch.from_numpy(encoding.transform(knees[factors]))
    backbone = source.card.architecture["backbone"]
    torch.manual_seed(config.seed)
    network = ProgressionNetwork(
        backbone,
        encoding.n_features if encoding else 0,
        config.clinical_width,
        config.dropout,
        source.network.kl_head.kind,
    )
    network.encoder.load_state_dict(source.network.encoder.state_dict())
    network.kl_head.load_state_dict(source.network.kl_head.state_dict())
    # the risk starts at the prevalence, so that the folds' models agree on its level
    prevalence = float(np.nanmean(events[split.train]))
    nn.init.constant_(network.jsl_head.bias, math.log(prevalence / (1 - prevalence)))
    usable = split.among(store.readable)
    job = Job(
        name=member_name(0, backbone, split),
        network=network,
        arrays=arrays,
        train_rows=usable.train,
        val_rows=usable.val,
        contract=contract,
        config=config.train,
        loss=partial(
            _loss,
            grade_loss=GradeLoss.of(config.train),
            kl_loss_weight=config.kl_loss_weight,
        ),
        score=_score,
        seed=(config.seed, split.fold or 0),
        image_file=store.files[contract],
    )
    card = {
        "kind": "jsl",
        "outputs": (*KL_OUTPUTS, f"{config.outcome}_prob"),
        "clinical": encoding.to_card() if encoding else None,
        "weights_source": f"KL encoder {source.name}",
    }
    return Plan(job, usable, card)


def _loss(
    outputs: Outputs, batch: Outputs, *, grade_loss: GradeLoss, kl_loss_weight: float
) -> Tensor:
    progression = progression_loss(outputs["jsl_logit"], batch["event"])
    return progression + kl_loss_weight * grade_loss(outputs, batch)


def _score(outputs: Outputs, labels: Outputs) -> Metrics:
    known = ~labels["event"].isnan()
    events = labels["event"][known].numpy().astype(np.int64)
    risk = outputs["jsl_logit"][known].sigmoid().double().numpy()
    scores = {
        name: estimate(BINARY_METRICS[name], events, risk, []).value for name in ("auroc", "brier")
    }
    grading = score_grades(outputs, labels)
    return scores | {"accuracy": grading["accuracy"], "qwk": grading["qwk"]}


def _summary(predictions: pd.DataFrame, config: TrainJSLConfig) -> dict[str, float]:
    known = predictions.dropna(subset=[str(config.outcome)])
    events = known[str(config.outcome)].to_numpy(dtype=np.int64)
    risk = known[f"{config.outcome}_prob"].to_numpy(dtype=float)
    summary = {"n": float(len(events)), "events": float(events.sum())}
    for name in ("auroc", "auprc", "brier"):
        value = estimate(BINARY_METRICS[name], events, risk, []).value
        if value is not None:
            summary[name] = round(value, 4)
    return summary
