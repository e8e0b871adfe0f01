"""The drawn knee has the joint space that it is said to have, on the outlines and on the film."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneeoa_mm.synthetic.anatomy import (
    Knee,
    State,
    build_knee,
    draw_bones,
    draw_shapes,
    joint_space_at_mm,
    joint_space_mm,
)
from kneeoa_mm.synthetic.film_geometry import Grid, Placement, Window, depth_inside_mm
from kneeoa_mm.synthetic.projection import knee_attenuation

GRID = Grid(spacing_mm=0.25, rows=480, columns=560)
CENTRE_MM = (70.0, 70.0)


def knee_of(seed: int, state: State, side: int = 0) -> Knee:
    return build_knee(draw_bones(draw_shapes(np.random.default_rng(seed))[side]), state)


def bone_on_film(knee: Knee, placement: Placement) -> np.ndarray:
    """Noise-free attenuation by bone on the whole film."""
    film = np.zeros((GRID.rows, GRID.columns), dtype=np.float32)
    window, bone = knee_attenuation(knee, placement, GRID, np.random.default_rng(0))
    film[window.rows, window.columns] = bone
    return film


@given(
    seed=st.integers(0, 1000),
    medial_mm=st.floats(0.0, 6.5),
    lateral_mm=st.floats(3.0, 8.0),
    osteophyte_mm=st.floats(0.2, 8.0),
)
@settings(max_examples=25)
def test_both_joint_spaces_have_the_stated_minimum_whatever_the_knee(
    seed: int, medial_mm: float, lateral_mm: float, osteophyte_mm: float
) -> None:
    knee = knee_of(seed, State(medial_mm, lateral_mm, osteophyte_mm, sclerosis_mm=1.0))
    assert joint_space_mm(knee) == pytest.approx(medial_mm, abs=0.01)
    assert joint_space_mm(knee, medial=False) == pytest.approx(lateral_mm, abs=0.01)
    assert joint_space_at_mm(knee, 0.250) >= medial_mm - 0.02


@pytest.mark.parametrize("medial_mm", [0.6, 1.4, 2.9, 4.7, 5.8])
@pytest.mark.parametrize("mirrored", [False, True], ids=["right", "left"])
def test_gap_between_the_bones_on_a_noise_free_film_is_the_stated_width(
    medial_mm: float, mirrored: bool
) -> None:
    """Counted in dark pixels down the columns of the medial compartment, within one pixel."""
    knee = knee_of(3, State(medial_mm, 5.5, osteophyte_mm=2.0, sclerosis_mm=2.0))
    film = bone_on_film(knee, Placement(CENTRE_MM, 0.0, mirrored))
    direction = -1 if mirrored else 1
    gaps_px = []
    for medial_of_midline_mm in np.arange(15.0, 35.0, GRID.spacing_mm) * knee.scale:
        column = int((CENTRE_MM[0] + direction * medial_of_midline_mm) / GRID.spacing_mm)
        row = int(CENTRE_MM[1] / GRID.spacing_mm)
        near_joint = film[row - 70 : row + 40, column]
        gaps_px.append(int((near_joint < 1e-4).sum()))
    assert min(gaps_px) * GRID.spacing_mm == pytest.approx(medial_mm, abs=GRID.spacing_mm)


def test_bone_on_bone_leaves_no_gap() -> None:
    knee = knee_of(5, State(0.0, 6.0, osteophyte_mm=6.0, sclerosis_mm=5.0))
    assert joint_space_mm(knee) == pytest.approx(0.0, abs=0.01)


def test_left_knee_is_the_mirror_image_of_the_right_one() -> None:
    """The same outlines, placed as a left knee, give the flipped film."""
    knee = knee_of(7, State(3.5, 5.5, osteophyte_mm=3.0, sclerosis_mm=2.0))
    right = bone_on_film(knee, Placement(CENTRE_MM, 0.03, mirrored=False))
    left = bone_on_film(knee, Placement(CENTRE_MM, -0.03, mirrored=True))
    assert np.abs(left[:, ::-1] - right).mean() < 0.01 * right.mean()


def test_two_knees_of_a_person_are_more_alike_than_knees_of_two_persons() -> None:
    state = State(4.0, 5.5, osteophyte_mm=1.0, sclerosis_mm=1.0)

    def widths(side: int) -> np.ndarray:
        return np.array([np.ptp(knee_of(seed, state, side).femur[:, 0]) for seed in range(40)])

    assert np.corrcoef(widths(0), widths(1))[0, 1] > 0.8


def test_depth_inside_a_circle_is_its_radius_minus_the_distance_to_the_centre() -> None:
    """Closed form: to a hundredth of a pixel at the edge, to about a pixel far from it."""
    angle = np.linspace(0.0, 2 * np.pi, 1500, endpoint=False)
    circle = np.stack([70 + 20 * np.cos(angle), 60 + 20 * np.sin(angle)], axis=1)
    placement = Placement((0.0, 0.0), 0.0, mirrored=False)
    window = Window.around(GRID, placement, np.array([40.0, 30.0, 100.0, 90.0]))
    depth = depth_inside_mm(circle, window, GRID.spacing_mm)
    expected = 20 - np.hypot(window.x_mm[None, :] - 70, window.y_mm[:, None] - 60)
    error_px = np.abs(depth - expected) / GRID.spacing_mm
    assert error_px[np.abs(expected) < GRID.spacing_mm].max() < 0.01
    assert error_px[np.abs(expected) < 15.0].max() < 1.5


def test_metal_replaces_the_joint_of_a_replaced_knee() -> None:
    """A prosthesis stops the beam as no bone does."""
    placement = Placement(CENTRE_MM, 0.0, mirrored=False)
    native = bone_on_film(knee_of(2, State(9.0, 9.0, 0.2, 0.0)), placement)
    replaced = bone_on_film(knee_of(2, State(9.0, 9.0, 0.2, 0.0, replaced=True)), placement)
    assert native.max() < 3.0 < replaced.max()
