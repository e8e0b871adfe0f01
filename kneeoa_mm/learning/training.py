"""One stage of training in Lightning's terms: its epochs, their records and checkpoints.

Every epoch draws its order, augmentation and dropout from a seed made of the member's seed, the
stage and the epoch, so no random state needs saving, and a run resumed at an epoch's end equals one
that was never interrupted.

Several processes (``processes``) make one batch together and average their gradients. Each predicts
its share of the validation part; all then hold all outputs, so that they agree on what to do next,
and the first alone writes.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy
from safetensors.torch import save
from torch import Tensor, nn

from kneeoa_mm.atomic_files import atomic_path
from kneeoa_mm.errors import KneeOAError
from kneeoa_mm.learning import processes
from kneeoa_mm.learning.batches import Batches
from kneeoa_mm.learning.inference import choose_device
from kneeoa_mm.learning.job import (
    BEST_WEIGHTS,
    LAST_CHECKPOINT,
    RECORD_KEY,
    Job,
    Metrics,
    Outputs,
    Record,
)
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.learning.stages import (
    freeze,
    frozen_layers,
    keep_statistics,
    make_optimiser,
    make_schedule,
    move_average,
)
from kneeoa_mm.progress import say
from kneeoa_mm.settings import StageConfig

_PRECISION: dict[str, Any] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


def train_stage(
    job: Job,
    index: int,
    epochs: int,
    record: Record,
    folder: Path,
    *,
    device: str,
    checkpoint: Path | None,
) -> None:
    """Train a job's network through one of its stages.

    Args:
        job: What to train.
        index: Number of the stage, from 0.
        epochs: How many it has.
        record: What happened so far; goes on.
        folder: Where checkpoints go.
        device: ``auto``, ``cpu`` or ``cuda``.
        checkpoint: To go on from; None at the stage's beginning.

    Raises:
        KneeOAError: The loss is not a number.
        KeyboardInterrupt: A person interrupted; the last whole epoch is saved.
    """
    trainer = _trainer(job, epochs, record.precision, Recorder(record, job, folder), device)
    _run(trainer, Learner(job, index, epochs), checkpoint)


def _trainer(
    job: Job, epochs: int, precision: str, recorder: Recorder, device: str
) -> lightning.Trainer:
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    together = processes.count()
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if together > 1 else 1
    return lightning.Trainer(
        accelerator={"cpu": "cpu", "cuda": "gpu"}[choose_device(device)],
        devices=here,
        num_nodes=together // here,
        # batch statistics are averaged at the end of an epoch, not copied at each step
        strategy=DDPStrategy(broadcast_buffers=False) if together > 1 else "auto",
        # stated, for Lightning would guess from a cluster's environment
        plugins=[TorchElasticEnvironment() if together > 1 else LightningEnvironment()],
        max_epochs=epochs,
        precision=_PRECISION[precision],
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


class Learner(lightning.LightningModule):
    """One stage of a job, in Lightning's terms."""

    def __init__(self, job: Job, index: int, epochs: int) -> None:
        super().__init__()
        self.network = job.network.to(memory_format=torch.channels_last).train()
        self.average = (
            deepcopy(self.network).requires_grad_(False) if job.config.ema_decay else None
        )
        # a module, so that what it learns is optimised, and saved in checkpoints
        self._loss = job.loss
        self._job = job
        self._index = index
        self._epochs = epochs
        self._stage: StageConfig = job.config.stages[index]
        self._losses: list[Tensor] = []
        self._before: _Finite | None = None
        self._validation: list[tuple[Outputs, Outputs]] = []
        self.val_metrics: Metrics = {}

    @property
    def kept(self) -> Network:
        """The network that is validated and kept: the averaged one where there is one."""
        return self._job.network if self.average is None else self.average

    def configure_model(self) -> None:
        """Let only the stage's layers learn."""
        self.network.requires_grad_(True)
        freeze(self._frozen_layers())

    def _frozen_layers(self) -> list[nn.Module]:
        return frozen_layers(self._job.network.encoder, self._stage)

    def configure_optimizers(self) -> Any:
        """A fresh optimiser for the stage."""
        optimiser = make_optimiser(self.parameters(), self._job.config, self._stage)
        steps = self._epochs * len(self.train_dataloader())
        schedule, interval = make_schedule(optimiser, self._stage, epochs=self._epochs, steps=steps)
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": interval},
        }

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
            share=(processes.number(), processes.count()),
            device=self.device,
        )

    def val_dataloader(self) -> Batches:
        """The validation part, in order."""
        job = self._job
        return Batches(
            job.arrays,
            job.val_rows,
            job.contract,
            batch_size=job.config.batch_size,
            share=(processes.number(), processes.count()),
            device=self.device,
        )

    def on_train_epoch_start(self) -> None:
        """Seed dropout; keep the batch statistics of frozen layers as they are."""
        own = 1 + processes.number()
        torch.manual_seed(_seed(self._job.seed, self._index, self.current_epoch, own))
        self._losses, self._before = [], None
        keep_statistics(self._frozen_layers())

    def training_step(self, batch: Outputs, _: int) -> Tensor:
        """Loss of a batch."""
        loss = self._loss(self.network(batch), batch)
        # the loss before: to ask for this one, a GPU would have to be waited for
        if self._before is not None and not self._before:
            self._refuse()
        self._before = _Finite(loss)
        self._losses.append(loss.detach())
        return loss

    def _refuse_nan(self, values: Iterable[Tensor]) -> None:
        if not all(value.isfinite().all() for value in values):
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise KneeOAError(
            "The loss is not a number any more.",
            where=f"{self._job.name}, epoch {self.current_epoch + 1}",
            fix="lower the rate with --set train.lr=...; the last good epoch is saved",
        )

    def on_train_batch_end(self, *_: Any) -> None:
        """Share batch statistics at the end of an epoch; move the average towards the weights."""
        if self.trainer.is_last_batch:
            learning = (m for m in self.network.modules() if m.training)
            processes.average(b for m in learning for b in m.buffers(recurse=False))
        if self.average is not None:
            decay = self._job.config.ema_decay
            move_average(self.average, self.network, decay=decay, before=self.global_step - 1)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's outputs."""
        self._validation = []

    def validation_step(self, batch: Outputs, _: int) -> None:
        """Keep outputs and labels."""
        outputs = {name: logits.float().cpu() for name, logits in self.kept(batch).items()}
        labels = {k: v.cpu() for k, v in batch.items() if k not in {"images", "features"}}
        self._validation.append((outputs, labels))

    def on_validation_epoch_end(self) -> None:
        """Metrics of the whole validation part."""
        own = [
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*self._validation, strict=True)
        ]
        outputs, labels = (
            {name: processes.interleaved([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*processes.gathered(own), strict=True)
        )
        loss = self._loss(outputs, labels)
        self._refuse_nan([loss])
        self.val_metrics = {"loss": float(loss), **self._job.score(outputs, labels)}

    def train_loss(self) -> float:
        """Mean loss of this epoch's batches over all processes, to be asked for in all of them.

        Raises:
            KneeOAError: The last one is not a number, or has left weights that are none.
        """
        self._refuse_nan([*self._losses[-1:], *self.kept.state_dict().values()])
        return float(np.mean(processes.gathered([float(loss) for loss in self._losses])))


class _Finite:
    """Whether a loss is a number, on its way from the device while that goes on."""

    def __init__(self, loss: Tensor) -> None:
        self._answer = loss.detach().isfinite().to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if loss.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def __bool__(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._answer)


class Recorder(lightning.Callback):
    """Keeps history, best weights and the last checkpoint, and stops a stage that stands still."""

    def __init__(self, record: Record, job: Job, folder: Path) -> None:
        self._record = record
        self._job = job
        self._folder = folder
        self._started = time.monotonic()
        self._lr = 0.0

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint."""
        return RECORD_KEY

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
        record, metrics, train_loss = self._record, learner.val_metrics, learner.train_loss()
        epoch = len(record.history) + 1
        row = {
            "member": self._job.name,
            "stage": record.stage + 1,
            "epoch": epoch,
            "lr": self._lr,
            "train_loss": train_loss,
            **{f"val_{name}": value for name, value in metrics.items()},
            "seconds": round(time.monotonic() - self._started, 2),
            "precision": record.precision,
        }
        if record.processes > 1:
            row["processes"] = record.processes
        record.history.append(row)
        is_best = record.is_best(metrics, self._job.config.select_by)
        if is_best and trainer.is_global_zero:
            self._keep(learner)
        checkpoint, leads = self._folder / LAST_CHECKPOINT, trainer.is_global_zero
        # all take part, and Lightning lets the first write
        with atomic_path(checkpoint) if leads else nullcontext(checkpoint) as temporary:
            trainer.save_checkpoint(temporary)
        if leads:
            self._say(row, metrics)
        self._stop_if_stale(trainer)

    def _say(self, row: dict[str, Any], metrics: Metrics) -> None:
        shown = [f"{k} {v:.3f}" for k, v in metrics.items() if v is not None]
        say(
            f"{self._job.name}: epoch {row['epoch']}/{self._job.config.epochs}, "
            f"train loss {row['train_loss']:.3f}, "
            + (f"val {', '.join(shown)}, " if shown else "")
            + f"{row['seconds']:.0f} s"
        )

    def _keep(self, learner: Learner) -> None:
        state = {k: v.contiguous() for k, v in learner.kept.state_dict().items()}
        with atomic_path(self._folder / BEST_WEIGHTS) as temporary:
            temporary.write_bytes(save(state))

    def _stop_if_stale(self, trainer: lightning.Trainer) -> None:
        if self._record.stale_epochs >= self._job.config.patience:
            trainer.should_stop = True
