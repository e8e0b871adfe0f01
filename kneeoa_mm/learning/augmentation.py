"""Random changes of a batch of images that keep the anatomy of its knees true."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kneeoa_mm.settings import AugmentConfig


def mix(batch: dict[str, Tensor], alpha: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Mix each knee of a batch with another one, images and labels alike (Zhang et al. 2018).

    Args:
        batch: Tensors of floating point, B rows each; a missing label (NaN) stays missing, and a
            missing grade keeps no more than the other knee's share.
        alpha: Of the Beta distribution from which the batch's share is drawn.
        generator: Source of randomness.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))
    some = next(iter(batch.values()))
    partner = torch.randperm(len(some), generator=generator).to(some.device)
    return {name: share * own + (1 - share) * own[partner] for name, own in batch.items()}


def draw_amounts(n: int, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Random amounts by which ``vary`` changes n images.

    Args:
        n: Number of images.
        config: Largest amounts.
        generator: Source of randomness.

    Returns:
        Shape (n, 8): an affine matrix (2, 3), contrast, and brightness.
    """

    def uniform(largest: float) -> Tensor:
        return (torch.rand(n, generator=generator) * 2 - 1) * largest

    angle = torch.deg2rad(uniform(config.rotation_deg))
    zoom = 1 + uniform(config.scale)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # grid coordinates run from -1 to 1, so a share of the width is twice that
    across, down = uniform(2 * config.translation), uniform(2 * config.translation)
    flip = torch.ones(n)
    if config.horizontal_flip:
        flip = (torch.rand(n, generator=generator) < 0.5).float() * 2 - 1
    contrast, brightness = 1 + uniform(config.contrast), uniform(config.brightness)
    rows = cos * flip, -sin, across, sin * flip, cos, down
    return torch.stack([*rows, contrast, brightness], 1)


def vary(images: Tensor, amounts: Tensor) -> Tensor:
    """Rotate, scale, shift and change the exposure of each image by its own amounts.

    Args:
        images: Shape (B, 1, S, S).
        amounts: Of ``draw_amounts``, (B, 8).

    Returns:
        Shape (B, 1, S, S).
    """
    matrices, contrast, brightness = amounts[:, :6].reshape(-1, 2, 3), amounts[:, 6], amounts[:, 7]
    return warp(images, matrices) * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Move images by affine maps; what lies beyond an edge is as the edge.

    The same as torch's ``affine_grid`` and ``grid_sample``, without the matrix product for each
    pixel that takes ``affine_grid`` twice as long on a CPU as the sampling.

    Args:
        images: Square, shape (B, 1, S, S).
        matrices: From places in the result to places in the image, which run from -1 to 1 across
            and down, shape (B, 2, 3).

    Returns:
        Shape (B, 1, S, S).
    """
    size = images.shape[-1]
    place = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
    across = matrices[:, None, :, 0] * place[:, None]
    down = matrices[:, None, :, 1] * place[:, None] + matrices[:, None, :, 2]
    grid = across[:, None] + down[:, :, None]
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
