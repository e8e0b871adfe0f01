"""Outlines of the bones of one knee, in millimetres, with an exactly known joint space.

The frame is that of a right knee seen from the front, as on a film: x grows towards the midline
of the body (medial), y towards the foot, and the origin lies at the level of the tibial plateau
below the intercondylar notch. A left knee is the mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from kneeoa_mm.synthetic.outlines import (
    FEMORAL_CONTOURS,
    FEMORAL_MARGINS,
    FEMUR,
    FIBULA,
    PATELLA,
    TIBIA,
    TIBIAL_CONTOURS,
    TIBIAL_MARGINS,
)

Points = npt.NDArray[np.float64]
Contour = tuple[Points, float]
"""An open line, (n, 2) in mm, and its brightness relative to the tibial rim."""

PLATEAU_WIDTH_MM = 78.0
"""Width of the tibial plateau of a knee of scale 1."""

BEARING_MM = (14.0, 36.0)
"""Distance from the midline, at scale 1, between which the joint space is measured: beside the
intercondylar eminence to inside the margin, where osteophytes grow."""

_STEP_MM = 0.1

CONTROL_POINTS = len(TIBIA) + len(FEMUR) + len(FIBULA) + len(PATELLA)


@dataclass(frozen=True)
class Shape:
    """What makes a knee the knee of one person; it does not change between visits.

    Attributes:
        scale: Size relative to a tibial plateau of 78 mm.
        valgus_deg: Angle of the femoral shaft to the vertical, outwards.
        notch: Depth of the intercondylar notch relative to the average.
        patella_mm: Displacement of the patella (x, y).
        irregularity: Displacement of the control points in mm at scale 1, (CONTROL_POINTS, 2).
    """

    scale: float
    valgus_deg: float
    notch: float
    patella_mm: tuple[float, ...]
    irregularity: Points


@dataclass(frozen=True)
class State:
    """What osteoarthritis has made of a knee at one visit.

    Attributes:
        jsw_medial_mm: Minimum width of the medial joint space; 0 is bone on bone.
        jsw_lateral_mm: Minimum width of the lateral joint space.
        osteophyte_mm: Length of the medial marginal osteophytes; lateral ones are shorter.
        sclerosis_mm: Thickness of dense bone below the medial plateau.
        replaced: The knee is a prosthesis; the joint-space widths are those of its inlay.
    """

    jsw_medial_mm: float
    jsw_lateral_mm: float
    osteophyte_mm: float
    sclerosis_mm: float
    replaced: bool = False


@dataclass(frozen=True)
class Bones:
    """Healthy outlines of shape (n, 2) in mm, each bone by itself, before the joint is set."""

    femur: Points
    tibia: Points
    fibula: Points
    patella: Points
    femoral_contours: tuple[Contour, ...]
    tibial_contours: tuple[Contour, ...]
    scale: float


@dataclass(frozen=True)
class Knee:
    """Closed outlines of shape (n, 2), in mm, in the frame of the module."""

    femur: Points
    tibia: Points
    fibula: Points
    patella: Points
    contours: tuple[Contour, ...]
    scale: float
    sclerosis_mm: float
    replaced: bool

    @property
    def plateau_width_mm(self) -> float:
        """Width of the tibial plateau without osteophytes."""
        return PLATEAU_WIDTH_MM * self.scale


def draw_shapes(rng: np.random.Generator) -> tuple[Shape, Shape]:
    """The right and the left knee of a random person, mirrored and much alike."""
    scale = float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.16))
    valgus_deg, notch = rng.normal(6.0, 1.0), rng.normal(1.0, 0.08)
    patella_mm = rng.normal((-3.0, 0.0), (3.0, 4.0))
    irregularity = 0.45 * rng.standard_normal((CONTROL_POINTS, 2))

    def one_side() -> Shape:
        return Shape(
            scale=scale,
            valgus_deg=float(valgus_deg + rng.normal(0.0, 0.5)),
            notch=float(np.clip(notch + rng.normal(0.0, 0.03), 0.75, 1.25)),
            patella_mm=tuple(patella_mm + rng.normal(0.0, 1.0, 2)),
            irregularity=irregularity + 0.25 * rng.standard_normal((CONTROL_POINTS, 2)),
        )

    return one_side(), one_side()


def draw_bones(shape: Shape) -> Bones:
    """Draw the bones of one knee."""
    scale = shape.scale
    ends = np.cumsum([len(TIBIA), len(FEMUR), len(FIBULA)])
    tibia_noise, femur_noise, fibula_noise, patella_noise = np.split(shape.irregularity, ends)
    femur = FEMUR.copy()
    in_notch = (np.abs(femur[:, 0] - 1.5) < 10.0) & (femur[:, 1] > -20.0)
    femur[in_notch, 1] *= shape.notch
    above_mm = np.clip(-40.0 - femur[:, 1], 0.0, None)
    femur[:, 0] -= np.tan(np.radians(shape.valgus_deg)) * above_mm
    return Bones(
        femur=_outline(femur, femur_noise, scale),
        tibia=_outline(TIBIA, tibia_noise, scale),
        fibula=_outline(FIBULA, fibula_noise, scale),
        patella=_outline(PATELLA + np.asarray(shape.patella_mm), patella_noise, scale),
        femoral_contours=_contours(FEMORAL_CONTOURS, femur_noise, scale),
        tibial_contours=_contours(TIBIAL_CONTOURS, tibia_noise, scale),
        scale=scale,
    )


def build_knee(bones: Bones, state: State) -> Knee:
    """Set the joint so that both of its spaces have the stated minimum width.

    Args:
        bones: The person's bones.
        state: The stage of the disease.

    Returns:
        The outlines with their osteophytes; the femur is moved and tilted, as it is in varus,
        until both compartments are as wide as stated.
    """
    scale, size_mm = bones.scale, state.osteophyte_mm
    tibia = _grow(bones.tibia, TIBIAL_MARGINS, size_mm, scale)
    femur = _grow(bones.femur, FEMORAL_MARGINS, size_mm, scale)
    pose = _pose(femur, tibia, state, scale)
    return Knee(
        femur=_move(femur, pose),
        tibia=tibia,
        fibula=bones.fibula,
        patella=bones.patella,
        contours=(
            *((_move(line, pose), weight) for line, weight in bones.femoral_contours),
            *bones.tibial_contours,
        ),
        scale=scale,
        sclerosis_mm=state.sclerosis_mm,
        replaced=state.replaced,
    )


def joint_space_mm(knee: Knee, *, medial: bool = True) -> float:
    """Minimum distance between femur and tibia in one compartment; 0 or less when they touch."""
    femur = _surface(knee.femur, knee.scale, medial=medial, margin_mm=5.0)
    tibia = _surface(knee.tibia, knee.scale, medial=medial)
    return _gap_mm(femur, tibia)


def joint_space_at_mm(knee: Knee, fraction: float) -> float:
    """Joint-space width at a fixed location, never below 0.

    Args:
        knee: The knee.
        fraction: Position across the plateau, 0 at its medial and 1 at its lateral edge; OAI's
            ``V00JSW250`` stands at 0.250.
    """
    x_mm = knee.plateau_width_mm * (0.5 - fraction)
    femur = _surface(knee.femur, knee.scale, medial=x_mm > 0, margin_mm=5.0)
    tibia = _surface(knee.tibia, knee.scale, medial=x_mm > 0)
    point = np.array([[x_mm, np.interp(x_mm, tibia[:, 0], tibia[:, 1])]])
    return max(0.0, _gap_mm(femur, point))


def _outline(control: Points, noise: Points, scale: float) -> Points:
    """Closed cubic spline through displaced control points, sampled every 0.1 mm."""
    # Joint surfaces are congruent: they vary less than the shafts and margins
    near_joint = np.exp(-((control[:, 1:] / 12.0) ** 2))
    points = scale * (control + (0.9 - 0.7 * near_joint) * noise)
    closed = np.vstack([points, points[:1]])
    chord = np.sqrt(np.hypot(*np.diff(closed, axis=0).T))
    knots = np.concatenate([[0.0], np.cumsum(chord)])
    spline = CubicSpline(knots, closed, bc_type="periodic")
    dense = np.asarray(spline(np.linspace(0.0, knots[-1], 4000, endpoint=False)))
    return _resample(dense)


def _resample(points: Points) -> Points:
    closed = np.vstack([points, points[:1]])
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    at = np.arange(0.0, length[-1], _STEP_MM)
    return np.stack([np.interp(at, length, closed[:, axis]) for axis in (0, 1)], axis=1)


def _grow(
    outline: Points, margins: tuple[tuple[float, ...], ...], size_mm: float, scale: float
) -> Points:
    """Push the outline outwards around each margin by ``size_mm`` times the margin's share."""
    position_mm = np.arange(len(outline)) * _STEP_MM
    total_mm = len(outline) * _STEP_MM
    grown = outline.copy()
    for x_mm, y_mm, towards_x, towards_y, share, half_width_mm in margins:
        distance = np.hypot(outline[:, 0] - scale * x_mm, outline[:, 1] - scale * y_mm)
        along_mm = np.abs(position_mm - _STEP_MM * np.argmin(distance))
        along_mm = np.minimum(along_mm, total_mm - along_mm)
        bump_mm = share * size_mm * np.exp(-((along_mm / half_width_mm) ** 2))
        grown += bump_mm[:, None] * np.array([towards_x, towards_y])
    return _resample(grown)


