"""The training loop: stages as successive fits, the best epoch kept, exact resume.

Every epoch draws its order, augmentation and dropout from a seed made of the member's seed, the
stage and the epoch, so no random state needs saving, and a run resumed at an epoch's end equals one
that was never interrupted.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kneeoa_mm.config import StageConfig, TrainConfig
from kneeoa_mm.errors import KneeOAError
from kneeoa_mm.learning.dataset import Batches
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.progress import say
from kneeoa_mm.run_folder import atomic_path

LAST_CHECKPOINT = "last.ckpt"
BEST_WEIGHTS = "best.safetensors"
_LESS_IS_BETTER = {"loss"}
_RISE = 0.2
"""Share of one cycle in which the rate rises."""
_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}

Outputs = dict[str, Tensor]
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Job:
    """What one fit needs.

    Attributes:
        name: Name of the member, shown and stored.
        network: The network; changed in place.
        arrays: ``images`` as bytes (n, S, S) and labels, n rows each.
        train_rows: Rows to learn from.
        val_rows: Rows to choose the epoch on; may be empty where nothing is chosen.
        contract: Preprocessing of the images.
        config: Optimisation.
        loss: Of outputs and batch.
        score: Metrics of all outputs and labels of the validation part.
        seed: Seeds of this member.
        draw_weights: How often each of ``train_rows`` is drawn in an epoch, in relation to the
            others; None takes each once.
    """

    name: str
    network: Network
    arrays: dict[str, Tensor]
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    contract: Preprocessing
    config: TrainConfig
    loss: Callable[[Outputs, Outputs], Tensor]
    score: Callable[[Outputs, Outputs], Metrics]
    seed: tuple[int, ...]
    draw_weights: Tensor | None = None


@dataclass
class Record:
    """What happened so far; travels with the checkpoint."""

    stage: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_metrics: Metrics = field(default_factory=dict)
    stale_epochs: int = 0


def fit(job: Job, folder: Path, *, device: str) -> Record:
    """Train ``job.network`` through all its stages and leave it with its best weights.

    Args:
        job: What to train.
        folder: Where checkpoints go; training goes on from one that is there.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The history and the metrics of the best epoch.

    Raises:
        KneeOAError: The loss is not a number.
        KeyboardInterrupt: A person interrupted; the last whole epoch is saved.
    """
    checkpoint = folder / LAST_CHECKPOINT
    record = _read_record(checkpoint) if checkpoint.is_file() else Record()
    resumed_stage = record.stage if checkpoint.is_file() else None
    for index, epochs in enumerate(job.config.stage_epochs()):
        if epochs == 0 or index < record.stage:
            continue
        if index != resumed_stage:
            record.stage, record.stale_epochs = index, 0
        trainer = _trainer(job, epochs, Recorder(record, job, folder), device)
        _run(trainer, Learner(job, index, epochs), checkpoint if index == resumed_stage else None)
    job.network.load_state_dict(load_file(folder / BEST_WEIGHTS))
    return record


def _trainer(job: Job, epochs: int, recorder: Recorder, device: str) -> lightning.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    return lightning.Trainer(
        accelerator={"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[device],
        devices=1,
        max_epochs=epochs,
        precision="bf16-mixed" if job.config.precision == "bfloat16" else "32-true",
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        num_sanity_val_steps=0,
        limit_val_batches=None if len(job.val_rows) else 0,
        reload_dataloaders_every_n_epochs=1,
    )


def _run(trainer: lightning.Trainer, learner: Learner, checkpoint: Path | None) -> None:
    handler = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch >= 2.13 for its batches' structure in the old way
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            trainer.fit(learner, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    except SystemExit:
        # Lightning answers Ctrl-C with exit code 1 and leaves the signal ignored
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


def _seed(seed: tuple[int, ...], *more: int) -> int:
    return int(np.random.SeedSequence((*seed, *more)).generate_state(1)[0])


def _read_record(checkpoint: Path) -> Record:
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    return Record(**state["callbacks"][Recorder.STATE_KEY])


def _moving(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """A moving average that trusts the first batches less."""

    def average(mean: Tensor, new: Tensor, n: Tensor | int) -> Tensor:
        if not mean.is_floating_point():
            return new
        kept = min(decay, (1 + int(n)) / (10 + int(n)))
        return torch.lerp(new, mean, kept)

    return average


class Learner(lightning.LightningModule):
    """One stage of a job, in Lightning's terms."""

    def __init__(self, job: Job, index: int, epochs: int) -> None:
        super().__init__()
        self.network = job.network.to(memory_format=torch.channels_last).train()
        decay = job.config.ema_decay
        self.average = AveragedModel(self.network, avg_fn=_moving(decay)) if decay else None
        self._job = job
        self._index = index
        self._epochs = epochs
        self._stage: StageConfig = job.config.stages[index]
        self._losses: list[float] = []
        self._validation: list[tuple[Outputs, Outputs]] = []
        self.val_metrics: Metrics = {}

    @property
    def kept(self) -> Network:
        """The network that is validated and kept: the averaged one where there is one."""
        return self._job.network if self.average is None else cast(Network, self.average.module)

    def configure_model(self) -> None:
        """Let only the stage's layers learn."""
        self.network.requires_grad_(True)
        for layer in self._frozen_layers():
            layer.requires_grad_(False)

    def _frozen_layers(self) -> list[nn.Module]:
        """What the stage leaves alone: all of the encoder but its last layers."""
        trainable = self._stage.trainable
        if trainable == "all":
            return []
        modules = [m for m in self._job.network.encoder.modules() if not list(m.children())]
        weighted = [i for i, m in enumerate(modules) if list(m.parameters(recurse=False))]
        if trainable == "head":
            return modules
        return modules[: weighted[-trainable]] if trainable < len(weighted) else []

    def configure_optimizers(self) -> Any:
        """A fresh optimiser for the stage."""
        config, stage = self._job.config, self._stage
        lr = config.lr * stage.lr_factor
        optimiser = _OPTIMISERS[config.optimiser](
            [p for p in self.network.parameters() if p.requires_grad],
            lr=lr,
            weight_decay=config.weight_decay,
        )
        schedule: torch.optim.lr_scheduler.LRScheduler
        if stage.schedule == "one_cycle":
            steps = self._epochs * len(self.train_dataloader())
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, lr, total_steps=steps, pct_start=_RISE
            )
            each_batch = {"scheduler": schedule, "interval": "step"}
            return {"optimizer": optimiser, "lr_scheduler": each_batch}
        if stage.schedule == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self._epochs)
        else:
            milestones = list(stage.milestones)
            schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones, stage.gamma)
        return {"optimizer": optimiser, "lr_scheduler": schedule}

    def train_dataloader(self) -> Batches:
        """This epoch's order and augmentation."""
        job = self._job
        return Batches(
            job.arrays,
            job.train_rows,
            job.contract,
            batch_size=job.config.batch_size,
            augment=job.config.augment,
            weights=job.draw_weights,
            seed=(*job.seed, self._index, self.current_epoch),
        )

    def val_dataloader(self) -> Batches:
        """The validation part, in order."""
        job = self._job
        return Batches(job.arrays, job.val_rows, job.contract, batch_size=job.config.batch_size)

    def on_train_epoch_start(self) -> None:
        """Seed dropout; keep the batch statistics of frozen layers as they are."""
        torch.manual_seed(_seed(self._job.seed, self._index, self.current_epoch, 1))
        self._losses = []
        for layer in self._frozen_layers():
            layer.eval()

    def training_step(self, batch: Outputs, _: int) -> Tensor:
        """Loss of a batch."""
        loss = self._job.loss(self.network(batch), batch)
        if not torch.isfinite(loss):
            raise KneeOAError(
                "The loss is not a number any more.",
                where=f"{self._job.name}, epoch {self.current_epoch + 1}",
                fix="lower the rate with --set train.lr=...; the last good epoch is saved",
            )
        self._losses.append(float(loss.detach()))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the average towards the weights."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's outputs."""
        self._validation = []

    def validation_step(self, batch: Outputs, _: int) -> None:
        """Keep outputs and labels."""
        outputs = {name: logits.float().cpu() for name, logits in self.kept(batch).items()}
        labels = {name: value.cpu() for name, value in batch.items() if name != "images"}
        self._validation.append((outputs, labels))

    def on_validation_epoch_end(self) -> None:
        """Metrics of the whole validation part."""
        outputs, labels = (
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*self._validation, strict=True)
        )
        loss = float(self._job.loss(outputs, labels))
        self.val_metrics = {"loss": loss, **self._job.score(outputs, labels)}

    @property
    def train_loss(self) -> float:
        """Mean loss of this epoch's batches."""
        return float(np.mean(self._losses))


