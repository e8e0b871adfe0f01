"""Fitting a job: its stages one after the other, the best epoch kept, exact resume."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from kneeoa_mm.errors import ConfigError, InputError
from kneeoa_mm.learning import processes
from kneeoa_mm.learning.job import BEST_WEIGHTS, LAST_CHECKPOINT, Job, Record
from kneeoa_mm.learning.precision import check_precision, choose_precision
from kneeoa_mm.learning.training import train_stage
from kneeoa_mm.progress import say


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
    check_precision(job.config.precision, device)
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
    if checkpoint.is_file():
        record = Record.read(checkpoint)
        if record.processes != processes.count():
            raise ConfigError(
                "A run goes on with as many processes as it was begun with.",
                expected=f"{record.processes}",
                found=f"{processes.count()}",
                where=job.name,
            )
    else:
        precision = choose_precision(job.config.precision, device)
        record = Record(processes=processes.count(), precision=precision)
    if job.config.compile:
        # in place: parameters keep their names
        job.network.compile()
    resumed_stage = record.stage if checkpoint.is_file() else None
    for index, epochs in enumerate(job.config.stage_epochs()):
        if epochs == 0 or index < record.stage:
            continue
        if index != resumed_stage:
            record.stage, record.stale_epochs = index, 0
        begun = checkpoint if index == resumed_stage else None
        train_stage(job, index, epochs, record, folder, device=device, checkpoint=begun)
    return record
