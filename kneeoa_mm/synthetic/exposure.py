"""From the bones of two knees to the grey values of a film: legs, beam, detector and response.

Nothing here depends on age, sex, weight or any other clinical factor of a person: legs are thick
or thin by chance, so that a film shows the disease of its knees and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from kneeoa_mm.records import Laterality, Photometric
from kneeoa_mm.synthetic.anatomy import Knee, Points
from kneeoa_mm.synthetic.film_geometry import Grid, Map, Placement, Window
from kneeoa_mm.synthetic.projection import knee_attenuation

FILM_SIZE_MM = (350.0, 287.0)
"""Width and height; with the knees' places below, the joints lie where they do on OAI films."""

JOINT_BOX_MM = 140.0
"""Side of the box around the joint of an average knee, the field's habit."""
JOINT_MIDDLE_MM = 3.0
"""Height of the middle of the joint space above the tibial plateau."""

_KNEE_CENTRE_MM = {Laterality.RIGHT: 100.0, Laterality.LEFT: 249.0}
_JOINT_LINE_MM = 151.0

# Linear attenuation in 1/mm at an effective energy near 50 keV
_MUSCLE_PER_MM = 0.0235
_FAT_PER_MM = 0.0200
_LEAD = 3.0
_BEAD = 1.6

_BLUR_MM = 0.28
_SCATTER = 0.02
_GRID_LINE_MM = 0.31
_UNEXPOSED = 0.004


@dataclass(frozen=True)
class Leg:
    """Soft tissue of one person's legs.

    Attributes:
        half_width_mm: Half the width at the joint line.
        fat_mm: Thickness of fat below the skin.
    """

    half_width_mm: float
    fat_mm: float


@dataclass(frozen=True)
class FilmSettings:
    """How one film was taken.

    Attributes:
        placements: Where each knee lies.
        mas: Exposure relative to the usual; noise grows as it falls.
        contrast: Slope of the film response.
        density: Attenuation that becomes middle grey.
        collimation_mm: Unexposed margin (left, top, right, bottom).
        shuttered: The unexposed margin is blackened.
        beads: A positioning frame left its column of beads between the knees.
        photometric: MONOCHROME1 films are stored inverted.
        is_calibrated: The header states the spacing in the plane of the patient.
    """

    placements: dict[Laterality, Placement]
    mas: float
    contrast: float
    density: float
    collimation_mm: tuple[float, float, float, float]
    shuttered: bool
    beads: bool
    photometric: Photometric
    is_calibrated: bool


def film_grid(pixel_spacing_mm: float) -> Grid:
    """The pixels of a whole film."""
    width_mm, height_mm = FILM_SIZE_MM
    return Grid(
        pixel_spacing_mm, round(height_mm / pixel_spacing_mm), round(width_mm / pixel_spacing_mm)
    )


def draw_leg(rng: np.random.Generator) -> Leg:
    """Legs of a random person."""
    half_width_mm = float(np.clip(rng.normal(64.0, 6.0), 52.0, 78.0))
    return Leg(half_width_mm, float(np.clip(rng.normal(9.0, 3.0), 3.0, 18.0)))


def draw_settings(rng: np.random.Generator) -> FilmSettings:
    """Settings of a random film: varied exposure, some rotated, collimated or MONOCHROME1."""
    tilted = rng.random() < 0.15
    film_rotation = np.radians(rng.normal(0.0, 3.0 if tilted else 0.5))
    shift_mm = rng.normal(0.0, (5.0, 9.0))
    placements = {}
    for side, x_mm in _KNEE_CENTRE_MM.items():
        centre = np.array([x_mm, _JOINT_LINE_MM]) + shift_mm + rng.normal(0.0, (3.0, 1.5))
        middle = np.array(FILM_SIZE_MM) / 2
        cosine, sine = np.cos(film_rotation), np.sin(film_rotation)
        x, y = np.array([[cosine, -sine], [sine, cosine]]) @ (centre - middle) + middle
        own_rotation = np.radians(rng.normal(0.0, 1.2))
        placements[side] = Placement(
            (float(x), float(y)), float(film_rotation + own_rotation), side is Laterality.LEFT
        )
    collimated = rng.random() < 0.4
    margins = rng.uniform(0.0, 14.0, 4) * collimated
    return FilmSettings(
        placements=placements,
        mas=float(np.exp(rng.normal(0.0, 0.35))),
        contrast=float(np.clip(rng.normal(1.35, 0.25), 0.8, 2.0)),
        density=float(rng.normal(2.55, 0.25)),
        collimation_mm=(margins[0], margins[1], margins[2], margins[3]),
        shuttered=bool(rng.random() < 0.5),
        beads=bool(rng.random() < 0.25),
        photometric=Photometric.MONOCHROME1 if rng.random() < 0.15 else Photometric.MONOCHROME2,
        is_calibrated=bool(rng.random() < 0.3),
    )


def bone_attenuation(
    knees: dict[Laterality, Knee],
    placements: dict[Laterality, Placement],
    grid: Grid,
    texture_seeds: dict[Laterality, np.random.SeedSequence],
) -> Map:
    """Attenuation by the bones of both knees, (rows, columns), without noise or blur."""
    total = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    for side, knee in knees.items():
        rng = np.random.default_rng(texture_seeds[side])
        window, bone = knee_attenuation(knee, placements[side], grid, rng)
        total[window.rows, window.columns] += bone
    return total


