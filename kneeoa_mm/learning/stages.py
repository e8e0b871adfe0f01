"""One stage of a recipe in terms of torch: which layers learn, by which optimiser, how fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

from kneeoa_mm.settings import StageConfig, TrainConfig

_RISE = 0.2
"""Share of one cycle in which the rate rises."""
_OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


def frozen_layers(encoder: nn.Module, stage: StageConfig) -> list[nn.Module]:
    """What the stage leaves alone: all of the encoder but its last layers."""
    trainable = stage.trainable
    if trainable == "all":
        return []
    modules = [m for m in encoder.modules() if not list(m.children())]
    weighted = [i for i, m in enumerate(modules) if list(m.parameters(recurse=False))]
    if trainable == "head":
        return modules
    return modules[: weighted[-trainable]] if trainable < len(weighted) else []


def make_optimiser(
    parameters: Iterable[nn.Parameter], config: TrainConfig, stage: StageConfig
) -> torch.optim.Optimizer:
    """A fresh optimiser for the parameters that learn in the stage."""
    return _OPTIMISERS[config.optimiser](
        [p for p in parameters if p.requires_grad],
        lr=config.lr * stage.lr_factor,
        weight_decay=config.weight_decay,
    )


def make_schedule(
    optimiser: torch.optim.Optimizer, stage: StageConfig, *, epochs: int, steps: int
) -> tuple[LRScheduler, str]:
    """How the rate moves, and whether each ``epoch`` or each ``step`` moves it.

    Args:
        optimiser: Of the stage.
        stage: The stage.
        epochs: How many it has.
        steps: How many batches these have together.
    """
    if stage.schedule == "one_cycle":
        lr = optimiser.param_groups[0]["lr"]
        return OneCycleLR(optimiser, lr, total_steps=steps, pct_start=_RISE), "step"
    if stage.schedule == "cosine":
        return CosineAnnealingLR(optimiser, epochs), "epoch"
    return MultiStepLR(optimiser, list(stage.milestones), stage.gamma), "epoch"


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """A moving average of weights that trusts the first batches less."""

    def average(mean: Tensor, new: Tensor, n: Tensor | int) -> Tensor:
        if not mean.is_floating_point():
            return new
        kept = min(decay, (1 + int(n)) / (10 + int(n)))
        return torch.lerp(new, mean, kept)

    return average
