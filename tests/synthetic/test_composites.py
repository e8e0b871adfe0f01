"""Composed films: the boxes are true, and chance is repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kneeoa_mm.synthetic.composites import (
    Composite,
    compose,
    compose_without_knee,
    frame_crop,
)
from kneeoa_mm.synthetic.legs import KneeCrop


def _marked_crop(size: int = 160) -> KneeCrop:
    """A bright square with one dark line across, where its joint is said to be."""
    pixels = np.full((size, size), 0.8, dtype=np.float32)
    joint = (0.5 * size, 0.55 * size)
    row = round(joint[1])
    pixels[row - 2 : row + 2] = 0.1
    return KneeCrop(pixels, joint, 0.8 * size)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), knees=st.integers(1, 2))
def test_the_dark_line_of_a_crop_lies_in_the_middle_of_its_box(seed: int, knees: int) -> None:
    film = compose(
        [_marked_crop()] * knees, np.random.default_rng(seed), long_side_px=400, plain=True
    )
    assert len(film.joints_px) == knees
    for left, top, right, bottom in film.joints_px:
        column = film.brightness[round(top) : round(bottom), round((left + right) / 2)]
        darkest = np.flatnonzero(column < column.min() + 0.15).mean()
        assert top + darkest == pytest.approx((top + bottom) / 2, abs=2.5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), knees=st.integers(1, 2))
def test_boxes_are_squares_of_an_adult_plateau_on_the_film(seed: int, knees: int) -> None:
    film = compose([_marked_crop()] * knees, np.random.default_rng(seed), long_side_px=300)
    assert film.spacing_mm is not None
    sides = film.joints_px[:, 2:] - film.joints_px[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1])
    widths_mm = sides[:, 0] * film.spacing_mm
    assert ((widths_mm > 50) & (widths_mm < 110)).all()
    middles = (film.joints_px[:, :2] + film.joints_px[:, 2:]) / 2
    rows, columns = film.brightness.shape
    assert ((middles > 0) & (middles < (columns, rows))).all()
    assert (np.diff(middles[:, 0]) > 0).all()


def test_each_joint_tells_which_crop_it_is() -> None:
    crops = [_marked_crop(), _marked_crop()]
    orders = {
        compose(crops, np.random.default_rng(seed), long_side_px=200).crops for seed in range(3)
    }
    assert all(sorted(order) == [0, 1] for order in orders)


def test_a_bare_crop_keeps_its_joint_and_has_no_millimetres() -> None:
    crop = _marked_crop()
    for seed in range(8):
        film = frame_crop(crop, np.random.default_rng(seed))
        ((left, top, right, bottom),) = film.joints_px
        assert right - left == pytest.approx(crop.plateau_px)
        column = film.brightness[:, round((left + right) / 2)]
        middle = round((top + bottom) / 2)
        # exposure may have made it a negative: the line is where the grey differs
        assert abs(column[middle] - column[middle - 12]) > 0.05
        assert film.spacing_mm is None


def test_a_film_without_a_knee_has_no_box() -> None:
    film = compose_without_knee([_marked_crop()] * 2, np.random.default_rng(1), long_side_px=200)
    assert film.joints_px.shape == (0, 4)


@pytest.mark.parametrize("knees", [0, 1, 2])
def test_the_same_seed_composes_the_same_film(knees: int) -> None:
    def film() -> Composite:
        rng = np.random.default_rng(5)
        crops = [_marked_crop()] * 2
        if knees == 0:
            return compose_without_knee(crops, rng, long_side_px=200)
        return compose(crops[:knees], rng, long_side_px=200)

    np.testing.assert_array_equal(film().brightness, film().brightness)
    assert 0 <= film().brightness.min() <= film().brightness.max() <= 1
