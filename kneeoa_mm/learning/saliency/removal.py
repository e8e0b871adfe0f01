"""What an answer loses when parts of the picture are taken away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from kneeoa_mm.learning.saliency.question import Question

CELLS = 16
"""Cells a side that are taken away as one: single pixels would make patterns that no film has."""
RANDOM_ORDER, DETAIL_ORDER = "random_order", "detail_order"
"""Cells at random, and those first that hold most detail, whatever the network makes of it."""
_PER_PASS = 8
_LEAST_TAKEN, _MOST_TAKEN = 0.1, 0.5


def cells_of(size_px: int) -> Tensor:
    """Number of the cell of each pixel, (S, S)."""
    n = min(CELLS, size_px)
    place = torch.arange(size_px) * n // size_px
    return place[:, None] * n + place[None, :]


def cell_sums(pixels: NDArray[np.float32], cells: Tensor) -> NDArray[np.float64]:
    """Sum of a map over each cell, (cells,)."""
    numbers = cells.flatten().numpy()
    return np.bincount(numbers, weights=pixels.ravel()).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Removals:
    """Cells that became the reference at random, and what that did.

    Attributes:
        taken: Which cells were, (draws, cells).
        lost: How far the log-odds fell, (draws,).
    """

    taken: NDArray[np.bool_]
    lost: NDArray[np.float64]


def remove_at_random(question: Question, draws: int, rng: np.random.Generator) -> Removals:
    """Take away between a tenth and a half of the cells, several times."""
    cells = cells_of(question.images.shape[-1])
    shares = rng.uniform(_LEAST_TAKEN, _MOST_TAKEN, (draws, 1))
    taken = rng.random((draws, int(cells.max()) + 1)) < shares
    own = _log_odds(question, question.images)
    return Removals(taken, own - _log_odds(question, without(question, taken, cells)))


def without(question: Question, taken: NDArray[np.bool_], cells: Tensor) -> Tensor:
    """The knee with cells replaced by the reference, (B, 1, S, S); ``taken`` is (B, cells)."""
    masks = torch.from_numpy(taken)[:, cells].unsqueeze(1).to(question.images.device)
    return torch.where(masks, question.reference_images, question.images)


def infidelity(sums: NDArray[np.float64], removals: Removals) -> tuple[float, float]:
    """How badly a map tells what happens when parts of the picture are taken away.

    Yeh et al. 2019 (NeurIPS 32), after the one factor that suits the map best.

    Args:
        sums: What the map says that each cell contributes, (cells,).
        removals: What happened.

    Returns:
        Mean squared error in squared log-odds, and its share of the mean squared change: 0 tells
        all, 1 tells nothing. NaN where taking away changed nothing.
    """
    told, lost = removals.taken @ sums, removals.lost
    moved = float(np.mean(lost**2))
    size = float(np.mean(told**2))
    explained = float(np.mean(told * lost)) ** 2 / size if size > 0 else 0.0
    return moved - explained, 1 - explained / moved if moved > 0 else float("nan")


def removal_curves(
    question: Question, order: NDArray[np.int64], steps: int
) -> dict[str, NDArray[np.float64]]:
    """Probability of the answer while cells become the reference, and while they come back.

    Petsiuk et al. 2018 (RISE): deletion and insertion; here of cells, from and to the blurred knee.

    Args:
        question: What is explained.
        order: Cells, the most important one first.
        steps: How many equal steps from nothing to all.

    Returns:
        ``deletion`` and ``insertion``, each (steps + 1,), from no cell to all cells.
    """
    cells = cells_of(question.images.shape[-1])
    rank = np.argsort(order)
    first = rank < np.linspace(0, len(order), steps + 1).round()[:, None]
    return {
        "deletion": _probabilities(question, without(question, first, cells)),
        "insertion": _probabilities(question, without(question, ~first, cells)),
    }


def control_orders(question: Question, rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Orders of cells that know nothing of the network: what a map has to beat."""
    cells = cells_of(question.images.shape[-1])
    detail = (question.images - question.reference_images)[0, 0].cpu().numpy()
    return {
        RANDOM_ORDER: rng.permutation(int(cells.max()) + 1),
        DETAIL_ORDER: order_of(cell_sums(detail**2, cells)),
    }


def order_of(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cells, the one with the largest sum first."""
    return np.argsort(-sums, kind="stable")


def area(curve: NDArray[np.float64]) -> float:
    """Area under a curve over 0 to 1, by trapezoids."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def _probabilities(question: Question, images: Tensor) -> NDArray[np.float64]:
    return expit(_log_odds(question, images))


def _log_odds(question: Question, images: Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        parts = [question.log_odds(each).cpu() for each in images.split(_PER_PASS)]
    return torch.cat(parts).double().numpy()
