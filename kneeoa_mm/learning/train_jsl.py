"""The stage ``train-jsl``: a KL encoder becomes a model of progression beside KL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kneeoa_mm import schemas, tables
from kneeoa_mm.errors import LeakError
from kneeoa_mm.learning.clinical import READINGS, ClinicalEncoding
from kneeoa_mm.learning.framing import framing_notes
from kneeoa_mm.learning.heads import check_head
from kneeoa_mm.learning.image_store import ImageStore
from kneeoa_mm.learning.job import Job, Metrics, Outputs
from kneeoa_mm.learning.losses import GradeLoss
from kneeoa_mm.learning.members import (
    KL_OUTPUTS,
    Plan,
    Voting,
    member_name,
    reported_part,
    train_run,
    write_rejects,
)
from kneeoa_mm.learning.models import CHECKPOINTS_FOLDER, Ensemble, Model, load_ensemble
from kneeoa_mm.learning.networks import ProgressionNetwork
from kneeoa_mm.learning.precision import check_precision
from kneeoa_mm.learning.pretrain_kl import score_grades, summarise_grades
from kneeoa_mm.learning.progression_loss import ProgressionLoss
from kneeoa_mm.learning.run_inputs import RunInputs
from kneeoa_mm.learning.sources import read_knees
from kneeoa_mm.learning.splits import Split, cross_validation
from kneeoa_mm.learning.study import (
    factor_names,
    join_cohort,
    labels_of,
    refuse_other_horizon,
    refuse_unteachable,
)
from kneeoa_mm.learning.views import Views
from kneeoa_mm.metrics import BINARY_METRICS, estimate
from kneeoa_mm.records import WITHOUT_READING, StageResult
from kneeoa_mm.run_folder import open_run, refuse_taken
from kneeoa_mm.settings import TrainJSLConfig


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
        InputError: No knee has both an image and the outcome, a part lacks events, or ``resume``
            with other inputs.
        ConfigError: Hazards whose horizon is not that of the outcome.
        LeakError: Every encoder has seen subjects of a fold that it would be tested on.
        OutputExistsError: ``out`` is taken.
    """
    check_precision(config.train.precision, device)
    refuse_taken(out, config.to_yaml(), overwrite=overwrite, resume=resume)
    refuse_other_horizon(cohort, config)
    joined, counts, notes = join_cohort(read_knees(knees), cohort, config)
    fold_file = folds or cohort / "folds.parquet"
    fold_table = tables.read_table(fold_file, schemas.FOLDS)
    chooses = config.train.chooses_epoch
    splits = cross_validation(joined, fold_table, chooses=chooses, where=fold_file)
    labels = labels_of(joined, config)
    refuse_unteachable(splits, labels, config)
    kl_run = load_ensemble(encoder)
    check_head(config.train.kl_loss, kl_run.members[0].network.kl_head.kind)
    encoders = [_unseen_encoder(kl_run, split, joined, encoder) for split in splits]
    factors = factor_names(config, joined)
    weights = [each.card.weights_sha256 for each in encoders]
    inputs = RunInputs.of(joined, splits, labels, folds=fold_table, encoders=weights)
    if resume:
        inputs.refuse_others(out)

    with open_run(out, config_yaml=config.to_yaml(), overwrite=overwrite, resume=resume):
        inputs.write(out)
        store = ImageStore(joined, cache=out / CHECKPOINTS_FOLDER)
        plans = [
            _plan(joined, split, source, store, factors, config)
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
        notes=notes + framing_notes(store.framing, contract.field_of_view_plateau_widths),
        figures=_figures(predictions, str(config.outcome), reported_part(splits[0], config.train)),
        next_step=f"kneeoa-mm evaluate {outputs['predictions']} --out {out / 'evaluation'}",
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


def _plan(
    knees: pd.DataFrame,
    split: Split,
    source: Model,
    store: ImageStore,
    factors: list[str],
    config: TrainJSLConfig,
) -> Plan:
    contract = source.card.preprocessing
    labels = labels_of(knees, config)
    arrays = {"images": store.get(contract), **labels}
    usable = split.among(store.readable)
    refuse_unteachable([usable], labels, config, where="the images that could be read")
    encoding = None
    if factors:
        encoding = ClinicalEncoding.fit(knees[factors].iloc[usable.train])
        arrays["clinical"] = torch.from_numpy(encoding.transform(knees[factors]))
    network = _start(source, encoding, config)
    network.start({name: values[usable.train] for name, values in arrays.items()})
    loss = ProgressionLoss(
        network.branch.time_head,
        GradeLoss.of(config.train),
        kl_loss_weight=config.kl_loss_weight,
        learns_weights=config.loss_weighting == "uncertainty",
    )
    job = Job(
        name=member_name(0, source.card.architecture["backbone"], split),
        network=network,
        arrays=arrays,
        train_rows=usable.train,
        val_rows=usable.val,
        contract=contract,
        config=config.train,
        loss=loss,
        score=_score,
        seed=(config.seed, split.fold or 0),
        image_file=store.files[contract],
    )
    card = {
        "kind": "jsl",
        "outputs": (*KL_OUTPUTS, *network.columns(str(config.outcome))),
        "clinical": encoding.to_card() if encoding else None,
        "without_reading": _without_reading(factors, config),
        "weights_source": f"KL encoder {source.name}",
    }
    frozen = source.card.weights_sha256 if config.is_encoder_frozen else ""
    return Plan(job, usable, card, frozen_encoder=frozen, seen_before=source.card.seen_subjects)


def _without_reading(factors: list[str], config: TrainJSLConfig) -> str:
    """What the branch for knees without a reading sees, for the model card."""
    if config.kl_input != "read":
        return ""
    seen = ", ".join(["image", *(name for name in factors if name not in READINGS)])
    return f"{config.outcome}{WITHOUT_READING} sees: {seen}; no reading of either knee"


def _start(
    source: Model, encoding: ClinicalEncoding | None, config: TrainJSLConfig
) -> ProgressionNetwork:
    """The network with the encoder and KL head of a grader."""
    is_timed = config.time_head == "hazard"
    torch.manual_seed(config.seed)
    network = ProgressionNetwork(
        source.card.architecture["backbone"],
        head=source.network.kl_head.kind,
        clinical_features=encoding.n_features if encoding else 0,
        reading_columns=encoding.reading_columns if encoding else (),
        clinical_width=config.clinical_width,
        fusion=config.fusion,
        fusion_width=config.fusion_width,
        dropout=config.dropout,
        kl_input=config.kl_input,
        visits_months=config.visits_months if is_timed else (),
        horizon_months=config.horizon_months if is_timed else None,
    )
    network.encoder.load_state_dict(source.network.encoder.state_dict())
    network.kl_head.load_state_dict(source.network.kl_head.state_dict())
    return network


def _score(outputs: Outputs, labels: Outputs) -> Metrics:
    known = ~labels["event"].isnan()
    events = labels["event"][known].numpy().astype(np.int64)
    risk = outputs["jsl_logit"][known].sigmoid().double().numpy()
    scores = {
        name: estimate(BINARY_METRICS[name], events, risk, []).value for name in ("auroc", "brier")
    }
    grading = score_grades(outputs, labels)
    return scores | {"accuracy": grading["accuracy"], "qwk": grading["qwk"]}


def _figures(predictions: pd.DataFrame, outcome: str, part: str) -> dict[str, dict[str, float]]:
    """Of each variant of progression with that of the read grade beside it, and of the grade."""
    variants = {"": "_prob", " without the reading": WITHOUT_READING}
    figures = {
        f"{outcome}{title}, {part}": _summary(predictions, outcome, f"{outcome}{column}")
        for title, column in variants.items()
        if f"{outcome}{column}" in predictions
    }
    read = predictions.dropna(subset=["kl_grade"])
    if len(read):
        # no figure of an image stands without what the grade alone says
        alone = _summary(read, outcome, "kl_grade", ("auroc",))
        figures[f"{outcome} by the read grade alone, {part}"] = alone
    return figures | {f"KL, {part}": summarise_grades(predictions)}


def _summary(
    predictions: pd.DataFrame,
    outcome: str,
    column: str,
    metrics: tuple[str, ...] = ("auroc", "auprc", "brier"),
) -> dict[str, float]:
    known = predictions.dropna(subset=[outcome])
    events = known[outcome].to_numpy(dtype=np.int64)
    risk = known[column].to_numpy(dtype=float)
    summary = {"n": float(len(events)), "events": float(events.sum())}
    for name in metrics:
        value = estimate(BINARY_METRICS[name], events, risk, []).value
        if value is not None:
            summary[name] = round(value, 4)
    return summary
