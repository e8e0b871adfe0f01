"""One stage of a recipe in terms of torch: which layers learn, by which optimiser, how fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn
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
    """What the stage leaves alone: all of the encoder but its last layers.

    A layer is meant by itself, without the layers in it: attention has weights of its own beside
    those of its projection.
    """
    trainable = stage.trainable
    if trainable == "all":
        return []
    modules = [m for m in encoder.modules() if not list(m.children()) or _has_weights(m)]
    if trainable == "head":
        return modules
    weighted = [i for i, m in enumerate(modules) if _has_weights(m)]
    return modules[: weighted[-trainable]] if trainable < len(weighted) else []


def _has_weights(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters(recurse=False))


def freeze(layers: Iterable[nn.Module]) -> None:
    """Let the weights of layers stay as they are; see :func:`frozen_layers`."""
    for layer in layers:
        for weight in layer.parameters(recurse=False):
            weight.requires_grad_(False)


def keep_statistics(layers: Iterable[nn.Module]) -> None:
    """Let the batch statistics of layers stay as they are; see :func:`frozen_layers`."""
    for layer in layers:
        layer.training = False


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
        # torch divides by the length of a rise, which is none where it ends with the first step
        rise = _RISE if _RISE * steps > 1 else 0.0
        return OneCycleLR(optimiser, lr, total_steps=steps, pct_start=rise), "step"
    if stage.schedule == "cosine":
        return CosineAnnealingLR(optimiser, epochs), "epoch"
    return MultiStepLR(optimiser, list(stage.milestones), stage.gamma), "epoch"


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, *, decay: float, before: int) -> None:
    """Move an average of weights towards the newest; batch statistics are the newest.

    It trusts the first batches less. Nothing is asked of the weights' device, which would have to
    be waited for.

    Args:
        average: Changed in place.
        network: With the newest weights.
        decay: What the average keeps of itself in the end.
        before: How many weights it has seen.
    """
    kept = min(decay, (1 + before) / (10 + before)) if before else 0.0
    for mean, new in zip(average.parameters(), network.parameters(), strict=True):
        mean.copy_(torch.lerp(new, mean, kept))
    for buffer, newest in zip(average.buffers(), network.buffers(), strict=True):
        buffer.copy_(newest)
