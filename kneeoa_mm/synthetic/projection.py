"""From outlines in millimetres to what an X-ray beam loses in the bones of a knee.

Every bone is a solid with rounded edges inside a thin shell of cortical bone. A beam that grazes
the edge runs a long way inside the shell, which is why radiographs show bright bone contours; here
they arise from the same path lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from kneeoa_mm.synthetic.anatomy import Knee
from kneeoa_mm.synthetic.film_geometry import Grid, Map, Placement, Window, depth_inside_mm

# Linear attenuation of bone in excess of soft tissue, at an effective energy near 50 keV
CORTEX_PER_MM = 0.058
CANCELLOUS_PER_MM = 0.0105
IMPLANT = 3.5
"""Attenuation by a metal implant, whatever its thickness: next to nothing passes."""

_CONTOUR = 0.30
_CONTOUR_WIDTH_MM = 0.5
_GRAIN = 0.10


class Profile:
    """A quantity along a bone: a value at the joint that changes by steps towards the shaft.

    Args:
        start: Value at the joint.
        steps: Each (change, distance from the joint line in mm, width of the transition in mm).
    """

    def __init__(self, start: float, *steps: tuple[float, float, float]) -> None:
        self.start = start
        self.steps = steps

    def at(self, height_mm: Map) -> Map:
        """The value at each distance from the joint line."""
        value = np.full_like(height_mm, self.start)
        for change, where_mm, width_mm in self.steps:
            value += np.float32(change) * expit((height_mm - where_mm) / np.float32(width_mm))
        return value


@dataclass(frozen=True)
class Solid:
    """A bone of scale 1 along the beam.

    Attributes:
        proximal: True for a bone above the joint.
        edge_mm: Distance from the outline over which the bone is rounded.
        half_mm: Half its thickness beyond that.
        cortex_mm: Thickness of its cortical shell.
        density: Cancellous bone in the core, 1 near the joint.
    """

    proximal: bool
    edge_mm: Profile
    half_mm: Profile
    cortex_mm: Profile
    density: Profile


FEMUR = Solid(
    proximal=True,
    edge_mm=Profile(17.0, (-1.5, 70.0, 8.0)),
    half_mm=Profile(28.0, (-13.5, 44.0, 9.0)),
    cortex_mm=Profile(0.6, (3.4, 76.0, 10.0)),
    density=Profile(1.0, (-0.75, 66.0, 10.0)),
)
# Above the joint line only the eminence is left; at it, the plateau is flat along the beam
TIBIA = Solid(
    proximal=False,
    edge_mm=Profile(4.0, (11.0, 9.0, 2.5)),
    half_mm=Profile(13.0, (10.0, -2.0, 1.2), (-9.0, 45.0, 9.0)),
    cortex_mm=Profile(0.9, (-0.4, 8.0, 3.0), (3.4, 76.0, 12.0)),
    density=Profile(1.0, (-0.75, 62.0, 10.0)),
)
FIBULA = Solid(
    proximal=False,
    edge_mm=Profile(5.8),
    half_mm=Profile(9.0, (-3.5, 42.0, 6.0)),
    cortex_mm=Profile(0.4, (2.0, 60.0, 10.0)),
    density=Profile(1.0, (-0.6, 50.0, 8.0)),
)
PATELLA = Solid(
    proximal=True,
    edge_mm=Profile(19.0),
    half_mm=Profile(9.0),
    cortex_mm=Profile(0.2),
    density=Profile(1.0),
)


def knee_attenuation(
    knee: Knee, placement: Placement, grid: Grid, rng: np.random.Generator
) -> tuple[Window, Map]:
    """Attenuation by the bones of one knee, in excess of soft tissue.

    Args:
        knee: Outlines in mm.
        placement: Where the knee lies on the film.
        grid: Pixels of the film.
        rng: Source of the cancellous texture; the same stream gives the same texture.

    Returns:
        The window of the film that the knee covers, and its attenuation (natural logarithm).
    """
    x_mm, reach_mm = placement.centre_mm[0], 62.0 * knee.scale + 8.0
    height_mm = grid.rows * grid.spacing_mm
    window = Window.around(
        grid, placement, np.array([x_mm - reach_mm, 0.0, x_mm + reach_mm, height_mm])
    )
    grain = trabeculae(rng, window.shape, grid.spacing_mm)
    if placement.mirrored:
        grain = grain[:, ::-1]
    total = np.zeros(window.shape, dtype=np.float32)
    within = np.zeros(window.shape, dtype=bool)
    for outline, solid in (
        (knee.femur, FEMUR),
        (knee.tibia, TIBIA),
        (knee.fibula, FIBULA),
        (knee.patella, PATELLA),
    ):
        film = placement.to_film_mm(outline)
        box_mm = np.concatenate([film.min(axis=0) - 1.0, film.max(axis=0) + 1.0])
        part = Window.around(grid, placement, box_mm)
        depth_mm = depth_inside_mm(film, part, grid.spacing_mm)
        here, there = window.clip(part)
        texture = np.zeros(part.shape, dtype=np.float32)
        texture[there] = grain[here]
        bone = _bone(depth_mm, part, solid, knee.scale, texture)
        if solid in (FEMUR, TIBIA):
            bone += _sclerosis(depth_mm, part, solid, knee, texture)
            if knee.replaced:
                bone = np.where(part.v_mm < 0.0, 0.0, bone) if solid is TIBIA else bone
                bone = bone + _implant(depth_mm, part, solid, knee.scale)
            within[here] |= depth_mm[there] > 0.0
        total[here] += bone[there]
    if not knee.replaced:
        total += np.where(within, _contours(knee, placement, grid, window), np.float32(0.0))
    return window, total


def trabeculae(rng: np.random.Generator, shape: tuple[int, int], spacing_mm: float) -> Map:
    """Texture of cancellous bone: streaks along the load and clouds, zero mean, (rows, columns)."""
    white = rng.standard_normal(shape, dtype=np.float32)
    streaks = _smooth(white, 1.2 / spacing_mm, 0.22 / spacing_mm)
    streaks -= _smooth(streaks, 1.2 / spacing_mm, 0.8 / spacing_mm)
    clouds = _smooth(white[::-1], 4.0 / spacing_mm, 2.6 / spacing_mm)
    return np.asarray(
        0.85 * streaks / streaks.std() + 0.4 * clouds / clouds.std(), dtype=np.float32
    )


def _smooth(values: Map, rows_px: float, columns_px: float) -> Map:
    return np.asarray(gaussian_filter(values, (rows_px, columns_px), truncate=2.5))


def _chord_mm(depth_mm: Map, edge_mm: Map, half_mm: Map) -> Map:
    """Path through a slab of half thickness ``half_mm`` whose edge is a quarter ellipse."""
    share = np.clip(depth_mm / edge_mm, 0.0, 1.0)
    return np.asarray(2.0 * half_mm * np.sqrt(share * (2.0 - share)), dtype=np.float32)


def _bone(depth_mm: Map, window: Window, solid: Solid, scale: float, texture: Map) -> Map:
    """A shell of cortex and the cancellous bone inside it."""
    height = (-window.v_mm if solid.proximal else window.v_mm) / np.float32(scale)
    edge, half, cortex = (
        np.float32(scale) * profile.at(height)
        for profile in (solid.edge_mm, solid.half_mm, solid.cortex_mm)
    )
    whole = _chord_mm(depth_mm, edge, half)
    core = _chord_mm(depth_mm - cortex, edge - cortex, half - cortex)
    cancellous = solid.density.at(height) * core * (1.0 + _GRAIN * texture)
    return np.asarray(CORTEX_PER_MM * (whole - core) + CANCELLOUS_PER_MM * cancellous)


def _sclerosis(depth_mm: Map, window: Window, solid: Solid, knee: Knee, texture: Map) -> Map:
    """Dense bone below the medial bearing surface, more of it in the tibia than in the femur."""
    height = (-window.v_mm if solid.proximal else window.v_mm) / np.float32(knee.scale)
    reach_mm, strength = (3.5, 0.08) if solid.proximal else (6.0, 0.15)
    medial = Profile(0.0, (1.0, 13.0, 2.5), (-1.0, 38.0, 1.5)).at(
        window.u_mm / np.float32(knee.scale)
    )
    near = Profile(1.0, (-1.0, 20.0, 2.0)).at(height)
    fading = np.exp(-np.clip(depth_mm, 0.0, None) / (reach_mm * knee.scale)) * (depth_mm > 0)
    dense = strength * knee.sclerosis_mm * fading * near * medial * (1.0 + 2 * _GRAIN * texture)
    return np.asarray(dense, dtype=np.float32)


def _implant(depth_mm: Map, window: Window, solid: Solid, scale: float) -> Map:
    """A total knee replacement: a femoral cap, or a tibial tray with its stem."""
    u, v = window.u_mm / np.float32(scale), window.v_mm / np.float32(scale)
    if solid.proximal:
        metal = (depth_mm < 8.5 * scale) & (v > -32.0)
    else:
        metal = ((v > 0.0) & (v < 5.0)) | ((np.abs(u) < 6.0) & (v > 0.0) & (v < 44.0))
    return np.where(metal & (depth_mm > 0.0), np.float32(IMPLANT), np.float32(0.0))


def _contours(knee: Knee, placement: Placement, grid: Grid, window: Window) -> Map:
    """Edges in front of and behind the outline that shine through, as soft ridges."""
    lines = np.zeros(window.shape, dtype=np.float32)
    for points, weight in knee.contours:
        film = placement.to_film_mm(points)
        step_px = np.hypot(*np.diff(film, axis=0, append=film[-1:]).T) / grid.spacing_mm
        taper = np.sin(np.linspace(0.0, np.pi, len(film))) ** 0.6
        corner = film / grid.spacing_mm - 0.5 - [window.columns.start, window.rows.start]
        pixel = np.floor(corner).astype(int)
        rest = corner - pixel
        for across, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            column, row = (pixel + np.array([across, down])).T
            share = np.abs(1 - across - rest[:, 0]) * np.abs(1 - down - rest[:, 1])
            on = (column >= 0) & (column < window.shape[1]) & (row >= 0) & (row < window.shape[0])
            np.add.at(lines, (row[on], column[on]), (weight * taper * step_px * share)[on])
    width_px = _CONTOUR_WIDTH_MM / grid.spacing_mm
    # scaled so that a long line of weight 1 becomes a ridge of height 1
    ridge = gaussian_filter(lines, width_px) * np.float32(np.sqrt(2 * np.pi) * width_px)
    return np.asarray(_CONTOUR * ridge, dtype=np.float32)
