"""The training loop: stages as successive fits, the best epoch kept, exact resume.

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
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as lightning
import torch
from numpy.typing import NDArray
from pytorch_lightning.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kneeoa_mm.config import StageConfig, TrainConfig
from kneeoa_mm.errors import ConfigError, InputError, KneeOAError
from kneeoa_mm.learning import processes
from kneeoa_mm.learning.dataset import Batches
from kneeoa_mm.learning.image_cache import map_images
from kneeoa_mm.learning.inference import choose_device
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.progress import say
from kneeoa_mm.run_folder import atomic_path

LAST_CHECKPOINT = "last.ckpt"
BEST_WEIGHTS = "best.safetensors"
_LESS_IS_BETTER = {"loss"}
_PRECISION: dict[str, Any] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}
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
        image_file: Where ``images`` are mapped from; None where they are in memory.
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
    image_file: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the images that another process can map from their file."""
        is_mapped = self.image_file is not None
        arrays = {k: v for k, v in self.arrays.items() if not (is_mapped and k == "images")}
        return vars(self) | {"arrays": arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the images."""
        vars(self).update(state)
        if self.image_file is not None:
            self.arrays["images"] = map_images(self.image_file)


@dataclass
class Record:
    """What happened so far; travels with the checkpoint."""

    stage: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_metrics: Metrics = field(default_factory=dict)
    stale_epochs: int = 0
    processes: int = 1


def check_precision(config: TrainConfig, device: str) -> None:
    """Refuse what the device cannot do.

    Raises:
        ConfigError: ``float16`` without a GPU.
    """
    if config.precision == "float16" and choose_device(device) != "cuda":
        raise ConfigError(
            "float16 needs a GPU: small gradients are kept by a scaling that CPUs do without.",
            found="train.precision float16 on the CPU",
            fix="--set train.precision=bfloat16, or float32",
        )


def fit(job: Job, folder: Path, *, device: str) -> Record:
    """Train ``job.network`` through all its stages and leave it with its best weights.

    Args:
        job: What to train.
        folder: Where checkpoints go; training goes on from one that is there.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The history and the metrics of the best epoch.

    Raises:
        ConfigError: The device cannot do it, or the run was begun by fewer or more processes.
        InputError: There are fewer knees than processes.
        KneeOAError: The loss is not a number.
        KeyboardInterrupt: A person interrupted; the last whole epoch is saved.
    """
    check_precision(job.config, device)
    together = processes.count()
    parts = [len(rows) for rows in (job.train_rows, job.val_rows) if len(rows)]
    if min(parts) < together:
        raise InputError(
            "There are fewer knees to learn from or to choose on than processes.",
            found=f"{min(parts)} knees, {together} processes",
        )
    if together > 1:
        total = together * job.config.batch_size
        say(f"{job.name}: {together} processes, {total} knees a batch together")
    record = processes.everywhere(_train, job, folder, device)
    job.network.load_state_dict(load_file(folder / BEST_WEIGHTS))
    return record


def _train(job: Job, folder: Path, device: str) -> Record:
    checkpoint = folder / LAST_CHECKPOINT
    record = Record(processes=processes.count())
    if checkpoint.is_file():
        record = _read_record(checkpoint)
        if record.processes != processes.count():
            raise ConfigError(
                "A run goes on with as many processes as it was begun with.",
                expected=f"{record.processes}",
                found=f"{processes.count()}",
                where=job.name,
            )
    if job.config.compile:
        # in place: parameters keep their names
        job.network.compile()
    resumed_stage = record.stage if checkpoint.is_file() else None
    for index, epochs in enumerate(job.config.stage_epochs()):
        if epochs == 0 or index < record.stage:
            continue
        if index != resumed_stage:
            record.stage, record.stale_epochs = index, 0
        trainer = _trainer(job, epochs, Recorder(record, job, folder), device)
        _run(trainer, Learner(job, index, epochs), checkpoint if index == resumed_stage else None)
    return record


def _trainer(job: Job, epochs: int, recorder: Recorder, device: str) -> lightning.Trainer:
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
        precision=_PRECISION[job.config.precision],
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
        if self.average is not None:
            self.average.requires_grad_(False)
        self._job = job
        self._index = index
        self._epochs = epochs
        self._stage: StageConfig = job.config.stages[index]
        self._losses: list[Tensor] = []
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
        self._losses = []
        for layer in self._frozen_layers():
            layer.eval()

    def training_step(self, batch: Outputs, _: int) -> Tensor:
        """Loss of a batch."""
        loss = self._job.loss(self.network(batch), batch)
        # the loss before: to ask for this one, a GPU would have to be waited for
        self._refuse_nan(self._losses[-1:])
        self._losses.append(loss.detach())
        return loss

    def _refuse_nan(self, values: Iterable[Tensor]) -> None:
        if not all(value.isfinite().all() for value in values):
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
        own = [
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*self._validation, strict=True)
        ]
        outputs, labels = (
            {name: processes.interleaved([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*processes.gathered(own), strict=True)
        )
        loss = self._job.loss(outputs, labels)
        self._refuse_nan([loss])
        self.val_metrics = {"loss": float(loss), **self._job.score(outputs, labels)}

    def train_loss(self) -> float:
        """Mean loss of this epoch's batches over all processes, to be asked for in all of them.

        Raises:
            KneeOAError: The last one is not a number, or has left weights that are none.
        """
        self._refuse_nan([*self._losses[-1:], *self.kept.state_dict().values()])
        return float(np.mean(processes.gathered([float(loss) for loss in self._losses])))


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
        }
        if record.processes > 1:
            row["processes"] = record.processes
        record.history.append(row)
        self._keep_best(learner, epoch)
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
        if processes.number():
            return
        state = {k: v.contiguous() for k, v in learner.kept.state_dict().items()}
        with atomic_path(self._folder / BEST_WEIGHTS) as temporary:
            temporary.write_bytes(save(state))

    def _stop_if_stale(self, trainer: lightning.Trainer) -> None:
        if self._record.stale_epochs >= self._job.config.patience:
            trainer.should_stop = True


def _not_above(score: float | None, best: float | None) -> bool:
    return score is not None and best is not None and score <= best