class Recorder(lightning.Callback):
    """Keeps history, best weights and the last checkpoint, and stops a stage that stands still."""

    STATE_KEY = "Recorder"

    def __init__(self, record: Record, job: Job, folder: Path) -> None:
        self._record = record
        self._job = job
        self._folder = folder
        self._started = time.monotonic()
        self._lr = 0.0

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint."""
        return self.STATE_KEY

    def state_dict(self) -> dict[str, Any]:
        """The record, as plain values that a weights-only reader accepts."""
        return dict(vars(self._record))

    def on_train_start(self, trainer: lightning.Trainer, _: Any) -> None:
        """A stage that had stopped before the interruption stays stopped."""
        self._stop_if_stale(trainer)

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, _: lightning.LightningModule
    ) -> None:
        """Start the clock, and note the rate before the schedule moves it."""
        self._started = time.monotonic()
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, learner: lightning.LightningModule
    ) -> None:
        """Record the epoch: history, best weights, then the checkpoint that makes it count."""
        assert isinstance(learner, Learner)
        record, metrics = self._record, learner.val_metrics
        epoch = len(record.history) + 1
        row = {
            "member": self._job.name,
            "stage": record.stage + 1,
            "epoch": epoch,
            "lr": self._lr,
            "train_loss": learner.train_loss,
            **{f"val_{name}": value for name, value in metrics.items()},
            "seconds": round(time.monotonic() - self._started, 1),
        }
        record.history.append(row)
        self._keep_best(learner, epoch)
        with atomic_path(self._folder / LAST_CHECKPOINT) as temporary:
            trainer.save_checkpoint(temporary)
        shown = [f"{k} {v:.3f}" for k, v in metrics.items() if v is not None]
        say(
            f"{self._job.name}: epoch {epoch}/{self._job.config.epochs}, "
            f"train loss {learner.train_loss:.3f}, "
            + (f"val {', '.join(shown)}, " if shown else "")
            + f"{row['seconds']:.0f} s"
        )
        self._stop_if_stale(trainer)

    def _keep_best(self, learner: Learner, epoch: int) -> None:
        record, name = self._record, self._job.config.select_by
        # the last of all is the newest, whatever its metrics
        value = None if name == "last" else learner.val_metrics.get(name)
        score = None if value is None else (-value if name in _LESS_IS_BETTER else value)
        # without any score yet, the newest weights are the best there are
        if (score is None and record.best is not None) or _not_above(score, record.best):
            record.stale_epochs += 1
            return
        record.best, record.stale_epochs = score, 0
        record.best_metrics = {"epoch": float(epoch), **learner.val_metrics}
        state = {k: v.contiguous() for k, v in learner.kept.state_dict().items()}
        with atomic_path(self._folder / BEST_WEIGHTS) as temporary:
            temporary.write_bytes(save(state))

    def _stop_if_stale(self, trainer: lightning.Trainer) -> None:
        if self._record.stale_epochs >= self._job.config.patience:
            trainer.should_stop = True


def _not_above(score: float | None, best: float | None) -> bool:
    return score is not None and best is not None and score <= best
