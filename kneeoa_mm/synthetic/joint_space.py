"""The joint space of a phantom as an area: what a saliency map can be held against."""

from __future__ import annotations

import json

import numpy as np

from kneeoa_mm.synthetic.anatomy import PLATEAU_WIDTH_MM, Knee, Points
from kneeoa_mm.synthetic.film_geometry import Placement

_REACH_MM = 34.0
"""Half its width at scale 1: further out the sides of the condyles rise steeply."""
_ABOVE_MM, _BELOW_MM = -40.0, 20.0
"""Where both surfaces lie at scale 1; further away are the shafts."""
_STEP_MM = 0.5


def joint_space_outline(knee: Knee) -> Points:
    """The space between femur and tibia, notch included, as a closed polygon (n, 2) in mm.

    Where the bones overlap it has no height.
    """
    scale = knee.plateau_width_mm / PLATEAU_WIDTH_MM
    x_mm = np.arange(-_REACH_MM, _REACH_MM + _STEP_MM / 2, _STEP_MM) * scale
    femur = _outermost(knee.femur, x_mm, scale, sign=1.0)
    tibia = np.maximum(_outermost(knee.tibia, x_mm, scale, sign=-1.0), femur)
    upper, lower = np.stack([x_mm, femur], axis=1), np.stack([x_mm, tibia], axis=1)
    return np.concatenate([upper, lower[::-1]])


def joint_space_px(knee: Knee, placement: Placement, spacing_mm: float) -> str | None:
    """The same on the film: corners (x, y) in pixels as JSON, or nothing for a prosthesis."""
    if knee.replaced:
        return None
    corners = placement.to_film_mm(joint_space_outline(knee)) / spacing_mm
    return json.dumps(np.round(corners, 2).tolist(), separators=(",", ":"))


def _outermost(outline: Points, x_mm: Points, scale: float, *, sign: float) -> Points:
    """The lowest (sign 1) or highest (-1) y of an outline at each x; y grows towards the foot."""
    near = (outline[:, 1] > _ABOVE_MM * scale) & (outline[:, 1] < _BELOW_MM * scale)
    points = outline[near]
    column = np.rint((points[:, 0] - x_mm[0]) / (x_mm[1] - x_mm[0])).astype(int)
    inside = (column >= 0) & (column < len(x_mm))
    found = np.full(len(x_mm), -np.inf)
    np.maximum.at(found, column[inside], sign * points[inside, 1])
    known = np.isfinite(found)
    return np.asarray(sign * np.interp(x_mm, x_mm[known], found[known]), dtype=np.float64)
