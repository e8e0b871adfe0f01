"""Does a map follow what the network has learnt? Its weights are made random, from the top down."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from kneeoa_mm.learning.networks import Network

STAGES = ("heads", "last_third", "last_two_thirds", "everything")
"""What is random at each stage."""


def randomise(network: Network, images: Tensor, stages: int, seed: int) -> list[Network]:
    """Copies of a network whose weights lose their meaning, from its heads down.

    Adebayo et al. 2018, cascading randomisation. Weights are shuffled within each tensor and not
    drawn anew, so that activations keep their size in networks of any depth. What normalising
    layers have learnt of the data's means and variances is shuffled with the weights of the layer.

    Args:
        network: The trained network.
        images: An input, from which the order of layers is told.
        stages: How many copies.
        seed: Of the shuffling.

    Returns:
        In the first the heads are random, in the last everything.
    """
    names = {module: name for name, module in network.encoder.named_modules()}
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, _: order.append(names[module]))
        for module in network.encoder.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        with torch.no_grad():
            network.encoder(images)
    finally:
        for hook in hooks:
            hook.remove()
    layers = list(dict.fromkeys(order))[::-1]
    generator = torch.Generator().manual_seed(seed)
    current, copies, done = network, [], 0
    for stage in range(stages):
        current = copy.deepcopy(current)
        if stage == 0:
            named = [*current.named_parameters(), *current.named_buffers()]
            own = [each for name, each in named if not name.startswith("encoder.")]
        else:
            last = round(len(layers) * stage / max(stages - 1, 1))
            own = _learnt(current.encoder, layers[done:last])
            done = last
        _shuffle(own, generator)
        copies.append(current)
    return copies


def _learnt(module: nn.Module, names: list[str]) -> list[Tensor]:
    """Weights of some layers, and the statistics that they have kept of the data."""
    layers = [module.get_submodule(name) for name in names]
    return [
        each
        for layer in layers
        for each in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    ]


def _shuffle(tensors: list[Tensor], generator: torch.Generator) -> None:
    with torch.no_grad():
        for tensor in tensors:
            order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
            tensor.copy_(tensor.flatten()[order].view_as(tensor))


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Spearman's correlation of the sizes of two maps; NaN where one of them is constant."""
    sizes = np.abs(one).ravel(), np.abs(other).ravel()
    if any(each.max() == each.min() for each in sizes):
        return float("nan")
    return float(spearmanr(*sizes).statistic)
