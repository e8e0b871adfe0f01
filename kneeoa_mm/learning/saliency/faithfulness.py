"""Is a map believable? What it should do if it tells how a network reached its answer.

A map that passes says how this network works, not that the network is right.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from kneeoa_mm.config import ExplainConfig
from kneeoa_mm.learning.attribution import attribute, infidelity_of, sensitivity_of
from kneeoa_mm.learning.networks import Network
from kneeoa_mm.learning.question import Attribution, Method, Question

CELLS = 16
"""Cells a side that are taken away as one: single pixels would make patterns that no film has."""
STAGES = ("heads", "last_third", "last_two_thirds", "everything")
"""What is random at each stage of the randomisation test."""


def cells_of(size_px: int, device: torch.device | str = "cpu") -> Tensor:
    """Number of the cell of each pixel, (S, S)."""
    n = min(CELLS, size_px)
    place = torch.arange(size_px, device=device) * n // size_px
    return place[:, None] * n + place[None, :]


def cell_sums(pixels: NDArray[np.float32], cells: Tensor) -> NDArray[np.float64]:
    """Sum of a map over each cell, (cells,)."""
    numbers = cells.flatten().cpu().numpy()
    return np.bincount(numbers, weights=pixels.ravel()).astype(np.float64)


def removal_curves(
    question: Question, order: NDArray[np.int64], cells: Tensor, steps: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of the answer while cells become the reference, and while they come back.

    Petsiuk et al. 2018 (RISE): deletion and insertion; here of cells, from and to the blurred knee.

    Args:
        question: What is explained.
        order: Cells, the most important one first.
        cells: Number of the cell of each pixel.
        steps: How many equal steps from nothing to all.

    Returns:
        Deletion and insertion, each (steps + 1,), from no cell to all cells.
    """
    rank = torch.empty(len(order), dtype=torch.long)
    rank[torch.from_numpy(order.copy())] = torch.arange(len(order))
    done = torch.linspace(0, len(order), steps + 1).round().long()
    first = (rank[None, :] < done[:, None]).float()[:, cells.flatten().cpu()]
    masks = first.view(-1, 1, *cells.shape).to(question.images.device)
    gone = question.images - question.reference_images
    with torch.no_grad():
        without = _probabilities(question, question.images - masks * gone)
        only = _probabilities(question, question.reference_images + masks * gone)
    return without, only


def _probabilities(question: Question, images: Tensor) -> NDArray[np.float64]:
    parts = [question.log_odds(each).sigmoid().cpu() for each in images.split(8)]
    return torch.cat(parts).double().numpy()


def area(curve: NDArray[np.float64]) -> float:
    """Area under a curve over 0 to 1, by trapezoids."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def share_inside(pixels: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """Share of the absolute attribution inside a mask; NaN for an empty map."""
    weights = np.abs(pixels)
    total = float(weights.sum())
    return float((weights * mask).sum()) / total if total > 0 else float("nan")


def randomise(network: Network, images: Tensor, stages: int, seed: int) -> list[Network]:
    """Copies of a network whose weights lose their meaning, from its heads down.

    Adebayo et al. 2018, cascading randomisation. Weights are shuffled within each tensor and not
    drawn anew, so that activations keep their size in networks of any depth.

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
            named = current.named_parameters()
            own = [parameter for name, parameter in named if not name.startswith("encoder.")]
        else:
            last = round(len(layers) * stage / max(stages - 1, 1))
            own = _parameters(current.encoder, layers[done:last])
            done = last
        _shuffle(own, generator)
        copies.append(current)
    return copies


def _parameters(module: nn.Module, names: list[str]) -> list[nn.Parameter]:
    found = (module.get_submodule(name).parameters(recurse=False) for name in names)
    return [parameter for each in found for parameter in each]


def _shuffle(parameters: list[nn.Parameter], generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in parameters:
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Spearman's correlation of the sizes of two maps; NaN where one of them is constant."""
    sizes = np.abs(one).ravel(), np.abs(other).ravel()
    if any(each.max() == each.min() for each in sizes):
        return float("nan")
    return float(spearmanr(*sizes).statistic)


def check(
    question: Question,
    found: Attribution,
    config: ExplainConfig,
    *,
    mask: NDArray[np.float32] | None,
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Checks of one map that need no second map.

    Args:
        question: What the map is of.
        found: The map.
        config: Numbers of steps and draws.
        mask: Share of each pixel that is joint space, (S, S), where that is known.

    Returns:
        Each measure, NaN where it is not defined, and the curves of deletion and insertion.
    """
    cells = cells_of(len(found.pixels), question.images.device)
    error, unexplained = infidelity_of(
        question, found, cells, draws=config.infidelity_draws, seed=config.seed
    )
    effect = found.pixels
    if found.method is Method.SALIENCY:
        # a gradient becomes a change by what is taken away
        gone = (question.images - question.reference_images)[0, 0].cpu().numpy()
        effect = found.pixels * gone
    order = np.argsort(-cell_sums(effect, cells), kind="stable")
    deletion, insertion = removal_curves(question, order, cells, config.removal_steps)
    values = {
        "infidelity": error,
        "unexplained_share": unexplained,
        "deletion_area": area(deletion),
        "insertion_area": area(insertion),
    }
    if mask is not None:
        inside, space = share_inside(found.pixels, mask), float(mask.mean())
        values |= {
            "joint_share": inside,
            "joint_area_share": space,
            "joint_enrichment": inside / space if space > 0 else float("nan"),
        }
    return values, {"deletion": deletion, "insertion": insertion}


def check_random_order(
    question: Question, config: ExplainConfig
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Deletion and insertion of cells in random order: what a map has to beat."""
    cells = cells_of(question.images.shape[-1], question.images.device)
    order = np.random.default_rng(config.seed).permutation(int(cells.max()) + 1)
    deletion, insertion = removal_curves(question, order, cells, config.removal_steps)
    values = {"deletion_area": area(deletion), "insertion_area": area(insertion)}
    return values, {"deletion": deletion, "insertion": insertion}


def check_again(
    question: Question,
    found: Attribution,
    config: ExplainConfig,
    *,
    radius: float,
    randomised: list[Network],
) -> dict[str, float]:
    """Checks of one map that make it again: on noise, and on networks of random weights.

    Args:
        question: What the map is of.
        found: The map.
        config: Numbers of draws.
        radius: Largest noise, in units of the network's input.
        randomised: The networks of :func:`randomise`, one for each of ``STAGES``.
    """
    values = {"max_sensitivity": sensitivity_of(question, found.method, config, radius=radius)}
    for stage, network in zip(STAGES, randomised, strict=True):
        again = attribute(replace(question, network=network), found.method, config)
        values[f"rank_correlation_{stage}"] = rank_correlation(found.pixels, again.pixels)
    return values


def nan_free(values: dict[str, float]) -> dict[str, Any]:
    """Values as JSON holds them, None where there is none."""
    return {name: None if np.isnan(value) else value for name, value in values.items()}
