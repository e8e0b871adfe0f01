"""Is a map believable? What it should do if it tells how a network reached its answer.

A map that passes says how this network works, not that the network is right.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kneeoa_mm.learning.networks import Network
from kneeoa_mm.learning.saliency.attribution import attribute, max_sensitivity
from kneeoa_mm.learning.saliency.question import Attribution, Method, Question
from kneeoa_mm.learning.saliency.randomisation import STAGES, rank_correlation
from kneeoa_mm.learning.saliency.removal import (
    Removals,
    area,
    cell_sums,
    cells_of,
    infidelity,
    order_of,
    removal_curves,
)
from kneeoa_mm.settings import ExplainConfig

Curves = dict[str, NDArray[np.float64]]
"""Probabilities by ``deletion`` and ``insertion``."""


def share_inside(pixels: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """Share of the absolute attribution inside a mask; NaN for an empty map."""
    weights = np.abs(pixels)
    total = float(weights.sum())
    return float((weights * mask).sum()) / total if total > 0 else float("nan")


def check(
    question: Question,
    found: Attribution,
    config: ExplainConfig,
    *,
    removals: Removals,
    mask: NDArray[np.float32] | None,
) -> tuple[dict[str, float], Curves]:
    """Checks of one map that need no second map.

    Args:
        question: What the map is of.
        found: The map.
        config: Number of steps.
        removals: Of parts of this knee, at random.
        mask: Share of each pixel that is joint space, (S, S), where that is known.

    Returns:
        Each measure, NaN where it is not defined, and the curves of deletion and insertion.
    """
    effect = found.pixels
    if found.method is Method.SALIENCY:
        # a gradient becomes a change by what is taken away
        gone = (question.images - question.reference_images)[0, 0].cpu().numpy()
        effect = found.pixels * gone
    sums = cell_sums(effect, cells_of(len(effect)))
    error, unexplained = infidelity(sums, removals)
    values = {"infidelity": error, "unexplained_share": unexplained}
    areas, curves = check_order(question, order_of(sums), config)
    values |= areas
    if mask is not None:
        inside, space = share_inside(found.pixels, mask), float(mask.mean())
        values |= {
            "joint_share": inside,
            "joint_area_share": space,
            "joint_enrichment": inside / space if space > 0 else float("nan"),
        }
    return values, curves


def check_order(
    question: Question, order: NDArray[np.int64], config: ExplainConfig
) -> tuple[dict[str, float], Curves]:
    """Deletion and insertion of cells in some order: the areas and the curves."""
    curves = removal_curves(question, order, config.removal_steps)
    return {f"{name}_area": area(curve) for name, curve in curves.items()}, curves


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
    values = {"max_sensitivity": max_sensitivity(question, found.method, config, radius=radius)}
    for stage, network in zip(STAGES, randomised, strict=True):
        again = attribute(replace(question, network=network), found.method, config)
        values[f"rank_correlation_{stage}"] = rank_correlation(found.pixels, again.pixels)
    return values
