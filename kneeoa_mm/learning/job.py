"""What one fit needs, and what happened in it so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from kneeoa_mm.learning.image_cache import map_images
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.model_folder import Preprocessing
from kneeoa_mm.settings import TrainConfig

LAST_CHECKPOINT = "last.ckpt"
BEST_WEIGHTS = "best.safetensors"
RECORD_KEY = "Recorder"
"""Where a checkpoint keeps the record."""
_LESS_IS_BETTER = {"loss"}

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
        loss: Of outputs and batch; one that is a module learns too.
        score: Metrics of all outputs and labels of the validation part.
        seed: Seeds of this member.
        draw_weights: How often each of ``train_rows`` is drawn in an epoch, in relation to the
            others; None takes each once.
        image_file: Where ``images`` are mapped from; None where they are in memory.
    """

    name: str
    network: Network
    arrays: dict[str, Tensor]
    train_rows: NDArray[Any]
    val_rows: NDArray[Any]
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
    precision: str = "float32"

    @classmethod
    def read(cls, checkpoint: Path) -> Record:
        """The record of a checkpoint."""
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        return cls(**state["callbacks"][RECORD_KEY])

    def is_best(self, metrics: Metrics, select_by: str) -> bool:
        """Whether the epoch that the history ends with is the best, and note it.

        Args:
            metrics: Of its validation.
            select_by: What it is judged by; ``last``: the last of all is the best.
        """
        value = None if select_by == "last" else metrics.get(select_by)
        score = None if value is None else (-value if select_by in _LESS_IS_BETTER else value)
        # without any score yet, the newest weights are the best there are
        if (score is None and self.best is not None) or _not_above(score, self.best):
            self.stale_epochs += 1
            return False
        self.best, self.stale_epochs = score, 0
        self.best_metrics = {"epoch": float(len(self.history)), **metrics}
        return True


def _not_above(score: float | None, best: float | None) -> bool:
    return score is not None and best is not None and score <= best