def _surface(outline: Points, scale: float, *, medial: bool, margin_mm: float = 0.0) -> Points:
    """The bearing surface of one compartment, by increasing x."""
    low, high = BEARING_MM[0] - margin_mm, BEARING_MM[1] + margin_mm
    side = outline[:, 0] if medial else -outline[:, 0]
    near = (side > low * scale) & (side < high * scale) & (np.abs(outline[:, 1]) < 18.0 * scale)
    surface = outline[near]
    return surface[np.argsort(surface[:, 0])]


def _gap_mm(femur: Points, tibia: Points) -> float:
    """Signed minimum distance: Euclidean, but vertical where surfaces all but touch or overlap."""
    vertical = tibia[:, 1] - np.interp(tibia[:, 0], femur[:, 0], femur[:, 1])
    if vertical.min() < 0.3:
        return float(vertical.min())
    # The minimum is stationary, so every fifth point of one surface is enough
    across = tibia[::5, None, :] - femur[None, :, :]
    return float(np.sqrt((across**2).sum(axis=2).min()))


def _pose(femur: Points, tibia: Points, state: State, scale: float) -> tuple[float, float]:
    """Lift in mm and tilt in rad that give both compartments their width."""
    lever_mm = 2 * 24.0 * scale
    targets_mm = {True: state.jsw_medial_mm, False: state.jsw_lateral_mm}
    surfaces = {
        medial: (
            _surface(femur, scale, medial=medial, margin_mm=5.0),
            _surface(tibia, scale, medial=medial),
        )
        for medial in targets_mm
    }
    lift_mm, tilt_rad = 0.0, 0.0
    for _ in range(15):
        missing_mm = {
            medial: targets_mm[medial] - _gap_mm(_move(above, (lift_mm, tilt_rad)), below)
            for medial, (above, below) in surfaces.items()
        }
        if max(map(abs, missing_mm.values())) < 0.002:
            break
        lift_mm += (missing_mm[True] + missing_mm[False]) / 2
        tilt_rad += (missing_mm[True] - missing_mm[False]) / lever_mm
    return lift_mm, tilt_rad


def _move(points: Points, pose: tuple[float, float]) -> Points:
    lift_mm, tilt_rad = pose
    cosine, sine = np.cos(tilt_rad), np.sin(tilt_rad)
    turned = points @ np.array([[cosine, -sine], [sine, cosine]])
    return np.asarray(turned - [0.0, lift_mm], dtype=np.float64)


def _contours(
    lines: tuple[tuple[tuple[tuple[float, float], ...], float], ...], noise: Points, scale: float
) -> tuple[Contour, ...]:
    contours = []
    for index, (line, weight) in enumerate(lines):
        control = scale * (np.array(line) + 1.5 * noise[index : index + len(line)])
        spline = CubicSpline(np.arange(len(control)), control)
        at = np.linspace(0, len(control) - 1, 40 * len(control))
        contours.append((np.asarray(spline(at)), weight))
    return tuple(contours)