def expose(
    bone: Map, leg: Leg, settings: FilmSettings, grid: Grid, rng: np.random.Generator
) -> Map:
    """Film brightness of two legs, from 0 (black) to 1 (white).

    Args:
        bone: Attenuation by the bones, (rows, columns).
        leg: Soft tissue around both knees.
        settings: How the film was taken.
        grid: Pixels of the film.
        rng: Source of quantum noise.
    """
    # Thighs press against each other: where they meet, flesh does not add up
    flesh = [soft_tissue(placement, leg, grid) for placement in settings.placements.values()]
    attenuation = bone + np.maximum(*flesh) + _lead(settings, grid)
    dose = np.exp(-attenuation)
    dose = gaussian_filter(dose, _BLUR_MM / grid.spacing_mm)
    dose += np.float32(_SCATTER * dose.mean())
    x_mm = (np.arange(grid.columns, dtype=np.float32) + 0.5) * np.float32(grid.spacing_mm)
    dose *= 1.0 + np.float32(0.004) * np.sin(np.float32(2 * np.pi / _GRID_LINE_MM) * x_mm)
    exposed = _exposed(settings, grid)
    dose *= np.where(exposed, np.float32(1.0), np.float32(_UNEXPOSED))
    photons = 60_000.0 * settings.mas * grid.spacing_mm**2
    noise = rng.standard_normal(dose.shape, dtype=np.float32)
    dose += noise * np.sqrt(dose / np.float32(photons))
    density = -np.log(np.maximum(dose, np.float32(2e-4)))
    brightness = expit(np.float32(settings.contrast) * (density - np.float32(settings.density)))
    if settings.shuttered:
        brightness[~exposed] = 0.0
    return np.asarray(brightness, dtype=np.float32)


def soft_tissue(placement: Placement, leg: Leg, grid: Grid) -> Map:
    """Attenuation by fat and muscle of one leg, (rows, columns)."""
    width_mm, height_mm = grid.columns * grid.spacing_mm, grid.rows * grid.spacing_mm
    window = Window.around(grid, placement, np.array([0.0, 0.0, width_mm, height_mm]))
    v = window.v_mm
    thigh = np.float32(16.0) * expit((-v - 60.0) / np.float32(28.0))
    waist = np.float32(5.0) * np.exp(-(((v - 35.0) / np.float32(32.0)) ** 2))
    half_width = np.float32(leg.half_width_mm) + thigh - waist
    # More flesh on the inner side of the thigh
    across = window.u_mm - np.float32(0.35) * thigh
    total = np.zeros_like(v)
    for inset_mm, per_mm in ((0.0, _FAT_PER_MM), (leg.fat_mm, _MUSCLE_PER_MM - _FAT_PER_MM)):
        share = 1.0 - (across / (half_width - np.float32(inset_mm))) ** 2
        half_depth = np.float32(0.85) * (half_width - np.float32(inset_mm))
        total += np.float32(2 * per_mm) * half_depth * np.sqrt(np.clip(share, 0.0, None))
    return np.asarray(total, dtype=np.float32)


def _exposed(settings: FilmSettings, grid: Grid) -> np.ndarray:
    left, top, right, bottom = (round(edge / grid.spacing_mm) for edge in settings.collimation_mm)
    exposed = np.zeros((grid.rows, grid.columns), dtype=bool)
    exposed[top : grid.rows - bottom, left : grid.columns - right] = True
    return exposed


_LETTERS = {
    Laterality.RIGHT: (
        ((0.0, 12.0), (0.0, 0.0), (5.0, 0.0), (7.0, 1.5), (7.0, 4.5), (5.0, 6.0), (0.0, 6.0)),
        ((3.5, 6.0), (7.5, 12.0)),
    ),
    Laterality.LEFT: (((0.0, 0.0), (0.0, 12.0), (7.0, 12.0)),),
}
"""Strokes of the lead markers in mm."""


def _lead(settings: FilmSettings, grid: Grid) -> Map:
    """Side markers outside the knees, and the beads of the positioning frame."""
    lead = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    left, top, right, _ = settings.collimation_mm
    corners = {
        Laterality.RIGHT: (left + 8.0, top + 12.0),
        Laterality.LEFT: (FILM_SIZE_MM[0] - right - 16.0, top + 12.0),
    }
    drawing = Image.new("1", (grid.columns, grid.rows))
    pen = ImageDraw.Draw(drawing)
    for side, corner in corners.items():
        for stroke in _LETTERS[side]:
            points = (np.array(stroke) + corner) / grid.spacing_mm
            pen.line([tuple(p) for p in points], fill=1, width=max(1, round(1.7 / grid.spacing_mm)))
    lead[np.asarray(drawing)] = _LEAD
    if settings.beads:
        x_mm = np.mean([place.centre_mm[0] for place in settings.placements.values()])
        drawing = Image.new("1", (grid.columns, grid.rows))
        pen = ImageDraw.Draw(drawing)
        for y_mm in np.arange(40.0, FILM_SIZE_MM[1] - 20.0, 30.0):
            box = np.array([x_mm - 1.3, y_mm - 1.3, x_mm + 1.3, y_mm + 1.3]) / grid.spacing_mm
            pen.ellipse([float(edge) for edge in box], fill=1)
        lead[np.asarray(drawing)] = _BEAD
    return lead


def joint_box_mm(knee: Knee, placement: Placement) -> Points:
    """The box that a detector should find, (left, top, right, bottom) in film millimetres.

    A square around the middle of the joint space, 140 mm wide for the average knee and growing
    with it. Like the film's rim, it may cut into the neighbouring leg or reach beyond the film.
    """
    side_mm = JOINT_BOX_MM * knee.scale
    centre = placement.to_film_mm(np.array([[0.0, -JOINT_MIDDLE_MM * knee.scale]]))[0]
    return np.concatenate([centre - side_mm / 2, centre + side_mm / 2])
