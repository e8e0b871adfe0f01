"""Rows of the tables of ``explain``."""

from __future__ import annotations

from typing import Any

from kneeoa_mm.learning.saliency.explained_knee import ExplainedKnee
from kneeoa_mm.learning.saliency.placement import Placement
from kneeoa_mm.learning.saliency.question import ADDITIVE, Attribution, Method

FILM, IMAGE = "film", "knee image"
"""What overlays are drawn on."""

LIMITS = (
    "A map shows what moved the network's output, not where disease is.",
    "Log-odds are those of the network itself, before calibration and without test-time views.",
    "The picture is compared with itself blurred, whose answer is not neutral "
    "(reference_log_odds); factors are compared with the average person of the table.",
)
_UNITS = {
    Method.GRADCAM: "none",
    Method.SALIENCY: "log-odds per full range of grey",
    Method.INTEGRATED_GRADIENTS: "log-odds",
    Method.OCCLUSION: "log-odds per window",
    Method.GRADIENT_SHAP: "log-odds",
}


def knee_columns(found: ExplainedKnee) -> dict[str, Any]:
    """What ``saliency.csv`` says of a knee in each of its rows."""
    return {
        "target": found.answer.name,
        "outcome": found.outcome,
        "split": found.knee.get("split"),
        "kl_grade_pred": found.grade,
        "risk": found.risk,
        "log_odds": found.log_odds,
        "reference_log_odds": found.reference_log_odds,
        "seen_in_training": found.is_seen,
    }


def place_columns(found: ExplainedKnee, placement: Placement, drawn_on: str) -> dict[str, Any]:
    """Where a map lies on what the overlay shows."""
    on_film = found.on_film(placement) if drawn_on == FILM else None
    place = on_film or placement
    return {
        "map_left_px": place.left,
        "map_top_px": place.top,
        "map_width_px": place.width,
        "map_height_px": place.height,
        "map_mirrored": place.is_mirrored,
    }


def map_columns(found: Attribution) -> dict[str, Any]:
    """What ``saliency.csv`` says of a map."""
    return {
        "method": str(found.method),
        "status": found.status,
        "unit": _UNITS[found.method],
        "layer": found.layer,
        "cells": "x".join(map(str, found.cells)),
        "gap_log_odds": found.gap,
    }


def factor_rows(found: ExplainedKnee, member: str, each: Attribution) -> list[dict[str, Any]]:
    """The picture and the factors of one map on one scale; nothing where there are no factors."""
    if each.factors is None:
        return []
    common = {
        "knee_id": found.knee["knee_id"],
        "member": member,
        "target": found.answer.name,
        "method": str(each.method),
        "adds_up": each.method in ADDITIVE,
    }
    parts = {"picture": each.picture, **each.factors}
    return [common | {"part": part, "log_odds": value} for part, value in parts.items()]
