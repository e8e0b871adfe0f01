"""The picture of one knee: all maps of all members, with the clinical factors beside them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kneeoa_mm.learning.saliency.explained_knee import MEAN, ExplainedKnee
from kneeoa_mm.learning.saliency.overlays import bars, overlay, scaled, sheet
from kneeoa_mm.learning.saliency.question import ADDITIVE, Attribution


def knee_sheet(found: ExplainedKnee, told: Mapping[str, list[Attribution]]) -> Image.Image:
    """A row for the mean of the members, where several speak, and one for each of them.

    Args:
        found: The knee.
        told: Maps by member, the mean first.
    """
    risk = "" if found.risk is None else f", risk {found.risk:.2f}"
    answer = found.answer.name.replace("_", " ")
    heading = f"KL {found.grade} predicted{risk}; {answer}: log-odds {found.log_odds:+.2f}"
    greys = {MEAN: found.grey} | {v.member.name: v.grey for v in found.voices}
    rows = [
        (
            f"{name}: {heading}" if place == 0 else name,
            [
                ("as the network saw it", greys[name]),
                *((_caption(each), overlay(greys[name], scaled(each))) for each in maps),
                *_factor_tiles(maps),
            ],
        )
        for place, (name, maps) in enumerate(told.items())
    ]
    return sheet(rows)


def _factor_tiles(found: list[Attribution]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Picture and factors by one method, of those that add up where there is one."""
    with_factors = [each for each in found if each.factors and each.picture is not None]
    if not with_factors:
        return []
    each = next((m for m in with_factors if m.method in ADDITIVE), with_factors[0])
    parts = {"picture": each.picture or 0.0, **(each.factors or {})}
    return [(f"log-odds, {each.method.replace('_', ' ')}", bars(parts))]


def _caption(found: Attribution) -> str:
    name = str(found.method).replace("_", " ")
    return name if found.status == "ok" else f"{name}: {found.status}"
